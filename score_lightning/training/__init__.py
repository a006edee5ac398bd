"""Lightning's side of training: the module, its optimizer and average, callbacks and checkpoints."""
