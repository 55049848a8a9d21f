"""What people say of a rendered person: captions in many words, each with the attributes that it states.

The tables list, for every attribute and value, the ways to say it, by the place they take in a sentence. A caption is
true of a picture if the picture's person has every attribute that it states; what it leaves out may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Facts = tuple[tuple[str, str], ...]
"""(attribute, value) pairs, all of which hold."""


@dataclass(frozen=True)
class Phrase:
    """A way to say something; `states` is all that it says, sometimes more than one thing."""

    text: str
    states: Facts


def _phrases(table: Mapping[str, str]) -> tuple[Phrase, ...]:
    """Of "attribute=value attribute=value" -> "one way, another way"; what stands twice is said twice as often."""
    return tuple(
        Phrase(text.strip(), tuple((name, value) for name, _, value in (fact.partition("=") for fact in facts.split())))
        for facts, texts in table.items()
        for text in texts.split(",")
    )


NOUNS = _phrases(
    {
        "": "person, face, individual",
        "gender=woman": "woman, woman, lady, female",
        "gender=man": "man, man, guy, gentleman, male",
        "age=young gender=woman": "girl",
        "age=young gender=man": "boy",
        "age=old gender=woman": "grandmother",
        "age=old gender=man": "grandfather",
    }
)
"""What the person is called."""

ADJECTIVES = _phrases(
    {
        "age=young": "young, young, youthful, younger",
        "age=old": "old, old, elderly, older, aged, senior, ageing",
        "beard=yes": "bearded",
        "beard=no": "beardless",
        "beard=no moustache=no": "clean-shaven, smooth-shaven",
        "bald=yes": "bald, hairless, bald-headed",
        "moustache=yes": "moustached, mustached",
        "glasses=yes": "bespectacled",
        "smiling=yes": "smiling, grinning",
        "smiling=no": "unsmiling, serious",
        "hat=no": "hatless, bareheaded",
        "hair_colour=black": "black-haired, dark-haired",
        "hair_colour=brown": "brown-haired, brunette",
        "hair_colour=blond": "blond, blonde, fair-haired",
        "hair_colour=red": "red-haired, ginger-haired",
        "hair_colour=grey": "grey-haired, gray-haired, white-haired",
    }
)
"""Before the noun, or after "is"."""

ATTACHMENTS = _phrases(
    {
        "beard=yes": "a beard, a beard, a full beard, facial hair",
        "beard=no": "no beard",
        "beard=no moustache=no": "a shaven face, no facial hair",
        "bald=yes": "no hair, a shaved head, a bald head",
        "bald=no": "a full head of hair",
        "moustache=yes": "a moustache, a mustache",
        "moustache=no": "no moustache, no mustache",
        "glasses=yes": "glasses, eyeglasses, spectacles",
        "glasses=no": "no glasses, no eyeglasses",
        "smiling=yes": "a smile, a grin",
        "smiling=no": "no smile",
        "lipstick=yes": "lipstick, painted lips",
        "lipstick=no": "no lipstick",
        "hat=yes": "a hat, a cap",
        "hat=no": "no hat",
        "hair_colour=black": "black hair, dark hair",
        "hair_colour=brown": "brown hair",
        "hair_colour=blond": "blond hair, blonde hair, fair hair",
        "hair_colour=red": "red hair, ginger hair",
        "hair_colour=grey": "grey hair, gray hair, white hair, silver hair",
    }
)
"""After "with" or "has"."""

WORN = _phrases(
    {
        "glasses=yes": "glasses, eyeglasses, spectacles",
        "glasses=no": "no glasses",
        "lipstick=yes": "lipstick, red lipstick",
        "lipstick=no": "no lipstick",
        "hat=yes": "a hat, a cap",
        "hat=no": "no hat",
    }
)
"""After "wearing" or "wears"."""

LACKING = _phrases(
    {
        "beard=no": "a beard",
        "beard=no moustache=no": "facial hair",
        "bald=yes": "hair",
        "moustache=no": "a moustache, a mustache",
        "glasses=no": "glasses, eyeglasses, spectacles",
        "smiling=no": "a smile",
        "lipstick=no": "lipstick",
        "hat=no": "a hat",
    }
)
"""After "without"."""

OPENINGS = (
    *3 * ("a {}",),
    "a photo of a {}",
    "a picture of a {}",
    "a portrait of a {}",
    "this is a {}",
    "a video of a {}",
    "{}",
)
"""What a description stands in; "a" becomes "an" where it must."""

_PLACES = {"is": ADJECTIVES, "has": ATTACHMENTS, "wears": WORN, "is without": LACKING}
_PRONOUNS = {"woman": "she", "man": "he"}
_MOST = 5  # attributes that a caption states


@dataclass(frozen=True)
class Caption:
    """A sentence and what it states: attribute -> value."""

    text: str
    states: dict[str, str]

    def true_of(self, attributes: Mapping[str, str]) -> bool:
        return all(attributes[name] == value for name, value in self.states.items())


def sayable(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """The attributes that can be seen of a person: not the colour of hair that is not there."""
    return tuple(name for name in attributes if name != "hair_colour" or attributes["bald"] == "no")


def caption(attributes: Mapping[str, str], rng: np.random.Generator, openings: Sequence[str] = OPENINGS) -> Caption:
    """A caption of somebody: one to five of the attributes, in words and an order drawn at random.

    What is not there ("no hat") is said less often than what is.

    Args:
        attributes: All of `DOMAINS`.
        rng: Decides what is said, and how.
        openings: As `OPENINGS`.
    """
    names = sayable(attributes)
    weight = np.array([0.3 if attributes[name] == "no" else 1.0 for name in names])
    count = min(int(rng.integers(1, _MOST + 1)), len(names))
    chosen = rng.choice(len(names), count, replace=False, p=weight / weight.sum())
    return caption_of({names[i]: attributes[names[i]] for i in chosen}, rng, attributes, openings)


def caption_of(
    states: Mapping[str, str],
    rng: np.random.Generator,
    attributes: Mapping[str, str] | None = None,
    openings: Sequence[str] = OPENINGS,
) -> Caption:
    """A caption that states all of `states`, and beside them only what a word says too ("girl": young).

    Args:
        states: Attribute -> value.
        rng: Decides how it is said.
        attributes: All that is known of the person, so that no word says what is not so; `states` if None.
        openings: As `OPENINGS`.
    """
    known = states if attributes is None else attributes
    said: dict[str, str] = {}

    def choose(phrases: Sequence[Phrase], name: str | None) -> Phrase | None:
        """A phrase about `name` (about nothing, if None) that is true."""
        fitting = [
            phrase
            for phrase in phrases
            if (name in dict(phrase.states) if name else not phrase.states)
            and all(known.get(other) == value for other, value in phrase.states)
        ]
        return fitting[int(rng.integers(len(fitting)))] if fitting else None

    noun = choose(NOUNS, "gender" if "gender" in states else None)
    assert noun is not None
    said.update(noun.states)
    others = [name for name in states if name != "gender"]
    rng.shuffle(others)
    parts: dict[str, list[str]] = {verb: [] for verb in _PLACES}
    clauses = []
    terse = rng.random() < 0.15  # "he has beard"
    for name in others:
        if name in said:
            continue
        ways = [(verb, phrase) for verb, phrases in _PLACES.items() if (phrase := choose(phrases, name)) is not None]
        verb, phrase = ways[int(rng.integers(len(ways)))]
        said.update(phrase.states)
        words = phrase.text.removeprefix("a ") if terse else phrase.text
        parts[verb].append(words)
        clauses.append(f"{verb} {words}")
    if clauses and rng.random() < 0.25:
        then = _PRONOUNS.get(said.get("gender", ""), "the person")
        subjects = [then if rng.random() < 0.7 else f"the {noun.text}", *[then] * (len(clauses) - 1)]
        joint = " and " if rng.random() < 0.2 else ", "
        return Caption(joint.join(f"{who} {what}" for who, what in zip(subjects, clauses, strict=True)), said)
    text = str(rng.choice(openings)).format(_described(noun.text, *parts.values()))
    return Caption(re.sub(r"\ba(?= [aeiou])", "an", text), said)


def _described(
    noun: str, adjectives: Sequence[str], attached: Sequence[str], worn: Sequence[str], lacking: Sequence[str]
) -> str:
    """One noun with all that belongs to it."""
    text = " ".join([*adjectives, noun])
    if attached:
        text += f" with {_listed(attached)}"
    if worn:
        denied = any(item.startswith("no ") for item in attached)
        text += f"{',' if denied else ''} wearing {_listed(worn)}"
    if lacking:
        text += f" without {' or '.join(lacking)}"
    return text


def _listed(items: Sequence[str]) -> str:
    """What is there first: after "no" a listener takes the rest to be denied too."""
    items = sorted(items, key=lambda item: item.startswith("no "))
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
