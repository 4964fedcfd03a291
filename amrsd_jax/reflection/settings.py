"""The settings of contexts."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from amrsd_jax.config import ReflectionConfig
from amrsd_jax.policy.tokenizer import Tokenizer
from amrsd_jax.problems import Problem
from amrsd_jax.reflection.prompts import Templates
from amrsd_jax.reflection.thinking import opens_thinking
from amrsd_jax.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class ContextSettings:
    """How reflections and teacher prompts are made.

    Attributes:
      config: lengths, temperature, and whether the policy sees a peer or the reference when it reflects.
      task: for sources that read the task's own knowledge.
      tokenizer: encodes prompts.
      templates: how prompts are made, by `Problem.data_set`.
      chat_template, reflection_chat_template: arguments of the chat template, for teacher prompts and for prompts that ask for
        a reflection.
      group: G.
    """

    config: ReflectionConfig
    task: Task
    tokenizer: Tokenizer
    templates: Mapping[str, Templates]
    chat_template: dict[str, Any]
    reflection_chat_template: dict[str, Any]
    group: int

    def templates_of(self, problem: Problem) -> Templates:
        """Returns the templates of a problem's prompts."""
        return self.templates[problem.data_set]

    @functools.cached_property
    def responses_open_thinking(self) -> bool:
        """Whether responses begin inside a thought."""
        return opens_thinking(self.tokenizer, **self.chat_template)

    @functools.cached_property
    def reflections_open_thinking(self) -> bool:
        """Whether reflections begin inside a thought."""
        return opens_thinking(self.tokenizer, **self.reflection_chat_template)
