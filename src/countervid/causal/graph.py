"""The causal graph: variables, who causes whom, and how; loaded from YAML and whole, or not at all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from countervid.causal import counterfactual as _counterfactual
from countervid.causal import schema, validation
from countervid.causal.counterfactual import Attributes, Counterfactual, Noise
from countervid.causal.mechanisms import Mechanism
from countervid.causal.schema import GraphFile, Variable
from countervid.errors import InterventionError


@dataclass(frozen=True)
class CausalGraph:
    """A structural causal model over named attributes.

    Make one with `CausalGraph.load` or `CausalGraph.parse`; both refuse a graph that is not whole.

    Attributes:
        name, description: As in the file.
        person: What somebody is called whose subject is not known, "this person".
        variables: Name -> variable, in the file's order.
        causes: Name -> parents, in the file's order of edges.
        mechanisms: Name -> mechanism (an empty one for a variable without).
        order: Names, causes before effects.
        sampling_order: The same, associated variables also coming first.
    """

    name: str
    description: str
    person: str
    variables: dict[str, Variable]
    causes: dict[str, tuple[str, ...]]
    mechanisms: dict[str, Mechanism]
    order: tuple[str, ...]
    sampling_order: tuple[str, ...]

    @classmethod
    def load(cls, graph: str | Path) -> CausalGraph:
        """Load a bundled graph by its name (`face`, `phantom`) or any graph by the path of its file.

        Raises:
            GraphError: No such graph, or it is not well formed; the message names the variable and the way out.
        """
        return cls.from_file(schema.read(graph))

    @classmethod
    def parse(cls, text: str, name: str = "graph") -> CausalGraph:
        """Load a graph from YAML text."""
        return cls.from_file(schema.parse(text, name))

    @classmethod
    def of_one(cls, name: str, values: Sequence[str]) -> CausalGraph:
        """A graph of one variable, which nothing causes and nothing follows from: for edits outside any graph.

        Any name will do (`5_o_Clock_Shadow`): the variable's is made of its letters and digits.
        """
        name = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        name = name if name[:1].isalpha() else f"attribute_{name}"
        variable = Variable(name=name, kind="categorical", values=tuple(values))
        return cls.from_file(GraphFile(name=name, variables={name: variable}))

    @classmethod
    def from_file(cls, file: GraphFile) -> CausalGraph:
        """Check a graph's file and put it in order.

        Raises:
            GraphError: A circle, an unknown name or value, a case that no rule or two rules answer, and so on.
        """
        causes = validation.check(file)
        mechanisms = {name: file.mechanisms.get(name, Mechanism()) for name in file.variables}
        observed = {name: (*causes[name], *mechanisms[name].associated) for name in file.variables}
        return cls(
            name=file.name,
            description=file.description,
            person=file.person,
            variables=dict(file.variables),
            causes=causes,
            mechanisms=mechanisms,
            order=validation.sort(causes),
            sampling_order=validation.sort(observed),
        )

    # ---- structure ----

    def parents(self, name: str) -> tuple[str, ...]:
        """Direct causes of a variable."""
        return self.causes[self._known(name)]

    def children(self, name: str) -> tuple[str, ...]:
        """Direct effects of a variable."""
        self._known(name)
        return tuple(other for other in self.variables if name in self.causes[other])

    def ancestors(self, *names: str) -> frozenset[str]:
        """Causes of any of the variables, direct or not, without the variables themselves."""
        return self._reachable(names, self.causes)

    def descendants(self, *names: str) -> frozenset[str]:
        """Effects of any of the variables, direct or not, without the variables themselves."""
        return self._reachable(names, {name: self.children(name) for name in self.variables})

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """(cause, effect) pairs."""
        return tuple((cause, effect) for effect, causes in self.causes.items() for cause in causes)

    def mutilated(self, names: Iterable[str]) -> CausalGraph:
        """The graph after an intervention on `names`: the edges into them are cut, they take what they are given."""
        cut = {self._known(name) for name in names}
        return replace(
            self,
            causes={name: () if name in cut else causes for name, causes in self.causes.items()},
            mechanisms={name: Mechanism() if name in cut else m for name, m in self.mechanisms.items()},
            order=validation.sort({name: () if name in cut else causes for name, causes in self.causes.items()}),
            sampling_order=validation.sort(
                {
                    name: () if name in cut else (*causes, *self.mechanisms[name].associated)
                    for name, causes in self.causes.items()
                }
            ),
        )

    def decoupled(self, do: Iterable[str]) -> frozenset[str]:
        """Variables that a prompt should stop naming while it is steered toward an intervention on `do`.

        These are the causes of the intervened variables: their edges are cut, yet a generator's learnt dependence
        ("a woman who is bald") would pull against the intervention. Intervened variables stay named.
        """
        do = tuple(do)
        return self.ancestors(*do) - set(do)

    # ---- people ----

    def sample(self, rng: np.random.Generator) -> tuple[Attributes, Noise]:
        """Draw a person by the observed probabilities: attributes, and the noise that goes with them."""
        return _counterfactual.sample(self, rng)

    def abduct(self, factual: Mapping[str, str], rng: np.random.Generator | None = None) -> Noise:
        """The noise that explains a person's attributes; see `countervid.causal.counterfactual.abduct`."""
        return _counterfactual.abduct(self, factual, rng)

    def predict(self, noise: Noise) -> Attributes:
        """The attributes of the person who carries `noise`, with the interventions in force."""
        return _counterfactual.predict(self, noise)

    def counterfactual(
        self, factual: Mapping[str, str], do: Mapping[str, str], noise: Noise | None = None
    ) -> Counterfactual:
        """What the person would be like under `do`; see `countervid.causal.counterfactual.intervene`."""
        return _counterfactual.intervene(self, factual, do, noise)

    # ---- attributes ----

    def check(self, attributes: Mapping[str, str]) -> None:
        """Refuse unknown variables and values.

        Raises:
            InterventionError: With the nearest name that there is.
        """
        for name, value in attributes.items():
            values = self.variables[self._known(name)].values
            if value not in values:
                raise InterventionError(
                    f"`{name}` cannot be `{value}`. {_nearest(value, values)}Its values are {', '.join(values)}."
                )

    def complete(self, attributes: Mapping[str, str]) -> Attributes:
        """The same attributes in the graph's order, once it is sure that none is missing or unknown.

        Raises:
            InterventionError: A variable is missing, unknown, or has a value that it cannot have.
        """
        self.check(attributes)
        for name, variable in self.variables.items():
            if name not in attributes:
                raise InterventionError(
                    f"`{name}` of the factual is not known. Say which of {', '.join(variable.values)} it is."
                )
        return self.in_order(attributes)

    def in_order(self, attributes: Mapping[str, str]) -> Attributes:
        """The same attributes in the graph's order."""
        return {name: attributes[name] for name in self.variables if name in attributes}

    def interventions(self, texts: Sequence[str]) -> Attributes:
        """Read interventions as typed, `age=old`, one or several.

        Raises:
            InterventionError: Not of this form, unknown, or one variable set to two values.
        """
        do: Attributes = {}
        for text in texts:
            name, equals, value = (part.strip() for part in text.partition("="))
            if not (name and equals and value):
                raise InterventionError(f"`{text}` is no intervention. Write VARIABLE=VALUE, for example age=old.")
            name = self._spelt(name, self.variables)
            if name in self.variables:
                value = self._spelt(value, self.variables[name].values)
            self.check({name: value})
            if do.get(name, value) != value:
                raise InterventionError(
                    f"`{name}` is asked to be both `{do[name]}` and `{value}`. Keep one, or ask for two."
                )
            do[name] = value
        return do

    # ---- drawing ----

    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The variables in layers, each one layer below the lowest of its causes."""
        depth: dict[str, int] = {}
        for name in self.order:
            depth[name] = 1 + max((depth[parent] for parent in self.causes[name]), default=-1)
        return tuple(
            tuple(name for name in self.variables if depth[name] == layer) for layer in range(max(depth.values()) + 1)
        )

    def _known(self, name: str) -> str:
        if name not in self.variables:
            raise InterventionError(
                f"Graph {self.name} has no variable `{name}`. {_nearest(name, self.variables)}"
                f"Its variables are {', '.join(self.variables)}."
            )
        return name

    @staticmethod
    def _spelt(typed: str, names: Iterable[str]) -> str:
        """The name that was meant, whatever its case and with `-` or blanks for `_`."""
        plain = typed.lower().replace("-", "_").replace(" ", "_")
        return next((name for name in names if name.lower() == plain), typed)

    def _reachable(self, names: Iterable[str], neighbours: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
        start = {self._known(name) for name in names}
        found: set[str] = set()
        waiting = list(start)
        while waiting:
            new = set(neighbours[waiting.pop()]) - found
            found |= new
            waiting.extend(new)
        return frozenset(found - start)


def _nearest(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean `{close[0]}`? " if close else ""
