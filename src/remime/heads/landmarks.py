"""Where iBUG's 68 landmarks lie on the base mesh."""

from __future__ import annotations

import numpy as np

from remime.heads.assets import Ints, Kit

# Vertices of hm08, in iBUG's order. Found as those whose projections were nearest, over 40 identities, to
# what dlib's predictor answered; then made symmetric.
# fmt: off
_HM08 = (
    5237, 5186, 5204, 5242, 739, 741, 5295, 914, 732, 7616, 11901, 7461, 7459, 11851, 11815, 11798, 11846,
    261, 225, 204, 205, 209, 6984, 6980, 6979, 6999, 7030,
    132, 131, 164, 294, 333, 313, 307, 7076, 7095,
    4855, 4849, 54, 72, 47, 6777, 6856, 6838, 11467, 11473, 13373, 6831,
    3737, 5351, 456, 466, 7215, 11953, 10405, 7166, 7241, 492, 486, 406,
    418, 507, 509, 7256, 7178, 7242, 493, 487,
)
# fmt: on


def landmark_vertices(kit: Kit) -> Ints:
    """The vertices [68] of the kit that are landmarks."""
    return np.searchsorted(kit.ids, _HM08).astype(np.int32)
