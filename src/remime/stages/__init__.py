"""One module per workflow rule."""
