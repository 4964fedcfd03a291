"""Score: the same responses under student and teacher, for the rows that have a teacher context."""

import functools

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float, Integer

from amrsd_jax.policy import Params, Policy
from amrsd_jax.records import Contexts, Rollouts, Scores
from amrsd_jax.scoring.logprobs import Model, token_logprobs

_scorer = jax.jit(token_logprobs, static_argnames=("policy", "temperature", "chunk"))


def score_rows(
    policy: Model,
    params: Params,
    prompt: Integer[np.ndarray, "M P"],
    prompt_length: Integer[np.ndarray, " M"],
    response: Integer[np.ndarray, "M T"],
    *,
    rows: int,
    temperature: float,
    chunk: int,
    sharding: NamedSharding,
) -> tuple[Float[np.ndarray, "M T"], Float[np.ndarray, "M T"]]:
    """Log-probabilities and entropies of any number of rows, `rows` at a time: one shape is compiled, the last is padded."""
    score = functools.partial(_scorer, temperature=temperature, chunk=chunk)
    logp, entropy = np.zeros((2, *response.shape), np.float32)
    pending = []
    for start in range(0, len(response), rows):
        piece = [_fill(a[start : start + rows], rows) for a in (prompt, prompt_length, response)]
        pending.append((start, score(policy, params, *jax.device_put(piece, sharding))))
    for start, result in pending:
        stop = min(start + rows, len(response))
        for whole, part in zip((logp, entropy), jax.device_get(result), strict=True):
            whole[start:stop] = part[: stop - start]
    return logp, entropy


def _fill(a: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row until there are `rows`."""
    return np.concatenate([a, np.repeat(a[-1:], rows - len(a), axis=0)])


def score(
    policy: Policy,
    student: Params,
    teacher: tuple[Model, Params] | None,
    rollouts: Rollouts,
    contexts: Contexts,
    **how,
) -> Scores:
    """Student and teacher log-probabilities of the rows with a teacher context; the other rows hold equal zeros (no gap).

    All passes are given the same response array, so the tokens they score are the same by construction.

    Args:
      policy, student: the model that is trained and its parameters.
      teacher: model and parameters of the teacher; None scores nothing.
      **how: rows, temperature, chunk, sharding of `score_rows`.
    """
    shape, negatives = rollouts.response.shape, len(contexts.negatives)
    scores = Scores(
        *np.zeros((4, *shape), np.float32), np.zeros(shape[0], bool),
        np.zeros((negatives, *shape), np.float32), np.zeros((negatives, shape[0]), bool),
    )  # fmt: skip
    chosen = contexts.rows
    if teacher is None or not len(chosen):
        return scores
    mask = rollouts.mask[chosen]
    plain = (rollouts.prompt[chosen], rollouts.prompt_length[chosen], rollouts.response[chosen])
    logp, entropy = score_rows(policy, student, *plain, **how)
    scores.logp_student[chosen], scores.entropy[chosen] = logp * mask, entropy * mask

    def reread(view: Contexts):
        return score_rows(*teacher, view.context, view.context_length, rollouts.response[view.rows], **how)

    logp, entropy = reread(contexts)
    scores.logp_teacher[chosen], scores.entropy_teacher[chosen] = logp * mask, entropy * mask
    scores.scored[chosen] = True
    for k, view in enumerate(contexts.negatives):
        if len(view.rows):
            scores.logp_negative[k, view.rows] = reread(view)[0] * rollouts.mask[view.rows]
            scores.has_negative[k, view.rows] = True
    return scores
