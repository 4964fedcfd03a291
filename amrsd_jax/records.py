"""The records that one phase of a step passes to the next.

B prompts per step, G rollouts per prompt, N = B G rows (the rows of a group are neighbours); P, R, T padded lengths of prompt,
teacher prompt and response; K negative contexts. Rows are right-padded. Host records hold NumPy arrays and text; those of the
last section are pytrees for the device.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Integer, PyTree, ScalarLike

from amrsd_jax.problems import Problem, Verdict

# ---------------------------------------------------------------- sampling


@dataclasses.dataclass(frozen=True)
class Prompts:
    """B problems and their prompts as token ids."""

    problems: tuple[Problem, ...]
    tokens: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt for the sampler, to be answered `count` times.

    Attributes:
      prompt: token ids.
      row: number of its first rollout; the others follow. A rollout's randomness depends on its number, so numbers are
        unique within a call and stream.
      count: number of rollouts, which share the prefill.
      greedy: whether the last of them is greedy, whatever the temperature; it has no randomness.
      stream: index of the key, among those given to the sampler, that its randomness is derived from.
      new_tokens: most tokens of a response; None for the sampler's own limit.
      temperature, top_k, top_p: see `sampling.warpers.sample`; top_k = 0 and top_p = 1 keep every token.
      tag: any value; the sampler does not read it, and returns it with the completions.
    """

    prompt: Sequence[int]
    row: int
    count: int = 1
    greedy: bool = False
    stream: int = 0
    new_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    tag: Any = None

    def limit(self, new_tokens: int) -> int:
        """Returns the most tokens of a response, given the sampler's own limit."""
        return new_tokens if self.new_tokens is None else self.new_tokens


@dataclasses.dataclass(frozen=True)
class Completion:
    """A finished rollout of t tokens, the stop token included.

    Attributes:
      request, index: the request, and the number of this rollout among its `count`.
      tokens: sampled ids [t].
      logprobs: log-probability of each under the distribution it was sampled from, after temperature and truncation [t].
      finish_reason: "stop" or "length".
      began, ended: when the row was admitted to its slot and when it finished, in seconds of `time.perf_counter`. The host
        reads the device once per segment, so `ended` is interpolated by decode steps.
    """

    request: Request
    index: int
    tokens: Integer[np.ndarray, " t"]
    logprobs: Float[np.ndarray, " t"]
    finish_reason: str
    began: float = 0.0
    ended: float = 0.0


# ---------------------------------------------------------------- a step


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """N sampled and verified responses.

    Attributes:
      problems, text, verdicts, finish_reason: one per row; finish_reason is "stop" or "length".
      prompt, prompt_length: prompt ids [N, P] and their number [N].
      response, mask: sampled ids [N, T]; 1 on ids that count (stop token included, padding excluded).
      sampler_logprobs: log-probability of each id under the distribution it was sampled from [N, T].
      reward: the verifier's [N].
      first_error: token indices [start, end) of the first wrong step [N, 2]; -1, -1 where there is none or it is not known.
      extras: further arrays by name, one entry per row, for credit rules: `Verdict.spans` as token indices [N, 2] (-1, -1
        where a row has none) and `Verdict.scores` [N] (nan where a row has none).
    """

    problems: tuple[Problem, ...]
    text: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    finish_reason: tuple[str, ...]
    prompt: Integer[np.ndarray, "N P"]
    prompt_length: Integer[np.ndarray, " N"]
    response: Integer[np.ndarray, "N T"]
    mask: Float[np.ndarray, "N T"]
    sampler_logprobs: Float[np.ndarray, "N T"]
    reward: Float[np.ndarray, " N"]
    first_error: Integer[np.ndarray, "N 2"]
    extras: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def trained(self, mask_truncated: bool) -> Float[np.ndarray, "N T"]:
        """Returns 1 on the tokens that the loss counts; with `mask_truncated` not those of responses cut at the length limit."""
        if not mask_truncated:
            return self.mask
        return self.mask * np.array([reason != "length" for reason in self.finish_reason], np.float32)[:, None]

    @property
    def correct(self) -> Bool[np.ndarray, " N"]:
        """Rows whose answer the verifier found right."""
        return np.array([verdict.correct for verdict in self.verdicts])


def concatenate_rollouts(parts: Sequence[Rollouts]) -> Rollouts:
    """Returns one record with the rows of all parts, in order."""

    def column(name: str):
        columns = [getattr(part, name) for part in parts]
        if name == "extras":  # only names that all parts have
            shared = set.intersection(*(set(extras) for extras in columns))
            return {key: np.concatenate([extras[key] for extras in columns]) for key in sorted(shared)}
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)
        return tuple(value for part in columns for value in part)

    return Rollouts(**{field.name: column(field.name) for field in dataclasses.fields(Rollouts)})


