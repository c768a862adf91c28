"""The one training loop, its losses, data and state."""
