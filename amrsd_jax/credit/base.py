"""What a credit rule is, and the base that all of them share: the group-relative advantage."""

import dataclasses
import inspect
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Metrics = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A credit rule: a pure function of arrays, with what it needs declared beside it.

    `rule(advantage, logp_student, logp_teacher, mask, *, step, **hyper) -> (token_advantage, metrics)`

    Attributes:
      name: its name in configs.
      function: the formula.
      needs: which rows have to be scored under a teacher: (advantage [N], step, **hyper) -> bool [N]. A row that it
        leaves out gets the same credit with any teacher, so leaving it out is exact.
      context: what the teacher sees besides the question, "none" or "self_reflection".
      teacher: whose parameters it has: "policy", the current ones.
    """

    name: str
    function: Callable[..., tuple[Float[Array, "N T"], Metrics]]
    needs: Callable[..., Bool[np.ndarray, " N"]]
    context: str
    teacher: str

    def __call__(self, advantage, logp_student, logp_teacher, mask, *, step, **hyper):
        return self.function(advantage, logp_student, logp_teacher, mask, step=step, **hyper)

    @property
    def defaults(self) -> dict[str, float]:
        """The formula's hyper-parameters and their defaults: its keyword-only arguments."""
        arguments = inspect.signature(self.function).parameters.values()
        return {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY and a.default is not a.empty}


def no_rows(advantage, step, **hyper) -> Bool[np.ndarray, " N"]:
    """For rules without a teacher."""
    return np.zeros(len(advantage), bool)


def group_advantage(reward: Float[Array, "B G"], *, normalize: bool, eps: float = 1e-6) -> Float[Array, "B G"]:
    """A_i = r_i - mean(r) within each group, divided by (std(r) + eps) if `normalize` (GRPO; Dr.GRPO does not divide).

    A group of equal rewards has exactly 0, whatever the rounding of its mean.
    """
    centred = reward - jnp.mean(reward, axis=1, keepdims=True)
    flat = jnp.all(reward == reward[:, :1], axis=1, keepdims=True)
    scale = jnp.std(reward, axis=1, keepdims=True) + eps if normalize else 1.0
    return jnp.where(flat, 0.0, centred / scale)


def overlong_penalty(length: Float[np.ndarray, " N"], *, longest: int, buffer: int) -> Float[np.ndarray, " N"]:
    """DAPO's soft penalty: 0 up to `longest - buffer` tokens, falling linearly to -1 at `longest`, -1 beyond."""
    return -np.clip((length - (longest - buffer)) / buffer, 0.0, 1.0)
