"""What video CLD tells apart, by the distance it is given: the truth, doing nothing, another person's clip.

python benchmarks/cld.py [PEOPLE]
"""

import statistics
import sys

import torch

from countervid import models
from countervid.autoencoder.identity import IdentityNet
from countervid.metrics.cld import video_cld
from countervid.metrics.examiner import Examiner
from countervid.metrics.rendered import face_crops, pool
from countervid.phantom.dataset import FACE, SPLITS
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import render_clip, sample_person

POOL, CLIP = 12, {"frames": 2, "fps": 1.0, "size": 128}
people = int(sys.argv[1]) if len(sys.argv) > 1 else 3
identity = IdentityNet.from_folder(models.bundled("identity")).eval()
examiner = Examiner.from_folder(models.bundled("examiner")).eval()
LOOKS = {
    "pixels": lambda crops: crops,
    "examiner's features": lambda crops: examiner.trunk(crops * 2 - 1),
    "identity": lambda crops: identity(crops * 2 - 1),
}

found: dict[str, list[tuple[float, ...]]] = {name: [] for name in LOOKS}
with torch.inference_mode():
    for seed in range(SPLITS["test"], SPLITS["test"] + people):
        person = sample_person(seed)
        for variable in FACE:
            value = next(one for one in DOMAINS[variable] if one != person.attributes[variable])
            after = person.counterfactual({variable: value}).attributes
            x, y = (face_crops(render_clip(person, attributes=one, **CLIP)) for one in (person.attributes, after))
            own, target = (
                [face_crops(clip) for clip in pool(one, POOL + 1, **CLIP)] for one in (person.attributes, after)
            )
            for name, look in LOOKS.items():
                pools = [[look(clip) for clip in clips[1:]] for clips in (own, target)]
                edits = (look(y), look(x), look(target[0]))
                found[name].append(tuple(video_cld(look(x), edit, *pools)["cld"] for edit in edits))
print(f"{people} people, {len(FACE)} interventions, pools of {POOL}; mean CLD")
print(f"{'distance':22} {'truth':>7} {'nothing':>8} {'another person':>15} {'truth below nothing':>20}")
for name, rows in found.items():
    truth, nothing, stranger = (statistics.fmean(column) for column in zip(*rows, strict=True))
    below = sum(row[0] < row[1] - 1e-9 for row in rows) / len(rows)
    print(f"{name:22} {truth:7.3f} {nothing:8.3f} {stranger:15.3f} {below:20.0%}")
