"""Sources of privileged context: one function each, giving every needed row a text, or the reason why it has none.

A context is named by its sources in order of preference: `peer_solution,feedback` shows a peer's solution, and the
verifier's message where there is none; `feedback+peer_solution` shows both or nothing.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from amrsd_jax import rng
from amrsd_jax.policy.tokenizer import chat_ids
from amrsd_jax.records import Rollouts
from amrsd_jax.reflection.diagnose import diagnose, solutions
from amrsd_jax.reflection.fit import fit
from amrsd_jax.reflection.parse import TAGS, parse, states_answer
from amrsd_jax.reflection.prompts import fill
from amrsd_jax.reflection.thinking import opens_thinking, without_thinking
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

    def get(self, row: int) -> tuple[str, str, str]:
        return self.kind[row], self.status[row], self.text[row]

    def put(self, row: int, kind: str, status: str, text: str) -> None:
        self.kind[row], self.status[row], self.text[row] = kind, status, text

    def usable(self) -> list[int]:
        """Rows that have one."""
        return [row for row, status in enumerate(self.status) if status == "ok"]


def view(name: str, maker, rollouts: Rollouts, needed, writers) -> Views:
    """Views of the needed rows by the first of the named sources that has one; else why the last has none."""
    views, missing = Views.none(len(rollouts.text)), np.array(needed)
    for alternative in name.split(","):
        together = [SOURCES[source](maker, rollouts, missing, writers) for source in alternative.split("+")]
        for row in np.flatnonzero(missing).tolist():
            views.put(row, *_joined([part.get(row) for part in together]))
            missing[row] = views.status[row] != "ok"
    return views


def _joined(together: list[tuple[str, str, str]]) -> tuple[str, str, str]:
    """Several sources' views of a row as one, or the first that is lacking."""
    lacking = [part for part in together if part[1] != "ok"]
    kinds, _, texts = zip(*together, strict=True)
    return lacking[0] if lacking else ("+".join(kinds), "ok", "\n".join(texts))


def sources_in(name: str) -> list[str]:
    """Names of the sources that a context is made of."""
    return name.replace("+", ",").split(",")


def written_first(name: str) -> bool:
    """Whether the policy is asked to write before any other source."""
    return not {"self_reflection", "shuffled_reflection"}.isdisjoint(name.split(",")[0].split("+"))


# ---------------------------------------------------------------- written by the policy


def self_reflection(maker, rollouts: Rollouts, needed, writers) -> Views:
    """AMR-SD: the policy writes a hint on a success, a critique of a failure."""
    views = Views.none(len(rollouts.text))
    opened = opens_thinking(maker.tokenizer, **maker.asking)
    for row in np.flatnonzero(needed).tolist():
        views.put(row, TAGS[rollouts.verdicts[row].correct], "no_room", "")
    for completion in writers.policy(asks(maker, rollouts, needed)):
        row = completion.request.tag
        written = without_thinking(maker.tokenizer.decode(completion.tokens, skip_special_tokens=True), opened)
        views.text[row], views.status[row] = parse(
            written, views.kind[row], rollouts.problems[row].answer, finished=completion.finish_reason == "stop"
        )
    return views


