"""One optimiser update: jitted, sharded, donated, with gradient accumulation over micro-batches."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from amrsd_jax import processes
from amrsd_jax.learning import losses
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.records import Batch, TrainState
from amrsd_jax.scoring.divergence import Divergence, divergence
from amrsd_jax.scoring.logprobs import Model, over_chunks, project, read, response_states
from amrsd_jax.scoring.teachers import Teacher

Metrics = dict[str, Float[Array, ""]]


class Weights(NamedTuple):
    """Share of every token in the loss of the whole batch: in the policy's terms [N, T], in the divergence [N, T]."""

    policy: PyTree
    distil: PyTree


@dataclasses.dataclass(frozen=True)
class Objective:
    """What an update minimises: clipped surrogate + kl * KL(reference) - entropy * entropy, weighted per token, and for
    rules that distil coefficient * divergence(teacher), over the rows whose teacher sees something.

    Attributes:
      ratio: per "token", or one per "sequence" (GSPO).
      clip_low, clip_high: bounds of the ratio.
      reduction, constant_length: how tokens are averaged, see `losses.reduction_weights`.
      kl, entropy: coefficients; 0 leaves the term out.
      kl_estimator: of the KL to the reference, a name of `losses.KL_ESTIMATORS`.
      importance_cap: of the weight between sampler and trainer; None leaves it out.
      temperature: of the policy that is trained, the one responses were sampled at.
      chunk: tokens whose logits exist at one time.
      micro_batches: pieces of the batch whose gradients are added before the update.
      distil: the divergence to the teacher; None leaves it, and the teacher's pass, out.
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
    kl_estimator: str = "k3"
    distil: Divergence | None = None


def objective_loss(
    policy: Policy,
    params: Params,
    batch: Batch,
    weights: Weights,
    objective: Objective,
    teacher: tuple[Model, Params] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of some rows of a batch, and its metrics; both are sums that add up over micro-batches.

    Args:
      weights: share of each token in the loss of the whole batch.
      teacher: model and parameters of who is distilled from; no gradient flows into them.
    """
    logp, entropy, *distilled = _read(policy, params, batch, objective, teacher)
    token_loss, monitors = losses.clipped_surrogate(
        losses.log_ratio(logp, batch.logp_old, batch.mask, objective.ratio),
        batch.token_advantage,
        clip_low=objective.clip_low,
        clip_high=objective.clip_high,
    )

    def total(weight, values):
        return jnp.sum(jnp.where(weight > 0, weight * values, 0.0))

    if objective.importance_cap is not None:
        token_loss *= losses.importance_weight(batch.logp_old, batch.logp_sampler, cap=objective.importance_cap)
    metrics = {"policy": total(weights.policy, token_loss)}
    loss = metrics["policy"]
    if objective.kl:
        estimate = losses.KL_ESTIMATORS[objective.kl_estimator]
        metrics["kl_to_reference"] = total(weights.policy, estimate(logp, batch.logp_reference))
        loss += objective.kl * metrics["kl_to_reference"]
    if objective.entropy:
        loss -= objective.entropy * total(weights.policy, entropy)
    monitors |= {"entropy": entropy}
    tokens = {f"tokens/{name}": total(batch.mask, value) for name, value in monitors.items()}
    tokens["tokens/count"] = jnp.sum(batch.mask)
    if objective.distil is not None:
        value, seen = distilled
        if objective.distil.importance_cap:
            value *= losses.importance_weight(logp, batch.logp_old, cap=objective.distil.importance_cap)
        metrics["divergence"] = total(weights.distil, value)
        loss += objective.distil.coefficient * metrics["divergence"]
        mask = batch.mask * batch.distilled[:, None]
        tokens |= {f"distilled/{name}": total(mask, part) for name, part in seen.items()}
        tokens["distilled/count"] = jnp.sum(mask)
    return loss, metrics | {"total": loss} | jax.lax.stop_gradient(tokens)


