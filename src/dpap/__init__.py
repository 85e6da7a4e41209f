"""Make a neural network smaller and faster while it learns."""
