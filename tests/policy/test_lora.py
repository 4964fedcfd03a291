"""Adapters: nothing at first, merged the same, alone in the optimiser; the base is one array for all who read it."""

import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from amrsd_jax import rng
from amrsd_jax.build import sampling_weights
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning import step as steps
from amrsd_jax.policy import Policy, huggingface, lora, peft
from amrsd_jax.policy.architecture import change
from amrsd_jax.policy.lora import Lora, LoraLinear
from amrsd_jax.sampling import Layout, Request, complete
from amrsd_jax.scoring.logprobs import token_logprobs
from amrsd_jax.scoring.teachers import KINDS, Teacher, copy
from tests.learning.test_step import CONSTANT, OBJECTIVE, batch

PROMPTS = np.arange(16).reshape(4, 4)
TOKENS = jnp.arange(24).reshape(2, 12)
SETTINGS = Lora(rank=3, alpha=6.0, targets=("query", "value", "down"))


def adapted(policy, settings=SETTINGS):
    return Policy(change(policy.architecture, lora=settings))


def start(policy, params, settings=SETTINGS):
    return lora.attach(params, settings, rng.key(0, "adapters"))


def moved(params):
    """The same with B at random, so that adapters do something."""
    base, adapters = lora.split(params)
    keys = iter(jax.random.split(jax.random.key(2), 99))
    return lora.join(base, jax.tree.map(lambda a: a + 0.2 * jax.random.normal(next(keys), a.shape), adapters))


@functools.partial(jax.jit, static_argnums=0)
def logits(policy, params):
    return policy.logits(params, policy.forward(params, TOKENS))


def test_fresh_adapters_change_nothing(policy, params):
    """No bit of a projection or of the merged weights. A whole compiled forward pass may differ in its last bits: XLA joins
    products that share an input."""
    mine = start(policy, params)
    jax.tree.map(np.testing.assert_array_equal, lora.merge(mine, SETTINGS), params)
    leaves, x = jax.tree.map(lambda a: a[0], mine["layers"]["down"]), jax.random.normal(jax.random.key(1), (2, 3, 48))
    with_adapter = nnx.eval_shape(lambda: LoraLinear(48, 32, SETTINGS, use_bias=False, rngs=nnx.Rngs(0)))
    with_adapter = nnx.merge(nnx.split(with_adapter)[0], leaves)
    np.testing.assert_array_equal(jax.jit(with_adapter)(x), jax.jit(jnp.matmul)(x, leaves["kernel"]))
    np.testing.assert_allclose(logits(adapted(policy), mine), logits(policy, params), atol=2e-5)
    assert jnp.any(mine["layers"]["query"]["lora_a"])


def test_merged_weights_compute_the_same(policy, params):
    mine = moved(start(policy, params))
    merged = lora.merge(mine, SETTINGS)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    np.testing.assert_allclose(logits(adapted(policy), mine), logits(policy, merged), atol=2e-4)
    assert jnp.abs(logits(policy, merged) - logits(policy, params)).max() > 0.1
    a, b = (np.asarray(mine["layers"]["down"][name][1], np.float64) for name in ("lora_a", "lora_b"))
    by_hand = np.asarray(params["layers"]["down"]["kernel"][1]) + 6.0 / 3 * a @ b
    np.testing.assert_allclose(merged["layers"]["down"]["kernel"][1], by_hand, rtol=1e-4, atol=1e-5)


def test_what_learns_and_what_is_frozen_come_apart_and_together_again(policy, params):
    mine = start(policy, params)
    base, adapters = lora.split(mine)
    assert jax.tree.structure(base) == jax.tree.structure(params)
    assert set(adapters["layers"]) == set(SETTINGS.targets) and list(adapters) == ["layers"]
    assert all(a is b for a, b in zip(jax.tree.leaves(lora.join(base, adapters)), jax.tree.leaves(mine), strict=True))
    assert lora.split(params) == (None, params) and lora.join(None, params) is params
    assert lora.learns(adapters) == adapters


