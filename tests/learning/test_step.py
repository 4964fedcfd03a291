"""One update: accumulation, true denominators, meshes, the guard against gradients that are not finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from amrsd_jax import lengths
from amrsd_jax.learning import losses
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning import step as steps
from amrsd_jax.learning.batch import micro_batches
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.policy import Policy, preset
from amrsd_jax.records import Batch
from amrsd_jax.scoring.divergence import Divergence, divergence
from amrsd_jax.scoring.logprobs import response_states
from amrsd_jax.scoring.teachers import Teacher

N, P, T = 8, 4, 6
OBJECTIVE = steps.Objective(
    ratio="token",
    clip_low=0.2,
    clip_high=0.28,
    reduction="token_mean",
    constant_length=None,
    kl=0.01,
    entropy=0.001,
    importance_cap=2.0,
    temperature=1.0,
    chunk=16,
)
SGD = optax.sgd(0.1)
CONSTANT = optax.constant_schedule(0.1)
DISTIL = Divergence(coefficient=0.7, alpha=0.5, top_k=5, support="union", importance_cap=1.2)


def batch():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, T + 1, N)
    mask = (np.arange(T) < lengths[:, None]).astype(np.float32)

    def around(centre):
        return (centre + 0.3 * generator.normal(size=(N, T))).astype(np.float32) * mask

    return Batch(
        prompt=generator.integers(4, 48, (N, P), dtype=np.int32),
        prompt_length=generator.integers(1, P + 1, N, dtype=np.int32),
        response=generator.integers(4, 48, (N, T), dtype=np.int32),
        mask=mask,
        logp_sampler=around(-4.0),
        logp_old=around(-4.0),
        logp_reference=around(-4.0),
        token_advantage=around(0.0),
    )


def begin(policy, params, mesh, optimizer=SGD):
    mine = jax.device_put(jax.tree.map(jnp.copy, params), meshes.shardings(policy.abstract_params(), mesh))
    return steps.init_state(policy, optimizer, mine, mesh)


def update(policy, params, objective=OBJECTIVE, shape=(1, 1, 1), rows=None, optimizer=SGD):
    mesh = meshes.make_mesh(*shape)
    state = begin(policy, params, mesh, optimizer)
    train_step = steps.make_train_step(policy, optimizer, CONSTANT, objective, mesh)
    return train_step(state, batch() if rows is None else rows)


@pytest.fixture(scope="module")
def plain(policy, params):
    return update(policy, params)


def assert_close(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean", "constant"])
def test_micro_batches_add_up_to_the_whole(policy, params, reduction):
    objective = dataclasses.replace(OBJECTIVE, reduction=reduction, constant_length=9)
    whole_state, whole = update(policy, params, objective)
    state, pieces = update(policy, params, dataclasses.replace(objective, micro_batches=4))
    assert_close(state.params, whole_state.params)
    assert_close(pieces, whole)


# ---------------------------------------------------------------- rows of very different lengths


def uneven(context=False):
    """Rows of 2 to 62 tokens, prompts of 2 to 8 among them, in no order; with teacher prompts of 1 to 40, one missing."""
    generator = np.random.default_rng(2)
    given, answered = np.array([8, 1, 5, 3, 2, 8, 1, 7]), np.array([3, 54, 1, 9, 25, 12, 1, 6])
    mask = (np.arange(54) < answered[:, None]).astype(np.float32)

    def around(centre):
        return (centre + 0.3 * generator.normal(size=mask.shape)).astype(np.float32) * mask

    def tokens(width):
        return generator.integers(4, 48, (N, width), dtype=np.int32)

    rows = Batch(
        prompt=tokens(8), prompt_length=given.astype(np.int32), response=tokens(54), mask=mask,
        logp_sampler=around(-4.0), logp_old=around(-4.0), logp_reference=around(-4.0), token_advantage=around(0.0),
    )  # fmt: skip
    if not context:
        return rows
    shown, distilled = np.array([40, 1, 2, 20, 5, 9, 3, 1], np.int32), np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32)
    return rows.replace(context=tokens(40), context_length=shown, distilled=distilled)


def test_micro_batches_are_cut_to_their_widest_row(monkeypatch):
    """Worked by hand: rows have 11, 55, 6, 12, 27, 20, 2 and 13 tokens, so buckets of 16, 62, 8, 16, 32, 32, 4 and 16; with
    their contexts instead 43, 55, 3, 29, 30, 21, 4 and 7."""
    monkeypatch.setattr(lengths, "LEAST", 4)
    rows = uneven(context=True)
    pieces = list(micro_batches(rows, steps.Weights(np.arange(N)[:, None] + 0 * rows.mask, None), 4))
    assert [sorted(weights.policy[:, 0].tolist()) for _, weights in pieces] == [[1, 4], [0, 5], [3, 7], [2, 6]]
    assert [piece.width for piece, _ in pieces] == [62, 32, 16, 8]
    assert [piece.context_width for piece, _ in pieces] == [64, 64, 32, 4]
    assert [piece.response.shape for piece, _ in pieces] == [(2, 54), (2, 32), (2, 16), (2, 8)]
    assert [piece.prompt.shape[1] for piece, _ in pieces] == [8, 8, 8, 8]
    assert [piece.context.shape[1] for piece, _ in pieces] == [40, 40, 32, 4]
    assert sum(piece.mask.sum() for piece, _ in pieces) == rows.mask.sum()


def test_rows_of_one_width_stay_in_their_order():
    pieces = list(micro_batches(uneven(), steps.Weights(np.arange(N)[:, None], None), 2))
    assert [weights.policy[:, 0].tolist() for _, weights in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_pieces_of_rows_without_credit_are_left_out(monkeypatch):
    """By hand: widths are 16, 62, 8, 16, 32, 32, 4, 16; rows 1, 3 and 4 have credit, so the narrowest other is with them."""
    monkeypatch.setattr(lengths, "LEAST", 4)
    rows, credited = uneven(), np.isin(np.arange(N), [1, 3, 4])[:, None]
    rows = rows.replace(token_advantage=rows.token_advantage * credited)

    def pieces(rows):
        cut = micro_batches(rows, steps.Weights(np.arange(N)[:, None], None), 4, skip=True)
        return [(weights.policy[:, 0].tolist(), piece.width) for piece, weights in cut]

    assert pieces(rows) == [([1, 4], 62), ([3, 6], 16)]
    taught = uneven(context=True).replace(token_advantage=0 * rows.mask, distilled=np.eye(N, dtype=np.float32)[5])
    assert pieces(taught) == [([5, 6], 32)]
    assert pieces(rows.replace(token_advantage=0 * rows.mask)) == [([6, 2], 8)]


def test_what_is_left_out_had_no_gradient(policy, params):
    """The same parameters, and the same if nobody has credit; means are over the rows that are left."""
    rows, credited = uneven(), np.isin(np.arange(N), [1, 3, 4])[:, None]
    rows = rows.replace(token_advantage=rows.token_advantage * credited)
    objective = dataclasses.replace(OBJECTIVE, kl=0.0, entropy=0.0, micro_batches=4)
    (expected, whole), (state, metrics) = (
        update(policy, params, dataclasses.replace(objective, skip=skip), rows=rows) for skip in (False, True)
    )
    assert_close(state.params, expected.params, 1e-6)
    assert float(metrics["policy"]) == pytest.approx(float(whole["policy"]), rel=1e-5)
    assert metrics["entropy"] != whole["entropy"]
    idle = rows.replace(token_advantage=0 * rows.mask)
    state, metrics = update(policy, params, dataclasses.replace(objective, skip=True), rows=idle)
    assert metrics["grad_norm"] == 0 and metrics["skipped"] == 0
    assert_close(state.params, params, 0)


def test_cut_rows_give_the_gradients_of_padded_ones(policy, params, monkeypatch):
    """Student and teacher, to a millionth; and as many programs as there are widths, however many updates."""
    rows, mesh = uneven(context=True), meshes.make_mesh(2, 1, 1)
    moved = jax.tree.map(lambda a: 0.8 * a, params)

    def one(**changes):
        state = begin(policy, moved, mesh).replace(teacher=begin(policy, params, mesh).params)
        objective = dataclasses.replace(OBJECTIVE, distil=DISTIL, **changes)
        step = steps.make_train_step(policy, SGD, CONSTANT, objective, mesh, teacher=Teacher("initial", policy))
        return step, *step(state, rows)

    _, expected, whole = one()
    monkeypatch.setattr(lengths, "LEAST", 4)
    step, state, metrics = one(micro_batches=2)
    for part, value in zip(*map(jax.tree.leaves, (state.params, expected.params)), strict=True):
        np.testing.assert_allclose(part, value, atol=1e-6)
    for name, value in whole.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-6)
    step(state, rows)
    assert (step.add._cache_size(), step.end._cache_size(), step.once._cache_size()) == (2, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_meshes_agree(policy, params, plain, shape):
    state, metrics = update(policy, params, shape=shape)
    assert_close(metrics, plain[1])
    assert_close(state.params, plain[0].params)
    kernel = state.params["layers"]["gate"]["kernel"]
    assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")


def test_loss_and_monitors_by_hand(policy, params, plain):
    """The loss again, from dense log-probabilities and NumPy."""
    from amrsd_jax.scoring.logprobs import token_logprobs

    b = batch()
    logp, entropy = token_logprobs(
        policy, params, *map(jnp.asarray, (b.prompt, b.prompt_length, b.response)), temperature=1.0, chunk=1000
    )
    ratio = np.exp(logp - b.logp_old)
    surrogate = -np.minimum(ratio * b.token_advantage, np.clip(ratio, 0.8, 1.28) * b.token_advantage)
    d = b.logp_reference - logp
    per_token = np.minimum(np.exp(b.logp_old - b.logp_sampler), 2.0) * surrogate
    per_token = per_token + 0.01 * (np.exp(d) - 1 - d) - 0.001 * entropy
    metrics = plain[1]
    np.testing.assert_allclose(metrics["total"], (per_token * b.mask).sum() / b.mask.sum(), rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy"], (entropy * b.mask).sum() / b.mask.sum(), rtol=1e-4)
    clipped = (b.token_advantage > 0) & (ratio > 1.28) & (b.mask > 0)
    np.testing.assert_allclose(metrics["clip_high"], clipped.sum() / b.mask.sum(), rtol=1e-5)


def test_padding_never_matters(policy, params, plain):
    b = batch()
    junk = np.where(b.mask > 0, b.response, 47).astype(np.int32)
    state, _ = update(policy, params, rows=b.replace(response=junk))
    assert_close(state.params, plain[0].params, 0)


def test_a_gradient_that_is_not_finite_changes_nothing(policy, params):
    bad = batch()
    bad = bad.replace(token_advantage=np.where(bad.mask > 0, np.float32("nan"), 0.0))
    state, metrics = update(policy, params, rows=bad, optimizer=optax.adam(0.1))
    assert float(metrics["skipped"]) == 1.0
    assert int(state.updates) == 0
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(state.opt_state))


def test_the_update_compiles_once_and_donates(policy, params):
    mesh = meshes.make_mesh(1, 1, 1)
    train_step = steps.make_train_step(policy, SGD, CONSTANT, OBJECTIVE, mesh)
    state = begin(policy, params, mesh)
    first = state.params["final_norm"]["scale"]
    for _ in range(2):
        state, _ = train_step(state, batch())
    assert first.is_deleted()
    assert train_step.once._cache_size() == 1


# ---------------------------------------------------------------- distillation


def distilling(policy, params, spec=DISTIL, distilled=(1, 0, 1, 1, 0, 1, 1, 1), **changes):
    """An update with the first policy as teacher, from a policy that has moved away from it."""
    generator = np.random.default_rng(1)
    rows = batch().replace(
        context=generator.integers(4, 48, (N, 9), dtype=np.int32),
        context_length=generator.integers(1, 10, N, dtype=np.int32),
        distilled=np.array(distilled, np.float32),
    )
    objective = dataclasses.replace(OBJECTIVE, kl=0.0, entropy=0.0, importance_cap=None, distil=spec, **changes)
    moved = jax.tree.map(lambda a: 0.8 * a, params)
    mesh = meshes.make_mesh(1, 1, 1)
    state = begin(policy, moved, mesh).replace(teacher=jax.tree.map(jnp.copy, params))
    train_step = steps.make_train_step(policy, SGD, CONSTANT, objective, mesh, teacher=Teacher("initial", policy))
    return rows, moved, *train_step(state, rows)


def test_the_divergence_is_that_of_the_whole_table(policy, params):
    """The loss again with [N, T, V] in memory; and its gradient, through an update of SGD."""
    rows, moved, state, metrics = distilling(policy, params)
    device = jax.tree.map(jnp.asarray, rows)

    def table(p, prompt, length):
        return policy.logits(p, response_states(policy, p, prompt, length, device.response))

    def dense(p):
        logits = table(p, device.prompt, device.prompt_length)
        guide = table(params, device.context, device.context_length)
        value, _ = divergence(logits, guide, DISTIL)
        logp = jnp.take_along_axis(jax.nn.log_softmax(logits), device.response[..., None], axis=-1)[..., 0]
        rho = jnp.exp(logp - device.logp_old)
        weight = device.mask * device.distilled[:, None]
        distil = jnp.sum(weight * value * jax.lax.stop_gradient(jnp.minimum(rho, 1.2))) / weight.sum()
        surrogate = jnp.minimum(rho * device.token_advantage, jnp.clip(rho, 0.8, 1.28) * device.token_advantage)
        return distil, -jnp.sum(surrogate * device.mask) / device.mask.sum()

    distil, surrogate = dense(moved)
    assert float(metrics["divergence"]) == pytest.approx(float(distil), rel=1e-4)
    assert float(metrics["total"]) == pytest.approx(0.7 * float(distil) + float(surrogate), rel=1e-4)
    assert 0 < float(metrics["overlap"]) < 1 and 0 < float(metrics["covered"]) < 1
    gradient = jax.grad(lambda p: 0.7 * dense(p)[0] + dense(p)[1])(moved)
    assert_close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, moved, gradient))
    assert_close(state.teacher, params, 0)


@pytest.mark.parametrize("changes", [{"chunk": 1}, {"chunk": 10_000}, {"micro_batches": 4}])
def test_chunks_and_micro_batches_never_change_a_divergence(policy, params, changes):
    *_, whole, expected = distilling(policy, params)
    *_, state, metrics = distilling(policy, params, **changes)
    assert_close(state.params, whole.params)
    assert_close(metrics, expected)


def test_without_a_context_nothing_is_distilled(policy, params):
    *_, metrics = distilling(policy, params, distilled=(0,) * N)
    assert float(metrics["divergence"]) == 0.0 and np.isfinite(metrics["grad_norm"])


def test_no_gradient_flows_into_the_teacher(policy, params):
    rows, moved, *_ = distilling(policy, params)
    objective = dataclasses.replace(OBJECTIVE, distil=DISTIL)
    rows = jax.tree.map(jnp.asarray, rows)

    def loss(theirs):
        return steps.objective_loss(
            policy, moved, rows, steps.make_weights(rows, objective), objective, (policy, theirs)
        )[0]

    assert all(not np.asarray(g).any() for g in jax.tree.leaves(jax.grad(loss)(params)))


@pytest.mark.parametrize("spec", [Divergence(alpha=0.5), Divergence(top_k=8)])
def test_a_divergence_keeps_no_table_either(spec):
    """Memory of the compiled gradient: a large vocabulary, chunks of 8 tokens against 512 tokens at once."""
    policy = Policy(preset("tiny", vocab_size=20_000, width=16, layers=1, heads=2, kv_heads=1, head_dim=8, ffn=16))
    shape = [jax.ShapeDtypeStruct((4, 128), dtype) for dtype in (jnp.int32, jnp.float32)]
    rows = Batch(
        *(jax.ShapeDtypeStruct(s, jnp.int32) for s in ((4, 1), (4,), (4, 128))), *(shape[1],) * 5,
        *(jax.ShapeDtypeStruct(s, d) for s, d in (((4, 1), jnp.int32), ((4,), jnp.int32), ((4,), jnp.float32))),
    )  # fmt: skip

    def bytes_of(chunk):
        objective = dataclasses.replace(OBJECTIVE, kl=0.0, entropy=0.0, distil=spec, chunk=chunk)

        def loss(p, theirs, rows):
            weights = steps.make_weights(rows, objective)
            return steps.objective_loss(policy, p, rows, weights, objective, (policy, theirs))[0]

        abstract = policy.abstract_params()
        compiled = jax.jit(jax.grad(loss)).lower(abstract, abstract, rows).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    table = 4 * 128 * 20_000 * 4
    assert bytes_of(512) >= 2 * table
    assert bytes_of(8) < table / 2


def test_k2_by_hand():
    np.testing.assert_allclose(losses.k2(jnp.array([[-1.0]]), jnp.array([[-3.0]])), [[2.0]])


# ---------------------------------------------------------------- mesh and optimiser


def test_sizes_that_do_not_fit_a_mesh_are_named():
    mesh = meshes.make_mesh(2, 4, 1)
    with pytest.raises(ValueError, match=r"scoring.rows = 12 does not divide over 8 devices"):
        meshes.check_divides("scoring.rows", 12, mesh)
    with pytest.raises(ValueError, match=r"mesh \(16, 1, 1\) needs 16 devices; 8 are visible"):
        meshes.make_mesh(16, 1, 1)
    with pytest.raises(ValueError, match="= 3 does not divide 8 devices"):
        meshes.make_mesh(-1, 3, 1)
    assert dict(meshes.make_mesh(-1, 2, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


def test_what_cannot_be_split_is_listed(policy):
    mesh = meshes.make_mesh(1, 1, 5, devices=jax.devices()[:5])
    listed = meshes.replicated_by_size(policy.abstract_params(), mesh)
    assert "embed/embedding: 48 is not split over tensor = 5" in listed
    where = meshes.shardings(policy.abstract_params(), mesh)
    assert where["embed"]["embedding"].spec == jax.sharding.PartitionSpec(None, "fsdp")


def test_moments_live_with_their_parameters(policy):
    mesh = meshes.make_mesh(2, 2, 2)
    adam = make_optimizer(CONSTANT, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)
    where = steps.state_shardings(policy, adam, mesh)
    moments = jax.tree.leaves(where.opt_state[1][0].mu)
    assert moments == jax.tree.leaves(where.params)


def test_schedules_by_hand():
    def values(shape, warmup, *at):
        schedule = make_schedule(learning_rate=1.0, schedule=shape, warmup_updates=warmup, total_updates=12)
        return [float(schedule(i)) for i in at]

    np.testing.assert_allclose(values("constant", 2, 0, 1, 2, 11), [0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(values("linear", 2, 2, 7, 12), [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(values("cosine", 0, 0, 6, 12), [1, 0.5, 0], atol=1e-6)
    with pytest.raises(ValueError, match="expected one of constant, linear, cosine"):
        values("cosin", 0, 0)


def test_only_matrices_decay(policy, params):
    adam = make_optimizer(CONSTANT, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.5, clip_norm=0.0)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = adam.update(zero, adam.init(params), params)
    assert np.asarray(updates["layers"]["gate"]["kernel"]).any() and np.asarray(updates["embed"]["embedding"]).any()
    assert not np.asarray(updates["layers"]["ffn_norm"]["scale"]).any()
