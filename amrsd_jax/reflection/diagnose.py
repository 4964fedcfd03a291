"""Diagnose: what the policy is shown when it reflects on one of its attempts."""

import dataclasses
from collections.abc import Iterator

from amrsd_jax.records import Rollouts
from amrsd_jax.reflection.thinking import without_thinking


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The signal about one attempt.

    Attributes:
      correct, verdict: the verifier's judgement and its message.
      peer: a verified-correct response of the same group without its thoughts, never the attempt's own; None if there is none.
      reference: the task's worked solution, where the config allows it and there is no peer (peers first: our choice).
    """

    correct: bool
    verdict: str
    peer: str | None
    reference: str | None


def diagnose(
    rollouts: Rollouts, row: int, group: int, *, peers: bool, reference: bool, opened: bool = False
) -> Diagnosis:
    """Collects the signal about a row; rows of a group are neighbours, `group` of them.

    Of several correct siblings the next one after the row is taken, around the group, so that a group's rows do not all
    see the same peer; one whose text is the attempt's own, or nothing but thoughts, tells nothing and is passed over.
    `opened` is `thinking.opens_thinking` of the responses.
    """
    peer = next(solutions(rollouts, row, group, correct=True, opened=opened), None) if peers else None
    verdict = rollouts.verdicts[row]
    shown = rollouts.problems[row].reference if reference and peer is None else None
    return Diagnosis(verdict.correct, verdict.message, peer, shown)


def solutions(rollouts: Rollouts, row: int, group: int, *, correct: bool, opened: bool) -> Iterator[str]:
    """What the row's siblings of that verdict say after their thoughts, where it is something else than what the row says."""
    own = without_thinking(rollouts.text[row], opened)
    for i in siblings(row, group):
        said = without_thinking(rollouts.text[i], opened)
        if rollouts.verdicts[i].correct == correct and said not in ("", own):
            yield said


def siblings(row: int, group: int) -> list[int]:
    """The other rows of the group, from the next one on and around."""
    first = row - row % group
    return [first + (row - first + ahead) % group for ahead in range(1, group)]