def _read(policy, params, batch: Batch, objective: Objective, teacher):
    """Log-probabilities and entropies of the responses, and where a teacher is distilled from the divergence from it."""
    prompt = (batch.prompt, batch.prompt_length, batch.response)
    hidden = response_states(policy, params, *prompt)
    if objective.distil is None:
        return project(policy, params, hidden, batch.response, temperature=objective.temperature, chunk=objective.chunk)
    model, theirs = teacher
    shown = response_states(model, theirs, batch.context, batch.context_length, batch.response)

    def piece(h, y, g):
        logits, guide = policy.logits(params, h), model.logits(theirs, g)
        value, seen = divergence(logits / objective.temperature, guide / objective.temperature, objective.distil)
        return *read(logits / objective.temperature, y), value, seen

    arrays = (hidden, batch.response, jax.lax.stop_gradient(shown))
    return over_chunks(piece, *arrays, chunk=objective.chunk)


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
    teacher: Teacher | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted update, the same object for equal arguments; the state is donated and keeps its sharding.

    A base frozen under adapters is an argument beside the state: it is read, and neither donated nor returned.

    Metrics: `total`, `policy`, (`kl_to_reference`, `divergence`) are the loss and its terms; `covered`, `overlap` are means
    over distilled tokens, see `scoring.divergence`; `clip_low`, `clip_high`, `kl`, `entropy`
    are means over tokens; `grad_norm` is before clipping; `learning_rate` is this update's; `skipped` is 1 if the update
    was refused.
    """

    def step(state, batch, base=None):
        weights = make_weights(batch, objective)
        whole = state.replace(params=lora.join(base, state.params))
        guide = (teacher.model, teacher.params(whole)) if objective.distil else None
        grads, metrics = accumulate(
            lambda params, rows: objective_loss(policy, lora.join(base, params), *rows, objective, guide),
            state.params, (batch, weights), objective.micro_batches,
        )  # fmt: skip
        rate = schedule(state.updates)
        state, health = apply(optimizer, state, grads)
        return state, _means(metrics) | health | {"learning_rate": rate}

    kept = teacher.kept if teacher else None
    out = (state_shardings(policy, optimizer, mesh, teacher=kept), meshes.replicated(mesh))
    step = jax.jit(step, donate_argnums=0, out_shardings=out)
    if policy.architecture.lora is None:
        return step

    def step_of_adapters(state, batch):
        base, adapters = lora.split(state.params)
        state, metrics = step(state.replace(params=adapters), batch, base)
        return state.replace(params=lora.join(base, state.params)), metrics

    return step_of_adapters


def make_weights(batch: Batch, objective: Objective) -> Weights:
    """Share of every token in the terms of the loss, from the whole batch."""
    how = dict(mode=objective.reduction, constant_length=objective.constant_length)
    distil = None
    if objective.distil is not None:
        distil = losses.reduction_weights(batch.mask * batch.distilled[:, None], **how)
    return Weights(losses.reduction_weights(batch.mask, **how), distil)


def _means(metrics: Metrics) -> Metrics:
    """Sums named `group/name` become means over the tokens that `group/count` counts."""
    counts = {name.removesuffix("/count"): value for name, value in metrics.items() if name.endswith("/count")}
    means = {}
    for name, value in metrics.items():
        group, _, what = name.rpartition("/")
        if what != "count":
            means[what] = value / jnp.maximum(counts[group], 1) if group else value
    return means


# ---------------------------------------------------------------- the state's beginning


def abstract_state(
    policy: Policy, optimizer: optax.GradientTransformation, *, teacher: Policy | None = None
) -> TrainState:
    """Shapes of all that learning changes, of a policy with adapters those alone; nothing allocated.

    Args:
      teacher: the model whose parameters are kept for the teacher, if any.
    """
    params = lora.learns(policy.abstract_params())
    updates, theirs = jax.ShapeDtypeStruct((), jnp.int32), teacher and lora.learns(teacher.abstract_params())
    return TrainState(params, jax.eval_shape(optimizer.init, params), updates, theirs)


def state_shardings(
    policy: Policy, optimizer: optax.GradientTransformation, mesh: Mesh, *, teacher: Policy | None = None
) -> TrainState:
    """Where each part of the state lives: optimiser moments and teacher like the parameters they belong to."""
    return meshes.shardings(abstract_state(policy, optimizer, teacher=teacher), mesh)


def init_params(policy: Policy, key: Key[Array, ""], mesh: Mesh) -> Params:
    """Random parameters, made where they belong: no device ever holds the whole."""
    return jax.jit(policy.init, out_shardings=meshes.shardings(policy.abstract_params(), mesh))(key)


def adapt(policy: Policy, base: Params, key: Key[Array, ""], mesh: Mesh) -> Params:
    """Parameters of a policy with adapters from those of its base, which are taken over."""
    where = meshes.shardings(policy.abstract_params(), mesh)
    return jax.jit(policy.adapt, donate_argnums=0, out_shardings=where)(base, key)


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
    opt_state = jax.jit(optimizer.init, out_shardings=where.opt_state)(lora.learns(params))
    teacher = None if teacher is None else lora.learns(teacher)
    return TrainState(params, opt_state, processes.put(np.int32(0), where.updates), teacher)
