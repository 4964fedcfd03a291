"""Implements the language model as pure functions that run the stack of layers of `layer.py`.

There is one parameter tree, with layers stacked on a leading axis. `forward` (training, scoring) and `prefill` scan over it;
`decode` is unrolled with one cache array per layer, because a scan would copy a stacked cache. Outside this folder a policy is
used as `(params, tokens, ...) -> arrays`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Integer, Key, PyTree

from amrsd_jax.platforms import platform
from amrsd_jax.policy import cache as caches
from amrsd_jax.policy.architecture import Architecture
from amrsd_jax.policy.attention import OUTPUT, attention, attention_after
from amrsd_jax.policy.cache import Cache
from amrsd_jax.policy.joined import join
from amrsd_jax.policy.layer import EmbedAndHead, JoinedLayer, Layer
from amrsd_jax.policy.lora import attach
from amrsd_jax.policy.rope import rotation

Params = PyTree

REMAT_POLICIES = {  # which values are saved for the backward pass; None saves all
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(OUTPUT),
    ),
}


def _split(module: nnx.Module):
    graph, state = nnx.split(module)
    return graph, nnx.to_pure_dict(state)


def around(params: Params) -> Params:
    """Returns the parameters that belong to no layer."""
    return {name: tree for name, tree in params.items() if name != "layers"}


def _take(rotations: list[tuple[Array, Array]], index: Integer[Array, ""]) -> tuple[Array, Array]:
    """Returns the cosines and sines of that index."""
    return rotations[0] if len(rotations) == 1 else jax.tree.map(lambda *a: jnp.stack(a)[index], *rotations)


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
        """Returns the weights, all but the final norm, in the compute dtype."""

        def cast(tree):
            return jax.tree.map(lambda a: a.astype(self.architecture.dtype), tree)

        return {name: tree if name == "final_norm" else cast(tree) for name, tree in params.items()}

    def for_decoding(self, params: Params) -> Params:
        """Returns the parameters for `decode`: cast and with one tree per layer, so that no step casts or slices any."""
        layers = [self.layer_for_decoding(params["layers"], i) for i in range(self.architecture.layers)]
        return {**self.cast_params(around(params)), "layers": layers}

    def layer_for_decoding(self, layers: PyTree, index: int | Integer[Array, ""]) -> PyTree:
        """Returns the part of `for_decoding` that belongs to one layer, from the stacked parameters of all.

        The scales of its norms stay as they are: a norm multiplies in float32, and training moves them by less than bfloat16
        can tell.
        """

        def take(path, a):
            a = jax.lax.dynamic_index_in_dim(a, index, keepdims=False)
            return a if path[-1].key == "scale" else a.astype(self.architecture.dtype)

        layer = jax.tree_util.tree_map_with_path(take, layers)
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
        """Returns the final hidden states of whole rows, see `forward_with_experts`."""
        return self.forward_with_experts(params, tokens, segments)[0]

    def forward_with_experts(
        self,
        params: Params,
        tokens: Integer[Array, "B S"],
        segments: Integer[Array, "B S"] | None = None,
    ) -> tuple[Float[Array, "B S D"], Integer[Array, "L B S k"]]:
        """Returns the final hidden states of whole rows, and the experts of each token; k = 0 without experts.

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
        rotations = self._rotations(positions)

        def step(x, layer):
            layer_params, rope, slides = layer

            def attend(q, k, v):
                return self._attend(q, k, v, slides, segments), None

            x, _, chosen = self._layer(layer_params, x, _take(rotations, rope), attend)
            return x, chosen

        if self.remat != "none":
            step = jax.checkpoint(step, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        x, chosen = jax.lax.scan(step, self._embed_rows(params, tokens), (params["layers"], *self._kinds()))
        return self._embed_and_head(params).final_norm(x), chosen

    def forward_responses(
        self,
        params: Params,
        prompts: Integer[Array, "U P"],
        lengths: Integer[Array, " U"],
        index: Integer[Array, " N"],
        responses: Integer[Array, "N T"],
    ) -> Float[Array, "N T D"]:
        """Returns the hidden states that predict responses to prompts that they share: each prompt is run once.

        The result is that of `forward` on whole rows of prompt and response, to rounding. For layers without windows, experts and
        soft caps.

        Args:
          prompts, lengths: right-padded prompts and their lengths.
          index: the prompt of each response.
          responses: right-padded.
        """
        before = lengths[index]
        of_prompts = self._rotations(jnp.arange(prompts.shape[1])[None])
        of_responses = self._rotations(before[:, None] + jnp.arange(responses.shape[1]))

        def step(streams, layer):
            prompt, response = streams
            layer_params, rope, slides = layer

            def attend(q, k, v):
                return self._attend(q, k, v, slides), (k, v)

            def attend_after(q, k, v):
                return attention_after(q, k, v, prompt_k[index], prompt_v[index], before), None

            prompt, (prompt_k, prompt_v), _ = self._layer(layer_params, prompt, _take(of_prompts, rope), attend)
            response, _, _ = self._layer(layer_params, response, _take(of_responses, rope), attend_after)
            return (prompt, response), None

        if self.remat != "none":
            step = jax.checkpoint(step, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        streams = self._embed_rows(params, prompts), self._embed_rows(params, responses)
        (prompt, response), _ = jax.lax.scan(step, streams, (params["layers"], *self._kinds()))
        last = jnp.take_along_axis(prompt, (lengths - 1)[:, None, None], axis=1)[index]
        hidden = jnp.concatenate([last, response[:, :-1]], axis=1)
        return self._embed_and_head(params).final_norm(hidden)

    def prefill(
        self, params: Params, tokens: Integer[Array, "B P"], lengths: Integer[Array, " B"]
    ) -> tuple[Float[Array, "B D"], caches.Layer]:
        """Runs right-padded prompts of the given lengths.

        Returns:
          The last tokens' hidden states; and the keys and values, the arrays of a layer with an axis of L before their own.
        """
        rotations = self._rotations(jnp.arange(tokens.shape[1])[None])

        def step(x, layer):
            layer_params, rope, slides = layer

            def attend(q, k, v):
                return self._attend(q, k, v, slides), self.cache_layout.lay_out(k, v)

            x, kept, _ = self._layer(layer_params, x, _take(rotations, rope), attend)
            return x, kept

        x, stacked = jax.lax.scan(step, self._embed_rows(params, tokens), (params["layers"], *self._kinds()))
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
        tables = self._rotations(jnp.arange(cache[0].length))  # XLA computes them once before the sampler's loop
        rotations = [tuple(a.at[position].get(mode="clip")[:, None] for a in table) for table in tables]
        c, new_cache = self.architecture, []
        ropes = [self._ropes.index(rope) for rope in c.ropes]
        graph = _graph(JoinedLayer, c, self._ways) if self.cache_layout.joined else _graph(Layer, c)
        for layer_params, layer, rope, window in zip(params["layers"], cache, ropes, c.windows, strict=True):
            limits = dict(window=window if window and window < layer.length else None, softcap=c.attention_softcap)

            def attend(q, k, v, layer=layer, limits=limits):
                layer = layer.append(k[:, 0], v[:, 0], position)
                return layer.attend(q[:, 0], position, self.mesh, **limits)[:, None], layer

            x, extended, _ = nnx.merge(graph, layer_params)(x, rotations[rope], attend, self.mesh)
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
        dtype, softcap = self.architecture.dtype, self.architecture.logit_softcap
        logits = jnp.matmul(hidden.astype(dtype), head.astype(dtype), preferred_element_type=jnp.float32)
        return logits if softcap is None else softcap * jnp.tanh(logits / softcap)

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
        c = self.architecture
        x = params["embed"]["embedding"][tokens].astype(c.dtype)
        return x * jnp.asarray(c.width**0.5, c.dtype) if c.embed_scale else x

    # -- how layers differ

    @property
    def _ropes(self) -> list[tuple]:
        """The different rotary embeddings of the layers."""
        return list(dict.fromkeys(self.architecture.ropes))

    def _rotations(self, positions) -> list[tuple[Array, Array]]:
        """Returns cosines and sines for each of `_ropes`."""
        whole = platform(self.mesh) == "tpu"
        return [rotation(positions, self.architecture.head_dim, *rope, whole=whole) for rope in self._ropes]

    def _kinds(self) -> tuple[Integer[Array, " L"], Bool[Array, " L"]]:
        """Returns for each layer the index of its rotary embedding in `_ropes`, and whether it attends to a window."""
        c = self.architecture
        ropes = [self._ropes.index(rope) for rope in c.ropes]
        return jnp.array(ropes), jnp.array([window is not None for window in c.windows])

    def _attend(self, q, k, v, slides: Bool[Array, ""], segments=None):
        """Returns the attention of whole rows in a layer with or without a window."""
        c = self.architecture
        run = functools.partial(
            attention, segments=segments, softcap=c.attention_softcap, backend=self.attention, mesh=self.mesh
        )
        if not any(c.windows) or q.shape[1] <= c.sliding_window:
            return run(q, k, v)
        if all(c.windows):
            return run(q, k, v, window=c.sliding_window)
        return jax.lax.cond(slides, functools.partial(run, window=c.sliding_window), run, q, k, v)

    def _layer(self, layer_params, x, rotation, attend):
        return nnx.merge(_graph(Layer, self.architecture), layer_params)(x, rotation, attend, self.mesh)

    def _embed_and_head(self, params: Params) -> EmbedAndHead:
        return nnx.merge(_graph(EmbedAndHead, self.architecture), around(params))
