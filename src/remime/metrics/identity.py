"""How well the identity of the target is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from remime.errors import shape_error


def cosine(embeddings: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Cosine similarity of identity embeddings (P1's CSIM).

    Args:
        embeddings: [n, d], of the generated frames; NaN where one could not be computed.
        reference: [d], of the target frame, or [n, d].

    Returns:
        [n] in −1…1; NaN where an embedding is missing or has no length.
    """
    a, b = np.asarray(embeddings, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if a.ndim != 2:
        raise shape_error("embeddings", "[n, d]", a.shape)
    if b.shape not in (a.shape, a.shape[1:]):
        raise shape_error("reference", f"{a.shape[1:]} or {a.shape}", b.shape)
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    dot = (a * b).sum(axis=-1)
    result = np.divide(dot, length, out=np.full_like(dot, np.nan), where=length > 0)
    return np.clip(result, -1.0, 1.0)
