"""Defines a credit rule, and what rules share: annealing, masked means, the group-relative advantage."""

import dataclasses
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, ScalarLike

from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.scoring.divergence import Divergence

Hyper = SimpleNamespace  # a rule's hyper-parameters by name, all of them


def no_rows(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns no row: none needs a teacher."""
    return np.zeros(len(s.advantage), bool)


def all_rows(s: Signals, hyper: Hyper) -> Bool[np.ndarray, " N"]:
    """Returns every row: all need a teacher, also where A = 0."""
    return np.ones(len(s.advantage), bool)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A credit rule: a pure function from signals to credit, and the declaration of what it needs.

    Attributes:
      name: its name in configs.
      function: `function(signals, *, hyper-parameter=default, ...) -> TokenCredit`.
      needs_teacher: (signals, hyper-parameters) -> rows [N] that must be scored under the teacher. A row that it leaves out
        must get the same credit from any teacher, so that skipping it is exact. Of the signals, step, advantage, reward,
        mask, group and group_right are known.
      baseline: what is subtracted from a row's reward, see `group_advantage`; a config may name another.
      context: what the teacher sees besides the question, see `reflection.sources`; "none" for rules without a teacher.
      teacher: the kind of teacher, see `scoring.teachers.Teacher`.
      student: whether all rows are scored under the student, so that `student_logprobs` and `student_entropy` are known in
        rows without a teacher.
      negatives, negative_count: for a contrast, a name of `reflection.sources.NEGATIVES`, the contexts that should not help,
        and their number per row (K).
      distill: for rules that distil, the divergence between teacher and student that is added to the loss.
      reads_gap: whether the formula reads the teacher's log-probabilities. A rule that only distils, or that reads only the
        words of the context, does not.
      quotes: whether the formula reads `Signals.quoted`, the number of a response that its text points at.
      memory: the value of `Signals.memory` at the first step; () for rules without a memory.
      neutral: whether A_t = A where student and teacher are equal. Tested for every rule that declares it.
      keeps_sign: whether A_t never has the opposite sign of A, and is 0 where A = 0. Tested for every rule that declares it.
    """

    name: str
    function: Callable[..., TokenCredit]
    needs_teacher: Callable[[Signals, Hyper], Bool[np.ndarray, " N"]] = no_rows
    baseline: str = "group"
    context: str = "none"
    teacher: str = "policy"
    student: bool = False
    negatives: str = ""
    negative_count: int = 0
    distill: Divergence | None = None
    reads_gap: bool = True
    quotes: bool = False
    memory: tuple[float, ...] = ()
    neutral: bool = False
    keeps_sign: bool = False

    def __call__(self, s: Signals, **hyper: Any) -> TokenCredit:
        """Returns the credit, through which no gradient flows."""
        return self.function(jax.lax.stop_gradient(s), **hyper)

    @property
    def defaults(self) -> dict[str, Any]:
        """The hyper-parameters and their defaults: the keyword-only arguments of the function."""
        function, given = self._unwrapped
        return (function.__kwdefaults__ or {}) | given

    @property
    def bounded(self) -> dict[str, Any]:
        """The annotations that bound a hyper-parameter, such as `sections.Share`, by its name."""
        annotations = self._unwrapped[0].__annotations__
        return {name: kind for name, kind in annotations.items() if typing.get_origin(kind) is typing.Annotated}

    @property
    def _unwrapped(self) -> tuple[Callable, dict[str, Any]]:
        """The function below decorators and functools.partial, and the arguments that the latter gives."""
        function, given = self.function, {}
        while hasattr(function, "__wrapped__") or hasattr(function, "func"):
            given = getattr(function, "keywords", {}) | given
            function = getattr(function, "__wrapped__", None) or function.func
        return function, given


def anneal(step: ScalarLike, decay_steps: int) -> Float[Array, ""]:
    """Returns max(0, 1 - step / decay_steps), or 1 if decay_steps is 0."""
    return jnp.maximum(0.0, 1.0 - step / decay_steps) if decay_steps else jnp.ones(())


def annealed_out(step: ScalarLike, decay_steps: int) -> bool:
    """Returns whether `anneal` has reached 0."""
    return bool(decay_steps) and bool(step >= decay_steps)


def mean(values: Float[Array, "N T"], mask: Float[Array, "N T"]) -> Float[Array, ""]:
    """Returns the mean over the tokens that count; 0 if there are none."""
    return jnp.sum(jnp.where(mask > 0, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def inside(s: Signals, span: Integer[Array, "N 2"]) -> Bool[Array, "N T"]:
    """Returns the tokens of a span [start, end) of each row."""
    position = jnp.arange(s.mask.shape[1])
    return (position >= span[:, :1]) & (position < span[:, 1:]) & (s.mask > 0)


GROUPED = ("group", "leave_one_out")  # baselines that are computed within a group


def group_advantage(
    reward: Float[np.ndarray, " N"],
    group: int,
    *,
    normalize: bool,
    sample_std: bool = False,
    baseline: str = "group",
    eps: float = 1e-6,
) -> Float[np.ndarray, " N"]:
    """Returns A_i = r_i - baseline, divided by (std(r) + eps) if `normalize`; the rows of a group are neighbours.

    GRPO divides (arXiv 2402.03300), Dr.GRPO does not. Equal rewards give exactly 0 wherever a mean is subtracted, whatever its
    rounding. Computed on the host, which needs it while the device samples.

    Args:
      baseline: `group`, the mean of the row's group (GRPO); `leave_one_out`, the mean of the group's other rows (RLOO, arXiv
        2402.14740), 0 for a group of one; `batch`, the mean of all rows; `none`, 0. The deviation is that of the group, or of
        all rows for the last two.
      sample_std: divide by the standard deviation of a sample, with G - 1, as TRL and verl do, not by the population's, with
        G. A is then smaller by sqrt((G - 1) / G), 6 % at G = 8, which a rule that adds to A notices.
    """
    reward = reward.reshape((-1, group) if baseline in GROUPED else (1, -1))
    size = reward.shape[1]
    centred = reward if baseline == "none" else reward - reward.mean(axis=1, keepdims=True)
    if baseline == "leave_one_out":
        centred = centred * np.float32(size / max(size - 1, 1))
    equal = (reward == reward[:, :1]).all(axis=1, keepdims=True) & (baseline != "none")
    ddof = int(sample_std and size > 1)
    scale = reward.std(axis=1, keepdims=True, ddof=ddof) + np.float32(eps) if normalize else np.float32(1.0)
    return np.where(equal, np.float32(0.0), centred / scale).reshape(-1)


def group_right(reward: Float[np.ndarray, " N"], group: int) -> Float[np.ndarray, " N"]:
    """Returns how many of the rows of each row's group are right (reward 1); the rows of a group are neighbours."""
    return np.repeat((reward.reshape(-1, group) >= 1).sum(axis=1), group).astype(np.float32)


def overlong_penalty(length: Float[np.ndarray, " N"], *, longest: int, buffer: int) -> Float[np.ndarray, " N"]:
    """Returns DAPO's soft penalty: 0 up to `longest - buffer` tokens, falling linearly to -1 at `longest`, -1 beyond."""
    return -np.clip((length - (longest - buffer)) / buffer, 0.0, 1.0)
