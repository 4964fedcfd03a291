"""Whose parameters the teacher has: the policy's own, a copy that follows more slowly, a blend, or another model's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.records import TrainState

KINDS = ("policy", "snapshot", "ema", "initial", "trust_region", "external")


@dataclasses.dataclass(frozen=True)
class Blend:
    """Two policies whose log-probabilities are interpolated: pi ~ first^(1 - share) second^share. Scores like a policy.

    Its parameters are the pair of theirs; its hidden states are theirs side by side.
    """

    first: Policy
    second: Policy
    share: float

    def forward(self, params: tuple[Params, Params], tokens: Integer[Array, "N S"]) -> Float[Array, "N S D"]:
        """Hidden states of both."""
        states = self.first.forward(params[0], tokens), self.second.forward(params[1], tokens)
        return jnp.concatenate(states, axis=-1)

    def logits(self, params: tuple[Params, Params], hidden: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Interpolated log-probabilities, up to a constant."""
        mine, other = jnp.split(hidden, [self.first.architecture.width], axis=-1)
        first = jax.nn.log_softmax(self.first.logits(params[0], mine))
        second = jax.nn.log_softmax(self.second.logits(params[1], other))
        return (1 - self.share) * first + self.share * second


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A kind of teacher. Parameters that differ from the policy's are in `TrainState.teacher`, checkpointed with it. A
    policy with adapters shares its frozen base with all of them but `external`: only adapters are kept.

    Attributes:
      kind: `policy` (the current parameters, no gradient), `snapshot` (a copy, refreshed every `every` steps), `ema` (a
        moving average), `initial` (those of step 0), `trust_region` (the distribution between those of step 0 and the
        current ones: pi ~ initial^(1 - rate) policy^rate), `external` (another model, frozen).
      policy: the model that is trained.
      external: the model of kind `external`.
      every: steps between refreshes of a snapshot.
      rate: share of the policy in the moving average, per step, or in the trust region.
    """

    kind: str
    policy: Policy
    external: Policy | None = None
    every: int = 10
    rate: float = 0.05

    @property
    def kept(self) -> Policy | None:
        """The model whose parameters the state holds for the teacher, if any."""
        return {"policy": None, "external": self.external}.get(self.kind, self.policy)

    @property
    def model(self) -> Policy | Blend:
        """What scores with `params`."""
        if self.kind == "trust_region":
            return Blend(self.policy, self.policy, self.rate)
        return self.kept or self.policy

    def params(self, state: TrainState) -> Params:
        """The teacher's parameters now."""
        if not self.kept:
            return state.params
        shared = None if self.kind == "external" else lora.split(state.params)[0]
        theirs = lora.join(shared, state.teacher)
        return (theirs, state.params) if self.kind == "trust_region" else theirs

    def follow(self, state: TrainState, steps: int) -> TrainState:
        """The state after `steps` training steps are done, the teacher brought up to date."""
        if self.kind == "ema":
            return state.replace(teacher=_average(state.teacher, lora.learns(state.params), self.rate))
        if self.kind == "snapshot" and steps % self.every == 0:
            return state.replace(teacher=lora.learns(copy(state.params)))
        return state


def copy(params: Params) -> Params:
    """The same parameters in arrays of their own, but for a frozen base, which all share."""
    base, learned = lora.split(params)
    return lora.join(base, _copy(learned))


@jax.jit
def _copy(params: Params) -> Params:
    return jax.tree.map(jnp.copy, params)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=2)
def _average(teacher: Params, params: Params, rate: float) -> Params:
    return jax.tree.map(lambda t, p: (1 - rate) * t + rate * p, teacher, params)