def shuffled_reflection(maker, rollouts: Rollouts, needed, writers) -> Views:
    """The control that shows whether a reflection's text matters: every row gets another row's, of the same kind.

    Usable reflections of a kind are rotated by half their number, so most come from another question.
    """
    views = self_reflection(maker, rollouts, needed, writers)
    written = list(views.text)
    for kind in TAGS.values():
        rows = [row for row in views.usable() if views.kind[row] == kind]
        for i, row in enumerate(rows):
            other = rows[(i + max(1, len(rows) // 2)) % len(rows)]
            views.text[row] = written[other]
            if other == row:
                views.text[row], views.status[row] = "", "no_partner"
            elif states_answer(views.text[row], rollouts.problems[row].answer):
                views.text[row], views.status[row] = "", "leak"
    return views


def critic_feedback(maker, rollouts: Rollouts, needed, writers) -> Views:
    """A frozen critic that sees attempt and answer writes a trace that keeps the right steps and repairs the wrong one.

    Written greedily. It leads to the answer by intention, so stating it is no leak.
    """
    views = Views.none(len(rollouts.text))
    opened = opens_thinking(maker.tokenizer, **maker.asking)

    def requests():
        for row in np.flatnonzero(needed).tolist():
            views.kind[row] = "critic_feedback"
            problem = rollouts.problems[row]

            def build(attempt, problem=problem):
                return maker.texts.retrace(problem.question, attempt, problem.answer)

            prompt = fit(maker.tokenizer, build, rollouts.text[row], maker.prompt_length, **maker.asking)
            if prompt is None:
                views.status[row] = "no_room"
            else:
                yield Request(prompt, row=row, temperature=0.0, tag=row)

    for completion in writers.critic(requests()):
        row = completion.request.tag
        trace = maker.tokenizer.decode(completion.tokens, skip_special_tokens=True)
        trace = without_thinking(trace, opened).strip()
        finished = completion.finish_reason == "stop"
        views.status[row] = "truncated" if not finished else "ok" if trace else "empty"
        views.text[row] = fill(maker.texts.given_solution, solution=trace) if views.status[row] == "ok" else ""
    return views


def asks(maker, rollouts: Rollouts, needed) -> Iterator[Request]:
    """Requests for the reflections on the needed rows that have room for their prompt; `tag` is the row."""
    for row in np.flatnonzero(needed).tolist():
        prompt = _ask(maker, rollouts, row, TAGS[rollouts.verdicts[row].correct])
        if prompt is not None:
            yield Request(prompt, row=row, temperature=maker.temperature, tag=row)


def _ask(maker, rollouts: Rollouts, row: int, kind: str) -> list[int] | None:
    """The prompt that asks for a reflection. If it is too long, the peer or reference is left out, then the attempt cut."""
    shown = dict(peers=maker.peers, reference=maker.reference, opened=maker.opened)
    seen = diagnose(rollouts, row, maker.group, **shown)

    def build(attempt, peer=None, reference=None):
        question = rollouts.problems[row].question
        return maker.texts.reflect(kind, question, attempt, seen.verdict, peer, reference)

    whole = build(rollouts.text[row], seen.peer, seen.reference)
    ids = chat_ids(maker.tokenizer, whole, **maker.asking)
    if len(ids) <= maker.prompt_length:
        return ids
    return fit(maker.tokenizer, build, rollouts.text[row], maker.prompt_length, **maker.asking)


# ---------------------------------------------------------------- given


def _given(name: str, missing: str, find: Callable) -> Callable[..., Views]:
    """A source that has its texts already: `find(maker, rollouts, row) -> text or None`, None being status `missing`."""

    def source(maker, rollouts: Rollouts, needed, writers) -> Views:
        views = Views.none(len(rollouts.text))
        for row in np.flatnonzero(needed).tolist():
            text = find(maker, rollouts, row)
            views.put(row, name, "ok" if text else missing, text or "")
        return views

    return source


def _answer(maker, rollouts, row):
    return fill(maker.texts.given_answer, answer=rollouts.problems[row].answer)


def _reference(maker, rollouts, row):
    reference = rollouts.problems[row].reference
    return reference and fill(maker.texts.given_solution, solution=reference)


def _peer(maker, rollouts, row):
    peer = diagnose(rollouts, row, maker.group, peers=True, reference=False, opened=maker.opened).peer
    return peer and fill(maker.texts.given_solution, solution=peer)


def _feedback(maker, rollouts, row):
    return fill(maker.texts.given_feedback, verdict=rollouts.verdicts[row].message)


def _oracle(maker, rollouts, row):
    """What a perfect reader of the attempt would write; embedded tasks know it."""
    generator = rng.host(0, "oracle", row)  # which pivotal line of a success is named
    return maker.task.reflect(rollouts.problems[row], rollouts.text[row], generator)[1]


SOURCES: dict[str, Callable[..., Views]] = {
    "none": lambda maker, rollouts, needed, writers: Views.none(len(rollouts.text)),
    "self_reflection": self_reflection,
    "shuffled_reflection": shuffled_reflection,
    "oracle_reflection": _given("oracle_reflection", "empty", _oracle),
    "answer": _given("answer", "empty", _answer),
    "reference_solution": _given("reference_solution", "no_reference", _reference),
    "peer_solution": _given("peer_solution", "no_peer", _peer),
    "feedback": _given("feedback", "empty", _feedback),
    "critic_feedback": critic_feedback,
}
# ---------------------------------------------------------------- negative: views that should not help


def wrong_peers(maker, rollouts: Rollouts, views: Views, count: int) -> list[tuple[Views, list[int]]]:
    """Up to `count` failed siblings' solutions, never the attempt itself, the next ones after the row first."""
    found = [(Views.none(len(rollouts.text)), list(range(len(rollouts.text)))) for _ in range(count)]
    for row in views.usable():
        wrong = solutions(rollouts, row, maker.group, correct=False, opened=maker.opened)
        for said, (negative, _) in zip(wrong, found, strict=False):
            negative.put(row, "wrong_peers", "ok", fill(maker.texts.given_solution, solution=said))
    return found


def other_prompts(maker, rollouts: Rollouts, views: Views, count: int) -> list[tuple[Views, list[int]]]:
    """The row's own view under the questions of the next `count` groups."""
    rows = len(rollouts.text)
    groups = rows // maker.group
    found = []
    for ahead in range(1, count + 1):
        negative = Views.none(rows)
        if ahead < groups:
            for row in views.usable():
                negative.put(row, "other_prompts", "ok", views.text[row])
        found.append((negative, [(row + ahead * maker.group) % rows for row in range(rows)]))
    return found


NEGATIVES: dict[str, Callable[..., list[tuple[Views, list[int]]]]] = {
    "wrong_peers": wrong_peers,
    "other_prompts": other_prompts,
}
