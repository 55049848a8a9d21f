"""A critic as a judge: who steers one run may grade another."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from countervid.causal.questions import Question
from countervid.critics.base import Critic, Request
from countervid.errors import CallError


class CriticJudge:
    """Asks a critic, and tells it nothing of what is wanted. Never the critic that steered: it would grade itself.

    Args:
        critic: Who looks; it sees squares of its own `size`.
    """

    def __init__(self, critic: Critic) -> None:
        self.critic, self.name = critic, critic.name

    def answer(self, pictures: Tensor, questions: Sequence[Question]) -> list[str | None]:
        """As `metrics.judged.Judge`: pictures `(n, S, S, 3)` uint8 in, one option a question out, None where unsure."""
        request = Request(
            pictures=pictures, frames=tuple(range(len(pictures))), questions=tuple(questions), changed={}, kept={}
        )
        try:
            answers = self.critic.judge(request).answers
        except CallError:
            return [None] * len(questions)
        values = [None if one.variable not in answers else answers[one.variable].value for one in questions]
        return [
            None if value not in one.values.values() else one.options[one.letter(str(value))]
            for one, value in zip(questions, values, strict=True)
        ]
