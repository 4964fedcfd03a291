"""Collects the signal that the policy sees when it reflects on one of its attempts (the paper's phase "Diagnose")."""

import dataclasses
from collections.abc import Iterator

from amrsd_jax.records import Rollouts
from amrsd_jax.reflection.settings import ContextSettings
from amrsd_jax.tasks.thoughts import after_thoughts


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The signal about one attempt.

    Attributes:
      verdict: the verifier's message.
      peer: a verified-correct response of another rollout of the group, without its thoughts; None if there is none.
      reference: the task's worked solution, where the config allows it and there is no peer (peers first: our choice).
    """

    verdict: str
    peer: str | None
    reference: str | None


def diagnose(rollouts: Rollouts, row: int, settings: ContextSettings) -> Diagnosis:
    """Returns the signal about a row.

    Of several correct siblings the next one after the row is taken, cyclically, so that the rows of a group do not all see the
    same peer. A sibling with the same text as the attempt is skipped: there is nothing to compare (our choice).
    """
    config = settings.config
    attempt = after_thoughts(rollouts.text[row], settings.responses_open_thinking)
    others = (peer for peer in sibling_solutions(rollouts, row, settings, correct=True) if peer != attempt)
    peer = next(others, None) if config.peers else None
    reference = rollouts.problems[row].reference if config.reference and peer is None else None
    return Diagnosis(rollouts.verdicts[row].message, peer, reference)


def sibling_solutions(rollouts: Rollouts, row: int, settings: ContextSettings, *, correct: bool) -> Iterator[str]:
    """Yields the siblings' correct responses, or the wrong ones that have an answer, without thoughts and where more is left.

    One with the row's own text is included, as in the code of SDPO and of RLCSD, which leave out the row itself only. A failure
    without an answer, one that was cut for example, would differ from a correct one in its form alone (as RLCSD's code).
    """
    for i in siblings(row, settings.group):
        solution = after_thoughts(rollouts.text[i], settings.responses_open_thinking)
        verdict = rollouts.verdicts[i]
        if solution and verdict.correct == correct and (correct or verdict.parsed is not None):
            yield solution


def siblings(row: int, group: int) -> list[int]:
    """Returns the other rows of the group, cyclically from the next one."""
    first = row - row % group
    return [first + (row - first + ahead) % group for ahead in range(1, group)]
