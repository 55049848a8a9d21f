"""The bundled critic: the miniature CLIP's eyes, and a small head that reads attributes off what they see.

It runs offline in a fraction of a second. It shares nothing with the examiner that the metrics use: other networks,
other training, other people. It has only ever seen rendered faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid import models
from countervid.causal.graph import CausalGraph
from countervid.critics.base import NEARLY_ALL, Answer, Request, Verdict
from countervid.embeddings.contrastive import Contrastive, clip_input
from countervid.errors import ConfigError
from countervid.models.folder import load_config, load_weights

SURE = 0.85  # confidence from which an answer counts: measured, see docs/steering.md
LOOKS = 5


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    variables: tuple[str, ...]  # "name=value value value", in the order of the outputs
    patch: int = 192  # numbers of a patch
    pooled: int = 128  # numbers of the whole picture
    patches: int = 64
    narrow: int = 12  # numbers of a patch that are kept
    width: int = 96
    dropout: float = 0.2

    def domains(self) -> dict[str, tuple[str, ...]]:
        """Variable -> its values."""
        pairs = (entry.split("=", 1) for entry in self.variables)
        return {name: tuple(values.split()) for name, values in pairs}


class AttributeHead(nn.Module):
    """What a CLIP sees, patches `(B, P, W)` and the whole `(B, D)`, to one distribution a variable."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.domains = config.domains()
        self.squeeze = nn.Linear(config.patch, config.narrow)
        self.body = nn.Sequential(
            nn.LayerNorm(config.patches * config.narrow + config.pooled),
            nn.Dropout(config.dropout),
            nn.Linear(config.patches * config.narrow + config.pooled, config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, sum(len(values) for values in self.domains.values())),
        )

    def forward(self, patches: Tensor, whole: Tensor) -> dict[str, Tensor]:
        """Log-probabilities: variable -> `(B, values)`."""
        places = self.squeeze(F.layer_norm(patches, patches.shape[-1:])).flatten(1)
        logits = self.body(torch.cat([places, whole], dim=1))
        parts = logits.split([len(values) for values in self.domains.values()], dim=1)
        return {name: F.log_softmax(part, dim=1) for name, part in zip(self.domains, parts, strict=True)}

    @classmethod
    def from_folder(cls, folder: Path) -> AttributeHead:
        model = cls(load_config(folder, HeadConfig))
        load_weights(folder, model)
        return model.eval()


@torch.no_grad()
def eyes(clip: Contrastive, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """What a CLIP sees of pictures `(B, 3, H, W)` in [-1, 1]: patches `(B, P, W)`, and unit vectors `(B, D)`."""
    seen = clip.model.vision_model(pixel_values=clip_input(pictures, clip.size, clip.mean, clip.std))
    return seen.last_hidden_state[:, 1:], F.normalize(clip.model.visual_projection(seen.pooler_output), dim=1)


class BundledCritic:
    """Reads the phantom world's attributes off face crops; frames vote with their probabilities."""

    name = "bundled"
    size = 128
    looks = LOOKS

    def __init__(self, clip: Contrastive, head: AttributeHead, *, sure: float = SURE) -> None:
        self.clip, self.head, self.sure = clip, head, sure
        self._calls = 0

    @classmethod
    def load(cls) -> BundledCritic:
        """The bundled weights.

        Raises:
            ModelError: They are missing or damaged.
        """
        head = AttributeHead.from_folder(models.bundled("critic"))
        return cls(Contrastive.from_pretrained(models.bundled("clip")), head)

    def check(self, graph: CausalGraph) -> None:
        for name, variable in graph.variables.items():
            known = self.head.domains.get(name)
            if known is None or not set(variable.values) <= set(known):
                about = "; ".join(f"{n}: {', '.join(values)}" for n, values in self.head.domains.items())
                raise ConfigError(
                    f"The bundled critic has no answer for `{name}` of graph {graph.name} "
                    f"({', '.join(variable.values)}). It knows {about}. For other graphs name a model that sees, "
                    "such as `--critic openai:MODEL`."
                )

    def judge(self, request: Request) -> Verdict:
        self._calls += 1
        shares = self.read(request.pictures)
        answers = {}
        for question in request.questions:
            values = self.head.domains[question.variable]
            frames = shares[question.variable]
            mean = frames.mean(0)
            best = int(mean.argmax())
            votes = torch.bincount(frames.argmax(1), minlength=len(values)) / len(frames)
            answers[question.variable] = Answer(
                value=values[best],
                confidence=round(float(mean[best]), 4),
                votes={value: round(float(share), 4) for value, share in zip(values, votes, strict=True) if share},
            )
        verdict = Verdict(critic=self.name, frames=request.frames, answers=answers, sure=self.sure)
        return said(verdict, request)

    @torch.no_grad()
    def read(self, pictures: Tensor) -> dict[str, Tensor]:
        """Probabilities of pictures `(n, S, S, 3)` uint8: variable -> `(n, values)`; mirror images count as much."""
        x = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        both = self.head(*eyes(self.clip, torch.cat([x, x.flip(3)])))
        return {name: (sum(said.chunk(2)) / 2).softmax(1) for name, said in both.items()}

    def costs(self) -> dict[str, Any]:
        return {"calls": self._calls, "cost_usd": 0.0}


def said(verdict: Verdict, request: Request) -> Verdict:
    """The same verdict with what is wrong in words, from a template."""
    answers: dict[str, Answer] = {}
    for name, answer in verdict.answers.items():
        wanted = request.changed.get(name, request.kept.get(name))
        words = "" if wanted is None else _critique(name, wanted, answer, name in request.changed, verdict.sure)
        answers[name] = answer.model_copy(update={"critique": words})
    lines = [answer.critique for answer in answers.values() if answer.critique]
    return verdict.model_copy(update={"answers": answers, "critique": " ".join(lines)})


def _critique(name: str, wanted: str, answer: Answer, changed: bool, sure: float) -> str:
    if answer.shows(wanted, sure):
        return ""
    plain = name.replace("_", " ")
    seen = f"{answer.confidence:.0%} sure"
    frames = answer.votes.get(wanted, 0.0)
    if answer.value == wanted and frames < NEARLY_ALL:
        return f"{plain} is {wanted} in {frames:.0%} of the frames only ({seen})."
    if answer.value == wanted:
        return f"{plain} is {wanted} only faintly ({seen})."
    if changed:
        part = f", in {frames:.0%} of the frames only" if frames else ""
        return f"{plain} should be {wanted} and still looks {answer.value} ({seen}{part})."
    return f"{plain} should have stayed {wanted} and now looks {answer.value} ({seen})."
