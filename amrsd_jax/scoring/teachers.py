"""The teacher's parameters: those of the policy, a copy updated more slowly, a blend, or those of another model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Integer

from amrsd_jax.config import TeacherConfig
from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.records import TrainState


@dataclasses.dataclass(frozen=True)
class Blend:
    """Two policies whose log-probabilities are interpolated: pi ~ first^(1 - share) second^share; a `scoring.chunks.Model`.

    Its parameters are a pair; its hidden states are those of both policies, concatenated.
    """

    first: Policy
    second: Policy
    share: float

    def forward(self, params: tuple[Params, Params], tokens: Integer[Array, "N S"]) -> Float[Array, "N S D"]:
        """Returns the hidden states of both."""
        states = self.first.forward(params[0], tokens), self.second.forward(params[1], tokens)
        return jnp.concatenate(states, axis=-1)

    @property
    def mesh(self) -> Mesh | None:
        """The mesh of the devices; None on one device."""
        return self.first.mesh

    def head(self, params: tuple[Params, Params]) -> tuple[Array, Array]:
        """Returns the output projections of both."""
        return self.first.head(params[0]), self.second.head(params[1])

    def unembed(self, head: tuple[Array, Array], hidden: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Returns the interpolated log-probabilities, up to a constant."""
        first, second = jnp.split(hidden, [self.first.architecture.width], axis=-1)
        first = jax.nn.log_softmax(self.first.unembed(head[0], first))
        second = jax.nn.log_softmax(self.second.unembed(head[1], second))
        return (1 - self.share) * first + self.share * second


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The teacher of a run, of one of these kinds.

    `policy` has the current parameters, without a gradient; `snapshot` a copy, refreshed every `every` steps; `ema` a moving
    average; `initial` those of step 0; `trust_region` the blend of step 0 and the current policy,
    pi ~ initial^(1 - rate) policy^rate; `external` those of another model, frozen. Parameters that differ from the policy's
    are stored in `TrainState.teacher` and checkpointed with it. A policy with adapters shares its frozen parameters with every
    kind but `external`, so that only adapters are stored.

    Attributes:
      config: kind, every, rate.
      policy: the model that is trained.
      external: the model of kind `external`.
    """

    config: TeacherConfig
    policy: Policy
    external: Policy | None = None

    @property
    def stored(self) -> Policy | None:
        """The model whose parameters are in `TrainState.teacher`; None where the teacher has the policy's."""
        return {"policy": None, "external": self.external}.get(self.config.kind, self.policy)

    @property
    def model(self) -> Policy | Blend:
        """The model that scores with `params`."""
        if self.config.kind == "trust_region":
            return Blend(self.policy, self.policy, self.config.rate)
        return self.stored or self.policy

    def params(self, state: TrainState, policy_params: Params) -> Params:
        """Returns the teacher's parameters at a state, given all parameters of the policy at that state."""
        if self.stored is None:
            return policy_params
        if self.config.kind == "external":
            return state.teacher
        stored = lora.combine(state.frozen, state.teacher)
        return (stored, policy_params) if self.config.kind == "trust_region" else stored

    def follow(self, state: TrainState, steps: int) -> TrainState:
        """Returns the state with its moving average or snapshot updated, after `steps` training steps."""
        if self.config.kind == "ema":
            return state.replace(teacher=_average(state.teacher, state.params, self.config.rate))
        if self.config.kind == "snapshot" and steps % self.config.every == 0:
            return state.replace(teacher=copy(state.params))
        return state


@jax.jit
def copy(params: Params) -> Params:
    """Returns the same parameters in arrays of their own."""
    return jax.tree.map(jnp.copy, params)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=2)
def _average(teacher: Params, params: Params, rate: float) -> Params:
    return jax.tree.map(lambda t, p: (1 - rate) * t + rate * p, teacher, params)
