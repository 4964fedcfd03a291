"""Whose parameters the teacher has: the policy's own, or a copy of them that follows more slowly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from amrsd_jax.policy import Params
from amrsd_jax.records import TrainState

KINDS = ("policy", "snapshot", "ema", "initial")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A kind of teacher parameters. Those that differ from the policy's are in `TrainState.teacher`, checkpointed with it.

    Attributes:
      kind: `policy` (the current ones, no gradient), `snapshot` (a copy, refreshed every `every` steps), `ema` (a moving
        average), `initial` (those of step 0).
      every: steps between refreshes of a snapshot.
      rate: share of the policy in the moving average, per step.
    """

    kind: str
    every: int
    rate: float

    @property
    def kept(self) -> bool:
        """Whether the state holds parameters for it."""
        return self.kind != "policy"

    def params(self, state: TrainState) -> Params:
        """The teacher's parameters now."""
        return state.teacher if self.kept else state.params

    def follow(self, state: TrainState, steps: int) -> TrainState:
        """The state after `steps` training steps are done, the teacher brought up to date."""
        if self.kind == "ema":
            return state.replace(teacher=_average(state.teacher, state.params, self.rate))
        if self.kind == "snapshot" and steps % self.every == 0:
            return state.replace(teacher=copy(state.params))
        return state


@jax.jit
def copy(params: Params) -> Params:
    """The same parameters in arrays of their own."""
    return jax.tree.map(jnp.copy, params)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=2)
def _average(teacher: Params, params: Params, rate: float) -> Params:
    return jax.tree.map(lambda t, p: (1 - rate) * t + rate * p, teacher, params)
