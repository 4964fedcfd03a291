"""A ladder of tasks for small pretrained models: each rung is a family of exercises that is a little harder than others."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from amrsd_jax import rng
from amrsd_jax.names import nearest
from amrsd_jax.problems import Problem, Verdict
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.ladder.comparison import Comparison
from amrsd_jax.tasks.ladder.letters import Count, Letter
from amrsd_jax.tasks.ladder.rung import Review, Rung
from amrsd_jax.tasks.ladder.sorting import Sorting
from amrsd_jax.tasks.ladder.stories import Stories, Units
from amrsd_jax.tasks.ladder.sums import Steps, Sums, TwoDigits
from amrsd_jax.tasks.rows import held_out
from amrsd_jax.tasks.thoughts import reply_span

RUNGS: dict[str, Rung] = {
    "sums": Sums(),
    "two_digits": TwoDigits(),
    "largest": Comparison(),
    "stories": Stories(),
    "units": Units(),
    "count": Count(),
    "letter": Letter(),
    "sorting": Sorting(),
    "steps": Steps(),
}
TAIL = 1_000  # characters at the end of a response that are read, our choice
HELD_OUT = 0.25  # share of the contents of a rung that are test problems, our choice


@dataclasses.dataclass(frozen=True)
class Ladder(Task):
    """Problems of one rung, or of several in equal shares. They never run out, but those of a small rung repeat.

    A quarter of what can be asked is held out by its content, e.g. by the unordered numbers of a sum, so that no test problem is
    a training problem in other words. The hash that decides does not depend on the seed.

    Attributes:
      rung: names of `RUNGS`, joined by commas.
      seed: seed of the problems.
      family: see `Task`.
    """

    spans: ClassVar[tuple[str, ...]] = ("answer",)

    rung: str = "sums"
    seed: int = 0
    family: str = "ladder"

    def __post_init__(self):
        for name in self.names:
            if name not in RUNGS:
                raise ValueError(f"task.args.rung = {self.rung!r}: {name!r}: {nearest(name, RUNGS)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rungs."""
        return tuple(name.strip() for name in self.rung.split(","))

    def problem(self, split: str, index: int) -> Problem:
        generator = rng.host(self.seed, f"ladder/{split}", index)
        name = self.names[index % len(self.names)]
        rung = RUNGS[name]
        while True:
            exercise = rung.draw(generator)
            if held_out(f"{name}: {exercise.content}", HELD_OUT) == (split == "test"):
                question = f"{exercise.question} {rung.instruction}"
                facts = {"rung": name, "content": exercise.content} | exercise.facts
                return Problem(f"{name}-{split}-{index}", question, exercise.answer, exercise.reference, facts)

    def size(self, split: str) -> int | None:
        return None

    def verify(self, problem: Problem, response: str) -> Verdict:
        found = review(problem, response)
        spans = {"answer": found.span} if found.span else {}
        message = self._quiet(problem, found.fault.messages) if found.fault else "correct"
        return Verdict(float(found.fault is None), message, found.parsed, found.parsed is not None, spans=spans)

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        fault = review(problem, response).fault
        return fault and fault.span

    def states_answer(self, problem: Problem, text: str) -> bool:
        return rung_of(problem).states_answer(problem, text)

    def write_reflection(self, problem: Problem, response: str, generator: np.random.Generator) -> str | None:
        fault = review(problem, response).fault
        *wordings, last = fault.critiques if fault else rung_of(problem).hints(problem, response)[0]
        order = generator.permutation(len(wordings))
        return self._quiet(problem, [*(wordings[i] for i in order), last])

    def _quiet(self, problem: Problem, texts: Sequence[str]) -> str:
        """Returns the first text that does not state the answer; the last one never does."""
        return next((text for text in texts if not self.states_answer(problem, text)), texts[-1])


def rung_of(problem: Problem) -> Rung:
    """Returns the rung of a problem."""
    return RUNGS[problem.row["rung"]]


def review(problem: Problem, response: str) -> Review:
    """Returns what the problem's rung finds in a response without its thoughts; of a long one its end is read."""
    start, end = reply_span(response)
    start = max(start, end - TAIL)
    return rung_of(problem).review(problem, response[start:end]).moved(start)
