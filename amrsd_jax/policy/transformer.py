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
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Integer, Key, PyTree

from amrsd_jax.platforms import platform
from amrsd_jax.policy import cache as caches
from amrsd_jax.policy.architecture import Architecture
from amrsd_jax.policy.attention import OUTPUT, attention
from amrsd_jax.policy.cache import Cache
from amrsd_jax.policy.joined import JOINED, join, split_columns
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


class RMSNorm(nnx.RMSNorm):
    """Divides by the root mean square and then multiplies by the scale, in float32.

    In this order XLA makes one kernel of it on a GPU; of Flax's own, x * (rsqrt * scale), it makes two.
    """

    def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        return (wide * jax.lax.rsqrt(mean_square + self.epsilon) * self.scale[...]).astype(self.dtype)


def _norm(size: int, c: Architecture, rngs: nnx.Rngs) -> RMSNorm:
    return RMSNorm(size, epsilon=c.norm_eps, dtype=c.dtype, param_dtype=jnp.float32, rngs=rngs)


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
        q, k, v = (a.reshape(*x.shape[:2], -1, c.head_dim) for a in self.query_key_value(h))
        if c.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = rotate(q, rotation), rotate(k, rotation)
        attended, extra = attend(q, k, v)
        x = x + self.output(attended.reshape(len(h), -1)).reshape(x.shape)
        gate, up = self.gate_and_up(self.ffn_norm(x).reshape(-1, c.width))
        return x + self.down(jax.nn.silu(gate) * up).reshape(x.shape), extra

    def query_key_value(self, h: Float[Array, "M D"]):
        """Returns the projections that attention reads."""
        return self.query(h), self.key(h), self.value(h)

    def gate_and_up(self, h: Float[Array, "M D"]):
        """Returns the two projections of SwiGLU."""
        return self.gate(h), self.up(h)


class JoinedLayer(Layer):
    """The layer with the parameters that `joined.join` returns."""

    def __init__(self, c: Architecture, ways: int, *, rngs: nnx.Rngs):
        super().__init__(c, rngs=rngs)
        self.ways = ways
        self.qkv = self._replace("qkv", c, rngs, bias=c.qkv_bias)
        self.gate_up = self._replace("gate_up", c, rngs)

    def _replace(self, name: str, c: Architecture, rngs: nnx.Rngs, *, bias: bool = False) -> nnx.Linear:
        """Removes the projections that the one of that name replaces, and returns it."""
        adapted = [part for part in JOINED[name] if c.lora and part in c.lora.projections]
        size = sum(getattr(self, part).out_features for part in JOINED[name])
        for part in JOINED[name]:
            delattr(self, part)
        return _linear(adapted[0] if adapted else name, c.width, size, c, rngs, bias=bias)

    def query_key_value(self, h):
        c = self.c
        sizes = [heads * c.head_dim for heads in (c.heads, c.kv_heads, c.kv_heads)]
        return split_columns(self.qkv(h), sizes, self.ways)

    def gate_and_up(self, h):
        return split_columns(self.gate_up(h), [self.c.ffn] * 2, self.ways)


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


def around(params: Params) -> Params:
    """Returns the parameters that belong to no layer."""
    return {name: tree for name, tree in params.items() if name != "layers"}


