"""The examiner: reads attributes off face crops, for the metrics alone.

No editor, critic or steerer may use it: a judge that took part in the work grades itself. It shares
neither architecture, nor seeds, nor training data with the networks that edit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.models.folder import load_config, load_weights


@dataclass(frozen=True, kw_only=True)
class ExaminerConfig:
    variables: tuple[str, ...]  # "name=value value value", in the order of the outputs
    width: int = 32
    dropout: float = 0.1

    def domains(self) -> dict[str, tuple[str, ...]]:
        """Variable -> its values."""
        pairs = (entry.split("=", 1) for entry in self.variables)
        return {name: tuple(values.split()) for name, values in pairs}


class Bottleneck(nn.Module):
    """1x1, depthwise 5x5, 1x1, with batch normalisation: another family than the identity encoder's blocks."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 2 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 5, stride=stride, padding=2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.body(x)
        return x + h if self.same else h


class Examiner(nn.Module):
    """Crops `(B, 3, 128, 128)` in [-1, 1] to one distribution a variable."""

    def __init__(self, config: ExaminerConfig) -> None:
        super().__init__()
        self.config = config
        self.domains = config.domains()
        w = config.width
        self.trunk = nn.Sequential(
            nn.Conv2d(3, w, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),  # 32 x 32
            Bottleneck(w, 2 * w, 1),
            Bottleneck(2 * w, 2 * w, 1),
            Bottleneck(2 * w, 4 * w, 2),  # 16 x 16
            Bottleneck(4 * w, 4 * w, 1),
            Bottleneck(4 * w, 6 * w, 2),  # 8 x 8
            Bottleneck(6 * w, 6 * w, 1),
            nn.AdaptiveAvgPool2d(4),  # where a thing is matters: hair above, beard below
            nn.Flatten(),
            nn.Dropout(config.dropout),
        )
        self.head = nn.Linear(16 * 6 * w, sum(len(values) for values in self.domains.values()))

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        """Log-probabilities: variable -> `(B, values)`, on the crops' own device.

        A trained examiner looks at the mirrored crop too.
        """
        there = crops.device
        crops = crops.to(self.head.weight.device, memory_format=torch.channels_last)
        logits = self.head(self.trunk(crops))
        if not self.training:
            logits = (logits + self.head(self.trunk(crops.flip(3)))) / 2
        logits = logits.to(there)
        parts = logits.split([len(values) for values in self.domains.values()], dim=1)
        return {name: F.log_softmax(part, dim=1) for name, part in zip(self.domains, parts, strict=True)}

    @torch.no_grad()
    def read(self, crops: Tensor) -> dict[str, str]:
        """The attributes of one clip: every frame votes with its log-probabilities."""
        votes = {name: values.mean(0) for name, values in self(crops).items()}
        return {name: self.domains[name][int(vote.argmax())] for name, vote in votes.items()}

    @classmethod
    def from_folder(cls, folder: Path) -> Examiner:
        model = cls(load_config(folder, ExaminerConfig))
        load_weights(folder, model)
        return model
