"""Joined projections: the same products, adapters and biases included, split over a tensor axis without an exchange."""

import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.policy.joined import JOINED, join, join_columns, split_columns

SIZES = dict(query=8, key=4, value=4, gate=12, up=12)


@pytest.mark.parametrize("ways", [1, 2, 4])
def test_columns_come_apart_as_they_were(ways):
    parts = [jnp.arange(3.0 * size).reshape(3, size) + 100 * size for size in (8, 4, 4)]
    joined = join_columns(parts, ways)
    for ours, part in zip(split_columns(joined, [8, 4, 4], ways), parts, strict=True):
        np.testing.assert_array_equal(ours, part)
    first = np.split(joined, ways, axis=1)[0]  # what the first of `ways` devices holds
    np.testing.assert_array_equal(first, np.concatenate([part[:, : part.shape[1] // ways] for part in parts], axis=1))


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("adapted", [(), ("key", "up"), tuple(SIZES)])
def test_joined_projections_give_the_products_of_each(ways, adapted):
    generator = np.random.default_rng(0)

    def random(*shape):
        return jnp.array(generator.normal(size=shape), jnp.float32)

    layer = {name: {"kernel": random(6, size), "bias": random(size)} for name, size in SIZES.items()}
    for name in ("gate", "up"):
        del layer[name]["bias"]
    for name in adapted:
        layer[name] |= {"lora_a": random(6, 2), "lora_b": random(2, SIZES[name])}
    layer["down"] = {"kernel": random(12, 6)}
    x, joined = random(5, 6), join(layer, ways)
    assert set(joined) == {"qkv", "gate_up", "down"} and joined["down"] is layer["down"]

    def product(p):
        return x @ p["kernel"] + p.get("bias", 0.0) + (x @ p["lora_a"] @ p["lora_b"] if "lora_a" in p else 0.0)

    for name, parts in JOINED.items():
        ours = split_columns(product(joined[name]), [SIZES[part] for part in parts], ways)
        for out, part in zip(ours, parts, strict=True):
            np.testing.assert_allclose(out, product(layer[part]), atol=1e-5)
