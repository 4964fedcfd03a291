"""Diagnose: what the policy is shown when it reflects on one of its attempts."""

import dataclasses

from amrsd_jax.records import Rollouts


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The signal about one attempt.

    Attributes:
      correct, verdict: the verifier's judgement and its message.
      peer: a verified-correct response of the same group, never the attempt itself; None if there is none.
      reference: the task's worked solution, where the config allows it and there is no peer (peers first: our choice).
    """

    correct: bool
    verdict: str
    peer: str | None
    reference: str | None


def diagnose(rollouts: Rollouts, row: int, group: int, *, peers: bool, reference: bool) -> Diagnosis:
    """Collects the signal about a row; rows of a group are neighbours, `group` of them.

    Of several correct siblings the next one after the row is taken, around the group, so that a group's rows do not all
    see the same peer; one whose text is the attempt's own tells nothing and is passed over.
    """
    peer = next(
        (
            rollouts.text[i]
            for i in siblings(row, group)
            if peers and rollouts.verdicts[i].correct and rollouts.text[i] != rollouts.text[row]
        ),
        None,
    )
    verdict = rollouts.verdicts[row]
    shown = rollouts.problems[row].reference if reference and peer is None else None
    return Diagnosis(verdict.correct, verdict.message, peer, shown)


def siblings(row: int, group: int) -> list[int]:
    """The other rows of the group, from the next one on and around."""
    first = row - row % group
    return [first + (row - first + ahead) % group for ahead in range(1, group)]
