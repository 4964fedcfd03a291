"""The reflections of one batch, requested once per row and sampled alongside the rollouts or after them."""

from collections.abc import Iterable, Iterator, Sequence

from amrsd_jax.policy.tokenizer import chat_ids
from amrsd_jax.records import Completion, Request, Rollouts
from amrsd_jax.reflection.diagnose import diagnose
from amrsd_jax.reflection.fit import fit
from amrsd_jax.reflection.parse import TAGS
from amrsd_jax.reflection.settings import ContextSettings
from amrsd_jax.sampling import Sampler


class Reflections:
    """The reflections by row. Each row's request is made and sampled at most once.

    Args:
      settings: how prompts are made.
      sampler: samples requests that were not sampled alongside the rollouts.
    """

    def __init__(self, settings: ContextSettings, sampler: Sampler):
        self._settings, self._sampler = settings, sampler
        self._requests: dict[int, Request | None] = {}
        self._completions: dict[int, Completion] = {}

    def requests(self, rollouts: Rollouts, chosen: Iterable[int], rows: Sequence[int]) -> Iterator[Request]:
        """Yields the requests that were not made before.

        Args:
          rollouts: whole groups of the batch.
          chosen: indices into `rollouts`.
          rows: row of the batch by index into `rollouts`.
        """
        for index in chosen:
            row = rows[index]
            if row not in self._requests:
                self._requests[row] = reflection_request(self._settings, rollouts, index, row)
                if self._requests[row] is not None:
                    yield self._requests[row]

    def add(self, completion: Completion) -> None:
        """Stores a reflection."""
        self._completions[completion.request.row] = completion

    def get(self, rollouts: Rollouts, rows: Sequence[int]) -> dict[int, Completion]:
        """Returns the reflections on some rows of the batch, and samples those that are missing.

        A row whose reflection prompt does not fit is left out.
        """
        list(self.requests(rollouts, rows, range(len(rollouts.text))))  # makes those that were not made before
        missing = [self._requests[row] for row in rows if self._requests[row] and row not in self._completions]
        for completion in self._sampler(missing) if missing else ():
            self.add(completion)
        return {row: self._completions[row] for row in rows if row in self._completions}


def reflection_request(settings: ContextSettings, rollouts: Rollouts, index: int, row: int) -> Request | None:
    """Returns the request for a reflection on one rollout; None if its prompt does not fit.

    If the prompt is too long, the peer or reference is left out, then the attempt is cut.

    Args:
      index: index of the rollout in `rollouts`.
      row: row of the rollout in the batch, which keys the reflection's randomness.
    """
    config, verdict, problem = settings.config, rollouts.verdicts[index], rollouts.problems[index]
    diagnosis = diagnose(rollouts, index, settings)

    def messages(attempt, peer=None, reference=None):
        kind = TAGS[verdict.correct]
        return settings.templates_of(problem).reflection_prompt(
            kind, problem.prompt_text, attempt, diagnosis.verdict, peer, reference
        )

    template, tag = settings.reflection_chat_template, []
    if config.open_tag:
        tag = settings.tokenizer.encode(f"<{TAGS[verdict.correct]}>", add_special_tokens=False)
    longest = config.prompt_length - len(tag)
    whole = messages(rollouts.text[index], diagnosis.peer, diagnosis.reference)
    ids = chat_ids(settings.tokenizer, whole, **template)
    if len(ids) > longest:
        ids = fit(settings.tokenizer, messages, rollouts.text[index], longest, **template)
    return None if ids is None else Request(ids + tag, row=row, temperature=config.temperature)
