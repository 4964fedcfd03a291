"""One update: its loss, accumulation over micro-batches, meshes, donation, frozen parameters, distillation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from amrsd_jax import lengths, rng
from amrsd_jax.config import LearningConfig, LoraConfig, LossConfig, OptimizerConfig, TeacherConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import init_state, policy_params
from amrsd_jax.learning.step import (
    EXPERT_TOKENS,
    Objective,
    apply_gradients,
    loss_weights,
    make_train_step,
    objective_loss,
)
from amrsd_jax.policy import Policy, lora, preset
from amrsd_jax.policy.architecture import change
from amrsd_jax.records import Batch, TrainState
from amrsd_jax.scoring.divergence import Divergence, divergence
from amrsd_jax.scoring.logprobs import response_states, token_logprobs
from amrsd_jax.scoring.teachers import Teacher, copy
from tests.learning.uneven import N, uneven_batch, with_credit

LOSS = LossConfig(clip_low=0.2, clip_high=0.28, reduction="token_mean")
PLAIN = Objective(LOSS, None, temperature=1.0, chunk=64)
DISTILL = Divergence(coefficient=0.7, alpha=0.5, top_k=5, support="union", importance_cap=1.2)
SGD, RATE = optax.sgd(0.1), optax.constant_schedule(0.1)
ONE = (1, 1, 1)


def train_step(policy, shape=ONE, objective=PLAIN, teacher=None, **learning):
    """The train step on a mesh. Those that differ only in how rows are divided share their programs."""
    mesh = meshes.make_mesh(*shape)
    policy = dataclasses.replace(policy, rows=meshes.rows(mesh))
    step = make_train_step(policy, SGD, RATE, objective, LearningConfig(), mesh, teacher=teacher)
    return dataclasses.replace(step, config=LearningConfig(**learning))


def begin(policy, params, shape=ONE, teacher=None) -> TrainState:
    """A state around copies of the parameters, which may be donated."""
    mesh = meshes.make_mesh(*shape)
    copies = jax.device_put(copy(params), meshes.shardings(policy.abstract_params(), mesh))
    return init_state(policy, SGD, copies, mesh, teacher=None if teacher is None else copy(teacher))


def assert_close(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=tolerance)


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(lengths, "MIN_BUCKET", 4)


@pytest.fixture(scope="module")
def whole(policy, params):
    """State and metrics after an update by all rows at once, padded to one width."""
    return train_step(policy)(begin(policy, params), uneven_batch())


# ---------------------------------------------------------------- the loss


@pytest.fixture(scope="module")
def scores(policy, params):
    """Log-probabilities and entropies of the batch's responses."""
    batch = uneven_batch()
    score = jax.jit(functools.partial(token_logprobs, policy, temperature=1.0, chunk=1000))
    return jax.device_get(score(params, batch.prompt, batch.prompt_length, batch.response))


def test_the_load_of_experts_counts_the_tokens_of_all_rows(policy):
    mixture = Policy(change(policy.architecture, experts=3, experts_per_token=2))
    batch = uneven_batch()
    weights = loss_weights(batch, PLAIN)

    sums = jax.jit(lambda p, *rows: objective_loss(mixture, p, *rows, PLAIN)[1][0])
    tokens = sums(jax.jit(mixture.init)(rng.key(0, "init")), batch, weights)[EXPERT_TOKENS]
    np.testing.assert_allclose(tokens.sum(axis=1), 2 * (batch.prompt_length.sum() + batch.mask.sum()))


