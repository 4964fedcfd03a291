"""Score: the same responses under student and teacher, for the rows that have a teacher context."""

import functools

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Bool, Float, Integer

from amrsd_jax import processes
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
        pending.append((start, score(policy, params, *processes.put(piece, sharding))))
    for start, result in pending:
        stop = min(start + rows, len(response))
        for whole, part in zip((logp, entropy), processes.fetch(result), strict=True):
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
    chosen = contexts.rows if teacher else []
    scores = Scores(
        *np.zeros((4, *rollouts.response.shape), np.float32), np.zeros(len(rollouts.text), bool),
        *no_negatives(rollouts, len(contexts.negatives)),
    )  # fmt: skip
    if len(chosen):
        rows = (rollouts.prompt[chosen], rollouts.prompt_length[chosen], rollouts.response[chosen])
        logp, entropy = score_rows(policy, student, *rows, **how)
        mask = rollouts.mask[chosen]
        scores.logp_student[chosen], scores.entropy[chosen] = logp * mask, entropy * mask
        scores.logp_teacher[:], scores.entropy_teacher[:] = reread(teacher, rollouts, contexts, **how)
        scores.scored[chosen] = True
        for k, view in enumerate(contexts.negatives):
            scores.logp_negative[k] = reread(teacher, rollouts, view, **how)[0]
            scores.has_negative[k, view.rows] = True
    return scores


def reread(
    teacher: tuple[Model, Params], rollouts: Rollouts, contexts: Contexts, **how
) -> tuple[Float[np.ndarray, "N T"], Float[np.ndarray, "N T"]]:
    """The teacher's log-probabilities and entropies of the rows with a context; zeros elsewhere."""
    logp, entropy = np.zeros((2, *rollouts.response.shape), np.float32)
    rows = contexts.rows
    if len(rows):
        seen = (contexts.context, contexts.context_length, rollouts.response[rows])
        logp[rows], entropy[rows] = (a * rollouts.mask[rows] for a in score_rows(*teacher, *seen, **how))
    return logp, entropy


def no_negatives(rollouts: Rollouts, count: int) -> tuple[Float[np.ndarray, "K N T"], Bool[np.ndarray, "K N"]]:
    """`logp_negative` and `has_negative` of `count` negative contexts that nobody has read."""
    shape = (count, *rollouts.response.shape)
    return np.zeros(shape, np.float32), np.zeros(shape[:2], bool)
