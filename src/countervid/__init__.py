"""What would this video have looked like, had one thing about the person been different?

    import countervid as cv

    clip = cv.Clip.read("talk.mp4")
    result = cv.counterfactual(clip, do={"age": "old"})
    result.clip.write("old.mp4")
    result.write_report("report.html")

Everything public is here. Names are imported when they are first used, so that `import countervid` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from countervid.causal.graph import CausalGraph
    from countervid.clip import Clip
    from countervid.critics.base import Critic, Verdict, load_critic
    from countervid.editors.base import (
        Editor,
        Prepared,
        Seen,
        Target,
        load_editor,
        register_editor,
    )
    from countervid.editors.base import names as editor_names
    from countervid.errors import CountervidError
    from countervid.face.pipeline import FacePipeline
    from countervid.phantom.world import Person, sample_person
    from countervid.runs.provenance import verify
    from countervid.runs.run import Result, counterfactual

_HOMES = {
    "CausalGraph": "countervid.causal.graph",
    "Clip": "countervid.clip",
    "CountervidError": "countervid.errors",
    "Critic": "countervid.critics.base",
    "Editor": "countervid.editors.base",
    "FacePipeline": "countervid.face.pipeline",
    "Person": "countervid.phantom.world",
    "Prepared": "countervid.editors.base",
    "Result": "countervid.runs.run",
    "Seen": "countervid.editors.base",
    "Target": "countervid.editors.base",
    "Verdict": "countervid.critics.base",
    "counterfactual": "countervid.runs.run",
    "editor_names": "countervid.editors.base:names",
    "load_critic": "countervid.critics.base",
    "load_editor": "countervid.editors.base",
    "register_editor": "countervid.editors.base",
    "sample_person": "countervid.phantom.world",
    "verify": "countervid.runs.provenance",
}

# What `diffusers` asks this package for when it loads the bundled text-to-image model, and their bases.
_FOR_DIFFUSERS = ("MiniatureTextEncoder", "MiniatureVAE", "ModelMixin", "PreTrainedModel")

__all__ = [
    "CausalGraph",
    "Clip",
    "CountervidError",
    "Critic",
    "Editor",
    "FacePipeline",
    "Person",
    "Prepared",
    "Result",
    "Seen",
    "Target",
    "Verdict",
    "counterfactual",
    "editor_names",
    "load_critic",
    "load_editor",
    "register_editor",
    "sample_person",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _FOR_DIFFUSERS:
        return getattr(importlib.import_module("countervid.autoencoder.stable_diffusion"), name)
    if name not in _HOMES:
        raise AttributeError(f"module 'countervid' has no attribute '{name}'. It has: {', '.join(__all__)}.")
    module, _, inner = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), inner or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
