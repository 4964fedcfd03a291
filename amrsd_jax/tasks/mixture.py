"""Several data sets as one task: the prompts of every step are of each set in its share, and judged by the set's own verifier."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Integer

from amrsd_jax.problems import Problem, Verdict
from amrsd_jax.tasks.base import Task

_LEAST = 1024  # draws whose order is computed together; then twice as many, and so on


@dataclasses.dataclass(frozen=True)
class Mixture(Task):
    """The tasks of a mixture by the names of their sets, and the share of each.

    A problem's `data_set` is the name of its set, which its id begins with. Splits other than "train" go on with the other sets
    where one ends. Spans and scores are those of all sets; where a row's set lacks one, it is absent, as in `Rollouts.extras`.
    """

    tasks: Mapping[str, Task]
    shares: Mapping[str, float]
    family: str = "mixture"

    def problem(self, split: str, index: int) -> Problem:
        sizes = tuple(None if split == "train" else self._size(name, split) for name in self.tasks)
        shares = tuple(self.shares[name] for name in self.tasks)
        places, numbers = order(shares, sizes, max(_LEAST, 1 << index.bit_length()))
        name = list(self.tasks)[places[index]]
        return label(name, self.tasks[name].problem(split, int(numbers[index])))

    def size(self, split: str) -> int | None:
        sizes = [self._size(name, split) for name in self.tasks]
        return None if None in sizes else sum(sizes)

    def _size(self, name: str, split: str) -> int | None:
        size = self.tasks[name].size(split)
        return 0 if size is None and split == "validation" else size  # tasks that generate problems have no such split

    @property
    def spans(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for task in self.tasks.values() for name in task.spans))

    @property
    def scores(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for task in self.tasks.values() for name in task.scores))

    def family_of(self, problem: Problem) -> str:
        return self.tasks[problem.data_set].family

    def verify(self, problem: Problem, response: str) -> Verdict:
        return self.tasks[problem.data_set].verify(problem, response)

    def states_answer(self, problem: Problem, text: str) -> bool:
        return self.tasks[problem.data_set].states_answer(problem, text)

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        return self.tasks[problem.data_set].first_error(problem, response)

    def write_reflection(self, problem: Problem, response: str, generator: np.random.Generator) -> str | None:
        return self.tasks[problem.data_set].write_reflection(problem, response, generator)


def members(task: Task) -> dict[str, Task]:
    """Returns the tasks of a mixture by the names of their sets; any other task under the name ""."""
    return dict(task.tasks) if isinstance(task, Mixture) else {"": task}


def label(data_set: str, problem: Problem) -> Problem:
    """Returns a problem of a set's own task as a problem of the mixture; with the name "" as it is."""
    return dataclasses.replace(problem, id=f"{data_set}/{problem.id}", data_set=data_set) if data_set else problem


@functools.lru_cache(maxsize=8)
def order(
    shares: tuple[float, ...], sizes: tuple[int | None, ...], length: int
) -> tuple[Integer[np.ndarray, " L"], Integer[np.ndarray, " L"]]:
    """Returns the first `length` draws from sets: the place of the set of each, and its number among the draws from that set.

    Draw j of a set with share p is due at (j + 1/2) / p, and a tie is the earlier set's. So any draws in a row have each set in
    its share, up to about one draw, and the order does not depend on `length`.

    Args:
      shares: of each set, relative to their sum.
      sizes: draws that each set has; None for any number. All together may be less than `length`.
    """
    counts = [length if size is None else min(size, length) for size in sizes]
    places = np.repeat(np.arange(len(shares)), counts)
    numbers = np.concatenate([np.arange(count) for count in counts])
    due = (numbers + 0.5) / np.array(shares)[places]
    first = np.lexsort((places, due))[:length]
    return places[first], numbers[first]
