"""Score: the same responses under student and teacher, for the rows that have a teacher context."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Bool, Float, Integer

from amrsd_jax import lengths, processes
from amrsd_jax.policy import Params, Policy
from amrsd_jax.records import Contexts, Rollouts, Scores
from amrsd_jax.scoring.logprobs import Model, token_logprobs

_scorer = jax.jit(token_logprobs, static_argnames=("policy", "temperature", "chunk", "width"))


def score_rows(
    policy: Model,
    params: Params,
    prompt: Integer[np.ndarray, "M P"],
    prompt_length: Integer[np.ndarray, " M"],
    response: Integer[np.ndarray, "M T"],
    mask: Float[np.ndarray, "M T"],
    *,
    rows: int,
    temperature: float,
    chunk: int,
    sharding: NamedSharding,
) -> tuple[Float[np.ndarray, "M T"], Float[np.ndarray, "M T"]]:
    """Log-probabilities and entropies of any number of rows, zeros where `mask` is 0.

    Rows are as wide as the bucket of their length, and `rows` of one width are scored at a time: a shape is compiled for
    every width, the last piece of a width is padded. What a row gets depends on nothing but that row.
    """
    logp, entropy = np.zeros((2, *response.shape), np.float32)
    widths = lengths.buckets(prompt_length + lengths.reach(mask), prompt.shape[1] + response.shape[1])
    pending = []
    for chosen in _alike(widths, rows):
        width = int(widths[chosen[0]])
        full = np.pad(chosen, (0, rows - len(chosen)), mode="edge")
        piece = processes.put((prompt[full, :width], prompt_length[full], response[full, :width]), sharding)
        result = _scorer(policy, params, *piece, temperature=temperature, chunk=chunk, width=width)
        pending.append((chosen, width, result))
    for chosen, width, result in pending:
        for whole, part in zip((logp, entropy), processes.fetch(result), strict=True):
            whole[chosen, :width] = part[: len(chosen)] * mask[chosen, :width]
    return logp, entropy


def _alike(widths: Integer[np.ndarray, " M"], rows: int) -> Iterator[Integer[np.ndarray, " m"]]:
    """Indices of rows of one width, at most `rows` at a time; the widest come first."""
    for width in np.unique(widths)[::-1]:
        same = np.flatnonzero(widths == width)
        yield from (same[start : start + rows] for start in range(0, len(same), rows))


def score(
    policy: Policy,
    student: Params,
    teacher: tuple[Model, Params] | None,
    rollouts: Rollouts,
    contexts: Contexts,
    own: tuple[Float[np.ndarray, "N T"], Float[np.ndarray, "N T"]] | None = None,
    **how,
) -> Scores:
    """Student and teacher log-probabilities of the rows with a teacher context; the other rows hold equal zeros (no gap).

    All passes are given the same response array, so the tokens they score are the same by construction. Where student and
    teacher are one model with one set of parameters, their rows share pieces.

    Args:
      policy, student: the model that is trained and its parameters.
      teacher: model and parameters of the teacher; None scores nothing.
      own: the student's log-probabilities and entropies of all rows, where they are known already.
      **how: rows, temperature, chunk, sharding of `score_rows`.
    """
    chosen = contexts.rows if teacher else []
    scores = Scores(
        *np.zeros((4, *rollouts.response.shape), np.float32), np.zeros(len(rollouts.text), bool),
        *no_negatives(rollouts, len(contexts.negatives)),
    )  # fmt: skip
    if len(chosen):
        prompts = dict(context=rollouts.prompt[chosen], context_length=rollouts.prompt_length[chosen])
        question = dataclasses.replace(contexts, **prompts)  # the student's view: nothing beside it
        views = [contexts, *contexts.negatives]
        if own is None and teacher[0] == policy and teacher[1] is student:
            own, *found = reread(teacher, rollouts, question, *views, **how)
        else:
            own = own or reread((policy, student), rollouts, question, **how)[0]
            found = reread(teacher, rollouts, *views, **how)
        scores.logp_student[chosen], scores.entropy[chosen] = (values[chosen] for values in own)
        scores.logp_teacher[:], scores.entropy_teacher[:] = found[0]
        scores.scored[chosen] = True
        for k, view in enumerate(contexts.negatives):
            scores.logp_negative[k] = found[1 + k][0]
            scores.has_negative[k, view.rows] = True
    return scores


def reread(
    model: tuple[Model, Params], rollouts: Rollouts, *views: Contexts, **how
) -> list[tuple[Float[np.ndarray, "N T"], Float[np.ndarray, "N T"]]]:
    """For each view, a model's log-probabilities and entropies of the rows that have a context in it; zeros elsewhere."""
    width = max(view.context.shape[1] for view in views)
    context = [np.pad(view.context, ((0, 0), (0, width - view.context.shape[1]))) for view in views]
    rows = np.concatenate([view.rows for view in views])
    seen = np.concatenate(context), np.concatenate([view.context_length for view in views])
    values = score_rows(*model, *seen, rollouts.response[rows], rollouts.mask[rows], **how)
    found, end = [], 0
    for view in views:
        start, end = end, end + len(view.rows)
        whole = np.zeros((2, *rollouts.response.shape), np.float32)
        whole[:, view.rows] = [part[start:end] for part in values]
        found.append(tuple(whole))
    return found


def no_negatives(rollouts: Rollouts, count: int) -> tuple[Float[np.ndarray, "K N T"], Bool[np.ndarray, "K N"]]:
    """`logp_negative` and `has_negative` of `count` negative contexts that nobody has read."""
    shape = (count, *rollouts.response.shape)
    return np.zeros(shape, np.float32), np.zeros(shape[:2], bool)
