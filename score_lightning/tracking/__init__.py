"""Where numbers and pictures of a run go: metrics.csv, Weights & Biases, TensorBoard."""
