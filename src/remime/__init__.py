"""Train, run and compare StyleGAN-based face reenactment methods on the same frames."""

from remime.versions import __version__

__all__ = ["__version__"]