@functools.lru_cache
def _graph(module: type[nnx.Module], *args):
    """Returns the static structure of a module, without allocating parameters."""
    return _split(nnx.eval_shape(lambda: module(*args, rngs=nnx.Rngs(0))))[0]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A language model as pure functions of its parameters; hashable, so it can be a static argument of jit.

    Attributes:
      architecture: sizes and options.
      remat: which values the backward pass recomputes, a name of `REMAT_POLICIES`.
      rows: sharding of the rows that `forward` and `prefill` are given; None on one device.
      attention: which attention kernel runs over whole rows, see `attention.choose_backend`.
      decode_attention: layout of the cache and the attention that reads it, a name of `cache.LAYOUTS`.
    """

    architecture: Architecture
    remat: str = "none"
    rows: NamedSharding | None = None
    attention: str = "xla"
    decode_attention: str = "blocks"

    @property
    def cache_layout(self) -> type[caches.Layer]:
        """The class of a layer's cache."""
        return caches.LAYOUTS[self.decode_attention]

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
        layers = [self.layer_for_decoding(params["layers"], i) for i in range(self.architecture.layers)]
        return {**self.cast_params(around(params)), "layers": layers}

    def layer_for_decoding(self, layers: PyTree, index: int | Integer[Array, ""]) -> PyTree:
        """Returns the part of `for_decoding` that belongs to one layer, from the stacked parameters of all."""
        layer = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), layers)
        layer = jax.tree.map(lambda a: a.astype(self.architecture.dtype), layer)
        return join(layer, self._ways) if self.cache_layout.joined else layer

    @property
    def _ways(self) -> int:
        """Number of devices that the columns of joined projections are split over."""
        c, ways = self.architecture, self.mesh.shape["tensor"] if self.mesh else 1
        return ways if c.kv_heads * c.head_dim % ways == 0 and c.ffn % ways == 0 else 1

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
        x, _ = jax.lax.scan(step, self._embed_rows(params, tokens), params["layers"])
        return self._embed_and_head(params).final_norm(x)

    def prefill(
        self, params: Params, tokens: Integer[Array, "B P"], lengths: Integer[Array, " B"]
    ) -> tuple[Float[Array, "B D"], caches.Layer]:
        """Runs right-padded prompts of the given lengths.

        Returns:
          The last tokens' hidden states; and the keys and values, the arrays of a layer with an axis of L before their own.
        """
        rotation = self._rotation(jnp.arange(tokens.shape[1])[None])

        def attend(q, k, v):
            attended = attention(q, k, v, backend=self.attention, mesh=self.mesh)
            return attended, self.cache_layout.lay_out(k, v)

        def step(x, layer_params):
            return self._layer(layer_params, x, rotation, attend)

        x, stacked = jax.lax.scan(step, self._embed_rows(params, tokens), params["layers"])
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)
        hidden = self._embed_and_head(params).final_norm(last)[:, 0]
        return hidden, stacked

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
        table = self._rotation(jnp.arange(cache[0].length))  # XLA computes it once before the sampler's loop
        rotation = tuple(values.at[position].get(mode="clip")[:, None] for values in table)
        c, new_cache = self.architecture, []
        graph = _graph(JoinedLayer, c, self._ways) if self.cache_layout.joined else _graph(Layer, c)
        for layer_params, layer in zip(params["layers"], cache, strict=True):

            def attend(q, k, v, layer=layer):
                layer = layer.append(k[:, 0], v[:, 0], position)
                return layer.attend(q[:, 0], position, self.mesh)[:, None], layer

            x, extended = nnx.merge(graph, layer_params)(x, rotation, attend)
            new_cache.append(extended)
        return self._embed_and_head(params).final_norm(x)[:, 0], new_cache

    # -- embedding and head

    def head(self, params: Params) -> Float[Array, "D V"]:
        """Returns the output projection."""
        return params["embed"]["embedding"].T if self.architecture.tied else params["head"]["kernel"]

    def unembed(self, head: Float[Array, "D V"], hidden: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Returns float32 logits, with products in the compute dtype and sums in float32.

        A logit rounded to bfloat16 could change a probability ratio by a fifth.
        """
        dtype = self.architecture.dtype
        return jnp.matmul(hidden.astype(dtype), head.astype(dtype), preferred_element_type=jnp.float32)

    def logits(self, params: Params, hidden: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Returns float32 logits, see `unembed`."""
        return self.unembed(self.head(params), hidden)

    def _embed_rows(self, params: Params, tokens):
        """Returns the embeddings of whole rows, split over the devices by rows."""
        x = self._embed(params, tokens)
        if self.mesh is None:
            return x
        # Each device looks up its own columns for the rows of its group, which then exchange columns for rows. Without the
        # first, XLA gathers what it looks up from `tensor`; without the second, it may keep all rows on each device.
        divides = self.architecture.width % self.mesh.shape["fsdp"] == 0
        columns = NamedSharding(self.mesh, PartitionSpec("data", None, "fsdp" if divides else None))
        return jax.lax.with_sharding_constraint(jax.lax.with_sharding_constraint(x, columns), self.rows)

    def _embed(self, params: Params, tokens):
        return params["embed"]["embedding"][tokens].astype(self.architecture.dtype)

    def _rotation(self, positions):
        c = self.architecture
        whole = platform(self.mesh) == "tpu"
        return rotation(positions, c.head_dim, c.rope_theta, c.rope_scaling, whole=whole)

    def _layer(self, layer_params, x, rotation, attend):
        return nnx.merge(_graph(Layer, self.architecture), layer_params)(x, rotation, attend)

    def _embed_and_head(self, params: Params) -> EmbedAndHead:
        return nnx.merge(_graph(EmbedAndHead, self.architecture), around(params))