def test_a_policy_makes_the_tree_that_its_layers_read(policy):
    mine = Policy(change(policy.architecture, lora=Lora(4, 8.0, lora.PROJECTIONS), dtype="bfloat16"))
    shapes = mine.abstract_params()
    base, adapters = lora.split(shapes)
    assert base == jax.eval_shape(mine.rounded, mine.base.abstract_params())
    assert {a.dtype.name for a in jax.tree.leaves(base["layers"])} == {"bfloat16"}
    assert {a.dtype.name for a in jax.tree.leaves(adapters)} == {"float32"}
    assert shapes["layers"]["gate"]["lora_a"].shape == (2, 32, 4)
    assert shapes["layers"]["gate"]["lora_b"].shape == (2, 4, 48)
    assert adapted(policy).base == policy


def update(policy, params, teacher=None):
    """One update by plain gradient descent of a policy with adapters, on one device."""
    mesh, sgd = meshes.make_mesh(1, 1, 1), optax.sgd(0.1)
    mine = jax.device_put(copy(params), meshes.shardings(params, mesh))
    state = steps.init_state(policy, sgd, mine, mesh, teacher=teacher)
    kept = mine["layers"]["query"]["kernel"]
    state, metrics = steps.make_train_step(policy, sgd, CONSTANT, OBJECTIVE, mesh)(state, batch())
    assert state.params["layers"]["query"]["kernel"] is kept  # neither copied nor donated
    return state, metrics


def test_only_adapters_move_and_by_their_gradient(policy, params):
    mine = moved(start(policy, params))
    state, metrics = update(adapted(policy), mine)
    base, adapters = lora.split(mine)
    jax.tree.map(np.testing.assert_array_equal, lora.split(state.params)[0], base)

    @jax.jit
    def loss(learned):
        rows = jax.tree.map(jnp.asarray, batch())
        weights = steps.make_weights(rows, OBJECTIVE)
        return steps.objective_loss(adapted(policy), lora.join(base, learned), rows, weights, OBJECTIVE)[0]

    value, gradient = jax.value_and_grad(loss)(adapters)
    np.testing.assert_allclose(metrics["total"], value, rtol=1e-4)
    expected = jax.tree.map(lambda a, g: a - 0.1 * g, adapters, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), lora.learns(state.params), expected)
    assert all(jnp.any(g) for g in jax.tree.leaves(gradient))


def test_the_optimiser_holds_moments_of_adapters_alone(policy):
    mine = adapted(policy)
    state = steps.abstract_state(mine, optax.adam(0.1), teacher=mine)
    adapters = sum(a.size for a in jax.tree.leaves(lora.learns(mine.abstract_params())))
    assert adapters == 2 * 3 * ((32 + 32) + (32 + 16) + (48 + 32))  # two layers, rank 3; query, value, down
    assert sum(a.size for a in jax.tree.leaves(state.params)) == adapters
    assert sum(a.size for a in jax.tree.leaves(state.teacher)) == adapters
    assert sum(a.size for a in jax.tree.leaves(state.opt_state)) == 2 * adapters + 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "external"])
def test_teachers_and_the_reference_share_the_base(kind, policy, params):
    first = start(policy, params)
    teacher = Teacher(kind, adapted(policy), every=1, rate=0.5)
    state = steps.init_state(
        adapted(policy),
        optax.sgd(0.1),
        moved(first),
        meshes.make_mesh(1, 1, 1),
        teacher=first if teacher.kept else None,
    )
    state = teacher.follow(state, 1)
    given = teacher.params(state)
    for tree in given if kind == "trust_region" else (given,):
        assert tree["embed"]["embedding"] is state.params["embed"]["embedding"]
        logits(adapted(policy), tree)
    mine, b = (
        state.params["layers"]["query"]["lora_b"],
        (given[0] if kind == "trust_region" else given)["layers"]["query"],
    )
    expected = {"policy": mine, "snapshot": mine, "ema": 0.5 * mine}.get(kind, 0 * mine)
    np.testing.assert_allclose(b["lora_b"], expected, rtol=1e-6)
    assert copy(state.params)["embed"]["embedding"] is state.params["embed"]["embedding"]


