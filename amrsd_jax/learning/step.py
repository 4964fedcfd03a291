"""One optimiser update: jitted, sharded, donated, with gradients accumulated over micro-batches of like rows."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Key, PyTree

from amrsd_jax import processes
from amrsd_jax.learning import losses
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.batch import micro_batches
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
      skip: leave out pieces of rows without credit; means over tokens are then of the others.
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
    skip: bool = False
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
    hidden = response_states(policy, params, batch.prompt, batch.prompt_length, batch.response, batch.width)
    if objective.distil is None:
        return project(policy, params, hidden, batch.response, temperature=objective.temperature, chunk=objective.chunk)
    model, theirs = teacher
    shown = response_states(model, theirs, batch.context, batch.context_length, batch.response, batch.context_width)

    def piece(h, y, g):
        logits, guide = policy.logits(params, h), model.logits(theirs, g)
        value, seen = divergence(logits / objective.temperature, guide / objective.temperature, objective.distil)
        return *read(logits / objective.temperature, y), value, seen

    arrays = (hidden, batch.response, jax.lax.stop_gradient(shown))
    return over_chunks(piece, *arrays, chunk=objective.chunk)


def gradients(
    policy: Policy,
    learned: Params,
    base: Params | None,
    rows: tuple[Batch, Weights],
    objective: Objective,
    teacher: tuple[Model, Params] | None = None,
) -> tuple[Params, Metrics]:
    """Gradients of `objective_loss` by what learns, and its metrics: sums over micro-batches, as the loss is.

    Weights made from the whole batch give true denominators, not a mean of means.

    Args:
      learned, base: parameters that learn, and those frozen under adapters; see `lora.split`.
      rows: some of the batch, and their weights.
    """

    def loss(learned):
        return objective_loss(policy, lora.join(base, learned), *rows, objective, teacher)

    (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(learned)
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


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The update of a state, which is donated and keeps its sharding, by a batch of host values.

    A batch in one piece is one program. Otherwise the gradients of micro-batches are added up outside of the programs,
    because pieces differ in their width. A base frozen under adapters is an argument beside the state: it is read, and
    neither donated nor returned.

    Attributes:
      objective: what is minimised.
      rows: where rows live.
      once: (state, base, rows) -> (state, metrics), compiled once a width.
      zero: (parameters) -> gradients of nothing.
      add: (gradients, state, base, rows) -> (gradients, metrics); donates the sum so far; compiled once a width.
      end: (state, gradients, metrics of each micro-batch) -> (state, metrics).

    Metrics: `total`, `policy`, (`kl_to_reference`, `divergence`) are the loss and its terms; `covered`, `overlap` are means
    over distilled tokens, see `scoring.divergence`; `clip_low`, `clip_high`, `kl`, `entropy`
    are means over tokens; `grad_norm` is before clipping; `learning_rate` is this update's; `skipped` is 1 if the update
    was refused.
    """

    objective: Objective
    rows: NamedSharding
    once: Callable
    zero: Callable
    add: Callable
    end: Callable

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The state after the update, and its metrics."""
        base, learned = lora.split(state.params)
        state = state.replace(params=learned)
        if self.objective.micro_batches == 1:
            state, metrics = self.once(state, base, *self.cut(batch))
        else:
            grads, metrics = self.zero(learned), []
            for rows in self.cut(batch):
                grads, found = self.add(grads, state, base, rows)
                metrics.append(found)
            state, metrics = self.end(state, grads, metrics)
        return state.replace(params=lora.join(base, state.params)), metrics

    def cut(self, batch: Batch) -> Iterator[tuple[Batch, Weights]]:
        """The micro-batches on the devices, which have equal shares of each."""
        pieces, skip = self.objective.micro_batches, self.objective.skip
        for rows in micro_batches(batch, make_weights(batch, self.objective), pieces, skip=skip):
            yield processes.put(rows, self.rows)


@functools.lru_cache
def make_train_step(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    objective: Objective,
    mesh: Mesh,
    *,
    teacher: Teacher | None = None,
) -> TrainStep:
    """The same object, and with it the same programs, for equal arguments."""

    def found(state, base, rows):
        whole = state.replace(params=lora.join(base, state.params))
        guide = (teacher.model, teacher.params(whole)) if objective.distil else None
        return gradients(policy, state.params, base, rows, objective, guide)

    def add(total, state, base, rows):
        grads, metrics = found(state, base, rows)
        return jax.tree.map(jnp.add, total, grads), metrics

    def end(state, grads, metrics):
        metrics = jax.tree.map(lambda *parts: sum(parts), *metrics)
        rate = schedule(state.updates)
        state, health = apply(optimizer, state, grads)
        return state, _means(metrics) | health | {"learning_rate": rate}

    def once(state, base, rows):
        grads, metrics = found(state, base, rows)
        return end(state, grads, [metrics])

    where = state_shardings(policy, optimizer, mesh, teacher=teacher.kept if teacher else None)
    everywhere = meshes.replicated(mesh)
    return TrainStep(
        objective,
        meshes.rows(mesh),
        once=jax.jit(once, donate_argnums=0, out_shardings=(where, everywhere)),
        zero=jax.jit(lambda params: jax.tree.map(jnp.zeros_like, params), out_shardings=where.params),
        add=jax.jit(add, donate_argnums=0, out_shardings=(where.params, everywhere)),
        end=jax.jit(end, donate_argnums=0, out_shardings=(where, everywhere)),
    )


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