@pytest.mark.parametrize(
    "changes",
    [
        dict(kl=0.01, entropy=0.001, importance_cap=2.0, old_logprobs="trainer"),
        dict(kl=0.1, kl_estimator="k2", ratio="sequence", reduction="sequence_mean"),
    ],
)
def test_the_terms_of_the_loss_by_hand(policy, params, scores, changes):
    config, batch = LOSS.model_copy(update=changes), uneven_batch()
    batch = batch.replace(sampler_logprobs=1.1 * batch.sampler_logprobs)
    objective = dataclasses.replace(PLAIN, loss=config)
    weights = loss_weights(batch, objective)
    loss, (metrics, _) = jax.jit(lambda p, *rows: objective_loss(policy, p, *rows, objective))(params, batch, weights)

    logprobs, entropy = scores
    tokens = batch.mask.sum(axis=1, keepdims=True)
    log_ratio = logprobs - batch.old_logprobs
    if config.ratio == "sequence":
        log_ratio = np.tile((log_ratio * batch.mask).sum(axis=1, keepdims=True) / tokens, batch.mask.shape[1])
    ratio, advantage = np.exp(log_ratio), batch.token_advantage
    policy_loss = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.28) * advantage)
    if config.importance_cap:
        policy_loss *= np.minimum(np.exp(batch.old_logprobs - batch.sampler_logprobs), config.importance_cap)
    d = batch.reference_logprobs - logprobs
    kl = d**2 / 2 if config.kl_estimator == "k2" else np.exp(d) - 1 - d

    def mean(values):
        over_rows = config.reduction == "sequence_mean"
        return (values * batch.mask / (tokens * N if over_rows else batch.mask.sum())).sum()

    assert float(metrics["policy"]) == pytest.approx(mean(policy_loss), rel=1e-4)
    assert float(metrics["kl_to_reference"]) == pytest.approx(mean(kl), rel=1e-4)
    assert float(loss) == pytest.approx(mean(policy_loss + config.kl * kl - config.entropy * entropy), rel=1e-4)


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_prompts_that_are_run_once_change_nothing(policy, params, remat):
    """Eight rows have three prompts; the part of the four rows without credit is skipped."""
    policy = dataclasses.replace(policy, remat=remat)
    batch, owner = with_credit(uneven_batch(), [0, 1, 3, 4]), np.array([0, 0, 0, 3, 3, 3, 6, 6])
    batch = batch.replace(prompt=batch.prompt[owner], prompt_length=batch.prompt_length[owner])
    apart, shared = (
        train_step(policy, micro_batches=2, skip=True, share_prompts=share)(begin(policy, params), batch)
        for share in (False, True)
    )
    assert_close(shared[0].params, apart[0].params)
    assert_close(shared[1], apart[1])


def test_rows_that_are_split_over_devices_run_their_own_prompts(policy, params):
    """Eight rows have three prompts, which eight devices could not divide."""
    batch, owner, shape = uneven_batch(), np.array([0, 0, 0, 3, 3, 3, 6, 6]), (8, 1, 1)
    batch = batch.replace(prompt=batch.prompt[owner], prompt_length=batch.prompt_length[owner])
    apart, shared = (
        train_step(policy, shape, share_prompts=share)(begin(policy, params, shape), batch) for share in (False, True)
    )
    assert_close(shared[0].params, apart[0].params)


