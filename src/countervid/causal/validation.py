"""Checks that the parts of a graph's file fit together. Every refusal names the variable and the way out."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from countervid.causal.mechanisms import KEEP, Distribution, Mechanism, combinations
from countervid.causal.schema import GraphFile, Variable
from countervid.errors import GraphError

Causes = dict[str, tuple[str, ...]]

MAX_COMBINATIONS = 4096  # of one variable's parents; a response table is kept for each person
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


def check(file: GraphFile) -> Causes:
    """Check a whole graph and return each variable's parents, in the order of the edges.

    Raises:
        GraphError: The first thing that is wrong.
    """
    if not file.variables:
        raise GraphError(f"Graph {file.name} has no variables. Add at least one.")
    for variable in file.variables.values():
        _check_variable(variable)
    causes = _causes(file)
    sort(causes)
    for name in file.mechanisms:
        if name not in file.variables:
            raise GraphError(
                f"There is a mechanism for `{name}`, which is no variable. {_instead(name, file.variables)}"
            )
    for name in file.variables:
        if name in file.mechanisms:
            _check_mechanism(file, name, causes[name], file.mechanisms[name])
        elif causes[name]:
            raise GraphError(
                f"`{name}` has causes ({', '.join(causes[name])}) but no mechanism. Add rules or probabilities for it."
            )
    associated = {name: file.mechanisms[name].associated if name in file.mechanisms else () for name in file.variables}
    sort({name: (*causes[name], *associated[name]) for name in file.variables})
    subjects = [name for name, variable in file.variables.items() if variable.language.subjects]
    if len(subjects) > 1:
        raise GraphError(f"`{subjects[0]}` and `{subjects[1]}` both name the subject. Keep `subjects` in one of them.")
    return causes


def sort(causes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names with causes before effects, otherwise in the given order.

    Raises:
        GraphError: There is a circle; the message walks it.
    """
    done: dict[str, None] = {}
    while len(done) < len(causes):
        ready = next((n for n in causes if n not in done and all(p in done for p in causes[n])), None)
        if ready is None:
            raise GraphError(_circle({n: [p for p in causes[n] if p not in done] for n in causes if n not in done}))
        done[ready] = None
    return tuple(done)


def _circle(causes: Mapping[str, Sequence[str]]) -> str:
    """Walk from effect to cause among variables that all have one left, until one comes round again."""
    walk = [next(iter(causes))]
    while walk[-1] not in walk[:-1]:
        walk.append(causes[walk[-1]][0])
    ring = walk[walk.index(walk[-1]) :][::-1]
    if len(ring) == 2:
        return f"`{ring[0]}` causes itself. Remove that edge."
    if len(ring) == 3:
        return f"`{ring[0]}` and `{ring[1]}` cause each other. Remove one edge: a causal graph has no cycles."
    around = " -> ".join(f"`{name}`" for name in ring)
    return f"{around} is a cycle. Remove one of these edges: a causal graph has no cycles."


def _check_variable(variable: Variable) -> None:
    name, values, language = variable.name, variable.values, variable.language
    if not _NAME.match(name):
        raise GraphError(f"`{name}` is no name for a variable. Use small letters, digits and `_`, a letter first.")
    for value in values:
        if not value.strip() or set(value) & set(",=\n"):
            raise GraphError(f"`{name}` has a value `{value}`. A value needs a name without `,` and `=`.")
    if len(set(values)) != len(values):
        raise GraphError(f"`{name}` names a value twice: {', '.join(values)}. Name each once.")
    if len(values) < 2:
        raise GraphError(f"`{name}` has {len(values)} value. A variable needs two or more.")
    if KEEP in values:
        raise GraphError(f"`{name}` has a value `{KEEP}`, which is what rules say for no change. Rename it.")
    if variable.kind == "binary" and values != ("no", "yes"):
        raise GraphError(
            f"`{name}` is binary but has the values {', '.join(values)}. "
            f"Binary means no, yes; for other values use `kind: categorical` or `kind: ordered`."
        )
    spoken = (*language.subjects, *language.clauses, *language.words)
    also = [language.unmentioned] if language.unmentioned not in (None, "likeliest") else []
    for value in (*spoken, *also):
        _check_value(name, str(value), values, "`language`")
    silent = [value for value, clause in language.clauses.items() if clause is None]
    if len(silent) > 1:
        raise GraphError(f"`{name}` is silent about {' and '.join(silent)}, so nothing tells them apart. Word one.")
    for part in (language.subjects, language.clauses):
        missing = [value for value in values if part and value not in part]
        if missing:
            raise GraphError(f"`{name}` has no words for `{missing[0]}`. Add it to `language`, null for silence.")
    if variable.options is not None and sorted(variable.options) != sorted(values):
        raise GraphError(f"`{name}` offers {', '.join(variable.options)}. `options` needs each value once.")


