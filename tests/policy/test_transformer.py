"""Forward, prefill and decode agree with each other and with a plain NumPy transformer; counts of parameters and FLOPs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax import rng
from amrsd_jax.config import LoraConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import PRESETS, Policy, preset
from amrsd_jax.policy.rope import Llama3Scaling, rotate, rotation
from tests.programs import collectives

SMALL = dict(vocab_size=48, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=48)
FAMILIES = {
    "qwen3": {},
    "qwen2.5": dict(qk_norm=False, qkv_bias=True, tied=False),
    "llama3": dict(qk_norm=False, rope_theta=5e5, rope_scaling=Llama3Scaling(32.0, 1.0, 4.0, 16), norm_eps=1e-5),
    "moe": dict(experts=5, experts_per_token=2),
    "smollm3": dict(qk_norm=False, nope_every=2),
    "olmo3": dict(norms="post", qk_norm_whole=True, sliding_window=4, full_every=2, tied=False),
    "gemma": dict(  # what Gemma 2 and Gemma 3 have, together
        norms="both", norm_unit_offset=True, activation="gelu", embed_scale=True, query_pre_attn_scalar=12,
        attention_softcap=5.0, logit_softcap=9.0, sliding_window=4, full_every=2, sliding_rope_theta=1e3,
    ),
}  # fmt: skip
ADAPTED = {"adapters": dict(lora=LoraConfig(rank=2, targets="query,value,up,down"))}


forward = jax.jit(Policy.forward, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def full_logits(policy, params, tokens):
    return policy.logits(params, policy.forward(params, tokens))


@functools.cache
def make(family, dtype="float32"):
    policy = Policy(preset("tiny", **SMALL, **(FAMILIES | ADAPTED)[family], dtype=dtype))
    params = jax.jit(policy.init)(rng.key(1, "init"))
    return policy, jax.tree.map(lambda a: a * 3.0 + (0.1 if family in ADAPTED else 0.0), params)  # adapters begin at 0


def numpy_logits(policy, params, tokens):
    """Logits of one row by the textbook decoder, with loops and in float64."""
    c = policy.architecture
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def norm(x, w):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + c.norm_eps) * (w["scale"] + c.norm_unit_offset)

    def softcap(x, bound):
        return x if bound is None else bound * np.tanh(x / bound)

    def linear(x, w):
        return x @ w["kernel"] + w.get("bias", 0.0)

    half = c.head_dim // 2

    def rope(x, i, slides):  # [T, heads, head_dim]
        if c.nope_every and i % c.nope_every == c.nope_every - 1:
            return x
        angle = np.arange(len(tokens))[:, None] * frequencies(slides)
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def frequencies(slides):
        theta = c.sliding_rope_theta if slides and c.sliding_rope_theta else c.rope_theta
        frequency = theta ** (-np.arange(half) / half)
        if slides or not c.rope_scaling:
            return frequency

        s = c.rope_scaling
        for i, f in enumerate(frequency):
            wavelength = 2 * np.pi / f
            if wavelength > s.original_max_positions / s.low_freq_factor:
                frequency[i] = f / s.factor
            elif wavelength > s.original_max_positions / s.high_freq_factor:
                smooth = (s.original_max_positions / wavelength - s.low_freq_factor) / (
                    s.high_freq_factor - s.low_freq_factor
                )
                frequency[i] = (1 - smooth) * f / s.factor + smooth * f
        return frequency

    def experts(h, w):
        scores = np.exp(linear(h, w["router"]))
        out = np.zeros_like(h)
        for t, shares in enumerate(scores):
            chosen = np.argsort(-shares)[: c.experts_per_token]
            for e in chosen:
                block = {name: {"kernel": w[f"expert_{name}"]["kernel"][e]} for name in ("gate", "up", "down")}
                out[t] += shares[e] / shares[chosen].sum() * gated(h[t], block)
        return out

    def gated(h, w):
        gate = linear(h, w["gate"])
        if c.activation == "silu":
            gate = gate / (1 + np.exp(-gate))
        else:
            gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        return linear(gate * linear(h, w["up"]), w["down"])

    x = p["embed"]["embedding"][tokens] * (np.sqrt(c.width) if c.embed_scale else 1)
    for i in range(c.layers):
        w = jax.tree.map(lambda a, i=i: a[i], p["layers"])
        slides = c.sliding_window is not None and i % c.full_every != c.full_every - 1
        h = norm(x, w["attention_norm"]) if c.norms != "post" else x
        q, k, v = (linear(h, w[n]) for n in ("query", "key", "value"))
        if c.qk_norm_whole:
            q, k = norm(q, w["query_norm"]), norm(k, w["key_norm"])
        q, k, v = (a.reshape(len(tokens), -1, c.head_dim) for a in (q, k, v))
        if c.qk_norm and not c.qk_norm_whole:
            q, k = norm(q, w["query_norm"]), norm(k, w["key_norm"])
        q, k = rope(q, i, slides), rope(k, i, slides)
        out = np.zeros_like(q)
        for head in range(c.heads):
            shared = head // (c.heads // c.kv_heads)
            for t in range(len(tokens)):
                seen = slice(max(0, t + 1 - c.sliding_window) if slides else 0, t + 1)
                scores = k[seen, shared] @ q[t, head] / np.sqrt(c.query_pre_attn_scalar or c.head_dim)
                scores = softcap(scores, c.attention_softcap)
                weights = np.exp(scores - scores.max())
                out[t, head] = (weights / weights.sum()) @ v[seen, shared]
        h = linear(out.reshape(len(tokens), -1), w["output"])
        x = x + (norm(h, w["attention_post_norm"]) if c.norms != "pre" else h)
        h = (experts if c.experts else gated)(norm(x, w["ffn_norm"]) if c.norms != "post" else x, w)
        x = x + (norm(h, w["ffn_post_norm"]) if c.norms != "pre" else h)
    head = p["embed"]["embedding"].T if c.tied else p["head"]["kernel"]
    return softcap(norm(x, p["final_norm"]) @ head, c.logit_softcap)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_equals_the_textbook_decoder(family):
    policy, params = make(family)
    tokens = [5, 1, 40, 7, 7, 3, 22, 0, 9]
    logits = full_logits(policy, params, jnp.array([tokens]))
    np.testing.assert_allclose(logits[0], numpy_logits(policy, params, tokens), atol=2e-4)


@pytest.mark.parametrize("layout", ["blocks", "xla"])  # the second with joined projections
@pytest.mark.parametrize("family", FAMILIES | ADAPTED)
def test_cached_decode_equals_the_full_forward(layout, family):
    policy, params = make(family)
    policy = dataclasses.replace(policy, decode_attention=layout)
    tokens = jax.random.randint(jax.random.key(3), (3, 12), 0, 48)
    full = full_logits(policy, params, tokens)
    lengths = jnp.array([1, 4, 6])
    hidden, stacked = jax.jit(policy.prefill)(params, tokens[:, :6], lengths)
    rows = jnp.arange(3)
    np.testing.assert_allclose(policy.logits(params, hidden), full[rows, lengths - 1], atol=5e-5)

    layers = [jax.tree.map(lambda a, i=i: a[i], stacked) for i in range(policy.architecture.layers)]
    cache = [layer.resize(2 * policy.cache_layout.block) for layer in layers]
    decoding, decode = policy.for_decoding(params), jax.jit(policy.decode)
    position = lengths
    for _ in range(6):
        hidden, cache = decode(decoding, tokens[rows, position], position, cache)
        np.testing.assert_allclose(policy.logits(params, hidden), full[rows, position], atol=5e-5)
        position = position + 1


def test_decoding_keeps_the_scales_of_norms():
    """They move by less than bfloat16 can tell, and the policy that samples must be the one that is trained."""
    policy, params = make("moe", "bfloat16")
    params = jax.tree.map(lambda a: a + 1e-3, params)
    for i, layer in enumerate(policy.for_decoding(params)["layers"]):
        np.testing.assert_array_equal(layer["ffn_norm"]["scale"], params["layers"]["ffn_norm"]["scale"][i])
        assert layer["output"]["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize("family", ["moe", "olmo3"])
def test_eight_devices_compute_what_one_does(family):
    policy, params = make(family)
    tokens, mesh = jax.random.randint(jax.random.key(3), (4, 12), 0, 48), meshes.make_mesh(2, 2, 2)
    split = dataclasses.replace(policy, rows=meshes.rows(mesh))
    placed = jax.device_put(params, meshes.shardings(params, mesh))

    def loss(policy, params, tokens):
        hidden, chosen = policy.forward_with_experts(params, tokens)
        return jnp.sum(jax.nn.logsumexp(policy.logits(params, hidden), axis=-1)), chosen

    run = jax.jit(jax.grad(loss, argnums=1, has_aux=True), static_argnums=0)
    one, eight = run(policy, params, tokens), run(split, placed, jax.device_put(tokens, split.rows))
    np.testing.assert_array_equal(one[1], eight[1])
    for a, b in zip(jax.tree.leaves(one[0]), jax.tree.leaves(eight[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


@pytest.mark.slow
def test_packed_documents_do_not_see_each_other(policy, params):
    tokens = jax.random.randint(jax.random.key(4), (1, 10), 0, 48)
    packed = forward(policy, params, tokens, jnp.array([[1, 1, 1, 1, 2, 2, 2, 3, 3, 3]]))
    for start, end in ((0, 4), (4, 7), (7, 10)):
        alone = forward(policy, params, tokens[:, start:end])
        np.testing.assert_allclose(packed[:, start:end], alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "olmo3", "moe"])
def test_remat_does_not_change_gradients(family):
    policy, params = make(family)
    tokens = jax.random.randint(jax.random.key(5), (2, 8), 0, 48)

    def gradients(remat):
        loss = jax.grad(lambda p: jnp.sum(Policy(policy.architecture, remat).forward(p, tokens) ** 2))
        return jax.tree.leaves(jax.jit(loss)(params))

    expected = gradients("none")
    for remat in ("full", "dots"):
        for a, b in zip(gradients(remat), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_computes_close_to_float32_and_keeps_float32_masters():
    policy, params = make("qwen3")
    half, _ = make("qwen3", dtype="bfloat16")
    assert {a.dtype.name for a in jax.tree.leaves(half.abstract_params())} == {"float32"}
    tokens = jnp.arange(12)[None]
    exact = jax.nn.log_softmax(full_logits(policy, params, tokens))
    assert forward(half, params, tokens).dtype == jnp.bfloat16
    logits = full_logits(half, params, tokens)
    assert logits.dtype == jnp.float32
    assert float(jnp.mean(jnp.abs(jax.nn.log_softmax(logits) - exact))) < 0.1


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_counted(name):
    shapes = jax.tree.leaves(Policy(PRESETS[name]).abstract_params())
    assert PRESETS[name].parameters() == sum(a.size for a in shapes)


def test_published_sizes():
    assert PRESETS["qwen3-0.6b"].parameters() == 596_049_920
    assert PRESETS["qwen3-1.7b"].parameters() == 1_720_574_976


def test_flops_of_a_forward_pass_match_the_compiler():
    """XLA counts a few elementwise operations more."""
    policy = Policy(preset("tiny", vocab_size=512, width=128, layers=1, heads=4, kv_heads=2, head_dim=32, ffn=384))
    tokens = jnp.zeros((1, 64), jnp.int32)

    compiled = full_logits.lower(policy, policy.abstract_params(), tokens).compile().cost_analysis()["flops"]
    counted = policy.architecture.forward_flops(64, 64.0)  # the compiler's attention multiplies the masked half too
    assert 0.9 < counted / compiled < 1.1


def test_a_lookup_gathers_no_embedding():
    """Neither over `fsdp` nor over `tensor`: activations are exchanged, which are smaller than a device's part of it here."""
    mesh = meshes.make_mesh(2, 2, 2)
    policy = Policy(preset("tiny", **SMALL | dict(layers=1, vocab_size=4096)), rows=meshes.rows(mesh))
    params = policy.abstract_params()
    where = meshes.shardings(params, mesh)
    params = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), params, where)
    tokens = jax.ShapeDtypeStruct((8, 32), jnp.int32, sharding=policy.rows)
    program = jax.jit(policy.forward).lower(params, tokens).compile()
    assert max(collectives(program, in_loops=False)) <= 8 * 32 * 32 / 4 < 4096 * 32 / 4


def test_wrong_architectures_are_refused_by_name():
    with pytest.raises(ValueError, match=r"kv_heads = 3 does not divide architecture.heads = 4"):
        preset("tiny", kv_heads=3)
    with pytest.raises(ValueError, match="did you mean 'layers'"):
        preset("tiny", layer=3)
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        preset("tinny")


def test_rotation_keeps_length_and_depends_on_distance_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def turn(x, position):
        return rotate(x, rotation(jnp.array([[position]]), 8, 1e4))

    def dot(i, j):
        return jnp.sum(turn(q, i) * turn(k, j))

    np.testing.assert_allclose(dot(3, 1), dot(12, 10), rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(turn(q, 7)), jnp.linalg.norm(q), rtol=1e-6)