def sample(policy, params, shape):
    """Tokens and log-probabilities [8, 6] that the sampler gives on a mesh, from parameters split over it."""
    mesh = meshes.make_mesh(*shape)
    layout = Layout(8, 2, prompt_length=4, new_tokens=6, admit=4, segment=6, stop_tokens=(), sharding=meshes.rows(mesh))
    weights = sampling_weights(policy, jax.device_put(params, meshes.shardings(params, mesh)), mesh)
    requests = [Request(PROMPTS[i].tolist(), row=2 * i, count=2) for i in range(4)]
    done = sorted(
        complete(policy, layout, weights, requests, rng.key(0, "rollout")), key=lambda c: c.request.row + c.index
    )
    return np.stack([c.tokens for c in done]), np.stack([c.logp for c in done])


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
def test_the_sampler_draws_from_the_merged_policy_however_it_is_split(shape, policy, params):
    mine = moved(start(policy, params))
    tokens, logp = sample(adapted(policy), mine, shape)
    rows = (np.repeat(PROMPTS, 2, axis=0), np.full(8, 4), tokens)
    merged = lora.merge(mine, SETTINGS)
    expected = token_logprobs(policy, merged, *map(jnp.asarray, rows), temperature=1.0, chunk=64)[0]
    np.testing.assert_allclose(logp, expected, atol=2e-4)
    other = token_logprobs(policy, params, *map(jnp.asarray, rows), temperature=1.0, chunk=64)[0]
    assert np.abs(logp - other).max() > 0.1


def test_adapters_are_split_as_their_kernels(policy):
    mine = adapted(policy, Lora(2, 4.0, lora.PROJECTIONS)).abstract_params()
    where = meshes.shardings(mine, meshes.make_mesh(1, 2, 4))["layers"]
    for name in lora.PROJECTIONS:
        kernel, a, b = (where[name][leaf].spec for leaf in ("kernel", "lora_a", "lora_b"))
        assert (a[1], b[2]) == (kernel[1], kernel[2]) and a[2] is b[1] is None


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="lora.targets = 'query,kex': 'kex': did you mean 'key'"):
        lora.make(3, 6.0, "query, kex")
    with pytest.raises(ValueError, match="lora.targets = '': '': expected one of down, gate, key"):
        lora.make(3, 6.0, "")
    with pytest.raises(ValueError, match="lora.rank = -1"):
        lora.make(-1, 6.0, "query")
    with pytest.raises(ValueError, match="lora.alpha = 0.0"):
        lora.make(1, 0, "query")
    assert lora.make(0, 6.0, "query") is None


def test_adapters_are_written_as_peft_names_them(policy, params, tmp_path):
    """Names and shapes of PEFT 0.17: lora_A [r, in], lora_B [out, r], under base_model.model."""
    from safetensors.numpy import load_file

    mine = moved(start(policy, params))
    peft.save_adapters(tmp_path / "peft", adapted(policy).architecture, mine, base_model="Qwen/Qwen3-8B")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 3, 6.0)
    assert config["target_modules"] == ["q_proj", "v_proj", "down_proj"]
    assert config["base_model_name_or_path"] == "Qwen/Qwen3-8B"
    written = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert len(written) == 2 * 3 * 2
    prefix = "base_model.model.model.layers.1.mlp.down_proj"
    a, b = written[f"{prefix}.lora_A.weight"], written[f"{prefix}.lora_B.weight"]
    assert a.shape == (3, 48) and b.shape == (32, 3)
    np.testing.assert_array_equal(a.T, mine["layers"]["down"]["lora_a"][1])
    np.testing.assert_array_equal(b.T, mine["layers"]["down"]["lora_b"][1])
    assert written["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape == (3, 32)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="PEFT is not installed")
def test_peft_computes_the_same_from_the_folder(policy, params, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    mine = moved(start(policy, params))
    huggingface.save_params(tmp_path / "base", policy.architecture, params)
    peft.save_adapters(tmp_path / "peft", adapted(policy).architecture, mine, base_model=str(tmp_path / "base"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "peft")
    with torch.no_grad():
        theirs = model(torch.tensor(np.asarray(TOKENS))).logits.numpy()
    np.testing.assert_allclose(logits(adapted(policy), mine), theirs, atol=2e-4)
