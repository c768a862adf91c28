"""How much of what a clip shows is the person's: the variances behind `remime.methods.resting.RESTS`, after
`snakemake --cores 2 --configfile experiments/mapping.yaml -- results/rendered/aligned/000{0..3}-of-0004.h5`
`python experiments/rests.py models/mapping-small.safetensors`.

Rendered people who share motions are seen by the mapping's E_m; its codes are read as measured parameters,
in standard deviations over generated faces. People: variance over people of the mean of their clips' rests.
Clips: variance over motions of what one person's clip rests at. Moments: variance within a clip.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from remime.archive import AlignedReader
from remime.generators import load_generator
from remime.images import fit, to_tensor
from remime.methods import load_method
from remime.methods.mapping import DirectionMap, Mapping
from remime.methods.resting import RESTS, Rest
from remime.sources.directions import load_directions

RENDERED = Path("results/rendered/aligned")
# Groups of parameters, by what their names begin with, and the quantile of a clip at which they rest.
GROUPS = {
    "brows": (("brow",), 0.5),
    "gaze, up and down": (("eyeLookUp", "eyeLookDown"), 0.5),
    "lids": (("eyeBlink",), 0.2),
    "jaw": (("jawOpen",), 0.2),
    "lower lip": (("mouthLowerDown",), 0.2),
    "upper lip": (("mouthUpperUp",), 0.2),
    "pursed lips": (("mouthPucker",), 0.5),
    "gaze, aside": (("eyeLookIn", "eyeLookOut"), 0.5),
    "smile": (("mouthSmile",), 0.5),
    "pitch": (("pitch",), 0.5),
    "yaw": (("yaw",), 0.5),
}


def clips(method: Mapping) -> dict[tuple[str, str], NDArray[np.float64]]:
    """What is read of each clip's frames [n, k], by person and motion."""
    assert isinstance(method.map, DirectionMap)
    assert method.map.resting is not None
    found = {}
    for path in sorted(RENDERED.glob("*.h5")):
        frames = AlignedReader(path)
        for clip, entry in frames.by_id.items():
            person, motion = clip.rsplit("-", 1)
            images = fit(to_tensor(frames.frames(list(entry.rows))), 256)
            with torch.inference_mode():
                found[person, motion] = method.observe(images).double().numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mapping", type=Path)
    a = parser.parse_args()
    directions = load_directions()
    method = load_method({"method": "mapping"}, a.mapping, load_generator("mobile-ffhq"))
    assert isinstance(method, Mapping)
    assert isinstance(method.map, DirectionMap)
    every = dict.fromkeys(range(len(directions.names)), Rest(0.5, own=0.0, spread=np.inf))
    method.map.take_apart(torch.from_numpy(directions.steps), [], 1.0, every)
    read = clips(method)
    people, motions = (sorted({key[i] for key in read}) for i in (0, 1))
    print("| | rest of a clip | people | clips | moments | clip's share | image's share | in the method |")
    print("|---|---|---|---|---|---|---|---|")
    for group, (prefixes, quantile) in GROUPS.items():
        columns = [i for i, name in enumerate(directions.names) if name.startswith(prefixes)]
        rests = np.full((len(people), len(motions), len(columns)), np.nan)
        within = rests.copy()
        for (person, motion), values in read.items():
            place = people.index(person), motions.index(motion)
            rests[place] = np.quantile(values[:, columns], quantile, axis=0)
            within[place] = values[:, columns].var(0)
        # Clips in which no face was found are missing.
        over_people = np.nanvar(np.nanmean(rests, 1), 0).mean()
        over_clips = np.nanmean(np.nanvar(rests, 1))
        over_moments = np.nanmean(within)
        clip = over_people / (over_people + over_clips)
        image = over_people / (over_people + over_clips + over_moments)
        used = any(directions.names[i] in RESTS for i in columns)
        where = "lowest fifth" if quantile < 0.5 else "median"
        print(
            f"| {group} | {where} | {over_people:.2f} | {over_clips:.2f} | {over_moments:.2f} |"
            f" {clip:.2f} | {image:.2f} | {'yes' if used else 'no'} |"
        )


if __name__ == "__main__":
    main()
