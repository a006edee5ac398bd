"""Feature networks, and the weights that were published for them."""
