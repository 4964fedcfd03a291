"""Sources of privileged context: one function each, which returns for every chosen row a text or the reason why it has none.

A context is named by its sources in order of preference: `peer_solution,feedback` shows a peer's solution, and the
verifier's message about a failure where there is none; `verdict+peer_solution` shows both or neither.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from amrsd_jax import rng
from amrsd_jax.records import Request, Rollouts
from amrsd_jax.reflection.diagnose import sibling_solutions
from amrsd_jax.reflection.fit import fit
from amrsd_jax.reflection.parse import TAGS, close_tag, parse
from amrsd_jax.reflection.prompts import fill
from amrsd_jax.reflection.reflections import Reflections
from amrsd_jax.reflection.settings import ContextSettings
from amrsd_jax.sampling import Sampler
from amrsd_jax.tasks.chain import ChainTask
from amrsd_jax.tasks.thoughts import after_thoughts

# The sources that a model writes, with the sampler that they use (`experiment.make_samplers`).
WRITERS = {"self_reflection": "reflection", "shuffled_reflection": "reflection", "critic_feedback": "critic"}


@dataclasses.dataclass
class PrivilegedTexts:
    """The privileged text of each row, as lists of N.

    Attributes:
      kind: "hint", "critique", or the name of another source; "" where no text is needed.
      status: one of `parse.STATUSES`.
      text: the text where status is "ok"; an unusable one as it was written; "" where there is none, and for `no_text`.
    """

    kind: list[str]
    status: list[str]
    text: list[str]

    @classmethod
    def none(cls, count: int) -> "PrivilegedTexts":
        """Returns the record of rows that need no text."""
        return cls([""] * count, ["not_needed"] * count, [""] * count)

    def get(self, row: int) -> tuple[str, str, str]:
        """Returns kind, status and text of a row."""
        return self.kind[row], self.status[row], self.text[row]

    def put(self, row: int, kind: str, status: str, text: str) -> None:
        """Sets kind, status and text of a row."""
        self.kind[row], self.status[row], self.text[row] = kind, status, text

    def usable(self) -> list[int]:
        """Returns the rows that have a text."""
        return [row for row, status in enumerate(self.status) if status == "ok"]


@dataclasses.dataclass(frozen=True)
class Generators:
    """The models that write contexts: the policy with its reflections, and a frozen critic if a source needs one."""

    reflections: Reflections
    critic: Sampler | None = None


Source = Callable[[ContextSettings, Rollouts, Sequence[int], Generators], PrivilegedTexts]


def privileged_texts(
    name: str,
    settings: ContextSettings,
    rollouts: Rollouts,
    needs_teacher: Bool[np.ndarray, " N"],
    generators: Generators,
) -> PrivilegedTexts:
    """Returns texts for the rows that need a teacher, each from the first of the named sources that has one.

    A row that none has a text for gets the reason of the last source.
    """
    texts, missing = PrivilegedTexts.none(len(rollouts.text)), np.flatnonzero(needs_teacher).tolist()
    for alternative in name.split(","):
        parts = [SOURCES[source](settings, rollouts, missing, generators) for source in alternative.split("+")]
        for row in missing:
            texts.put(row, *_combine([part.get(row) for part in parts]))
        missing = [row for row in missing if texts.status[row] != "ok"]
    return texts


def _combine(parts: list[tuple[str, str, str]]) -> tuple[str, str, str]:
    """Returns (kind, status, text) of a row from several sources as one, or the first of them without a text."""
    lacking = [part for part in parts if part[1] != "ok"]
    kinds, _, texts = zip(*parts, strict=True)
    return lacking[0] if lacking else ("+".join(kinds), "ok", "\n".join(texts))


def sources_in(name: str) -> list[str]:
    """Returns the names of the sources that a context is made of."""
    return name.replace("+", ",").split(",")


def samplers_of(name: str) -> set[str]:
    """Returns the samplers with which a model writes the sources of a context: "reflection" the policy, "critic" the critic."""
    return {WRITERS[source] for source in sources_in(name) if source in WRITERS}


def begins_with_reflection(name: str) -> bool:
    """Returns whether the policy's reflections are the first choice, so that they can be sampled alongside the rollouts."""
    return "reflection" in samplers_of(name.split(",")[0])


# ---------------------------------------------------------------- written by the policy or a critic


