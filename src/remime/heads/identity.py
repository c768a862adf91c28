"""Who somebody is: parameters of a face, drawn from a seed.

Everything that stays the same when a person moves. Numbers are in [0, 1] where nothing else is said, colours
linear red, green, blue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from remime.heads.assets import Kit
from remime.heads.parameters import Colour, Parameters, triple

ANCESTRY = ("african", "asian", "caucasian")
"""The order of ``Identity.ancestry``."""

HAIR: dict[str, Colour] = {
    "black": (0.013, 0.011, 0.010),
    "dark brown": (0.040, 0.024, 0.015),
    "brown": (0.105, 0.058, 0.032),
    "light brown": (0.20, 0.12, 0.065),
    "blond": (0.43, 0.30, 0.155),
    "red": (0.22, 0.075, 0.027),
    "grey": (0.28, 0.27, 0.26),
    "white": (0.52, 0.51, 0.49),
}
"""Colours of hair."""


@dataclass(frozen=True)
class Identity(Parameters):
    """A person.

    Args:
        seed: what the textures' noise is drawn from.
        gender: 0 female, 1 male, and between.
        age: 0.5 about 25 years, 1 about 90.
        weight, muscle: 0.5 the average.
        ancestry: shares in the order of ``ANCESTRY``, which sum to 1.
        detail: signed parameters of the face's shape in [-1, 1], by name; absent ones are 0.
        skin: the texture's name.
        skin_gain: what its colours are multiplied with.
        freckles, blush: how visible.
        lips: how much of ``lip_colour`` is on the lips.
        hair: the part's name, or "" for none.
        hair_colour, brow_colour, lip_colour: colours.
        brows, lashes, clothes: the parts' names.
        clothes_gain: what the clothes' colours are multiplied with.
        iris: the texture's name.
        stubble: how dense a beard of some days is.
        shave: how visible the roots of hair are on a head without hair.
    """

    seed: int
    gender: float
    age: float
    weight: float
    muscle: float
    ancestry: tuple[float, float, float]
    detail: dict[str, float]
    skin: str
    skin_gain: Colour
    freckles: float
    blush: float
    lips: float
    lip_colour: Colour
    hair: str
    hair_colour: Colour
    brows: str
    brow_colour: Colour
    lashes: str
    clothes: str
    clothes_gain: Colour
    iris: str
    stubble: float
    shave: float


# How far details may go, in the spread of the others; what these would do to a face is no variety but a mask.
_DETAIL: dict[str, float] = {
    "ear-shape-pointed-triangle": 0.15,
    "ear-flap-decr-incr": 0.4,
    "head-trans-backward-forward": 0.0,
    "head-trans-down-up": 0.0,
    "head-trans-in-out": 0.0,
    "head-angle-in-out": 0.2,
    "neck-trans-backward-forward": 0.0,
    "neck-trans-down-up": 0.0,
    "neck-trans-in-out": 0.0,
    "measure-neck-height-decr-incr": 0.2,
    "measure-neck-circ-decr-incr": 0.3,
    "neck-scale-vert-decr-incr": 0.2,
    "head-scale-depth-decr-incr": 0.35,
    "head-scale-horiz-decr-incr": 0.5,
    "head-scale-vert-decr-incr": 0.5,
    "head-back-scale-depth-decr-incr": 0.4,
    "head-square": 0.2,
    "head-triangular": 0.25,
    "head-invertedtriangular": 0.3,
    "head-diamond": 0.25,
    "head-rectangular": 0.3,
    "head-oval": 0.5,
    "head-round": 0.4,
    "head-fat-decr-incr": 0.5,
    "head-age-decr-incr": 0.3,
    "forehead-nubian-decr-incr": 0.3,
    "forehead-scale-vert-decr-incr": 0.15,
    "forehead-temple-decr-incr": 0.45,
    "forehead-trans-backward-forward": 0.4,
    "eyebrows-angle-down-up": 0.5,
    "eyebrows-trans-down-up": 0.6,
    "eye-trans-in-out": 0.7,
    "eye-eyefold-concave-convex": 0.5,
    "eye-eyefold-angle-down-up": 0.5,
    "eye-scale-decr-incr": 0.5,
    "eye-bag-in-out": 0.5,
    "nose-trans-in-out": 0.15,
    "nose-compression-compress-uncompress": 0.2,
    "nose-scale-depth-decr-incr": 0.6,
    "nose-scale-vert-decr-incr": 0.6,
    "nose-point-width-decr-incr": 0.6,
    "nose-septumangle-decr-incr": 0.5,
    "nose-hump-decr-incr": 0.7,
    "mouth-trans-in-out": 0.15,
    "mouth-trans-backward-forward": 0.3,
    "mouth-angles-down-up": 0.4,
    "mouth-scale-depth-decr-incr": 0.5,
    "chin-triangle": 0.3,
    "chin-width-decr-incr": 0.6,
    "chin-jaw-drop-decr-incr": 0.5,
    "chin-bones-decr-incr": 0.6,
    "cheek-volume-decr-incr": 0.6,
    "cheek-bones-decr-incr": 0.7,
}
_SPREAD, _ASYMMETRY = 0.34, 0.06
# Faces at rest look stern where the inner ends of their brows hang low, and sad the other way round.
_RESTING = {"eyebrows-angle-down-up": 0.30, "eyebrows-trans-down-up": 0.12, "mouth-angles-down-up": 0.10}

_MEN: dict[str, float] = {"hair-short01": 3, "hair-short02": 3, "hair-short04": 3, "": 1.3}
_WOMEN: dict[str, float] = {"hair-long01": 3, "hair-ponytail01": 4, "hair-short01": 1, "hair-short04": 1.5}
_AFRO: dict[str, float] = {"hair-afro01": 3, "hair-short01": 2, "": 1}


def _pick(rng: np.random.Generator, shares: dict[str, float]) -> str:
    weights = np.array(list(shares.values()), float)
    return str(rng.choice(list(shares), p=weights / weights.sum()))


def _gain(rng: np.random.Generator, lightness: float, hue: float) -> Colour:
    """A random factor for a colour: its lightness and its hue vary by so much."""
    return triple(np.exp(lightness * rng.standard_normal() + hue * rng.standard_normal(3)))


def _details(rng: np.random.Generator, kit: Kit) -> dict[str, float]:
    found = {}
    for name in sorted(kit.detail):
        spread = _ASYMMETRY if name.startswith("asym-") else _SPREAD * _DETAIL.get(name, 1.0)
        value = rng.normal(_RESTING.get(name, 0.0), spread) if spread else 0.0
        # Without an opposite a parameter has one direction only.
        one_sided = not kit.detail[name][0].any()
        found[name] = round(float(np.clip(abs(value) if one_sided else value, -0.95, 0.95)), 6)
    return found


def _hair_colour(rng: np.random.Generator, people: str, age: float) -> str:
    dark = {"black": 0.75, "dark brown": 0.25}
    light = {
        "dark brown": 0.25,
        "brown": 0.25,
        "light brown": 0.17,
        "blond": 0.17,
        "red": 0.08,
        "black": 0.08,
    }
    if age > 0.78 and rng.random() < 0.7:
        return _pick(rng, {"grey": 0.65, "white": 0.35})
    return _pick(rng, light if people == "caucasian" else dark)


def _skin(rng: np.random.Generator, kit: Kit, people: str, age: float, male: bool) -> str:
    stage = "young" if age < 0.6 else "middleage" if age < 0.8 else "old"
    start = f"{stage}-{people}-{'male' if male else 'female'}"
    return str(rng.choice([name for name in kit.skins if name == start or name.startswith(f"{start}-")]))


def sample(seed: int, kit: Kit) -> Identity:
    """A random person; the same one for the same seed.

    Args:
        seed: any number from 0 on.
        kit: whose parts and parameters there are.
    """
    rng = np.random.default_rng([seed, 1])
    male = bool(rng.random() < 0.5)
    off = abs(rng.normal(0, 0.12))
    ancestry = rng.dirichlet([0.25, 0.25, 0.25])
    people = ANCESTRY[int(ancestry.argmax())]
    age = float(np.clip(rng.choice([0.5, 0.5, 0.55, 0.62, 0.72, 0.85]) + rng.normal(0, 0.05), 0.45, 0.93))
    colour_name = _hair_colour(rng, people, age)
    colour = np.array(HAIR[colour_name]) * _gain(rng, 0.15, 0.05)
    hair = _pick(rng, _AFRO if people == "african" and rng.random() < 0.6 else _MEN if male else _WOMEN)
    if not male and not hair:
        hair = "hair-afro01"
    dark = np.minimum(colour * 0.55, HAIR["light brown"])
    irises = sorted(kit.irises) if people == "caucasian" else ["brown"]
    return Identity(
        seed=int(seed),
        gender=round(float(np.clip(1 - off if male else off, 0, 1)), 6),
        age=round(age, 6),
        weight=round(float(np.clip(rng.normal(0.48, 0.16), 0.1, 0.9)), 6),
        muscle=round(float(np.clip(rng.normal(0.5, 0.14), 0.1, 0.9)), 6),
        ancestry=triple(ancestry),
        detail=_details(rng, kit),
        skin=_skin(rng, kit, people, age, male),
        skin_gain=_gain(rng, 0.10, 0.03),
        freckles=float(rng.choice([0, 0, 0, 0.5])) if people == "caucasian" else 0.0,
        blush=round(float(rng.uniform(0.05, 0.3)), 6),
        lips=round(float(rng.uniform(0, 0.12 if male else 0.5)), 6),
        lip_colour=triple(np.array([0.42, 0.11, 0.11]) * _gain(rng, 0.1, 0.12)),
        hair=hair,
        hair_colour=triple(colour),
        brows=str(rng.choice(kit.named("brows"))),
        brow_colour=triple(dark),
        lashes=str(rng.choice(kit.named("lashes")[: 2 if male else None])),
        clothes=str(rng.choice(kit.named("clothes-male" if male else "clothes-female"))),
        clothes_gain=_gain(rng, 0.2, 0.35),
        iris=str(rng.choice(irises)),
        stubble=float(rng.choice([0, 0.15, 0.3, 0.6, 1.0])) if male else 0.0,
        shave=round(float(rng.uniform(0.2, 0.9)), 6),
    )
