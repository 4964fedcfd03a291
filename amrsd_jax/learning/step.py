"""Makes the optimiser update: jitted, sharded, its state donated, its gradients accumulated over micro-batches."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, PyTree

from amrsd_jax import processes
from amrsd_jax.config import LearningConfig, LossConfig
from amrsd_jax.learning import losses
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.batch import micro_batches
from amrsd_jax.learning.state import state_shardings
from amrsd_jax.platforms import row_devices
from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.policy.experts import expert_tokens, load_metrics
from amrsd_jax.records import Batch, TrainState
from amrsd_jax.scoring.chunks import Model, over_chunks
from amrsd_jax.scoring.divergence import Divergence, divergence
from amrsd_jax.scoring.logprobs import before_responses, concatenate, project, response_states, target_logprobs
from amrsd_jax.scoring.teachers import Teacher

Scalars = dict[str, Float[Array, ""]]  # by name
Sums = dict[str, Float[Array, "..."]]  # the same, and tokens per layer and expert [L, E]
EXPERT_TOKENS = "expert_tokens"


class LossWeights(NamedTuple):
    """The share of every token in the policy-gradient terms [N, T] and in the divergence [N, T] of the whole batch."""

    policy: PyTree
    distill: PyTree


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of an update, and how its log-probabilities are computed.

    Attributes:
      loss: the policy-gradient terms.
      distill: the divergence to the teacher, over the rows that have a context; None for rules that do not distil.
      temperature: the temperature at which the responses were sampled.
      chunk: tokens of one device whose logits exist at one time.
    """

    loss: LossConfig
    distill: Divergence | None
    temperature: float
    chunk: int


def objective_loss(
    policy: Policy,
    params: Params,
    batch: Batch,
    weights: LossWeights,
    objective: Objective,
    teacher: tuple[Model, Params] | None = None,
) -> tuple[Float[Array, ""], tuple[Sums, Float[Array, "N T"]]]:
    """Returns the loss of a micro-batch, its metrics, and the responses' log-probabilities.

    loss = sum_t w_t (clipped surrogate + kl KL(reference) - entropy H) + coefficient sum_t w'_t divergence(teacher)

    Summed over micro-batches, loss and metrics are those of the whole batch. `loss.importance_cap` weighs both the surrogate and
    the divergence of a token, as in SDPO's code.

    Args:
      weights: share of each token in the loss of the whole batch, w (`policy`) and w' (`distill`).
      teacher: the teacher's model and parameters, for an objective that distils; no gradient flows into them.
    """
    config = objective.loss
    if batch.prompt_index is not None:
        hidden = policy.forward_responses(params, batch.prompt, batch.prompt_length, batch.prompt_index, batch.response)
    else:
        tokens = concatenate(batch.prompt, batch.prompt_length, batch.response, batch.width)
        hidden, chosen = policy.forward_with_experts(params, tokens)
        hidden = before_responses(hidden, batch.prompt_length, batch.response.shape[1])
    logprobs, entropy, *distilled = _response_scores(policy, params, hidden, batch, objective, teacher)
    old_logprobs = jax.lax.stop_gradient(logprobs) if batch.old_logprobs is None else batch.old_logprobs
    token_loss, token_metrics = losses.clipped_surrogate(
        losses.log_ratio(logprobs, old_logprobs, batch.mask, config.ratio),
        batch.token_advantage,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        clip_dual=config.clip_dual,
    )

    def total(weight, values):
        return jnp.sum(jnp.where(weight > 0, weight * values, 0.0))

    sampler_weight = None
    if config.importance_cap is not None:
        sampler_weight = losses.importance_weight(old_logprobs, batch.sampler_logprobs, cap=config.importance_cap)
        token_loss *= sampler_weight
    metrics = {"policy": total(weights.policy, token_loss)}
    loss = metrics["policy"]
    if config.kl:
        estimate = losses.KL_ESTIMATORS[config.kl_estimator]
        metrics["kl_to_reference"] = total(weights.policy, estimate(logprobs, batch.reference_logprobs))
        loss += config.kl * metrics["kl_to_reference"]
    if config.entropy:
        loss -= config.entropy * total(weights.policy, entropy)
    token_metrics["entropy"] = entropy
    sums = {f"tokens/{name}": total(batch.mask, value) for name, value in token_metrics.items()}
    sums["tokens/count"] = jnp.sum(batch.mask)
    if experts := policy.architecture.experts:
        length = batch.prompt_length + batch.mask.sum(axis=1)
        real = jnp.arange(tokens.shape[1]) < length[:, None]
        sums[EXPERT_TOKENS] = expert_tokens(chosen, real, experts)
    if objective.distill is not None:
        value, support_metrics = distilled
        if objective.distill.importance_cap:
            value *= losses.importance_weight(logprobs, old_logprobs, cap=objective.distill.importance_cap)
        if sampler_weight is not None:
            value *= sampler_weight
        metrics["divergence"] = total(weights.distill, value)
        loss += objective.distill.coefficient * metrics["divergence"]
        mask = batch.mask * batch.distilled[:, None]
        sums |= {f"distilled/{name}": total(mask, value) for name, value in support_metrics.items()}
        sums["distilled/count"] = jnp.sum(mask)
    return loss, (metrics | {"total": loss} | jax.lax.stop_gradient(sums), jax.lax.stop_gradient(logprobs))