def _causes(file: GraphFile) -> Causes:
    causes: dict[str, list[str]] = {name: [] for name in file.variables}
    for edge in file.edges:
        left, arrow, right = edge.partition("->")
        sources = [part.strip() for part in left.split(",")]
        targets = [part.strip() for part in right.split(",")]
        if not arrow or not all(sources) or not all(targets):
            raise GraphError(f"`{edge}` is no edge. Write `cause -> effect`, or `a, b -> effect`.")
        for name in (*sources, *targets):
            if name not in file.variables:
                raise GraphError(
                    f"The edge `{edge}` names `{name}`, which is no variable. {_instead(name, file.variables)}"
                )
        for target in targets:
            causes[target].extend(source for source in sources if source not in causes[target])
    return {name: tuple(parents) for name, parents in causes.items()}


def _check_mechanism(file: GraphFile, name: str, parents: tuple[str, ...], mechanism: Mechanism) -> None:
    domains = {parent: file.variables[parent].values for parent in parents}
    values = file.variables[name].values
    if math.prod(len(domain) for domain in domains.values()) > MAX_COMBINATIONS:
        raise GraphError(f"`{name}` has more than {MAX_COMBINATIONS} combinations of causes. Remove some of its edges.")
    for other in mechanism.associated:
        if other not in file.variables or other == name:
            raise GraphError(f"`{name}` is associated with `{other}`. {_instead(other, set(file.variables) - {name})}")
    if mechanism.rules is None and mechanism.probabilities is None and parents:
        raise GraphError(f"The mechanism of `{name}` is empty. Add rules or probabilities.")
    if mechanism.rules is not None:
        if not parents:
            raise GraphError(f"`{name}` has rules but no causes. Add an edge into it, or use probabilities.")
        _check_rules(name, values, domains, mechanism)
    if mechanism.probabilities is not None:
        known = {**domains, **{other: file.variables[other].values for other in mechanism.associated}}
        _check_probabilities(name, values, known, mechanism)


def _check_rules(name: str, values: Sequence[str], domains: dict[str, tuple[str, ...]], mechanism: Mechanism) -> None:
    rules = mechanism.rules or ()
    for number, rule in enumerate(rules, 1):
        place = f"rule {number}"
        if rule.cause is not None and rule.cause not in domains:
            raise GraphError(f"`{name}`, {place}: `{rule.cause}` is no cause of it. {_instead(rule.cause, domains)}")
        _check_condition(name, rule.when, domains, place)
        for value in rule.present or ():
            _check_value(name, value, values, place)
        if not isinstance(rule.then, str):
            _check_distribution(name, rule.then, values, place)
        elif rule.then != KEEP:
            _check_value(name, rule.then, values, place)
    for cause in domains:
        for after in combinations(domains):
            for present in values:
                numbers = [n for n, rule in enumerate(rules, 1) if rule.fits(cause, after, present)]
                case = f"{cause} set, {_listed(after)}, {name} = {present} before"
                if not numbers:
                    raise GraphError(f"`{name}`: the rules leave a case open: {case}. Add a rule for it.")
                if len(numbers) > 1:
                    raise GraphError(
                        f"`{name}`: rules {numbers[0]} and {numbers[1]} both answer the case: {case}. "
                        f"Narrow one of them."
                    )


def _check_probabilities(
    name: str, values: Sequence[str], domains: dict[str, tuple[str, ...]], mechanism: Mechanism
) -> None:
    rows = mechanism.probabilities or ()
    for number, row in enumerate(rows, 1):
        _check_condition(name, row.when, domains, f"row {number} of the probabilities")
        _check_distribution(name, row.then, values, f"row {number} of the probabilities")
    for known in combinations(domains):
        numbers = [n for n, row in enumerate(rows, 1) if all(known[k] in v for k, v in row.when.items())]
        case = _listed(known) or "no causes"
        if not numbers:
            raise GraphError(f"`{name}`: the probabilities leave a case open: {case}. Add a row for it.")
        if len(numbers) > 1:
            raise GraphError(
                f"`{name}`: rows {numbers[0]} and {numbers[1]} of the probabilities both answer the case: {case}. "
                f"Narrow one of them."
            )


def _check_condition(
    name: str, condition: Mapping[str, Iterable[str]], domains: Mapping[str, tuple[str, ...]], place: str
) -> None:
    for parent, allowed in condition.items():
        if parent not in domains:
            raise GraphError(f"`{name}`, {place}: `{parent}` is no cause of it. {_instead(parent, domains)}")
        for value in allowed:
            _check_value(parent, value, domains[parent], f"{place} of `{name}`")


def _check_distribution(name: str, distribution: Distribution, values: Sequence[str], place: str) -> None:
    for value, share in distribution.items():
        _check_value(name, value, values, place)
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise GraphError(f"`{name}`, {place}: the probability of `{value}` is {share:g}. It needs to be 0 to 1.")
    total = math.fsum(distribution.values())
    if abs(total - 1) > 1e-6:
        raise GraphError(f"`{name}`, {place}: the probabilities sum to {total:g}. Make them sum to 1.")


def _check_value(name: str, value: str, values: Sequence[str], place: str) -> None:
    if value not in values:
        raise GraphError(f"`{name}` cannot be `{value}` ({place}). {_instead(value, values)}")


def _listed(combination: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in combination.items())


def _instead(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean `{close[0]}`?" if close else f"Use one of {', '.join(names)}." if names else "Remove it."
