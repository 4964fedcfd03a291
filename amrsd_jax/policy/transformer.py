"""The language model: Flax modules for one layer, and three pure ways through the stack of them.

One parameter tree, layers stacked on a leading axis: `forward` (training, scoring) and `prefill` scan over it,
`decode` runs it unrolled with one cache array per layer, because a stacked cache would be copied by the scan.
Outside this folder a policy is `(params, tokens, ...) -> arrays`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Integer, Key, PyTree

from amrsd_jax.policy import cache as caches
from amrsd_jax.policy.architecture import Architecture, RopeScaling
from amrsd_jax.policy.attention import MIXED, attention
from amrsd_jax.policy.cache import Cache
from amrsd_jax.policy.lora import LoraLinear, attach

Params = PyTree

REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(MIXED),
    ),
}


# ---------------------------------------------------------------- one layer (Flax)


def _linear(name: str, inputs: int, outputs: int, c: Architecture, rngs: nnx.Rngs, *, bias: bool = False) -> nnx.Linear:
    how = dict(use_bias=bias, dtype=c.dtype, param_dtype=jnp.float32, rngs=rngs)
    if c.lora and name in c.lora.targets:
        return LoraLinear(inputs, outputs, c.lora, **how)
    return nnx.Linear(inputs, outputs, **how)


def _norm(size: int, c: Architecture, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(size, epsilon=c.norm_eps, dtype=c.dtype, param_dtype=jnp.float32, rngs=rngs)


class Layer(nnx.Module):
    """Pre-norm attention and SwiGLU. It does not know about caches: `attend` does what the caller needs."""

    def __init__(self, c: Architecture, *, rngs: nnx.Rngs):
        self.c = c
        self.attention_norm = _norm(c.width, c, rngs)
        self.query = _linear("query", c.width, c.heads * c.head_dim, c, rngs, bias=c.qkv_bias)
        self.key = _linear("key", c.width, c.kv_heads * c.head_dim, c, rngs, bias=c.qkv_bias)
        self.value = _linear("value", c.width, c.kv_heads * c.head_dim, c, rngs, bias=c.qkv_bias)
        self.output = _linear("output", c.heads * c.head_dim, c.width, c, rngs)
        if c.qk_norm:
            self.query_norm = _norm(c.head_dim, c, rngs)
            self.key_norm = _norm(c.head_dim, c, rngs)
        self.ffn_norm = _norm(c.width, c, rngs)
        self.gate = _linear("gate", c.width, c.ffn, c, rngs)
        self.up = _linear("up", c.width, c.ffn, c, rngs)
        self.down = _linear("down", c.ffn, c.width, c, rngs)

    def __call__(self, x: Float[Array, "B T D"], rotation: tuple[Array, Array], attend: Callable):
        """Returns ([B, T, D], whatever `attend` remembers); attend: q [B,T,N,H], k, v [B,T,K,H] -> ([B,T,N,H], memory)."""
        c = self.c
        # Tokens of all rows on one axis: over two, XLA makes a turned copy of a factor of every weight's gradient.
        h = self.attention_norm(x).reshape(-1, c.width)
        q, k, v = (f(h).reshape(*x.shape[:2], -1, c.head_dim) for f in (self.query, self.key, self.value))
        if c.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = rotate(q, rotation), rotate(k, rotation)
        mixed, memory = attend(q, k, v)
        x = x + self.output(mixed.reshape(len(h), -1)).reshape(x.shape)
        h = self.ffn_norm(x).reshape(-1, c.width)
        return x + self.down(jax.nn.silu(self.gate(h)) * self.up(h)).reshape(x.shape), memory


class Ends(nnx.Module):
    """What surrounds the layers: embedding, final norm, and a head when it is not tied."""

    def __init__(self, c: Architecture, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.02)
        self.embed = nnx.Embed(c.vocab_size, c.width, embedding_init=init, param_dtype=jnp.float32, rngs=rngs)
        self.final_norm = _norm(c.width, c, rngs)
        if not c.tied:
            self.head = nnx.Linear(
                c.width, c.vocab_size, use_bias=False, kernel_init=init, param_dtype=jnp.float32, rngs=rngs
            )


def rotation(
    positions: Integer[Array, "*b T"], size: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Float[Array, "*b T 1 h"], Float[Array, "*b T 1 h"]]:
    """Cosines and sines by which `rotate` turns heads of so many entries at their positions."""
    half = size // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is not None:
        # Long wavelengths are stretched by `factor`, short ones kept, the ones between blended linearly in 1/wavelength.
        turns = scaling.original_max_positions * frequency / (2 * jnp.pi)
        keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        keep = jnp.clip(keep, 0.0, 1.0)
        frequency = frequency * (keep + (1 - keep) / scaling.factor)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "B T N H"], rotation: tuple[Float[Array, "#B #T 1 h"], Float[Array, "#B #T 1 h"]]
) -> Float[Array, "B T N H"]:
    """Rotary position embedding, halves convention (as in the released Qwen and Llama checkpoints)."""
    cos, sin = rotation
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


# ---------------------------------------------------------------- the stack (pure functions)


def _split(module: nnx.Module):
    graph, state = nnx.split(module)
    return graph, nnx.to_pure_dict(state)


@functools.lru_cache
def _graphs(c: Architecture):
    """Static structure of a layer and of the ends, made without allocating anything."""
    layer = nnx.eval_shape(lambda: Layer(c, rngs=nnx.Rngs(0)))
    ends = nnx.eval_shape(lambda: Ends(c, rngs=nnx.Rngs(0)))
    return _split(layer)[0], _split(ends)[0]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A language model as pure functions of its parameters. Hashable, so it can be a static argument of jit.

    Attributes:
      architecture: what it is made of.
      remat: what the backward pass recomputes, a name of `REMAT_POLICIES`.
      rows: where rows live that `forward` is given; None on one device.
      attention: who computes that of whole rows, see `attention.choose`.
    """

    architecture: Architecture
    remat: str = "none"
    rows: NamedSharding | None = None
    attention: str = "xla"

    @property
    def mesh(self) -> Mesh | None:
        """Of the devices; None for one."""
        return self.rows and self.rows.mesh

    # -- parameters

    def init(self, key: Key[Array, ""]) -> Params:
        """Random float32 parameters: {"layers": stacked [L, ...], "embed", "final_norm", ("head")}.

        With adapters: `base`'s, and adapters that change nothing yet.
        """
        c = self.architecture
        if c.lora:
            return self.adapt(self.base.init(key), jax.random.fold_in(key, 1))
        layer_key, ends_key = jax.random.split(key)

        def layer(k):
            return _split(Layer(c, rngs=nnx.Rngs(params=k)))[1]

        layers = jax.vmap(layer)(jax.random.split(layer_key, c.layers))
        return {"layers": layers, **_split(Ends(c, rngs=nnx.Rngs(params=ends_key)))[1]}

    @property
    def base(self) -> "Policy":
        """The policy without adapters; itself if it has none."""
        return dataclasses.replace(self, architecture=dataclasses.replace(self.architecture, lora=None))

    def adapt(self, base: Params, key: Key[Array, ""]) -> Params:
        """Parameters from those of `base`, which are frozen `rounded`, and fresh adapters."""
        return attach(self.rounded(base), self.architecture.lora, key)

    def abstract_params(self) -> Params:
        """Shapes and dtypes of `init`'s result, nothing allocated."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0, impl="threefry2x32")))

    def rounded(self, params: Params) -> Params:
        """All weights that `logits` and the layers would round at every use, in the compute dtype; not the final norm."""

        def cast(tree):
            return jax.tree.map(lambda a: a.astype(self.architecture.dtype), tree)

        return {name: tree if name == "final_norm" else cast(tree) for name, tree in params.items()}

    def for_decoding(self, params: Params) -> Params:
        """What `decode` reads: weights rounded, and one tree per layer, so that no step rounds or slices any."""
        weights = self.rounded(params)
        layers = [jax.tree.map(lambda a: a[i], weights["layers"]) for i in range(self.architecture.layers)]  # noqa: B023
        return {**weights, "layers": layers}

    # -- three ways through the layers

    def forward(
        self,
        params: Params,
        tokens: Integer[Array, "B S"],
        segments: Integer[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """Final hidden states of whole rows, causal.

        Args:
          params: parameter tree.
          tokens: right-padded rows (a causal row never sees its padding).
          segments: for packed rows, a number per token that increases from document to document; tokens attend
            within their own document and positions restart with it.
        """
        index = jnp.arange(tokens.shape[1])[None]
        positions = index
        if segments is not None:
            first = jnp.concatenate([jnp.ones((len(tokens), 1), bool), segments[:, 1:] != segments[:, :-1]], axis=1)
            positions = index - jax.lax.cummax(jnp.where(first, index, 0), axis=1)
        rotation = self._rotation(positions)

        def attend(q, k, v):
            return attention(q, k, v, segments, backend=self.attention, mesh=self.mesh), None

        def step(x, layer_params):
            return self._layer(layer_params, x, rotation, attend)[0], None

        if self.remat != "none":
            step = jax.checkpoint(step, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        x = self._embed(params, tokens)
        if self.rows is not None:  # or XLA splits the width, as the embedding is, and every device has all rows
            x = jax.lax.with_sharding_constraint(x, self.rows)
        x, _ = jax.lax.scan(step, x, params["layers"])
        return self._ends(params).final_norm(x)

    def prefill(
        self, params: Params, tokens: Integer[Array, "B P"], lengths: Integer[Array, " B"]
    ) -> tuple[Float[Array, "B D"], Cache]:
        """Runs right-padded prompts; returns the last token's hidden state, and keys and values as in `Cache`."""
        rotation = self._rotation(jnp.arange(tokens.shape[1])[None])

        def attend(q, k, v):
            mixed = attention(q, k, v, backend=self.attention, mesh=self.mesh)
            return mixed, caches.lay_out(k, v)

        def step(x, layer_params):
            return self._layer(layer_params, x, rotation, attend)

        x, (keys, values) = jax.lax.scan(step, self._embed(params, tokens), params["layers"])
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)
        hidden = self._ends(params).final_norm(last)[:, 0]
        return hidden, [(keys[i], values[i]) for i in range(self.architecture.layers)]

    def decode(
        self,
        weights: Params,
        token: Integer[Array, " B"],
        position: Integer[Array, " B"],
        cache: Cache,
    ) -> tuple[Float[Array, "B D"], Cache]:
        """One token per row: writes its keys and values at `position` and attends to everything up to it.

        Args:
          weights: result of `for_decoding`.
          token, position: the token to read and where it stands in its row, [B].
          cache: with room for S positions; S or more is not written.
        """
        x = self._embed(weights, token[:, None])
        reach = jnp.arange(cache[0][1].shape[2])
        live = reach <= position[:, None]
        # From a table, which the sampler's loop does not make again at every step.
        rotation = tuple(table.at[position].get(mode="clip")[:, None] for table in self._rotation(reach))
        grown = []
        for layer_weights, (keys, values) in zip(weights["layers"], cache, strict=True):

            def attend(q, k, v, keys=keys, values=values):
                keys, values = caches.append(keys, values, k[:, 0], v[:, 0], position)
                return caches.attend(q[:, 0], keys, values, live)[:, None], (keys, values)

            x, memory = self._layer(layer_weights, x, rotation, attend)
            grown.append(memory)
        return self._ends(weights).final_norm(x)[:, 0], grown

    # -- ends

    def head(self, params: Params) -> Float[Array, "D V"]:
        """The output projection."""
        return params["embed"]["embedding"].T if self.architecture.tied else params["head"]["kernel"]

    def logits(self, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits: products in the compute dtype, sums in float32 (a bfloat16 logit can move a ratio by a fifth)."""
        dtype = self.architecture.dtype
        return jnp.matmul(hidden.astype(dtype), self.head(params).astype(dtype), preferred_element_type=jnp.float32)

    def _embed(self, params: Params, tokens):
        return params["embed"]["embedding"][tokens].astype(self.architecture.dtype)

    def _rotation(self, positions):
        c = self.architecture
        return rotation(positions, c.head_dim, c.rope_theta, c.rope_scaling)

    def _layer(self, layer_params, x, rotation, attend):
        return nnx.merge(_graphs(self.architecture)[0], layer_params)(x, rotation, attend)

    def _ends(self, params: Params) -> Ends:
        ends = {name: value for name, value in params.items() if name != "layers"}
        return nnx.merge(_graphs(self.architecture)[1], ends)