def _response_scores(
    policy: Policy,
    params: Params,
    hidden: Float[Array, "N T D"],
    batch: Batch,
    objective: Objective,
    teacher: tuple[Model, Params] | None,
) -> tuple:
    """Returns log-probabilities and entropies of the responses; for an objective that distils, also `divergence`'s results."""
    temperature, chunk = objective.temperature, objective.chunk
    if objective.distill is None:
        return project(policy, params, hidden, batch.response, temperature=temperature, chunk=chunk)
    model, teacher_params = teacher
    teacher_hidden = response_states(
        model, teacher_params, batch.context, batch.context_length, batch.response, batch.context_width
    )

    def part(logits, teacher_logits, targets):
        logits, teacher_logits = logits / temperature, teacher_logits / temperature
        # Models that share a tokenizer may pad their vocabularies to different sizes. Ids beyond the smaller size are padding.
        shared = min(logits.shape[-1], teacher_logits.shape[-1])
        value, metrics = divergence(logits[..., :shared], teacher_logits[..., :shared], objective.distill)
        return *target_logprobs(logits, targets), value, metrics

    models = (policy, params, hidden), (model, teacher_params, teacher_hidden)
    return over_chunks(part, models, batch.response, chunk=chunk)


def gradients(
    policy: Policy,
    params: Params,
    frozen: Params | None,
    rows: tuple[Batch, LossWeights],
    objective: Objective,
    teacher: tuple[Model, Params] | None = None,
) -> tuple[Params, Sums, Float[Array, "N T"]]:
    """Returns the gradients of `objective_loss` with respect to `params`, its metrics, and its log-probabilities.

    Summed over micro-batches they are those of the whole batch, because the weights are made from the whole batch.

    Args:
      params, frozen: trainable and frozen parameters.
      rows: a micro-batch and its weights.
    """

    def loss(params):
        return objective_loss(policy, lora.combine(frozen, params), *rows, objective, teacher)

    (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return grads, *aux


def apply_gradients(
    optimizer: optax.GradientTransformation, state: TrainState, grads: Params
) -> tuple[TrainState, Scalars]:
    """Returns the updated state and metrics; if it would not be finite, the unchanged state, with `skipped` = 1.

    A finite gradient is not enough: with eps = 0, an entry of 0 gives 0 / 0, and a large learning rate can overflow. The state
    is unchanged, too, if the whole gradient is 0, as where no row has credit: Adam would move on by its memory of earlier ones.
    Such updates are counted, so the learning rate falls as the run goes on and not as updates are applied.
    """
    norm, number, optimizer = optax.tree_utils.tree_norm(grads), state.updates, optax.with_extra_args_support(optimizer)

    def update(state, grads):
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, number=number)
        params = optax.apply_updates(state.params, updates)
        return state.replace(params=params, opt_state=opt_state)

    # The update is computed twice, since one that is kept until it is known to be finite needs memory for a second state.
    tried = update(*jax.lax.optimization_barrier((state, grads)))
    written = jax.tree.leaves((norm, tried.params, tried.opt_state))
    finite = functools.reduce(jnp.logical_and, (jnp.isfinite(leaf).all() for leaf in written))
    idle = norm == 0
    state = jax.lax.cond(finite & ~idle, update, lambda state, _: state, state, grads)
    return state.replace(updates=number + 1), {"grad_norm": norm, "skipped": 1.0 - (finite | idle)}


