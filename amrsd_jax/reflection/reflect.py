"""Reflect: the policy writes a hint on a success or a critique of a failure; usable ones become teacher contexts."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool
from transformers import PreTrainedTokenizerBase

from amrsd_jax.policy.tokenizer import chat_ids
from amrsd_jax.records import Reflections, Rollouts
from amrsd_jax.reflection.diagnose import diagnose
from amrsd_jax.reflection.fit import check_tail, fit
from amrsd_jax.reflection.parse import TAGS, parse
from amrsd_jax.reflection.prompts import Templates
from amrsd_jax.sampling import Completion, Request
from amrsd_jax.tasks.verify import pad


@dataclasses.dataclass(frozen=True)
class Reflector:
    """How reflections are asked for and used: texts, budgets in tokens, and what may be shown.

    Attributes:
      tokenizer, texts, template: how prompts are made; `template` goes to the chat template.
      group: G.
      prompt_length, context_length: longest prompt that asks for a reflection, longest teacher prompt (R).
      temperature: at which reflections are sampled.
      peers, reference: whether a correct sibling, or the reference solution, may be shown.
    """

    tokenizer: PreTrainedTokenizerBase
    texts: Templates
    template: dict
    group: int
    prompt_length: int
    context_length: int
    temperature: float
    peers: bool
    reference: bool

    def __call__(
        self,
        rollouts: Rollouts,
        needed: Bool[np.ndarray, " N"],
        sample: Callable[[Iterable[Request]], Iterator[Completion]],
    ) -> Reflections:
        """Reflections for the rows that need one.

        Args:
          rollouts: N verified rows.
          needed: which of them, as the credit rule declares.
          sample: the sampler, requests in, completions out.
        """
        count = len(rollouts.text)
        kind, status, text = [""] * count, ["not_needed"] * count, [""] * count
        contexts: dict[int, Sequence[int]] = {}

        def requests():
            for row in np.flatnonzero(needed).tolist():
                kind[row] = TAGS[rollouts.verdicts[row].correct]
                prompt = self._prompt(rollouts, row, kind[row])
                if prompt is None:
                    status[row] = "no_room"
                else:
                    yield Request(prompt, row=row, temperature=self.temperature, tag=row)

        for completion in sample(requests()):
            row = completion.request.tag
            written = self.tokenizer.decode(completion.tokens, skip_special_tokens=True)
            finished = completion.finish_reason == "stop"
            text[row], status[row] = parse(written, kind[row], rollouts.problems[row].answer, finished=finished)
            if status[row] == "ok":
                context = self._context(rollouts.problems[row].question, text[row])
                if context is None:
                    status[row] = "no_room"
                else:
                    contexts[row] = context

        rows = np.array(sorted(contexts), np.int64)
        return Reflections(
            kind=tuple(kind),
            status=tuple(status),
            text=tuple(text),
            rows=rows,
            context=pad([contexts[row] for row in rows], self.context_length, np.int32),
            context_length=np.array([len(contexts[row]) for row in rows], np.int32),
        )

    def _prompt(self, rollouts: Rollouts, row: int, kind: str) -> list[int] | None:
        """The prompt that asks for a reflection. If it is too long, the peer or reference is left out, then the attempt cut."""
        seen = diagnose(rollouts, row, self.group, peers=self.peers, reference=self.reference)

        def build(attempt, peer=None, reference=None):
            question = rollouts.problems[row].question
            return self.texts.reflect(kind, question, attempt, seen.verdict, peer, reference)

        whole = build(rollouts.text[row], seen.peer, seen.reference)
        ids = chat_ids(self.tokenizer, whole, **self.template)
        if len(ids) <= self.prompt_length:
            return ids
        return fit(self.tokenizer, build, rollouts.text[row], self.prompt_length, **self.template)

    def _context(self, question: str, reflection: str) -> list[int] | None:
        """The teacher's prompt: the question with the reflection in view, its closing instruction checked to be there."""

        def build(text):
            return self.texts.reread(question, text)

        ids = fit(self.tokenizer, build, reflection, self.context_length, **self.template)
        if ids is not None:
            check_tail(self.tokenizer, build, ids, **self.template)
        return ids
