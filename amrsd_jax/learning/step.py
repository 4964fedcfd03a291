"""One optimiser update: jitted, sharded, donated, with gradient accumulation over micro-batches."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from amrsd_jax.learning import losses
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Params, Policy
from amrsd_jax.records import Batch, TrainState
from amrsd_jax.scoring.logprobs import token_logprobs

Metrics = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What an update minimises: clipped surrogate + kl * k3(reference) - entropy * entropy, weighted per token.

    Attributes:
      ratio: per "token", or one per "sequence" (GSPO).
      clip_low, clip_high: bounds of the ratio.
      reduction, constant_length: how tokens are averaged, see `losses.reduction_weights`.
      kl, entropy: coefficients; 0 leaves the term out.
      importance_cap: of the weight between sampler and trainer; None leaves it out.
      temperature: of the policy that is trained, the one responses were sampled at.
      chunk: tokens whose logits exist at one time.
      micro_batches: pieces of the batch whose gradients are added before the update.
    """

    ratio: str
    clip_low: float
    clip_high: float
    reduction: str
    constant_length: int | None
    kl: float
    entropy: float
    importance_cap: float | None
    temperature: float
    chunk: int
    micro_batches: int = 1


def objective_loss(
    policy: Policy, params: Params, batch: Batch, weight: Float[Array, "N T"], objective: Objective
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of some rows of a batch, and its metrics; both are sums that add up over micro-batches.

    Args:
      weight: share of each token in the loss of the whole batch.
    """
    logp, entropy = token_logprobs(
        policy, params, batch.prompt, batch.prompt_length, batch.response,
        temperature=objective.temperature, chunk=objective.chunk,
    )  # fmt: skip
    token_loss, monitors = losses.clipped_surrogate(
        losses.log_ratio(logp, batch.logp_old, batch.mask, objective.ratio),
        batch.token_advantage,
        clip_low=objective.clip_low,
        clip_high=objective.clip_high,
    )

    def total(values):
        return jnp.sum(jnp.where(batch.mask > 0, weight * values, 0.0))

    if objective.importance_cap is not None:
        token_loss *= losses.importance_weight(batch.logp_old, batch.logp_sampler, cap=objective.importance_cap)
    metrics = {"policy": total(token_loss)}
    loss = metrics["policy"]
    if objective.kl:
        metrics["kl_to_reference"] = total(losses.k3(logp, batch.logp_reference))
        loss += objective.kl * metrics["kl_to_reference"]
    if objective.entropy:
        loss -= objective.entropy * total(entropy)
    monitors |= {"entropy": entropy}
    tokens = {f"sum/{name}": jnp.sum(jnp.where(batch.mask > 0, value, 0)) for name, value in monitors.items()}
    return loss, metrics | {"total": loss} | jax.lax.stop_gradient(tokens) | {"sum/tokens": jnp.sum(batch.mask)}


def accumulate(loss: Callable, params: Params, batch: PyTree, pieces: int) -> tuple[Params, Metrics]:
    """Gradients and metrics of `loss(params, batch) -> (loss, metrics)`, summed over micro-batches of the batch's rows.

    A loss whose weights were made from the whole batch adds up to the whole loss: true denominators, not a mean of
    means. Micro-batch m takes rows m, m + pieces, ...: every device keeps its own rows.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)
    if pieces == 1:
        (_, metrics), grads = gradient(params, batch)
        return grads, metrics

    def piece(total, rows):
        (_, metrics), grads = gradient(params, rows)
        return jax.tree.map(jnp.add, total, (grads, metrics)), None

    split = jax.tree.map(lambda a: a.reshape(a.shape[0] // pieces, pieces, *a.shape[1:]).swapaxes(0, 1), batch)
    zero = jax.eval_shape(lambda: gradient(params, jax.tree.map(lambda a: a[0], split)))
    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (zero[1], zero[0][1]))
    (grads, metrics), _ = jax.lax.scan(piece, zero, split)
    return grads, metrics


def apply(optimizer: optax.GradientTransformation, state: TrainState, grads: Params) -> tuple[TrainState, Metrics]:
    """The update, unless a gradient is not finite: then the state is returned untouched, with `skipped` = 1."""
    norm = optax.global_norm(grads)
    finite = jnp.isfinite(norm)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    updated = state.replace(
        params=optax.apply_updates(state.params, updates), opt_state=opt_state, updates=state.updates + 1
    )
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    return state, {"grad_norm": norm, "skipped": 1.0 - finite}


@functools.lru_cache
def make_train_step(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    objective: Objective,
    mesh: Mesh,
    *,
    teacher: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted update, the same object for equal arguments; the state is donated and keeps its sharding.

    Metrics: `total`, `policy`, (`kl_to_reference`) are the loss and its terms; `clip_low`, `clip_high`, `kl`, `entropy`
    are means over tokens; `grad_norm` is before clipping; `learning_rate` is this update's; `skipped` is 1 if the update
    was refused.
    """

    def step(state, batch):
        weight = losses.reduction_weights(batch.mask, objective.reduction, constant_length=objective.constant_length)
        grads, metrics = accumulate(
            lambda params, rows: objective_loss(policy, params, *rows, objective),
            state.params, (batch, weight), objective.micro_batches,
        )  # fmt: skip
        tokens = jnp.maximum(metrics.pop("sum/tokens"), 1)
        metrics = {
            name.removeprefix("sum/"): value / tokens if name.startswith("sum/") else value
            for name, value in metrics.items()
        }
        rate = schedule(state.updates)
        state, health = apply(optimizer, state, grads)
        return state, metrics | health | {"learning_rate": rate}

    out = (state_shardings(policy, optimizer, mesh, teacher=teacher), meshes.replicated(mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=out)


# ---------------------------------------------------------------- the state's beginning


def abstract_state(policy: Policy, optimizer: optax.GradientTransformation, *, teacher: bool = False) -> TrainState:
    """Shapes of the whole state, with or without a teacher's own parameters; nothing allocated."""
    params = policy.abstract_params()
    updates = jax.ShapeDtypeStruct((), jnp.int32)
    return TrainState(params, jax.eval_shape(optimizer.init, params), updates, params if teacher else None)


def state_shardings(
    policy: Policy, optimizer: optax.GradientTransformation, mesh: Mesh, *, teacher: bool = False
) -> TrainState:
    """Where each part of the state lives: optimiser moments and teacher like the parameters they belong to."""
    return meshes.shardings(abstract_state(policy, optimizer, teacher=teacher), mesh)


def init_params(policy: Policy, key: Key[Array, ""], mesh: Mesh) -> Params:
    """Random parameters, made where they belong: no device ever holds the whole."""
    return jax.jit(policy.init, out_shardings=meshes.shardings(policy.abstract_params(), mesh))(key)


def init_state(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    params: Params,
    mesh: Mesh,
    *,
    teacher: Params | None = None,
) -> TrainState:
    """A fresh state around parameters; it takes them over."""
    where = state_shardings(policy, optimizer, mesh)
    opt_state = jax.jit(optimizer.init, out_shardings=where.opt_state)(params)
    return TrainState(params, opt_state, jax.device_put(jnp.zeros((), jnp.int32), where.updates), teacher)
