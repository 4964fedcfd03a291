"""What flows between the phases: one frozen record of arrays per arrow. Reading this file gives the whole data flow.

B prompts per step, G rollouts per prompt, N = B*G rows (group by group); P, R, T padded lengths of prompt, teacher
context and response. Rows are right-padded. Host records hold NumPy arrays and text, device records are pytrees.
"""

import dataclasses

import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Integer, PyTree

from amrsd_jax.tasks.base import Problem, Verdict

# ---------------------------------------------------------------- host


@dataclasses.dataclass(frozen=True)
class Prompts:
    """B problems and their prompts as token ids."""

    problems: tuple[Problem, ...]
    tokens: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N sampled and verified responses.

    Attributes:
      problems, text, verdicts, finish_reason: one per row; finish_reason is "stop" or "length".
      prompt, prompt_length: the prompt's ids [N, P] and their number [N].
      response, mask: sampled ids [N, T]; 1 on ids that count (stop token included, padding excluded).
      logp: log-probability of each id under the distribution it was sampled from [N, T].
      logp_plain: the same at temperature 1, nothing truncated [N, T].
      reward: [N].
      first_error: token indices [start, end) of the first wrong step, -1, -1 where there is none or it is not known.
    """

    problems: tuple[Problem, ...]
    text: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    finish_reason: tuple[str, ...]
    prompt: Integer[np.ndarray, "N P"]
    prompt_length: Integer[np.ndarray, " N"]
    response: Integer[np.ndarray, "N T"]
    mask: Float[np.ndarray, "N T"]
    logp: Float[np.ndarray, "N T"]
    logp_plain: Float[np.ndarray, "N T"]
    reward: Float[np.ndarray, " N"]
    first_error: Integer[np.ndarray, "N 2"]


@dataclasses.dataclass(frozen=True)
class Contexts:
    """What the teacher sees besides the question, for the rows that need it: a reflection, or another privileged text.

    Attributes:
      kind, status, text: one per row: "hint", "critique", the name of another source, or ""; see
        `reflection.parse.STATUSES`; the text itself.
      rows: indices of rows with a usable text, ascending [M].
      context, context_length: the teacher's prompt ids of these rows [M, R] and their number [M].
      negatives: for contrastive rules, K views that should not help, each a record like this one.
    """

    kind: tuple[str, ...]
    status: tuple[str, ...]
    text: tuple[str, ...]
    rows: Integer[np.ndarray, " M"]
    context: Integer[np.ndarray, "M R"]
    context_length: Integer[np.ndarray, " M"]
    negatives: tuple["Contexts", ...] = ()


@dataclasses.dataclass(frozen=True)
class Scores:
    """Per-token log-probabilities of the responses [N, T]; rows of `scored` that are False hold zeros.

    Attributes:
      logp_student, logp_teacher: log pi(y_t | x, y_<t) and log pi(y_t | x, c, y_<t), at the sampling temperature.
      entropy, entropy_teacher: of the student's and the teacher's distribution, nats.
      scored: rows that were scored [N].
      logp_negative, has_negative: the teacher's log-probabilities under each of the K negative contexts [K, N, T], and
        which rows have one [K, N].
    """

    logp_student: Float[np.ndarray, "N T"]
    logp_teacher: Float[np.ndarray, "N T"]
    entropy: Float[np.ndarray, "N T"]
    entropy_teacher: Float[np.ndarray, "N T"]
    scored: Bool[np.ndarray, " N"]
    logp_negative: Float[np.ndarray, "K N T"]
    has_negative: Bool[np.ndarray, "K N"]


@dataclasses.dataclass(frozen=True)
class Credit:
    """What each token is credited with.

    Attributes:
      advantage: sequence-level advantage [N].
      token_advantage: what enters the policy-gradient loss [N, T].
      metrics: what the rule reports of itself; None where there is nothing to report on.
      memory: what the rule remembers until the next step.
    """

    advantage: Float[np.ndarray, " N"]
    token_advantage: Float[np.ndarray, "N T"]
    metrics: dict[str, float | None]
    memory: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Made:
    """Everything made in one training step before it learned; `drawn` says how its prompts were come by."""

    rollouts: Rollouts
    contexts: Contexts
    scores: Scores
    credit: Credit
    drawn: dict[str, float]


# ---------------------------------------------------------------- device

# Fields of device records hold arrays, and under JAX's transformations also shapes or shardings of them.


@struct.dataclass
class Batch:
    """Rows of one update.

    Attributes:
      prompt, prompt_length, response, mask: as in `Rollouts`, [N, P], [N], [N, T], [N, T].
      logp_sampler: as sampled [N, T].
      logp_old: denominator of the ratio [N, T].
      logp_reference: under the reference policy; zeros when no KL penalty is asked for [N, T].
      token_advantage: [N, T].
      context, context_length, distilled: for rules that distil, the teacher's prompt [N, R], its length [N] and 1 where
        there is one [N]; None for others.
      width, context_width: tokens that a row of prompt and response, or of context and response, has room for, where that
        is less than P + T or R + T; None is that sum. Static: a program is compiled for each.
    """

    prompt: PyTree
    prompt_length: PyTree
    response: PyTree
    mask: PyTree
    logp_sampler: PyTree
    logp_old: PyTree
    logp_reference: PyTree
    token_advantage: PyTree
    context: PyTree = None
    context_length: PyTree = None
    distilled: PyTree = None
    width: int | None = struct.field(pytree_node=False, default=None)
    context_width: int | None = struct.field(pytree_node=False, default=None)


@struct.dataclass
class TrainState:
    """Everything that learning changes.

    Attributes:
      params: float32 master weights.
      opt_state: optax state, sharded like the parameters it belongs to.
      updates: optimiser updates so far (the schedule's clock), a scalar.
      teacher: the teacher's own parameters, None where it has the policy's.
    """

    params: PyTree
    opt_state: PyTree
    updates: PyTree
    teacher: PyTree = None
