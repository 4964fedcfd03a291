"""Adapters: new ones change nothing, merged weights compute the same, only adapters are trained, and the base is shared."""

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
from amrsd_jax.config import PROJECTIONS, LearningConfig, LoraConfig, LossConfig, TeacherConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning import step as steps
from amrsd_jax.learning.state import abstract_state, init_state, policy_params
from amrsd_jax.policy import Policy, huggingface, lora, peft
from amrsd_jax.policy.architecture import change
from amrsd_jax.policy.lora import LoraLinear
from amrsd_jax.records import Batch, Request
from amrsd_jax.sampling import SamplerConfig, SamplerParams, complete
from amrsd_jax.scoring.logprobs import token_logprobs
from amrsd_jax.scoring.teachers import Teacher, copy

PROMPTS = np.arange(16, dtype=np.int32).reshape(4, 4)
TOKENS = jnp.arange(24).reshape(2, 12)
SETTINGS = LoraConfig(rank=3, alpha=6.0, targets="query,value,down")


def adapted(policy, settings=SETTINGS):
    return Policy(change(policy.architecture, lora=settings))


def start(policy, params, settings=SETTINGS):
    return lora.attach(params, settings, rng.key(0, "adapters"))


def moved(params):
    """The same parameters with noise on A and B, so that the adapters change the policy."""
    frozen, adapters = lora.split(params)
    keys = iter(jax.random.split(jax.random.key(2), 99))
    return lora.combine(frozen, jax.tree.map(lambda a: a + 0.2 * jax.random.normal(next(keys), a.shape), adapters))


@functools.partial(jax.jit, static_argnums=0)
def logits(policy, params):
    return policy.logits(params, policy.forward(params, TOKENS))


@pytest.mark.slow
def test_new_adapters_change_nothing(policy, params):
    """A projection and the merged weights are equal to the bit. A whole forward pass may differ in its last bits, because XLA
    fuses products that share an input."""
    mine = start(policy, params)
    jax.tree.map(np.testing.assert_array_equal, lora.merge(mine, SETTINGS), params)
    leaves, x = jax.tree.map(lambda a: a[0], mine["layers"]["down"]), jax.random.normal(jax.random.key(1), (2, 3, 48))
    with_adapter = nnx.eval_shape(lambda: LoraLinear(48, 32, SETTINGS, use_bias=False, rngs=nnx.Rngs(0)))
    with_adapter = nnx.merge(nnx.split(with_adapter)[0], leaves)
    np.testing.assert_array_equal(jax.jit(with_adapter)(x), jax.jit(jnp.matmul)(x, leaves["kernel"]))
    np.testing.assert_allclose(logits(adapted(policy), mine), logits(policy, params), atol=2e-5)
    assert jnp.any(mine["layers"]["query"]["lora_a"])


@pytest.mark.slow
def test_merged_weights_compute_the_same(policy, params):
    mine = moved(start(policy, params))
    merged = lora.merge(mine, SETTINGS)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    np.testing.assert_allclose(logits(adapted(policy), mine), logits(policy, merged), atol=2e-4)
    assert jnp.abs(logits(policy, merged) - logits(policy, params)).max() > 0.1
    a, b = (np.asarray(mine["layers"]["down"][name][1], np.float64) for name in ("lora_a", "lora_b"))
    by_hand = np.asarray(params["layers"]["down"]["kernel"][1]) + 6.0 / 3 * a @ b
    np.testing.assert_allclose(merged["layers"]["down"]["kernel"][1], by_hand, rtol=1e-4, atol=1e-5)


def test_combine_restores_what_split_separated(policy, params):
    mine = start(policy, params)
    frozen, adapters = lora.split(mine)
    assert jax.tree.structure(frozen) == jax.tree.structure(params)
    assert set(adapters["layers"]) == set(SETTINGS.projections) and list(adapters) == ["layers"]
    assert all(
        a is b for a, b in zip(jax.tree.leaves(lora.combine(frozen, adapters)), jax.tree.leaves(mine), strict=True)
    )
    assert lora.split(params) == (None, params) and lora.combine(None, params) is params
    assert lora.trainable(adapters) == adapters


def test_init_casts_the_frozen_base(policy):
    mine = Policy(change(policy.architecture, lora=LoraConfig(rank=4, alpha=8.0), dtype="bfloat16"))
    shapes = mine.abstract_params()
    frozen, adapters = lora.split(shapes)
    assert frozen == jax.eval_shape(mine.cast_params, mine.base.abstract_params())
    assert {a.dtype.name for a in jax.tree.leaves(frozen["layers"])} == {"bfloat16"}
    assert {a.dtype.name for a in jax.tree.leaves(adapters)} == {"float32"}
    assert shapes["layers"]["gate"]["lora_a"].shape == (2, 32, 4)
    assert shapes["layers"]["gate"]["lora_b"].shape == (2, 4, 48)
    assert adapted(policy).base == policy


