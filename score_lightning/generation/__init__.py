"""From a trained model to images: image i is a function of (seed, i)."""