def select_rollouts(rollouts: Rollouts, rows: slice | Sequence[int]) -> Rollouts:
    """Returns the record of some rows."""
    rows = np.arange(len(rollouts.text))[rows]

    def column(value):
        if isinstance(value, dict):
            return {key: array[rows] for key, array in value.items()}
        return value[rows] if isinstance(value, np.ndarray) else tuple(value[row] for row in rows)

    return Rollouts(**{field.name: column(getattr(rollouts, field.name)) for field in dataclasses.fields(Rollouts)})


@dataclasses.dataclass(frozen=True)
class Contexts:
    """What the teacher sees besides the question, for the rows that need it: a reflection, or another privileged text.

    Attributes:
      kind: per row "hint", "critique", the name of another source, or "" where no text is needed.
      status: per row one of `reflection.parse.STATUSES`.
      text: per row the text itself where its status is "ok"; an unusable one as it was written; "" where there is none.
      rows: indices of rows with a usable text, ascending [M].
      prompt, prompt_length: the teacher's prompt ids of these rows [M, R] and their number [M].
      cut: the rows whose text was too long for its prompt, and lost its end there.
      negatives: for contrastive rules, K contexts that should not help, each a record like this one.
    """

    kind: tuple[str, ...]
    status: tuple[str, ...]
    text: tuple[str, ...]
    rows: Integer[np.ndarray, " M"]
    prompt: Integer[np.ndarray, "M R"]
    prompt_length: Integer[np.ndarray, " M"]
    cut: tuple[int, ...] = ()
    negatives: tuple["Contexts", ...] = ()

    def all_cut(self) -> list[int]:
        """Returns the rows of which some text was cut, negatives' included."""
        return sorted({*self.cut, *(row for negative in self.negatives for row in negative.cut)})


