"""The bundled models, stage by stage: `STAGES[name]` says how each is built, trained and measured."""

from __future__ import annotations

from countervid.training.miniature import (
    classifier,
    clip,
    couple,
    critic,
    dva,
    examiner,
    identity,
    landmarks,
    parser,
    text_to_image,
    vae,
)
from countervid.training.miniature.base import Stage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        vae.STAGE,
        identity.STAGE,
        landmarks.STAGE,
        parser.STAGE,
        examiner.STAGE,
        dva.STAGE,
        classifier.STAGE,
        couple.STAGE,
        couple.AGAIN,
        clip.STAGE,
        critic.STAGE,
        text_to_image.STAGE,
    )
}