def test_metrics_of_an_update_are_means_over_tokens(scores, whole):
    batch, (logprobs, entropy) = uneven_batch(), scores
    log_ratio, counted = logprobs - batch.old_logprobs, batch.mask > 0
    expected = {
        "entropy": entropy,
        "kl_old_new": np.exp(log_ratio) - 1 - log_ratio,
        "clip_frac_high": (batch.token_advantage > 0) & (np.exp(log_ratio) > 1.28),
        "clip_frac_low": (batch.token_advantage < 0) & (np.exp(log_ratio) < 0.8),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(whole[1][name], values[counted].mean(), rtol=1e-4)
    assert float(whole[1]["learning_rate"]) == pytest.approx(0.1) and whole[1]["skipped"] == 0


def test_an_update_without_a_token_has_no_entropy(policy, params):
    """One of 0 would look like a policy that has collapsed."""
    batch = uneven_batch()
    _, metrics = train_step(policy)(begin(policy, params), dataclasses.replace(batch, mask=np.zeros_like(batch.mask)))
    assert np.isnan(metrics["entropy"]) and metrics["total"] == metrics["skipped"] == 0


OWN = LOSS.model_copy(update=dict(ratio="sequence", clip_low=3e-4, clip_high=4e-4, old_logprobs="update"))


def test_the_ratio_of_a_single_update_is_that_of_its_own_log_probabilities(policy, params):
    objective = dataclasses.replace(PLAIN, loss=OWN)
    (batch,) = train_step(policy, objective=objective).with_old_logprobs(begin(policy, params), [uneven_batch()])
    weights = loss_weights(batch, objective)
    _, (metrics, _) = jax.jit(lambda p, *rows: objective_loss(policy, p, *rows, objective))(params, batch, weights)
    assert metrics["tokens/clip_frac_low"] == metrics["tokens/clip_frac_high"] == metrics["tokens/kl_old_new"] == 0


@pytest.mark.slow
def test_no_gradient_is_lost_to_the_noise_between_two_programs(policy, params, scores):
    """In bfloat16, whose noise is beyond GSPO's bounds, the ratio of two updates is exactly 1 before the first of them."""
    policy = dataclasses.replace(policy, architecture=dataclasses.replace(policy.architecture, dtype="bfloat16"))
    step = train_step(policy, objective=dataclasses.replace(PLAIN, loss=OWN), minibatches=2)
    batch = uneven_batch()
    for one in step.with_old_logprobs(begin(policy, params), [batch, batch]):
        _, metrics = step(begin(policy, params), one)
        assert metrics["clip_frac_low"] == metrics["clip_frac_high"] == metrics["kl_old_new"] == 0
        noise = np.abs(one.old_logprobs - scores[0])[batch.mask > 0]
        assert 4e-4 < noise.mean() < 0.05


# ---------------------------------------------------------------- the same rows, divided otherwise


@pytest.mark.slow
def test_micro_batches_add_up_to_the_whole(policy, params, whole, narrow):
    """Each cut to its widest row: 62 and 16 tokens."""
    state, metrics = train_step(policy, micro_batches=2)(begin(policy, params), uneven_batch())
    assert_close(state.params, whole[0].params, 1e-6)
    assert_close(metrics, whole[1])


@pytest.mark.slow
def test_parts_that_are_skipped_had_no_gradient(policy, params, narrow):
    """The same parameters, also if no row has credit; means are over the rows that are left."""
    batch = with_credit(uneven_batch(), [0, 1, 4, 5])
    results = [train_step(policy, micro_batches=2, skip=skip)(begin(policy, params), batch) for skip in (False, True)]
    (expected, metrics), (state, fewer) = results
    assert_close(state.params, expected.params, 1e-6)
    assert float(fewer["policy"]) == pytest.approx(float(metrics["policy"]), rel=1e-5)
    assert fewer["entropy"] != metrics["entropy"]
    idle = with_credit(batch, [])
    state, metrics = train_step(policy, micro_batches=2, skip=True)(begin(policy, params), idle)
    assert metrics["grad_norm"] == 0 and metrics["skipped"] == 0
    assert_close(state.params, params, 0)


def test_padding_never_matters(policy, params, whole):
    batch = uneven_batch()
    junk = np.where(batch.mask > 0, batch.response, 47).astype(np.int32)
    state, _ = train_step(policy)(begin(policy, params), batch.replace(response=junk))
    assert_close(state.params, whole[0].params, 0)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_one_device_equals_eight(policy, params, whole, shape):
    state, metrics = train_step(policy, shape)(begin(policy, params, shape), uneven_batch())
    assert_close(metrics, whole[1])
    assert_close(state.params, whole[0].params)
    kernel = state.params["layers"]["gate"]["kernel"]
    assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")


# ---------------------------------------------------------------- what an update keeps, and what it takes


def test_an_update_takes_over_the_state(policy, params):
    state = begin(policy, params)
    updated, _ = train_step(policy)(state, uneven_batch())
    assert all(a.is_deleted() for a in jax.tree.leaves(state.params)) and int(updated.updates) == 1


@pytest.mark.slow
def test_frozen_parameters_are_neither_donated_nor_changed(policy, params):
    adapted = Policy(dataclasses.replace(policy.architecture, lora=LoraConfig(rank=4, alpha=8.0, targets="query,down")))
    whole = jax.jit(adapted.adapt)(params, jax.random.key(0))
    state = begin(adapted, whole)
    frozen, (base, adapters) = state.frozen, lora.split(whole)
    updated, metrics = train_step(adapted)(state, uneven_batch())
    assert updated.frozen is frozen
    jax.tree.map(np.testing.assert_array_equal, frozen, base)
    assert all(a.is_deleted() for a in jax.tree.leaves(state.params)) and metrics["grad_norm"] > 0
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), adapters, updated.params)
    assert {name: leaves["lora_b"] for name, leaves in moved["layers"].items()} == {"query": True, "down": True}
    assert jax.tree.structure(policy_params(updated)) == jax.tree.structure(whole)


def same_but_for_the_count(after: TrainState, before: TrainState) -> bool:
    """Whether an update changed nothing but the number of updates."""
    return jax.tree.all(jax.tree.map(np.array_equal, after, before.replace(updates=before.updates + 1)))