@dataclasses.dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of the responses under student and teacher [N, T], at the sampling temperature.

    Rows without a teacher pass (`scored` False) have teacher_logprobs equal to student_logprobs, so that their gap is 0; both
    are 0 unless all rows were scored under the student.

    Attributes:
      student_logprobs, teacher_logprobs: log pi(y_t | x, y_<t) and log pi(y_t | x, c, y_<t).
      student_entropy, teacher_entropy: of the distributions over the vocabulary, nats; 0 in rows that were not scored.
      scored: rows that have a teacher pass [N].
      negative_logprobs, has_negative: the teacher's log-probabilities under each of the K negative contexts [K, N, T], and
        which rows have one [K, N].
    """

    student_logprobs: Float[np.ndarray, "N T"]
    teacher_logprobs: Float[np.ndarray, "N T"]
    student_entropy: Float[np.ndarray, "N T"]
    teacher_entropy: Float[np.ndarray, "N T"]
    scored: Bool[np.ndarray, " N"]
    negative_logprobs: Float[np.ndarray, "K N T"]
    has_negative: Bool[np.ndarray, "K N"]

    @property
    def gap(self) -> Float[np.ndarray, "N T"]:
        """l_T - l_S, nats."""
        return self.teacher_logprobs - self.student_logprobs


@dataclasses.dataclass(frozen=True)
class Credit:
    """The credit of each token.

    Attributes:
      advantage: sequence-level advantage [N].
      token_advantage: advantage of each token in the policy-gradient loss [N, T].
      metrics: the rule's own, and the mean gap on correct and failed rows; None where there is nothing to average.
      memory: values that the rule reads at the next step.
    """

    advantage: Float[np.ndarray, " N"]
    token_advantage: Float[np.ndarray, "N T"]
    metrics: dict[str, float | None]
    memory: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """The results of one training step before its updates; `data_metrics` counts prompts drawn and skipped, and tokens sampled.

    `null_gap` is the gap of the teacher's prompt without a reflection [N, T]; None at steps without that control. `all_scored`
    says that the student has scored all rows, and not only those with a teacher.
    """

    rollouts: Rollouts
    contexts: Contexts
    logprobs: LogProbs
    credit: Credit
    data_metrics: dict[str, float]
    null_gap: Float[np.ndarray, "N T"] | None = None
    all_scored: bool = False


# ---------------------------------------------------------------- device

Value = Array | np.ndarray  # on the device or the host


@struct.dataclass
class Signals:
    """What a credit rule may read. Before the teacher's pass (in `Rule.needs_teacher`) only the first six are set.

    Attributes:
      step: training step, from 0.
      advantage: sequence-level advantage A [N].
      reward: the verifier's score [N].
      mask: 1 on tokens that count [N, T].
      group, group_right: responses per prompt, G; and how many of those in a row's group are right (reward 1) [N].
      student_logprobs, teacher_logprobs: l_S and l_T, nats [N, T]; equal in rows without a teacher pass.
      student_entropy: nats [N, T]; for rules that declare `student`, in all rows.
      teacher_entropy: nats [N, T]; 0 in rows without a teacher pass.
      scored: rows that have a teacher pass [N].
      negative_logprobs, has_negative: l_T under each of the K negative contexts [K, N, T], and which rows have one [K, N].
      first_error: token indices [start, end) of the first wrong step [N, 2]; -1, -1 where there is none or it is not known.
      quoted: the same of the number that the row's text points at, see `reflection.quotes`; for rules that declare `quotes`.
      noise: uniform in [0, 1), new at every step [N].
      memory: what the rule returned at the step before; `Rule.memory` at the first step [M].
      extras: the rollouts' further arrays by name, see `Rollouts.extras`.
    """

    step: ScalarLike
    advantage: Float[Value, " N"]
    reward: Float[Value, " N"]
    mask: Float[Value, "N T"]
    group: ScalarLike | None = None
    group_right: Float[Value, " N"] | None = None
    student_logprobs: Float[Value, "N T"] | None = None
    teacher_logprobs: Float[Value, "N T"] | None = None
    student_entropy: Float[Value, "N T"] | None = None
    teacher_entropy: Float[Value, "N T"] | None = None
    scored: Bool[Value, " N"] | None = None
    negative_logprobs: Float[Value, "K N T"] | None = None
    has_negative: Bool[Value, "K N"] | None = None
    first_error: Integer[Value, "N 2"] | None = None
    quoted: Integer[Value, "N 2"] | None = None
    noise: Float[Value, " N"] | None = None
    memory: Float[Value, " M"] | None = None
    extras: dict[str, Value] = struct.field(default_factory=dict)

    @property
    def gap(self) -> Float[Array, "N T"]:
        """d = l_T - l_S, nats."""
        return self.teacher_logprobs - self.student_logprobs

    @property
    def sequence_advantage(self) -> Float[Array, "N 1"]:
        """A, to be broadcast over the tokens of a row."""
        return self.advantage[:, None]


@struct.dataclass
class TokenCredit:
    """What a credit rule returns.

    Attributes:
      token_advantage: A_t, 0 outside the mask [N, T].
      metrics: scalars by name, logged as `credit/<name>`.
      memory: values that the rule reads at the next step [M]; None for rules without a memory.
    """

    token_advantage: Float[Value, "N T"]
    metrics: dict[str, Float[Value, ""]] = struct.field(default_factory=dict)
    memory: Float[Value, " M"] | None = None


# Fields of the records below hold arrays, and under JAX's transformations also shapes or shardings of them.


@struct.dataclass
class Batch:
    """Rows of one update.

    Attributes:
      prompt, prompt_length, response, mask, sampler_logprobs: as in `Rollouts`.
      prompt_index: where prompts are shared, row i answers `prompt[prompt_index[i]]` [N]; None where each row has its own.
      old_logprobs: denominator of the ratio [N, T]; None for the update's own log-probabilities, so that the ratio is 1.
      reference_logprobs: under the reference policy; zeros without a KL penalty [N, T].
      token_advantage: as in `Credit` [N, T].
      context, context_length, distilled: for rules that distil, the teacher's prompt [N, R], its length [N], and 1 where
        there is one [N]; None for others.
      width, context_width: padded length of prompt and response together, and of context and response; None stands for P + T
        and R + T. Static: a program is compiled for each value.
    """

    prompt: PyTree
    prompt_length: PyTree
    response: PyTree
    mask: PyTree
    sampler_logprobs: PyTree
    old_logprobs: PyTree
    reference_logprobs: PyTree
    token_advantage: PyTree
    context: PyTree = None
    context_length: PyTree = None
    distilled: PyTree = None
    prompt_index: PyTree = None
    width: int | None = struct.field(pytree_node=False, default=None)
    context_width: int | None = struct.field(pytree_node=False, default=None)


@struct.dataclass
class TrainState:
    """The state of learning.

    Attributes:
      params: float32 masters of the trainable parameters: all of them, or the adapters alone.
      opt_state: optax state, sharded like the parameters it belongs to.
      updates: optimiser updates so far, applied or not, a scalar.
      teacher: the teacher's own parameters, adapters alone if the policy has adapters and the teacher is not external; None
        where the teacher has the policy's.
      frozen: the parameters beside `params` that never change; None where all are trained. Neither donated nor checkpointed.
    """

    params: PyTree
    opt_state: PyTree
    updates: PyTree
    teacher: PyTree = None
    frozen: PyTree = None
