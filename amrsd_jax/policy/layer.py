"""Defines the modules of the language model: norms, a layer with its projections, and embedding and head.

How families differ is in the fields of `Architecture`; a layer has the modules that these ask for.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Integer

from amrsd_jax.policy.architecture import Architecture
from amrsd_jax.policy.experts import ExpertKernels, mixture
from amrsd_jax.policy.joined import JOINED, split_columns
from amrsd_jax.policy.lora import LoraLinear
from amrsd_jax.policy.rope import rotate


def _linear(name: str, inputs: int, outputs: int, c: Architecture, rngs: nnx.Rngs, *, bias: bool = False) -> nnx.Linear:
    kwargs = dict(use_bias=bias, dtype=c.dtype, param_dtype=jnp.float32, rngs=rngs)
    if c.lora and name in c.lora.projections:
        return LoraLinear(inputs, outputs, c.lora, **kwargs)
    return nnx.Linear(inputs, outputs, **kwargs)


class RMSNorm(nnx.RMSNorm):
    """Divides by the root mean square and then multiplies by the scale, in float32.

    In this order XLA makes one kernel of it on a GPU; of Flax's own, x * (rsqrt * scale), it makes two.
    """

    def __init__(self, size: int, c: Architecture, rngs: nnx.Rngs):
        init = nnx.initializers.zeros if c.norm_unit_offset else nnx.initializers.ones
        super().__init__(size, epsilon=c.norm_eps, dtype=c.dtype, param_dtype=jnp.float32, scale_init=init, rngs=rngs)
        self.offset = float(c.norm_unit_offset)

    def __call__(self, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        wide, scale = x.astype(jnp.float32), self.scale[...]
        if self.offset:  # of a scale in bfloat16 the sum would be rounded
            scale = self.offset + scale.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        return (wide * jax.lax.rsqrt(mean_square + self.epsilon) * scale).astype(self.dtype)


ACTIVATIONS = {"silu": jax.nn.silu, "gelu": functools.partial(jax.nn.gelu, approximate=True)}


class Layer(nnx.Module):
    """A layer of attention and a gated block; the caller passes the attention function, with or without a cache."""

    def __init__(self, c: Architecture, *, rngs: nnx.Rngs):
        self.c = c
        if c.norms != "post":  # the order of modules decides the random numbers of an initialisation
            self.attention_norm = RMSNorm(c.width, c, rngs)
        self.query = _linear("query", c.width, c.heads * c.head_dim, c, rngs, bias=c.qkv_bias)
        self.key = _linear("key", c.width, c.kv_heads * c.head_dim, c, rngs, bias=c.qkv_bias)
        self.value = _linear("value", c.width, c.kv_heads * c.head_dim, c, rngs, bias=c.qkv_bias)
        self.output = _linear("output", c.heads * c.head_dim, c.width, c, rngs)
        if c.qk_norm:
            query, key = (c.heads, c.kv_heads) if c.qk_norm_whole else (1, 1)
            self.query_norm = RMSNorm(query * c.head_dim, c, rngs)
            self.key_norm = RMSNorm(key * c.head_dim, c, rngs)
        if c.norms != "post":
            self.ffn_norm = RMSNorm(c.width, c, rngs)
        if c.norms != "pre":
            self.attention_post_norm, self.ffn_post_norm = RMSNorm(c.width, c, rngs), RMSNorm(c.width, c, rngs)
        if c.experts:
            self.router = _linear("router", c.width, c.experts, c, rngs)
            self.expert_gate = ExpertKernels(c.experts, c.width, c.ffn, rngs=rngs)
            self.expert_up = ExpertKernels(c.experts, c.width, c.ffn, rngs=rngs)
            self.expert_down = ExpertKernels(c.experts, c.ffn, c.width, rngs=rngs)
            return
        self.gate = _linear("gate", c.width, c.ffn, c, rngs)
        self.up = _linear("up", c.width, c.ffn, c, rngs)
        self.down = _linear("down", c.ffn, c.width, c, rngs)

    def __call__(
        self, x: Float[Array, "B T D"], rotation: tuple[Array, Array], attend: Callable, mesh: Mesh | None = None
    ):
        """Runs the layer.

        Args:
          x: residual stream.
          rotation: the layer's cosines and sines, see `rotation`.
          attend: maps q [B, T, N, H] and k, v [B, T, K, H] to the attention's output [B, T, N, H] and a value to return,
            such as an updated cache.
          mesh: mesh that the rows are split over, for experts; None on one device.

        Returns:
          The new residual stream [B, T, D], the second result of `attend`, and the experts of each token [B, T, k], k = 0
          without experts.
        """
        c = self.c
        # The tokens of all rows are on one axis: with two, XLA copies and transposes a factor of every weight's gradient.
        h = self._norm("attention_norm", x).reshape(-1, c.width)
        q, k, v = self.query_key_value(h)
        if c.qk_norm_whole:
            q, k = self._norm("query_norm", q), self._norm("key_norm", k)
        q, k, v = (a.reshape(*x.shape[:2], -1, c.head_dim) for a in (q, k, v))
        if not c.qk_norm_whole:
            q, k = self._norm("query_norm", q), self._norm("key_norm", k)
        q, k = rotate(q, rotation), rotate(k, rotation)
        if c.query_pre_attn_scalar not in (None, c.head_dim):  # every kernel divides the scores by sqrt(H)
            q = q * (c.head_dim / c.query_pre_attn_scalar) ** 0.5
        attended, extra = attend(q, k, v)
        x = x + self._norm("attention_post_norm", self.output(attended.reshape(len(h), -1))).reshape(x.shape)
        h, chosen = self.gated(self._norm("ffn_norm", x).reshape(-1, c.width), mesh)
        return x + self._norm("ffn_post_norm", h).reshape(x.shape), extra, chosen.reshape(*x.shape[:2], -1)

    def _norm(self, name: str, x: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
        """Applies the norm of that name, if the architecture has it."""
        norm = getattr(self, name, None)
        return x if norm is None else norm(x)

    def gated(self, h: Float[Array, "M D"], mesh: Mesh | None) -> tuple[Float[Array, "M D"], Integer[Array, "M k"]]:
        """Returns the output of the gated block, SwiGLU or GeGLU, or of a mixture of such, and the experts of each token."""
        c, activation = self.c, ACTIVATIONS[self.c.activation]
        if c.experts:
            kernels = tuple(e.kernel[...] for e in (self.expert_gate, self.expert_up, self.expert_down))
            settings = dict(k=c.experts_per_token, normalised=c.norm_topk, activation=activation, mesh=mesh)
            return mixture(h, self.router.kernel[...], kernels, **settings)
        gate, up = self.gate_and_up(h)
        return self.down(activation(gate) * up), jnp.zeros((len(h), 0), jnp.int32)

    def query_key_value(self, h: Float[Array, "M D"]):
        """Returns the projections that attention reads."""
        return self.query(h), self.key(h), self.value(h)

    def gate_and_up(self, h: Float[Array, "M D"]):
        """Returns the two projections of the gated block."""
        return self.gate(h), self.up(h)


class JoinedLayer(Layer):
    """The layer with the parameters that `joined.join` returns."""

    def __init__(self, c: Architecture, ways: int, *, rngs: nnx.Rngs):
        super().__init__(c, rngs=rngs)
        self.ways = ways
        self.qkv = self._replace("qkv", c, rngs, bias=c.qkv_bias)
        if not c.experts:
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
        self.final_norm = RMSNorm(c.width, c, rngs)
        if not c.tied:
            self.head = nnx.Linear(
                c.width, c.vocab_size, use_bias=False, kernel_init=init, param_dtype=jnp.float32, rngs=rngs
            )
