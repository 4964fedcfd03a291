"""What is evaluated: the task of the config, its validation split if it has one, and the further benchmarks it names."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from amrsd_jax import tasks
from amrsd_jax.config import ASKED
from amrsd_jax.reflection.prompts import Templates, templates

OWN = ("test", "validation")  # names of the benchmarks that are splits of the config's own task


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Questions, and how they are asked.

    Attributes:
      name: one of `OWN`, or as the config has it.
      task, split: where the questions are; `source` is the task's name and arguments.
      texts: the prompts of the task's family.
      problems: how many, from the first; 0 for all.
      samples: k, answers drawn for each at temperature, top_k, top_p. Beside them one greedy answer.
      every: steps of training between two evaluations; 0 only before and after.
    """

    name: str
    task: tasks.Task
    split: str
    source: dict[str, Any]
    texts: Templates
    problems: int
    samples: int
    temperature: float
    top_k: int
    top_p: float
    every: int

    @property
    def prefix(self) -> str:
        """What stands before its metrics' names in a run's `eval/`: nothing for the run's own test split."""
        return "" if self.name == "test" else f"{self.name}/"

    def settings(self) -> dict[str, Any]:
        """Everything that decides what is asked and how."""
        chosen = ("split", "problems", "samples", "temperature", "top_k", "top_p")
        texts = {"system": self.texts.system, "solve": self.texts.solve}
        return {"task": self.source} | texts | {name: getattr(self, name) for name in chosen}


def benchmarks(config: ConfigDict, task: tasks.Task) -> tuple[Benchmark, ...]:
    """The benchmarks of a resolved config; `task` is its own. The prompts it replaces are those of its task's family.

    Raises:
      ValueError, OSError: naming the benchmark, for what is wrong with its rows.
    """
    changes = dict(config.reflection.templates)

    def benchmark(name: str, of: tasks.Task, split: str, source: ConfigDict, asked: ConfigDict) -> Benchmark:
        texts = templates(of.family, **(changes if of.family == task.family else {}))
        return Benchmark(name, of, split, source.to_dict(), texts, **{field: asked[field] for field in ASKED})

    splits = OWN if task.size("validation") else OWN[:1]
    found = [benchmark(split, task, split, config.task, config.evaluation) for split in splits]
    for name, section in config.evaluation.benchmarks.items():
        try:
            other = tasks.make(section.task.name, dict(section.task.args), config.seed, splits=("test",))
        except (OSError, ValueError) as error:
            raise ValueError(f"evaluation.benchmarks.{name}: {error}") from error
        found.append(benchmark(name, other, "test", section.task, section))
    return tuple(found)