def self_reflection(
    settings: ContextSettings, rollouts: Rollouts, rows: Sequence[int], generators: Generators
) -> PrivilegedTexts:
    """Returns the policy's own reflections (AMR-SD): a hint on a success, a critique of a failure."""
    texts = PrivilegedTexts.none(len(rollouts.text))
    completions = generators.reflections.get(rollouts, rows)
    for row in rows:
        kind = TAGS[rollouts.verdicts[row].correct]
        texts.put(row, kind, "no_room", "")
        if row in completions:
            written = settings.tokenizer.decode(completions[row].tokens, skip_special_tokens=True)
            written = after_thoughts(written, settings.reflections_open_thinking)
            finished, problem = completions[row].finish_reason == "stop", rollouts.problems[row]
            if settings.config.open_tag:
                written = f"<{kind}>{written}"
            written = close_tag(
                written,
                kind,
                finished=finished and settings.config.open_tag,
                cut=settings.config.keep_sentences and not finished,
            )
            states_answer = functools.partial(settings.task.states_answer, problem)
            texts.text[row], texts.status[row] = parse(written, kind, finished=finished, states_answer=states_answer)
    return texts


def shuffled_reflection(
    settings: ContextSettings, rollouts: Rollouts, rows: Sequence[int], generators: Generators
) -> PrivilegedTexts:
    """Returns for every row a reflection of the same kind on another question: a control that shows whether the text matters.

    The search begins half of the usable reflections further on, and passes over texts that state the row's answer: 7 + 5 - 3 for
    another question states a 7. A row without a partner gets none: a sibling's reflection would be about the row's own question.
    """
    texts = self_reflection(settings, rollouts, rows, generators)
    written, problems = list(texts.text), rollouts.problems
    for kind in TAGS.values():
        usable = [row for row in texts.usable() if texts.kind[row] == kind]
        for i, row in enumerate(usable):
            ahead = i + len(usable) // 2
            others = itertools.islice(itertools.cycle(usable), ahead, ahead + len(usable))
            elsewhere = (written[other] for other in others if problems[other].question != problems[row].question)
            text = next((text for text in elsewhere if not settings.task.states_answer(problems[row], text)), None)
            texts.text[row] = text or ""
            if text is None:
                texts.status[row] = "no_partner"
    return texts


def critic_feedback(
    settings: ContextSettings, rollouts: Rollouts, rows: Sequence[int], generators: Generators
) -> PrivilegedTexts:
    """Returns repaired attempts, written by a frozen critic that sees attempt and answer: right steps stay as they are.

    They are decoded greedily. They are meant to lead to the answer, so stating it is no leak.
    """
    texts = PrivilegedTexts.none(len(rollouts.text))

    def requests() -> Iterator[Request]:
        for row in rows:
            problem = rollouts.problems[row]

            def messages(attempt, problem=problem):
                return settings.templates_of(problem).repair_prompt(problem.prompt_text, attempt, problem.answer)

            limit, template = settings.config.prompt_length, settings.reflection_chat_template
            prompt = fit(settings.tokenizer, messages, rollouts.text[row], limit, **template)
            texts.put(row, "critic_feedback", "no_room", "")
            if prompt is not None:
                yield Request(prompt, row=row, temperature=0.0)

    for completion in generators.critic(requests()):
        row = completion.request.row
        trace = settings.tokenizer.decode(completion.tokens, skip_special_tokens=True)
        trace = after_thoughts(trace, settings.reflections_open_thinking).strip()
        finished = completion.finish_reason == "stop"
        texts.status[row] = "truncated" if not finished else "ok" if trace else "empty"
        templates = settings.templates_of(rollouts.problems[row])
        texts.text[row] = fill(templates.given_solution, solution=trace) if texts.status[row] == "ok" else ""
    return texts


# ---------------------------------------------------------------- texts that exist already


def given(name: str, missing: str, find: Callable[[ContextSettings, Rollouts, int], str | None]) -> Source:
    """Returns a source of existing texts; a row for which `find` returns none gets the status `missing`."""

    def source(settings, rollouts, rows, generators):
        texts = PrivilegedTexts.none(len(rollouts.text))
        for row in rows:
            text = find(settings, rollouts, row)
            texts.put(row, name, "ok" if text else missing, text or "")
        return texts

    return source


def _answer(settings: ContextSettings, rollouts: Rollouts, row: int) -> str | None:
    answer = rollouts.problems[row].answer
    return answer and fill(settings.templates_of(rollouts.problems[row]).given_answer, answer=answer)


def _reference(settings: ContextSettings, rollouts: Rollouts, row: int) -> str | None:
    reference = rollouts.problems[row].reference
    return reference and fill(settings.templates_of(rollouts.problems[row]).given_solution, solution=reference)


def _peer(settings: ContextSettings, rollouts: Rollouts, row: int) -> str | None:
    peer = next(sibling_solutions(rollouts, row, settings, correct=True), None)
    return peer and fill(settings.templates_of(rollouts.problems[row]).given_solution, solution=peer)


def _verdict(settings: ContextSettings, rollouts: Rollouts, row: int) -> str | None:
    message, templates = rollouts.verdicts[row].message, settings.templates_of(rollouts.problems[row])
    return fill(templates.given_feedback, verdict=message) if message.strip() else None


def _feedback(settings: ContextSettings, rollouts: Rollouts, row: int) -> str | None:
    """Returns the verifier's message about a failure; about a success it says nothing that could improve the row."""
    return None if rollouts.verdicts[row].correct else _verdict(settings, rollouts, row)