def test_a_gradient_that_is_not_finite_changes_nothing():
    adam = optax.adam(0.1)
    params = {"w": jnp.ones(3)}
    state = TrainState(params, adam.init(params), jnp.int32(5))
    refused, metrics = apply_gradients(adam, state, {"w": jnp.array([1.0, jnp.nan, 0.0])})
    assert metrics["skipped"] == 1 and same_but_for_the_count(refused, state)
    updated, metrics = apply_gradients(adam, state, {"w": jnp.array([3.0, 0.0, 4.0])})
    assert metrics["skipped"] == 0 and metrics["grad_norm"] == 5 and int(updated.updates) == 6


def test_a_step_without_any_credit_changes_nothing():
    """Adam moves a parameter by its memory of earlier gradients, but not where there is none at all."""
    adam = optax.adam(0.1, eps=0.0)
    params = {"w": jnp.ones(3)}
    state, _ = apply_gradients(
        adam, TrainState(params, adam.init(params), jnp.int32(0)), {"w": jnp.array([3.0, 1.0, 4.0])}
    )
    after, metrics = apply_gradients(adam, state, {"w": jnp.zeros(3)})
    assert metrics["skipped"] == 0 and metrics["grad_norm"] == 0
    assert same_but_for_the_count(after, state)
    some, _ = apply_gradients(adam, state, {"w": jnp.array([0.0, 1.0, 0.0])})
    assert (some.params["w"] < state.params["w"]).all()


@pytest.mark.parametrize("optimizer", [optax.adam(0.1, eps=0.0), optax.sgd(3e38)], ids=["0 / 0", "overflow"])
def test_an_update_that_is_not_finite_changes_nothing(optimizer):
    """Although its gradient is finite."""
    params = {"w": jnp.ones(2)}
    state = TrainState(params, optimizer.init(params), jnp.int32(5))
    refused, metrics = apply_gradients(optimizer, state, {"w": jnp.array([0.0, 2.0])})
    assert metrics["skipped"] == 1 and same_but_for_the_count(refused, state)


def test_the_learning_rate_falls_in_updates_that_are_not_applied_too():
    """Linear over four updates of 0.4: without one that had a gradient, the third has a rate of 0.2 and Adam's first step."""
    config = OptimizerConfig(learning_rate=0.4, schedule="linear", clip_norm=0.0)
    adam = make_optimizer(config, make_schedule(config, 4))
    params = {"w": jnp.ones(2)}
    state = TrainState(params, adam.init(params), jnp.int32(0))
    for gradient in (0.0, jnp.nan, 3.0):
        state, _ = apply_gradients(adam, state, {"w": jnp.full(2, gradient)})
    np.testing.assert_allclose(state.params["w"], 0.8, rtol=1e-6)


# ---------------------------------------------------------------- distillation


@pytest.mark.slow
def test_the_divergence_is_that_of_the_whole_table(policy, params):
    """Loss and gradient, from micro-batches and chunks, against [N, T, V] in memory. The teacher is the first policy.

    Contexts are cut to 64 tokens of 94.
    """
    current, batch = jax.tree.map(lambda a: 0.8 * a, params), uneven_batch(context=True)
    objective = dataclasses.replace(PLAIN, distill=DISTILL, chunk=10)
    teacher = Teacher(TeacherConfig(kind="initial"), policy)
    step = train_step(policy, objective=objective, teacher=teacher, micro_batches=2)
    state, metrics = step(begin(policy, current, teacher=params), batch)
    device = jax.tree.map(jnp.asarray, batch)

    def table(p, prompt, length):
        return policy.logits(p, response_states(policy, p, prompt, length, device.response))

    def dense(p):
        logits = table(p, device.prompt, device.prompt_length)
        value, _ = divergence(logits, table(params, device.context, device.context_length), DISTILL)
        logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), device.response[..., None], axis=-1)[..., 0]
        rho = jnp.exp(logprobs - device.old_logprobs)
        weight = device.mask * device.distilled[:, None]
        distill = jnp.sum(weight * value * jax.lax.stop_gradient(jnp.minimum(rho, 1.2))) / weight.sum()
        surrogate = jnp.minimum(rho * device.token_advantage, jnp.clip(rho, 0.8, 1.28) * device.token_advantage)
        return 0.7 * distill - jnp.sum(surrogate * device.mask) / device.mask.sum(), distill

    (total, distill), gradient = jax.jit(jax.value_and_grad(dense, has_aux=True))(current)
    assert float(metrics["divergence"]) == pytest.approx(float(distill), rel=1e-4)
    assert float(metrics["total"]) == pytest.approx(float(total), rel=1e-4)
    assert 0 < float(metrics["overlap"]) < 1 and 0 < float(metrics["covered"]) < 1
    assert_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, current, gradient))
    assert_close(state.teacher, params, 0)

    nothing = batch.replace(distilled=np.zeros(N, np.float32))
    _, metrics = step(begin(policy, current, teacher=params), nothing)
    assert metrics["divergence"] == 0 and np.isfinite(metrics["grad_norm"])


