"""Causal graphs over attributes: who causes whom, counterfactuals, prompts and questions."""

from countervid.causal.counterfactual import Attributes, Change, Counterfactual, Noise
from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe, parse
from countervid.causal.schema import Variable

__all__ = ["Attributes", "CausalGraph", "Change", "Counterfactual", "Noise", "Variable", "describe", "parse"]
