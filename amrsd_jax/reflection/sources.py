"""Sources of privileged context: one function each, giving every needed row a text, or the reason why it has none."""

import dataclasses
from collections.abc import Callable

import numpy as np

from amrsd_jax import rng
from amrsd_jax.policy.tokenizer import chat_ids
from amrsd_jax.records import Rollouts
from amrsd_jax.reflection.diagnose import diagnose
from amrsd_jax.reflection.fit import fit
from amrsd_jax.reflection.parse import TAGS, parse, states_answer
from amrsd_jax.reflection.prompts import fill
from amrsd_jax.sampling import Request


@dataclasses.dataclass
class Views:
    """What the teacher of each row is to see. Lists of N, filled row by row.

    Attributes:
      kind: "hint", "critique", or the name of a source that gives what it has; "" where nothing was needed.
      status: one of `parse.STATUSES`.
      text: the view itself, "" unless status is "ok".
    """

    kind: list[str]
    status: list[str]
    text: list[str]

    @classmethod
    def none(cls, count: int) -> "Views":
        return cls([""] * count, ["not_needed"] * count, [""] * count)


# ---------------------------------------------------------------- written by the policy


def self_reflection(maker, rollouts: Rollouts, needed, sample) -> Views:
    """AMR-SD: the policy writes a hint on a success, a critique of a failure."""
    views = Views.none(len(rollouts.text))

    def requests():
        for row in np.flatnonzero(needed).tolist():
            views.kind[row] = TAGS[rollouts.verdicts[row].correct]
            prompt = _ask(maker, rollouts, row, views.kind[row])
            if prompt is None:
                views.status[row] = "no_room"
            else:
                yield Request(prompt, row=row, temperature=maker.temperature, tag=row)

    for completion in sample(requests()):
        row = completion.request.tag
        written = maker.tokenizer.decode(completion.tokens, skip_special_tokens=True)
        views.text[row], views.status[row] = parse(
            written, views.kind[row], rollouts.problems[row].answer, finished=completion.finish_reason == "stop"
        )
    return views


def shuffled_reflection(maker, rollouts: Rollouts, needed, sample) -> Views:
    """The control that shows whether a reflection's text matters: every row gets another row's, of the same kind.

    Usable reflections of a kind are rotated by half their number, so most come from another question.
    """
    views = self_reflection(maker, rollouts, needed, sample)
    written = list(views.text)
    for kind in TAGS.values():
        rows = [row for row, status in enumerate(views.status) if status == "ok" and views.kind[row] == kind]
        for i, row in enumerate(rows):
            other = rows[(i + max(1, len(rows) // 2)) % len(rows)]
            views.text[row] = written[other]
            if other == row:
                views.text[row], views.status[row] = "", "no_partner"
            elif states_answer(views.text[row], rollouts.problems[row].answer):
                views.text[row], views.status[row] = "", "leak"
    return views


def _ask(maker, rollouts: Rollouts, row: int, kind: str) -> list[int] | None:
    """The prompt that asks for a reflection. If it is too long, the peer or reference is left out, then the attempt cut."""
    seen = diagnose(rollouts, row, maker.group, peers=maker.peers, reference=maker.reference)

    def build(attempt, peer=None, reference=None):
        question = rollouts.problems[row].question
        return maker.texts.reflect(kind, question, attempt, seen.verdict, peer, reference)

    whole = build(rollouts.text[row], seen.peer, seen.reference)
    ids = chat_ids(maker.tokenizer, whole, **maker.template)
    if len(ids) <= maker.prompt_length:
        return ids
    return fit(maker.tokenizer, build, rollouts.text[row], maker.prompt_length, **maker.template)


# ---------------------------------------------------------------- given


def _given(name: str, missing: str, find: Callable) -> Callable[..., Views]:
    """A source that has its texts already: `find(maker, rollouts, row) -> text or None`, None being status `missing`."""

    def source(maker, rollouts: Rollouts, needed, sample) -> Views:
        views = Views.none(len(rollouts.text))
        for row in np.flatnonzero(needed).tolist():
            text = find(maker, rollouts, row)
            views.kind[row], views.status[row], views.text[row] = name, "ok" if text else missing, text or ""
        return views

    return source


def _answer(maker, rollouts, row):
    return fill(maker.texts.given_answer, answer=rollouts.problems[row].answer)


def _reference(maker, rollouts, row):
    reference = rollouts.problems[row].reference
    return reference and fill(maker.texts.given_solution, solution=reference)


def _peer(maker, rollouts, row):
    peer = diagnose(rollouts, row, maker.group, peers=True, reference=False).peer
    return peer and fill(maker.texts.given_solution, solution=peer)


def _feedback(maker, rollouts, row):
    return fill(maker.texts.given_feedback, verdict=rollouts.verdicts[row].message)


def _oracle(maker, rollouts, row):
    """What a perfect reader of the attempt would write; embedded tasks know it."""
    generator = rng.host(0, "oracle", row)  # which pivotal line of a success is named
    return maker.task.reflect(rollouts.problems[row], rollouts.text[row], generator)[1]


SOURCES: dict[str, Callable[..., Views]] = {
    "none": lambda maker, rollouts, needed, sample: Views.none(len(rollouts.text)),
    "self_reflection": self_reflection,
    "shuffled_reflection": shuffled_reflection,
    "oracle_reflection": _given("oracle_reflection", "empty", _oracle),
    "answer": _given("answer", "empty", _answer),
    "reference_solution": _given("reference_solution", "no_reference", _reference),
    "peer_solution": _given("peer_solution", "no_peer", _peer),
    "feedback": _given("feedback", "empty", _feedback),
}
