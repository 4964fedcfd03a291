"""Makes the benchmarks of a config: the test split of its task, the validation split if there is one, and those it names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from amrsd_jax.config import Config, Questions, TaskConfig
from amrsd_jax.reflection.prompts import Templates, task_templates
from amrsd_jax.tasks import registry
from amrsd_jax.tasks.base import Task

OWN_SPLITS = ("test", "validation")  # names of the benchmarks that are splits of the config's own task


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Questions, and the settings with which they are answered.

    Attributes:
      name: one of `OWN_SPLITS`, or the benchmark's name in the config.
      task, split: source of the questions.
      source: name and arguments of the task.
      texts: prompt templates by `Problem.data_set`.
      problems: number of questions, from the first; 0 takes all.
      samples: k, answers sampled per question, besides one greedy answer.
      temperature, top_k, top_p: of the samples.
      every: training steps between evaluations; 0 evaluates only before and after training.
    """

    name: str
    task: Task
    split: str
    source: dict[str, Any]
    texts: Mapping[str, Templates]
    problems: int
    samples: int
    temperature: float
    top_k: int
    top_p: float
    every: int

    @property
    def prefix(self) -> str:
        """Prefix of its metrics in a run's `eval/`: empty for the run's own test split, else the name and a slash."""
        return "" if self.name == "test" else f"{self.name}/"

    def settings(self) -> dict[str, Any]:
        """Returns everything that determines the questions and how they are answered."""
        fields = ("split", "problems", "samples", "temperature", "top_k", "top_p")
        texts = {
            name: {data_set: getattr(own, name) for data_set, own in self.texts.items()} for name in ("system", "solve")
        }
        texts = {name: own.get("", own) for name, own in texts.items()}
        return {"task": self.source} | texts | {name: getattr(self, name) for name in fields}


def benchmarks(config: Config, task: Task) -> tuple[Benchmark, ...]:
    """Makes the benchmarks of a validated config.

    Args:
      config: `config.reflection.templates` replaces prompts of benchmarks whose tasks have the same family as `task`.
      task: the config's own task.

    Raises:
      ValueError, OSError: a benchmark's rows are wrong or missing; names the benchmark.
    """

    def benchmark(name: str, source: TaskConfig, other: Task, split: str, section: Questions) -> Benchmark:
        changes = config.reflection.templates if other.family == task.family else {}
        texts = task_templates(source, changes)
        questions = {field: getattr(section, field) for field in Questions.model_fields}
        return Benchmark(name, other, split, source.model_dump(), texts, **questions)

    splits = OWN_SPLITS if task.size("validation") else OWN_SPLITS[:1]
    members = [benchmark(split, config.task, task, split, config.evaluation) for split in splits]
    for name, section in config.evaluation.benchmarks.items():
        try:
            other = registry.make(section.task.name, section.task.args, config.seed, splits=("test",))
        except (OSError, ValueError) as error:
            raise ValueError(f"evaluation.benchmarks.{name}: {error}") from error
        members.append(benchmark(name, section.task, other, "test", section))
    return tuple(members)