@pytest.mark.slow
@pytest.mark.parametrize("wider", ["teacher", "student"])
def test_the_padding_of_a_wider_vocabulary_is_left_out_of_the_divergence(policy, params, wider):
    """As of Qwen2.5-1.5B with 151,936 and Qwen2.5-7B with 152,064 ids, whose tokenizer is one."""
    batch, current = uneven_batch(context=True), jax.tree.map(lambda a: 0.8 * a, params)
    distill = DISTILL.model_copy(update=dict(importance_cap=0.0))  # whose ratio counts the student's padding
    objective, size = Objective(LOSS, distill, 1.0, chunk=64), policy.architecture.vocab_size
    weights = loss_weights(batch, objective)
    padded = Policy(change(policy.architecture, vocab_size=size + 16))

    def pad(tree):
        return jax.tree.map(
            lambda a, b: jnp.pad(a, [(0, n - m) for m, n in zip(a.shape, b.shape, strict=True)], constant_values=3.0),
            tree, padded.abstract_params(),
        )  # fmt: skip

    def value(student, teacher):
        loss = jax.jit(lambda *rows: objective_loss(*student, *rows, objective, teacher)[1][0])
        return float(loss(batch, weights)["divergence"])

    student, teacher = (policy, current), (policy, params)
    expected = value(student, teacher)
    found = value(student, (padded, pad(params))) if wider == "teacher" else value((padded, pad(current)), teacher)
    assert found == pytest.approx(expected, rel=1e-4) and found > 0


@pytest.mark.slow
def test_the_weight_between_sampler_and_trainer_reaches_the_divergence(policy, params):
    """A cap of 0.25, which every weight exceeds, makes both terms a quarter of what they are at a cap of 1."""
    batch, current = uneven_batch(context=True), jax.tree.map(lambda a: 0.8 * a, params)
    batch = batch.replace(sampler_logprobs=batch.old_logprobs - 2)

    def terms(cap):
        loss = LOSS.model_copy(update=dict(old_logprobs="trainer", importance_cap=cap))
        objective = Objective(loss, DISTILL, 1.0, chunk=64)
        loss = jax.jit(lambda *rows: objective_loss(policy, current, *rows, objective, (policy, params))[1][0])
        metrics = loss(batch, loss_weights(batch, objective))
        return np.array([metrics["policy"], metrics["divergence"]])

    np.testing.assert_allclose(terms(0.25), terms(1.0) / 4, rtol=1e-5)


@pytest.mark.slow
def test_a_divergence_keeps_no_table():
    """Memory of the compiled gradient, for a large vocabulary and chunks of 8 tokens."""
    policy = Policy(preset("tiny", vocab_size=20_000, width=16, layers=1, heads=2, kv_heads=1, head_dim=8, ffn=16))
    ids, floats, lengths_of = (jax.ShapeDtypeStruct(shape, kind) for shape, kind in
                               (((4, 128), jnp.int32), ((4, 128), jnp.float32), ((4,), jnp.int32)))  # fmt: skip
    prompt, distilled = jax.ShapeDtypeStruct((4, 1), jnp.int32), jax.ShapeDtypeStruct((4,), jnp.float32)
    batch = Batch(prompt, lengths_of, ids, *[floats] * 5, prompt, lengths_of, distilled)

    objective = Objective(LOSS, Divergence(top_k=8), 1.0, chunk=8)

    def loss(p, teacher, rows):
        return objective_loss(policy, p, rows, loss_weights(rows, objective), objective, (policy, teacher))[0]

    abstract = policy.abstract_params()
    compiled = jax.jit(jax.grad(loss)).lower(abstract, abstract, batch).compile()
    table = 4 * 128 * 20_000 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < table / 2
