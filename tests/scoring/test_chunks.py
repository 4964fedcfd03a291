"""The loop over chunks of logits on eight devices: what it exchanges, and that one device gives the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Policy, preset
from amrsd_jax.scoring.logprobs import token_logprobs
from tests.programs import collectives

WIDTH, VOCABULARY, N, P, T = 32, 1024, 8, 4, 12
SHAPE = dict(vocab_size=VOCABULARY, width=WIDTH, layers=1, heads=4, kv_heads=2, head_dim=8, ffn=48)
GENERATOR = np.random.default_rng(0)
PROMPT, RESPONSE = (GENERATOR.integers(4, VOCABULARY, (N, length), dtype=np.int32) for length in (P, T))
LENGTH = GENERATOR.integers(1, P + 1, N, dtype=np.int32)


def program(shape, tied):
    """Returns a function of the parameters that scores and differentiates, and its parameters, on a mesh or without one."""
    policy = Policy(preset("tiny", **SHAPE, tied=tied), remat="full")
    params = jax.jit(policy.init)(jax.random.key(0))
    if shape:
        policy = dataclasses.replace(policy, rows=meshes.rows(meshes.make_mesh(*shape)))
        params = jax.device_put(params, meshes.shardings(policy.abstract_params(), policy.mesh))
    batch = jax.device_put((PROMPT, LENGTH, RESPONSE), policy.rows)

    def score(params):
        return token_logprobs(policy, params, *batch, temperature=0.9, chunk=4)

    def loss(params):
        logprobs, entropy = score(params)
        return jnp.mean(logprobs) + 0.1 * jnp.mean(entropy), (logprobs, entropy)

    return score, jax.jit(jax.grad(loss, has_aux=True)), params


@pytest.mark.parametrize("shape, tied", [((2, 4, 1), True), ((2, 2, 2), False)])
def test_the_projection_is_gathered_once(shape, tied):
    """No loop exchanges as much as a device's part of it, neither in scoring nor in the gradient; and devices agree."""
    score, gradient, params = program(shape, tied)
    part = WIDTH * VOCABULARY // 8
    for function in (jax.jit(score), gradient):
        compiled = function.lower(params).compile()
        assert max(collectives(compiled, in_loops=True), default=0) < part <= max(collectives(compiled, in_loops=False))
    grads, values = gradient(params)
    expected = program(None, tied)
    for a, b in zip(jax.tree.leaves((grads, values)), jax.tree.leaves(expected[1](expected[2])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
