"""Scores the same responses under student and teacher, for the rows that have a teacher context."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float, Integer

from amrsd_jax import lengths, processes
from amrsd_jax.config import ScoringConfig
from amrsd_jax.policy import Params
from amrsd_jax.records import Contexts, LogProbs, Rollouts
from amrsd_jax.scoring.chunks import Model
from amrsd_jax.scoring.logprobs import token_logprobs

score_program = jax.jit(token_logprobs, static_argnames=("policy", "temperature", "chunk", "width"))

Scores = tuple[Float[np.ndarray, "N T"], Float[np.ndarray, "N T"]]  # log-probabilities, entropies (nats)


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores responses under any model.

    Attributes:
      config: number of rows scored together, and of a device's tokens whose logits exist at one time.
      temperature: the temperature at which the responses were sampled.
      sharding: sharding of the row axis.
    """

    config: ScoringConfig
    temperature: float
    sharding: NamedSharding

    def score_rows(
        self,
        model: Model,
        params: Params,
        prompt: Integer[np.ndarray, "M P"],
        prompt_length: Integer[np.ndarray, " M"],
        response: Integer[np.ndarray, "M T"],
        mask: Float[np.ndarray, "M T"],
    ) -> Scores:
        """Returns log-probabilities and entropies of any number of rows, zeros where `mask` is 0.

        Rows are padded to the bucket of their length, and rows of one width are scored together: a program is compiled for
        every width, and the last part of a width is filled up with copies of its last row. A row's result depends on that row
        alone.
        """
        rows = self.config.rows
        logprobs, entropy = np.zeros((2, *response.shape), np.float32)
        widths = lengths.buckets(prompt_length + lengths.mask_lengths(mask), prompt.shape[1] + response.shape[1])
        pending = []
        for chosen in rows_of_one_width(widths, rows):
            width = int(widths[chosen[0]])
            full = np.pad(chosen, (0, rows - len(chosen)), mode="edge")
            part = processes.put((prompt[full, :width], prompt_length[full], response[full, :width]), self.sharding)
            static = dict(temperature=self.temperature, chunk=self.config.chunk, width=width)
            pending.append((chosen, width, score_program(model, params, *part, **static)))
        for chosen, width, result in pending:
            for whole, part in zip((logprobs, entropy), processes.fetch(result), strict=True):
                whole[chosen, :width] = part[: len(chosen)] * mask[chosen, :width]
        return logprobs, entropy

    def score_rollouts(self, model: Model, params: Params, rollouts: Rollouts) -> Scores:
        """Returns log-probabilities and entropies of all responses, given their own prompts."""
        return self.score_rows(model, params, rollouts.prompt, rollouts.prompt_length, rollouts.response, rollouts.mask)

    def score_contexts(
        self, model: Model, params: Params, rollouts: Rollouts, contexts: Sequence[Contexts]
    ) -> list[Scores]:
        """Returns, for each of the contexts, the scores of the rows that have a prompt in it; zeros for other rows."""
        width = max(one.prompt.shape[1] for one in contexts)
        prompts = np.concatenate([np.pad(one.prompt, ((0, 0), (0, width - one.prompt.shape[1]))) for one in contexts])
        prompt_length = np.concatenate([one.prompt_length for one in contexts])
        rows = np.concatenate([one.rows for one in contexts])
        values = self.score_rows(model, params, prompts, prompt_length, rollouts.response[rows], rollouts.mask[rows])
        scores, end = [], 0
        for one in contexts:
            start, end = end, end + len(one.rows)
            whole = np.zeros((2, *rollouts.response.shape), np.float32)
            whole[:, one.rows] = [part[start:end] for part in values]
            scores.append(tuple(whole))
        return scores


def rows_of_one_width(widths: Integer[np.ndarray, " M"], rows: int) -> Iterator[Integer[np.ndarray, " m"]]:
    """Yields indices of rows of one width, at most `rows` at a time; the widest come first."""
    for width in np.unique(widths)[::-1]:
        same = np.flatnonzero(widths == width)
        yield from (same[start : start + rows] for start in range(0, len(same), rows))


def score(
    scorer: Scorer,
    student: tuple[Model, Params],
    teacher: tuple[Model, Params] | None,
    rollouts: Rollouts,
    contexts: Contexts,
    student_scores: Scores | None = None,
) -> LogProbs:
    """Returns student and teacher log-probabilities of the rows with a teacher context; other rows have a gap of 0.

    All passes read the same response array, so they score the same tokens by construction. Where student and teacher are one
    model with the same parameters, their rows are scored together.

    Args:
      student, teacher: model and parameters; without a teacher no context is scored.
      student_scores: the student's scores of all rows, where they are known.
    """
    rows, all_contexts = contexts.rows, [contexts, *contexts.negatives]
    if teacher is None or not len(rows):
        return combine_scores(rollouts, contexts, student_scores, [])
    if student_scores is None:
        no_context = dataclasses.replace(
            contexts, prompt=rollouts.prompt[rows], prompt_length=rollouts.prompt_length[rows], negatives=()
        )
        if teacher[0] == student[0] and teacher[1] is student[1]:
            together = scorer.score_contexts(*teacher, rollouts, [no_context, *all_contexts])
            return combine_scores(rollouts, contexts, together[0], together[1:])
        (student_scores,) = scorer.score_contexts(*student, rollouts, [no_context])
    return combine_scores(rollouts, contexts, student_scores, scorer.score_contexts(*teacher, rollouts, all_contexts))


def null_gap(
    scorer: Scorer, teacher: tuple[Model, Params], rollouts: Rollouts, null: Contexts, logprobs: LogProbs
) -> Float[np.ndarray, "N T"]:
    """Returns the gap l_T - l_S that the teacher's prompt makes without a text, on rows that were scored with one; else 0.

    Args:
      null: contexts without a text, of those rows.
      logprobs: with the student's log-probabilities.
    """
    ((without_text, _),) = scorer.score_contexts(*teacher, rollouts, [null])
    rows = np.zeros((len(rollouts.mask), 1), bool)
    rows[null.rows] = True
    return np.where(rows & logprobs.scored[:, None], without_text - logprobs.student_logprobs, np.float32(0))


def combine_scores(
    rollouts: Rollouts, contexts: Contexts, student: Scores | None, teacher: Sequence[Scores]
) -> LogProbs:
    """Returns the record of scores, in which rows without a teacher pass have a gap of 0.

    Args:
      student: scores of all rows, or of those with a context and zeros elsewhere; None where no row was scored.
      teacher: scores given `contexts` and each of its negatives; empty without a teacher pass.
    """
    zeros, count = np.zeros_like(rollouts.mask), len(contexts.negatives)
    student_logprobs, student_entropy = student or (zeros, zeros)
    teacher_logprobs, teacher_entropy = student_logprobs, zeros
    scored = np.zeros(len(zeros), bool)
    negative_logprobs = np.zeros((count, *zeros.shape), np.float32)
    has_negative = np.zeros((count, len(zeros)), bool)
    if teacher:
        scored[contexts.rows] = True
        teacher_logprobs = np.where(scored[:, None], teacher[0][0], student_logprobs)
        teacher_entropy = np.where(scored[:, None], teacher[0][1], zeros)
        for k, (one, (logprobs, _)) in enumerate(zip(contexts.negatives, teacher[1:], strict=True)):
            negative_logprobs[k, one.rows], has_negative[k, one.rows] = logprobs[one.rows], True
    return LogProbs(
        student_logprobs, teacher_logprobs, student_entropy, teacher_entropy, scored, negative_logprobs, has_negative
    )
