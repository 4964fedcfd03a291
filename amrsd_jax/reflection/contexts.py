"""The teacher's context: a text for every row that needs one, from the source that the method names, made into a prompt."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from amrsd_jax.policy.tokenizer import Tokenizer
from amrsd_jax.records import Contexts, Rollouts
from amrsd_jax.reflection.fit import check_tail, fit
from amrsd_jax.reflection.prompts import Templates
from amrsd_jax.reflection.sources import NEGATIVES, Views, view
from amrsd_jax.reflection.thinking import opens_thinking
from amrsd_jax.sampling import Completion, Request
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.verify import pad

Sampler = Callable[[Iterable[Request]], Iterator[Completion]]


@dataclasses.dataclass(frozen=True)
class Writers:
    """Who can be asked to write a context: the policy itself, and a frozen critic."""

    policy: Sampler
    critic: Sampler | None = None


@dataclasses.dataclass(frozen=True)
class ContextMaker:
    """How teacher contexts are made: from which source, with which texts, in how many tokens.

    Attributes:
      source: names of `sources.SOURCES`, see there.
      negatives, count: name of `sources.NEGATIVES` ("" for rules without a contrast), and how many a row (K).
      task: for the sources that ask it.
      tokenizer, texts: how prompts are made.
      template, asking: arguments of the chat template, for the teacher and for those who are asked to write.
      group: G.
      prompt_length, context_length: longest prompt that asks for a reflection, longest teacher prompt (R).
      temperature: at which reflections are sampled.
      peers, reference: whether a correct sibling, or the reference solution, may be shown to the reflecting policy.
    """

    source: str
    negatives: str
    count: int
    task: Task
    tokenizer: Tokenizer
    texts: Templates
    template: dict
    asking: dict
    group: int
    prompt_length: int
    context_length: int
    temperature: float
    peers: bool
    reference: bool

    @functools.cached_property
    def opened(self) -> bool:
        """Whether responses begin inside a thought."""
        return opens_thinking(self.tokenizer, **self.template)

    def __call__(self, rollouts: Rollouts, needed: Bool[np.ndarray, " N"], writers: Writers) -> Contexts:
        """Contexts for the rows that need one.

        Args:
          rollouts: N verified rows.
          needed: which of them, as the credit rule declares.
          writers: who is asked; sources that have their texts already ask nobody.
        """
        views = view(self.source, self, rollouts, needed, writers)
        contexts = self._contexts(rollouts, views, range(len(views.status)))
        if self.negatives:
            negatives = NEGATIVES[self.negatives](self, rollouts, views, self.count)
            negatives = tuple(self._contexts(rollouts, *negative) for negative in negatives)
            contexts = dataclasses.replace(contexts, negatives=negatives)
        return contexts

    def _contexts(self, rollouts: Rollouts, views: Views, asked: Sequence[int]) -> Contexts:
        """Views as prompts; row r is asked the question of row asked[r]."""
        prompts: dict[int, list[int]] = {}
        for row, status in enumerate(views.status):
            if status == "ok":
                prompt = self._prompt(rollouts.problems[asked[row]].question, views.text[row])
                if prompt is None:
                    views.status[row] = "no_room"
                else:
                    prompts[row] = prompt
        rows = np.array(sorted(prompts), np.int64)
        return Contexts(
            kind=tuple(views.kind),
            status=tuple(views.status),
            text=tuple(views.text),
            rows=rows,
            context=pad([prompts[row] for row in rows], self.context_length, np.int32),
            context_length=np.array([len(prompts[row]) for row in rows], np.int32),
        )

    def _prompt(self, question: str, text: str) -> list[int] | None:
        """The teacher's prompt: the question with the text in it, its closing instruction checked to be there."""

        def build(shown):
            return self.texts.reread(question, shown)

        ids = fit(self.tokenizer, build, text, self.context_length, **self.template)
        if ids is not None:
            check_tail(self.tokenizer, build, ids, **self.template)
        return ids