@pytest.mark.slow
def test_only_adapters_move_and_by_their_gradient(policy, params):
    """One update by plain gradient descent on one device; the frozen arrays are neither copied nor donated."""
    mine, mesh, sgd = moved(start(policy, params)), meshes.make_mesh(1, 1, 1), optax.sgd(0.1)
    objective = steps.Objective(LossConfig(kl=0.01), distill=None, temperature=1.0, chunk=16)
    generator = np.random.default_rng(0)
    mask = np.float32(np.arange(6) < np.array([[6], [3], [1], [5]]))
    values = [np.float32(generator.normal(size=(4, 6)) * mask) for _ in range(4)]
    rows = Batch(PROMPTS, np.full(4, 4, np.int32), generator.integers(4, 48, (4, 6), np.int32), mask, *values)
    frozen, adapters = lora.split(mine)

    @jax.jit
    def loss(adapters):
        arrays = jax.tree.map(jnp.asarray, rows)
        weights = steps.loss_weights(arrays, objective)
        return steps.objective_loss(adapted(policy), lora.combine(frozen, adapters), arrays, weights, objective)[0]

    value, gradient = jax.value_and_grad(loss)(adapters)
    state = init_state(adapted(policy), sgd, copy(mine), mesh)
    kept = state.frozen["layers"]["query"]["kernel"]
    train_step = steps.make_train_step(
        adapted(policy), sgd, optax.constant_schedule(0.1), objective, LearningConfig(), mesh
    )
    state, metrics = train_step(state, rows)
    assert state.frozen["layers"]["query"]["kernel"] is kept
    jax.tree.map(np.testing.assert_array_equal, state.frozen, frozen)
    np.testing.assert_allclose(metrics["total"], value, rtol=1e-4)
    expected = jax.tree.map(lambda a, g: a - 0.1 * g, adapters, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state.params, expected)
    assert all(jnp.any(g) for g in jax.tree.leaves(gradient))


def test_the_optimiser_holds_moments_of_adapters_alone(policy):
    mine = adapted(policy)
    state = abstract_state(mine, optax.adam(0.1), teacher=mine)
    adapters = sum(a.size for a in jax.tree.leaves(lora.trainable(mine.abstract_params())))
    assert adapters == 2 * 3 * ((32 + 32) + (32 + 16) + (48 + 32))  # two layers, rank 3; query, value, down
    assert sum(a.size for a in jax.tree.leaves(state.params)) == adapters
    assert sum(a.size for a in jax.tree.leaves(state.teacher)) == adapters
    assert sum(a.size for a in jax.tree.leaves(state.opt_state)) == 2 * adapters + 1


@pytest.mark.parametrize("kind", ["policy", "snapshot", "ema", "initial", "trust_region"])
def test_teachers_share_the_frozen_parameters(kind, policy, params):
    first = start(policy, params)
    teacher = Teacher(TeacherConfig(kind=kind, every=1, rate=0.5), adapted(policy))
    kept = first if teacher.stored else None
    state = init_state(adapted(policy), optax.sgd(0.1), moved(first), meshes.make_mesh(1, 1, 1), teacher=kept)
    state = teacher.follow(state, 1)
    given = teacher.params(state, policy_params(state))
    trees = given if kind == "trust_region" else (given,)
    assert all(tree["embed"]["embedding"] is state.frozen["embed"]["embedding"] for tree in trees)
    learned = state.params["layers"]["query"]["lora_b"]
    expected = {"policy": learned, "snapshot": learned, "ema": 0.5 * learned}.get(kind, 0 * learned)
    np.testing.assert_allclose(trees[0]["layers"]["query"]["lora_b"], expected, rtol=1e-6)


@pytest.mark.slow
def test_the_sampler_samples_from_the_merged_policy_on_a_mesh(policy, params):
    mine, mesh = moved(start(policy, params)), meshes.make_mesh(2, 2, 2)
    config = SamplerConfig(
        slots=8, group=2, prompt_length=4, new_tokens=6, admit=4, segment=6, stop_tokens=(), sharding=meshes.rows(mesh)
    )
    placed = jax.device_put(mine, meshes.shardings(mine, mesh))
    both = SamplerParams(placed, jax.jit(adapted(policy).for_decoding)(placed))
    requests = [Request(prompt.tolist(), row=2 * i, count=2) for i, prompt in enumerate(PROMPTS)]
    done = complete(adapted(policy), config, both, requests, rng.key(0, "rollout"))
    done = sorted(done, key=lambda c: c.request.row + c.index)
    rows = [jnp.array(a) for a in (np.repeat(PROMPTS, 2, axis=0), np.full(8, 4), [c.tokens for c in done])]
    sampled = np.stack([c.logprobs for c in done])

    def scored(params):
        return token_logprobs(policy, params, *rows, temperature=1.0, chunk=64)[0]

    np.testing.assert_allclose(sampled, scored(lora.merge(mine, SETTINGS)), atol=2e-4)
    assert np.abs(sampled - scored(params)).max() > 0.1


def test_adapters_are_split_as_their_kernels(policy):
    mine = adapted(policy, LoraConfig(rank=2, alpha=4.0)).abstract_params()
    where = meshes.shardings(mine, meshes.make_mesh(1, 2, 4))["layers"]
    for name in PROJECTIONS:
        kernel, a, b = (where[name][leaf].spec for leaf in ("kernel", "lora_a", "lora_b"))
        assert (a[1], b[2]) == (kernel[1], kernel[2]) and a[2] is b[1] is None


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