def accumulates(loss: LossConfig, learning: LearningConfig) -> bool:
    """Returns whether an update adds up the gradients of parts; if not, one program computes and applies them."""
    return learning.micro_batches > 1 or scores_first(loss, learning)


def scores_first(loss: LossConfig, learning: LearningConfig) -> bool:
    """Returns whether the denominators of a step's updates are scored before the first one: `old_logprobs` is "update"."""
    return loss.old_logprobs == "update" and learning.minibatches > 1


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """Updates a state by a batch of host values. The state is donated and keeps its sharding.

    One micro-batch is one program. Several are one program each, because their widths differ, and their gradients are summed.
    Frozen parameters are a separate argument, neither donated nor returned.

    Attributes:
      objective, config: the loss, and how the batch is divided.
      rows: sharding of the row axis.
      single_update: (state, frozen, rows) -> (state, metrics); compiled once per width.
      zero_gradients: params -> a zero gradient tree.
      accumulate: (gradients, state, frozen, rows) -> (gradients, metrics, log-probabilities); donates the gradients; compiled
        once per width.
      apply_update: (state, gradients, sums of metrics) -> (state, metrics).

    Metrics: `total` and its terms `policy`, `kl_to_reference`, `divergence` (the last two where the loss has them);
    `clip_frac_low`, `clip_frac_high`, `clip_frac_dual`, `kl_old_new`, `entropy`, means over tokens; `covered`, `overlap`, means
    over distilled tokens, see `scoring.divergence`; with experts those of `experts.load_metrics`; `grad_norm` before clipping;
    `learning_rate`; `skipped`, 1 if the update was skipped.
    """

    objective: Objective
    config: LearningConfig
    rows: NamedSharding
    single_update: Callable
    zero_gradients: Callable
    accumulate: Callable
    apply_update: Callable

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """Returns the state after the update, and its metrics."""
        frozen, state = state.frozen, state.replace(frozen=None)
        if not accumulates(self.objective.loss, self.config):
            state, metrics = self.single_update(state, frozen, *self.device_rows(batch))
        else:
            grads, metrics = self.zero_gradients(state.params), None
            for rows in self.device_rows(batch):
                grads, part, _ = self.accumulate(grads, state, frozen, rows)
                metrics = part if metrics is None else _add(metrics, part)
            state, metrics = self.apply_update(state, grads, metrics)
        return state.replace(frozen=frozen), metrics

    def with_old_logprobs(self, state: TrainState, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields a step's batches with the denominators that the loss declares, for a state before their first update.

        Those of "update" come from the update's own program, so that the ratio begins at exactly 1: another program's rounding
        in bfloat16 exceeds GSPO's bounds. With one update they are its own log-probabilities. With several, each batch's
        gradients are computed once more, in vain, because a program without them rounds differently.
        """
        if self.objective.loss.old_logprobs != "update":
            yield from batches
        elif not scores_first(self.objective.loss, self.config):
            yield from (batch.replace(old_logprobs=None) for batch in batches)
        else:
            yield from [batch.replace(old_logprobs=self._score(state, batch)) for batch in batches]  # before any update

    def _score(self, state: TrainState, batch: Batch) -> Float[np.ndarray, "N T"]:
        """Returns log-probabilities of the responses, on the host; 0 in micro-batches that are skipped."""
        frozen, state = state.frozen, state.replace(frozen=None)
        grads, logprobs = self.zero_gradients(state.params), np.zeros_like(batch.mask)
        order = self._parts(batch, np.arange(len(logprobs)))
        for rows, (_, chosen) in zip(self.device_rows(batch), order, strict=True):
            grads, _, part = self.accumulate(grads, state, frozen, rows)
            part = processes.fetch(part)
            logprobs[chosen, : part.shape[1]] = part
        return logprobs

    def device_rows(self, batch: Batch) -> Iterator[tuple[Batch, LossWeights]]:
        """Yields the micro-batches and their weights, with rows split over the devices."""
        weights = loss_weights(batch, self.objective)
        for rows in self._parts(batch, weights):
            yield processes.put(rows, self.rows)

    def _parts(self, batch: Batch, weights: PyTree) -> Iterator[tuple[Batch, PyTree]]:
        learning, shared = self.config, self.config.share_prompts and row_devices(self.rows.mesh) == 1
        return micro_batches(batch, weights, learning.micro_batches, skip=learning.skip, share_prompts=shared)


@functools.lru_cache
def make_train_step(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    objective: Objective,
    config: LearningConfig,
    mesh: Mesh,
    *,
    teacher: Teacher | None = None,
) -> TrainStep:
    """Returns the train step; for equal arguments the same object, and with it the same compiled programs."""

    def micro_batch(state, frozen, rows):
        if objective.distill is None:
            return gradients(policy, state.params, frozen, rows, objective)
        teacher_params = teacher.params(state.replace(frozen=frozen), lora.combine(frozen, state.params))
        return gradients(policy, state.params, frozen, rows, objective, (teacher.model, teacher_params))

    def accumulate(total, state, frozen, rows):
        grads, metrics, logprobs = micro_batch(state, frozen, rows)
        denominators = objective.loss.old_logprobs == "update"
        return jax.tree.map(jnp.add, total, grads), metrics, logprobs if denominators else None

    def apply_update(state, grads, metrics):
        rate = schedule(state.updates)
        state, health = apply_gradients(optimizer, state, grads)
        return state, _means(metrics) | health | {"learning_rate": rate}

    def single_update(state, frozen, rows):
        grads, metrics, _ = micro_batch(state, frozen, rows)
        return apply_update(state, grads, metrics)

    where = state_shardings(policy, optimizer, mesh, teacher=teacher.stored if teacher else None)
    everywhere = meshes.replicated(mesh)
    return TrainStep(
        objective,
        config,
        meshes.rows(mesh),
        single_update=jax.jit(single_update, donate_argnums=0, out_shardings=(where, everywhere)),
        zero_gradients=jax.jit(lambda params: jax.tree.map(jnp.zeros_like, params), out_shardings=where.params),
        accumulate=jax.jit(accumulate, donate_argnums=0, out_shardings=(where.params, everywhere, meshes.rows(mesh))),
        apply_update=jax.jit(apply_update, donate_argnums=0, out_shardings=(where, everywhere)),
    )


def loss_weights(batch: Batch, objective: Objective) -> LossWeights:
    """Returns the share of every token in the terms of the loss, from the whole batch."""
    mode, length = objective.loss.reduction, objective.loss.constant_length
    distill = None
    if objective.distill is not None:
        distill = losses.reduction_weights(batch.mask * batch.distilled[:, None], mode, constant_length=length)
    return LossWeights(losses.reduction_weights(batch.mask, mode, constant_length=length), distill)


@jax.jit
def _add(metrics: Sums, more: Sums) -> Sums:
    return jax.tree.map(jnp.add, metrics, more)


def _means(metrics: Sums) -> Scalars:
    """Returns metrics as `name`, with each sum `group/name` divided by the tokens `group/count`; nan where there are none."""
    if EXPERT_TOKENS in metrics:
        metrics = dict(metrics)
        metrics |= load_metrics(metrics.pop(EXPERT_TOKENS))
    counts = {name.removesuffix("/count"): value for name, value in metrics.items() if name.endswith("/count")}
    means = {}
    for name, value in metrics.items():
        group, _, metric = name.rpartition("/")
        if metric != "count":
            means[metric] = value / counts[group] if group else value
    return means
