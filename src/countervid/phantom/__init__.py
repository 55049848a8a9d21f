"""The phantom world: rendered people whose causes, and therefore whose counterfactuals, are known."""

from countervid.phantom.parameters import BONES, Look, Motion, Scene
from countervid.phantom.render import Rendering, render

__all__ = ["BONES", "Look", "Motion", "Rendering", "Scene", "render"]
