"""What a credit rule is, and what the rules share: the group-relative advantage, annealing."""

import dataclasses
import inspect
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, ScalarLike

from amrsd_jax.scoring.divergence import Divergence

Metrics = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A credit rule: a pure function of arrays, with what it needs declared beside it.

    `rule(advantage, logp_student, logp_teacher, mask, *, step, **inputs, **hyper) -> (token_advantage, metrics)`

    Keyword-only arguments without a default are further inputs, handed over by name, see INPUTS. Those with a default are
    hyper-parameters.

    Attributes:
      name: its name in configs.
      function: the formula.
      needs: which rows have to be scored under a teacher: (advantage [N], reward [N], step, **hyper) -> bool [N]. A row
        that it leaves out gets the same credit with any teacher, so leaving it out is exact.
      context: what the teacher sees besides the question, see `reflection.sources`.
      teacher: whose parameters it has, one of `scoring.teachers.KINDS`.
      negatives: for a contrast, the other contexts under which the teacher reads, a name of `reflection.sources.NEGATIVES`;
        the hyper-parameter `k` says how many.
      distil: for rules that distil, the divergence between teacher and student that is added to the loss.
      reads_gap: whether the formula reads the teacher's log-probabilities; a rule that only distils does not.
      memory: what it remembers at the first step; a rule with a memory reads it as `memory` and returns the next one among
        its metrics.
    """

    name: str
    function: Callable[..., tuple[Float[Array, "N T"], Metrics]]
    needs: Callable[..., Bool[np.ndarray, " N"]]
    context: str
    teacher: str
    negatives: str = ""
    distil: Divergence | None = None
    reads_gap: bool = True
    memory: tuple[float, ...] = ()

    def __call__(self, advantage, logp_student, logp_teacher, mask, *, step, **more):
        return self.function(advantage, logp_student, logp_teacher, mask, step=step, **more)

    @property
    def defaults(self) -> dict[str, float]:
        """The formula's hyper-parameters and their defaults."""
        return {a.name: a.default for a in self._keywords() if a.default is not a.empty}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays it reads besides those that all rules do."""
        return tuple(a.name for a in self._keywords() if a.default is a.empty and a.name != "step")

    def _keywords(self):
        return [a for a in inspect.signature(self.function).parameters.values() if a.kind is a.KEYWORD_ONLY]


INPUTS = {
    "reward": "the verifier's score [N]",
    "first_error": "token indices [start, end) of the first wrong step, -1 where there is none or it is not known [N, 2]",
    "noise": "uniform in [0, 1), drawn anew every step [N]",
    "scored": "rows that have a teacher pass [N]",
    "entropy_teacher": "of the teacher's distribution, nats [N, T]",
    "logp_negative": "l_T under each of the K negative contexts [K, N, T]",
    "has_negative": "which rows have each of them [K, N]",
    "memory": "what the rule remembers of earlier steps",
}


def no_rows(advantage, reward, step, **hyper) -> Bool[np.ndarray, " N"]:
    """For rules without a teacher."""
    return np.zeros(len(advantage), bool)


def all_rows(advantage, reward, step, **hyper) -> Bool[np.ndarray, " N"]:
    """For rules whose teacher acts everywhere, where A = 0 too."""
    return np.ones(len(advantage), bool)


def anneal(step: ScalarLike, decay_steps: int) -> Float[Array, ""]:
    """max(0, 1 - step / decay_steps); 1 throughout if decay_steps is 0."""
    return jnp.maximum(0.0, 1.0 - step / decay_steps) if decay_steps else jnp.ones(())


def annealed_out(step: int, decay_steps: int) -> bool:
    """Whether `anneal` has reached 0."""
    return bool(decay_steps) and step >= decay_steps


def mean(values: Float[Array, "N T"], mask: Float[Array, "N T"]) -> Float[Array, ""]:
    """Mean over the tokens that count; 0 if there are none."""
    return jnp.sum(jnp.where(mask > 0, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def group_advantage(
    reward: Float[np.ndarray, "B G"], *, normalize: bool, eps: float = 1e-6
) -> Float[np.ndarray, "B G"]:
    """A_i = r_i - mean(r) within each group, divided by (std(r) + eps) if `normalize` (GRPO; Dr.GRPO does not divide).

    A group of equal rewards has exactly 0, whatever the rounding of its mean. On the host, which needs it while the device
    samples.
    """
    centred = reward - reward.mean(axis=1, keepdims=True)
    flat = (reward == reward[:, :1]).all(axis=1, keepdims=True)
    scale = reward.std(axis=1, keepdims=True) + np.float32(eps) if normalize else np.float32(1.0)
    return np.where(flat, np.float32(0.0), centred / scale)


def overlong_penalty(length: Float[np.ndarray, " N"], *, longest: int, buffer: int) -> Float[np.ndarray, " N"]:
    """DAPO's soft penalty: 0 up to `longest - buffer` tokens, falling linearly to -1 at `longest`, -1 beyond."""
    return -np.clip((length - (longest - buffer)) / buffer, 0.0, 1.0)
