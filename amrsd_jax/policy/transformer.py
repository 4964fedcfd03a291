"""Implements the language model: a Flax module for one layer, and pure functions that run the stack of layers.

There is one parameter tree, with layers stacked on a leading axis. `forward` (training, scoring) and `prefill` scan over it;
`decode` is unrolled with one cache array per layer, because a scan would copy a stacked cache. Outside this folder a policy is
used as `(params, tokens, ...) -> arrays`.
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
from amrsd_jax.policy.architecture import Architecture
from amrsd_jax.policy.attention import OUTPUT, attention
from amrsd_jax.policy.cache import Cache
from amrsd_jax.policy.lora import LoraLinear, attach
from amrsd_jax.policy.rope import rotate, rotation

Params = PyTree

REMAT_POLICIES = {  # which values are saved for the backward pass; None saves all
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(OUTPUT),
    ),
}


# ---------------------------------------------------------------- one layer (Flax)


def _linear(name: str, inputs: int, outputs: int, c: Architecture, rngs: nnx.Rngs, *, bias: bool = False) -> nnx.Linear:
    kwargs = dict(use_bias=bias, dtype=c.dtype, param_dtype=jnp.float32, rngs=rngs)
    if c.lora and name in c.lora.projections:
        return LoraLinear(inputs, outputs, c.lora, **kwargs)
    return nnx.Linear(inputs, outputs, **kwargs)


def _norm(size: int, c: Architecture, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(size, epsilon=c.norm_eps, dtype=c.dtype, param_dtype=jnp.float32, rngs=rngs)


class Layer(nnx.Module):
    """A layer with pre-norm attention and SwiGLU; the caller passes the attention function, with or without a cache."""

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
        """Runs the layer.

        Args:
          x: residual stream.
          rotation: cosines and sines, see `rotation`.
          attend: maps q [B, T, N, H] and k, v [B, T, K, H] to the attention's output [B, T, N, H] and a value to return,
            such as an updated cache.

        Returns:
          The new residual stream [B, T, D], and the second result of `attend`.
        """
        c = self.c
        # The tokens of all rows are on one axis: with two, XLA copies and transposes a factor of every weight's gradient.
        h = self.attention_norm(x).reshape(-1, c.width)
        q, k, v = (f(h).reshape(*x.shape[:2], -1, c.head_dim) for f in (self.query, self.key, self.value))
        if c.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = rotate(q, rotation), rotate(k, rotation)
        attended, extra = attend(q, k, v)
        x = x + self.output(attended.reshape(len(h), -1)).reshape(x.shape)
        h = self.ffn_norm(x).reshape(-1, c.width)
        return x + self.down(jax.nn.silu(self.gate(h)) * self.up(h)).reshape(x.shape), extra


class EmbedAndHead(nnx.Module):
    """The modules around the layers: embedding, final norm, and the output projection unless it is tied."""

    def __init__(self, c: Architecture, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.02)
        self.embed = nnx.Embed(c.vocab_size, c.width, embedding_init=init, param_dtype=jnp.float32, rngs=rngs)
        self.final_norm = _norm(c.width, c, rngs)
        if not c.tied:
            self.head = nnx.Linear(
                c.width, c.vocab_size, use_bias=False, kernel_init=init, param_dtype=jnp.float32, rngs=rngs
            )


# ---------------------------------------------------------------- the stack (pure functions)


def _split(module: nnx.Module):
    graph, state = nnx.split(module)
    return graph, nnx.to_pure_dict(state)


@functools.lru_cache
def _graphs(c: Architecture):
    """Returns the static structures of `Layer` and `EmbedAndHead`, without allocating parameters."""
    modules = (nnx.eval_shape(lambda m=m: m(c, rngs=nnx.Rngs(0))) for m in (Layer, EmbedAndHead))
    return tuple(_split(module)[0] for module in modules)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A language model as pure functions of its parameters; hashable, so it can be a static argument of jit.

    Attributes:
      architecture: sizes and options.
      remat: which values the backward pass recomputes, a name of `REMAT_POLICIES`.
      rows: sharding of the rows that `forward` and `prefill` are given; None on one device.
      attention: which attention kernel runs over whole rows, see `attention.choose_backend`.
    """

    architecture: Architecture
    remat: str = "none"
    rows: NamedSharding | None = None
    attention: str = "xla"

    @property
    def mesh(self) -> Mesh | None:
        """The mesh of the devices; None on one device."""
        return self.rows and self.rows.mesh

    # -- parameters

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns random float32 parameters: {"layers": stacked [L, ...], "embed", "final_norm"}, and "head" unless tied.

        With adapters, the result is `adapt` of the parameters of `base`.
        """
        c = self.architecture
        if c.lora:
            return self.adapt(self.base.init(key), jax.random.fold_in(key, 1))
        layer_key, other_key = jax.random.split(key)

        def layer(k):
            return _split(Layer(c, rngs=nnx.Rngs(params=k)))[1]

        layers = jax.vmap(layer)(jax.random.split(layer_key, c.layers))
        return {"layers": layers, **_split(EmbedAndHead(c, rngs=nnx.Rngs(params=other_key)))[1]}

    @property
    def base(self) -> "Policy":
        """The policy without adapters."""
        return dataclasses.replace(self, architecture=dataclasses.replace(self.architecture, lora=None))

    def adapt(self, base: Params, key: Key[Array, ""]) -> Params:
        """Returns the parameters of `base`, cast to the compute dtype because they are frozen, with new adapters."""
        return attach(self.cast_params(base), self.architecture.lora, key)

    def abstract_params(self) -> Params:
        """Returns the shapes and dtypes of the result of `init`, without allocating anything."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0, impl="threefry2x32")))

    def cast_params(self, params: Params) -> Params:
        """Casts all weights but the final norm to the compute dtype, which layers and `logits` would do at every use."""

        def cast(tree):
            return jax.tree.map(lambda a: a.astype(self.architecture.dtype), tree)

        return {name: tree if name == "final_norm" else cast(tree) for name, tree in params.items()}

    def for_decoding(self, params: Params) -> Params:
        """Returns the parameters for `decode`: cast and with one tree per layer, so that no step casts or slices any."""
        params = self.cast_params(params)
        layers = [jax.tree.map(lambda a: a[i], params["layers"]) for i in range(self.architecture.layers)]  # noqa: B023
        return {**params, "layers": layers}

    # -- the layers

    def forward(
        self,
        params: Params,
        tokens: Integer[Array, "B S"],
        segments: Integer[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """Returns the final hidden states of whole rows.

        Args:
          params: parameters as from `init`.
          tokens: right-padded rows; the causal mask hides the padding.
          segments: for rows that pack several documents, a number per token that increases from one document to the next.
            Tokens attend within their document, and positions start again at each.
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
        if self.rows is not None:  # otherwise XLA may split D, like the embedding, and keep all rows on each device
            x = jax.lax.with_sharding_constraint(x, self.rows)
        x, _ = jax.lax.scan(step, x, params["layers"])
        return self._embed_and_head(params).final_norm(x)

    def prefill(
        self, params: Params, tokens: Integer[Array, "B P"], lengths: Integer[Array, " B"]
    ) -> tuple[Float[Array, "B D"], Cache]:
        """Runs right-padded prompts of the given lengths; returns the last tokens' hidden states and the cache."""
        rotation = self._rotation(jnp.arange(tokens.shape[1])[None])

        def attend(q, k, v):
            attended = attention(q, k, v, backend=self.attention, mesh=self.mesh)
            return attended, caches.lay_out(k, v)

        def step(x, layer_params):
            return self._layer(layer_params, x, rotation, attend)

        x = self._embed(params, tokens)
        if self.rows is not None:  # otherwise XLA may split D, as in `forward`
            x = jax.lax.with_sharding_constraint(x, self.rows)
        x, (keys, values) = jax.lax.scan(step, x, params["layers"])
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)
        hidden = self._embed_and_head(params).final_norm(last)[:, 0]
        return hidden, [(keys[i], values[i]) for i in range(self.architecture.layers)]

    def decode(
        self,
        params: Params,
        token: Integer[Array, " B"],
        position: Integer[Array, " B"],
        cache: Cache,
    ) -> tuple[Float[Array, "B D"], Cache]:
        """Runs one token per row; returns its final hidden state and the cache with its keys and values.

        Args:
          params: result of `for_decoding`.
          token, position: the token and its position in the row. It attends to all positions up to its own.
          cache: cache of S positions; tokens at S or beyond are not written.
        """
        x = self._embed(params, token[:, None])
        positions = jnp.arange(cache[0][1].shape[2])
        live = positions <= position[:, None]
        # A table, because XLA computes it once before the sampler's loop, and not at every step.
        rotation = tuple(table.at[position].get(mode="clip")[:, None] for table in self._rotation(positions))
        new_cache = []
        for layer_params, (keys, values) in zip(params["layers"], cache, strict=True):

            def attend(q, k, v, keys=keys, values=values):
                keys, values = caches.append(keys, values, k[:, 0], v[:, 0], position)
                return caches.attend(q[:, 0], keys, values, live)[:, None], (keys, values)

            x, extended = self._layer(layer_params, x, rotation, attend)
            new_cache.append(extended)
        return self._embed_and_head(params).final_norm(x)[:, 0], new_cache

    # -- embedding and head

    def head(self, params: Params) -> Float[Array, "D V"]:
        """Returns the output projection."""
        return params["embed"]["embedding"].T if self.architecture.tied else params["head"]["kernel"]

    def logits(self, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Returns float32 logits, with products in the compute dtype and sums in float32.

        A logit rounded to bfloat16 could change a probability ratio by a fifth.
        """
        dtype = self.architecture.dtype
        return jnp.matmul(hidden.astype(dtype), self.head(params).astype(dtype), preferred_element_type=jnp.float32)

    def _embed(self, params: Params, tokens):
        return params["embed"]["embedding"][tokens].astype(self.architecture.dtype)

    def _rotation(self, positions):
        c = self.architecture
        return rotation(positions, c.head_dim, c.rope_theta, c.rope_scaling)

    def _layer(self, layer_params, x, rotation, attend):
        return nnx.merge(_graphs(self.architecture)[0], layer_params)(x, rotation, attend)

    def _embed_and_head(self, params: Params) -> EmbedAndHead:
        return nnx.merge(_graphs(self.architecture)[1], {k: v for k, v in params.items() if k != "layers"})