def _oracle(settings: ContextSettings, rollouts: Rollouts, row: int) -> str | None:
    """Returns the task's own reflection; of an embedded task the true first wrong step, even if that states the answer."""
    generator = rng.host(0, "oracle", row)  # selects the wording, or the pivotal line that a hint names
    attempt = (rollouts.problems[row], rollouts.text[row], generator)
    return (
        settings.task.reflect(*attempt)[1]
        if isinstance(settings.task, ChainTask)
        else settings.task.write_reflection(*attempt)
    )


def no_text(name: str, rollouts: Rollouts, rows: Sequence[int]) -> PrivilegedTexts:
    """Returns empty texts of the kind `null`, the teacher's prompt without a text, or `question`, the student's own prompt.

    The first is a control: the gap that the teacher's template makes without a reflection is noise. The second is for a teacher
    whose parameters are not the policy's.
    """
    texts = PrivilegedTexts.none(len(rollouts.text))
    for row in rows:
        texts.put(row, name, "ok", "")
    return texts


SOURCES: dict[str, Source] = {
    "none": lambda settings, rollouts, rows, generators: PrivilegedTexts.none(len(rollouts.text)),
    "null": lambda settings, rollouts, rows, generators: no_text("null", rollouts, rows),
    "question": lambda settings, rollouts, rows, generators: no_text("question", rollouts, rows),
    "self_reflection": self_reflection,
    "shuffled_reflection": shuffled_reflection,
    "oracle_reflection": given("oracle_reflection", "empty", _oracle),
    "answer": given("answer", "empty", _answer),
    "reference_solution": given("reference_solution", "no_reference", _reference),
    "peer_solution": given("peer_solution", "no_peer", _peer),
    "verdict": given("verdict", "no_feedback", _verdict),
    "feedback": given("feedback", "no_feedback", _feedback),
    "critic_feedback": critic_feedback,
}


# ---------------------------------------------------------------- negative contexts, which should not help


@dataclasses.dataclass(frozen=True)
class NegativeContext:
    """A text for each row, and the row of the question that it is shown with."""

    texts: PrivilegedTexts
    question_rows: list[int]


def wrong_peers(
    settings: ContextSettings, rollouts: Rollouts, positive: PrivilegedTexts, count: int
) -> list[NegativeContext]:
    """Returns up to `count` failed siblings' solutions per row that has a text, the next ones after the row first."""
    rows = len(rollouts.text)
    negatives = [NegativeContext(PrivilegedTexts.none(rows), list(range(rows))) for _ in range(count)]
    for row in positive.usable():
        solutions = sibling_solutions(rollouts, row, settings, correct=False)
        for solution, negative in zip(solutions, negatives, strict=False):
            text = fill(settings.templates_of(rollouts.problems[row]).given_solution, solution=solution)
            negative.texts.put(row, "wrong_peers", "ok", text)
    return negatives


def wrong_answers(
    settings: ContextSettings, rollouts: Rollouts, positive: PrivilegedTexts, count: int
) -> list[NegativeContext]:
    """Returns for every row that has a text up to `count` different answers of its group's failures, the worst first.

    The row's own is one of them. A failure on the way to the gold answer has no wrong answer.
    """
    rows, group = len(rollouts.text), settings.group
    negatives = [NegativeContext(PrivilegedTexts.none(rows), list(range(rows))) for _ in range(count)]
    for row in positive.usable():
        first, problem = row - row % group, rollouts.problems[row]
        failures = [verdict for verdict in rollouts.verdicts[first : first + group] if not verdict.correct]
        answers = dict.fromkeys(verdict.parsed for verdict in sorted(failures, key=lambda verdict: verdict.reward))
        wrong = (answer for answer in answers if answer not in (None, problem.answer))
        for answer, negative in zip(wrong, negatives, strict=False):
            text = fill(settings.templates_of(problem).given_answer, answer=answer)
            negative.texts.put(row, "wrong_answers", "ok", text)
    return negatives


def other_prompts(
    settings: ContextSettings, rollouts: Rollouts, positive: PrivilegedTexts, count: int
) -> list[NegativeContext]:
    """Returns each row's text with the questions of the next `count` groups."""
    rows, group = len(rollouts.text), settings.group
    negatives = []
    for ahead in range(1, count + 1):
        texts = PrivilegedTexts.none(rows)
        if ahead < rows // group:
            for row in positive.usable():
                texts.put(row, "other_prompts", "ok", positive.text[row])
        negatives.append(NegativeContext(texts, [(row + ahead * group) % rows for row in range(rows)]))
    return negatives


NEGATIVES: dict[str, Callable[..., list[NegativeContext]]] = {
    "wrong_peers": wrong_peers,
    "wrong_answers": wrong_answers,
    "other_prompts": other_prompts,
}
