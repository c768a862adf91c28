"""Image generators with a W+ latent space."""

from __future__ import annotations

from remime.catalogue import EMBEDDED
from remime.errors import InputError
from remime.generators.base import Generator

PREVIEW_MODEL = "mobile-preview"


def load_generator(name: str = EMBEDDED, previews: bool = True) -> Generator:
    """A frozen generator in evaluation mode, on the CPU.

    Args:
        name: ``mobile-ffhq``, or an imported generator, e.g. ``stylegan2-ffhq-1024``.
        previews: load the shipped heads for fast 128² and 256² decodes too (``mobile-ffhq`` only).

    Raises:
        InputError: there is no such generator.
        WeightsError: its weights are not there.
    """
    from remime import weights

    if name == EMBEDDED:
        return _mobile(name, previews)
    if name.startswith("stylegan2"):
        from remime.generators.stylegan2 import StyleGAN2

        return StyleGAN2.from_tensors(weights.load(name).tensors)
    raise InputError("generator", f"unknown generator {name!r}", f"allowed: {EMBEDDED}, stylegan2-…")


def _mobile(name: str, previews: bool) -> Generator:
    from remime import weights
    from remime.generators.mobile import MobileGenerator
    from remime.models import load_model, shipped

    tensors = dict(weights.load(name).tensors)
    resolutions: list[int] = []
    if previews:
        heads = load_model(shipped(PREVIEW_MODEL), "preview").tensors
        resolutions = sorted({int(key.split(".")[0]) for key in heads})
        tensors |= {f"previews.{key}": value for key, value in heads.items()}
    generator = MobileGenerator(resolutions)
    generator.load_state_dict(tensors)
    return generator.eval().requires_grad_(False)
