"""Image generators with a W+ latent space."""
