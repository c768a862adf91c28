"""Networks that map images to W+ latents."""
