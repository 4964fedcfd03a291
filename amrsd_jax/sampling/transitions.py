"""The device's side of the sampler: rows in flight, and the pure jitted transitions of that one donated state.

A fixed number of slots, each a row with its own length. `admit` prefills a few prompts and shares each among its rollouts,
`decode` adds tokens until enough slots are done, `widen` gives the cache the width that the rows in flight need, in few
widths. A token's noise is a function of (key, row, position in the response): which slot or batch a row ran in never shows.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Integer, Key

from amrsd_jax import lengths, processes, rng
from amrsd_jax.policy import Cache, Params, Policy
from amrsd_jax.policy import cache as caches
from amrsd_jax.sampling.warpers import sample


@dataclasses.dataclass(frozen=True)
class Layout:
    """Static shape of an engine: everything that decides what is compiled.

    Attributes:
      slots: S, rows in flight.
      group: largest `count` of a request.
      prompt_length, new_tokens: P and T. A row holds P + T tokens; a longer prompt is taken if its response is so much shorter.
      admit: prompts of P tokens prefilled together; of longer ones fewer.
      segment: decode steps between two looks of the host.
      stop_tokens: ids that end a response.
      sharding: of the slot axis, None on one device.
    """

    slots: int
    group: int
    prompt_length: int
    new_tokens: int
    admit: int
    segment: int
    stop_tokens: tuple[int, ...]
    sharding: NamedSharding | None = None

    def __post_init__(self):
        if self.group > self.slots:
            raise ValueError(f"sampling.slots = {self.slots}: a group of {self.group} rollouts does not fit")
        if self.slots % self.ways:
            raise ValueError(f"sampling.slots = {self.slots} does not divide over {self.ways} devices (data x fsdp)")

    @property
    def ways(self) -> int:
        """Over how many devices rows are split."""
        return 1 if self.sharding is None else self.sharding.mesh.shape["data"] * self.sharding.mesh.shape["fsdp"]

    @property
    def length(self) -> int:
        """P + T, tokens of the longest row."""
        return self.prompt_length + self.new_tokens

    def prompt_width(self, longest: int) -> int:
        """Padded width of prompts that are prefilled together."""
        return lengths.bucket(longest, self.prompt_length if longest <= self.prompt_length else self.length)

    def together(self, longest: int) -> int:
        """How many prompts are prefilled at that width: no more tokens than `admit` prompts of P have."""
        return max(1, min(self.admit, self.admit * self.prompt_length // self.prompt_width(longest)))

    def put(self, tree):
        """Host values on every device of the mesh."""
        everywhere = None if self.sharding is None else NamedSharding(self.sharding.mesh, PartitionSpec())
        return processes.put(tree, everywhere)


@struct.dataclass
class Slots:
    """Device state: S rows in flight, room for T new tokens each. Attributes are per slot."""

    cache: Cache  # wide enough for the rows in flight
    token: Integer[Array, " S"]  # last sampled, not yet read
    length: Integer[Array, " S"]  # tokens read so far, prompt included
    made: Integer[Array, " S"]  # new tokens so far
    limit: Integer[Array, " S"]  # most new tokens
    active: Bool[Array, " S"]
    key: Key[Array, " S"]
    temperature: Float[Array, " S"]
    top_k: Integer[Array, " S"]
    top_p: Float[Array, " S"]
    tokens: Integer[Array, "S T"]
    logp: Float[Array, "S T"]
    logp_plain: Float[Array, "S T"]


def _constrain(tree, layout: Layout):
    return tree if layout.sharding is None else jax.lax.with_sharding_constraint(tree, layout.sharding)


@functools.partial(jax.jit, static_argnames=("policy", "layout"))
def empty(policy: Policy, layout: Layout) -> Slots:
    """All slots free, and no room in the cache yet."""
    c, s, t = policy.architecture, layout.slots, layout.new_tokens
    nothing = jnp.zeros((s, 0, c.kv_heads, c.head_dim), c.dtype)
    slots = Slots(
        cache=[caches.lay_out(nothing, nothing)] * c.layers,
        token=jnp.zeros(s, jnp.int32),
        length=jnp.zeros(s, jnp.int32),
        made=jnp.zeros(s, jnp.int32),
        limit=jnp.zeros(s, jnp.int32),
        active=jnp.zeros(s, bool),
        key=jax.random.split(jax.random.key(0, impl="threefry2x32"), s),
        temperature=jnp.ones(s),
        top_k=jnp.zeros(s, jnp.int32),
        top_p=jnp.ones(s),
        tokens=jnp.zeros((s, t), jnp.int32),
        logp=jnp.zeros((s, t)),
        logp_plain=jnp.zeros((s, t)),
    )
    return _constrain(slots, layout)


def _book(layout: Layout, slots: Slots, drawn: tuple, live: Bool[Array, " S"]) -> Slots:
    """Writes down what was drawn for the live slots: token, log-probability, plain log-probability, each [S]."""
    token, logp, logp_plain = drawn
    column = jnp.where(live, slots.made, layout.new_tokens)  # out of range is dropped
    rows = jnp.arange(layout.slots)

    def write(buffer, value):
        return buffer.at[rows, column].set(value, mode="drop")

    made = slots.made + live
    stopped = jnp.isin(token, jnp.array(layout.stop_tokens, jnp.int32))
    return slots.replace(
        token=jnp.where(live, token, slots.token),
        made=made,
        active=jnp.where(live, ~stopped & (made < slots.limit), slots.active),
        tokens=write(slots.tokens, token),
        logp=write(slots.logp, logp),
        logp_plain=write(slots.logp_plain, logp_plain),
    )


def _unordered() -> bool:
    """Whether independent collectives of a program may wait for each other: CPU devices of several processes run them in any
    order."""
    return jax.default_backend() == "cpu" and jax.process_count() > 1


@functools.partial(jax.jit, static_argnames=("policy", "layout"), donate_argnames=("slots",))
def admit(
    policy: Policy,
    layout: Layout,
    params: Params,
    slots: Slots,
    call_keys: Key[Array, " C"],
    prompts: Integer[Array, "A P"],
    lengths: Integer[Array, " A"],
    limits: Integer[Array, " A"],
    streams: Integer[Array, " A"],
    targets: Integer[Array, "A G"],
    rows: Integer[Array, "A G"],
    temperature: Float[Array, " A"],
    top_k: Integer[Array, " A"],
    top_p: Float[Array, " A"],
) -> Slots:
    """Prefills A prompts once each, copies each into its slots, and samples the first tokens.

    Args:
      limits: most new tokens.
      streams: which of the call's keys is whose.
      targets: slot of each rollout; S (out of range) where there is none.
      rows: number of each rollout, which keys its randomness.
    """
    if len(prompts) % layout.ways == 0 and not _unordered():  # otherwise every device prefills them all
        prompts = _constrain(prompts, layout)
    hidden, prompt_cache = policy.prefill(params, prompts, lengths)
    group = targets.shape[1]
    where = targets.reshape(-1)

    def spread(a):
        return jnp.repeat(a, group, axis=0)

    def put(buffer, value):
        return buffer.at[where].set(value, mode="drop")

    def share(rollout, cache):
        """Copies the prompts to one rollout of each: all at once would be that many copies beside the cache."""
        return jax.tree.map(
            lambda old, new: old.at[targets[:, rollout], :, : new.shape[2]].set(new, mode="drop"), cache, prompt_cache
        )

    cache = jax.lax.fori_loop(0, group, share, slots.cache)
    keys, first = rng.fold_rows(spread(call_keys[streams]), rows.reshape(-1)), jnp.zeros(where.shape, jnp.int32)
    settings = dict(temperature=spread(temperature), top_k=spread(top_k), top_p=spread(top_p))
    drawn = sample(spread(policy.logits(params, hidden)), rng.fold_positions(keys, first), **settings)
    slots = slots.replace(
        cache=cache,
        length=put(slots.length, spread(lengths)),
        made=put(slots.made, first),
        limit=put(slots.limit, spread(limits)),
        key=put(slots.key, keys),
        **{name: put(getattr(slots, name), value) for name, value in settings.items()},
    )
    drawn = tuple(put(jnp.zeros(layout.slots, value.dtype), value) for value in drawn)
    live = put(jnp.zeros(layout.slots, bool), True)
    return _constrain(_book(layout, slots, drawn, live), layout)


@functools.partial(jax.jit, static_argnames=("policy", "layout"), donate_argnames=("slots",))
def decode(policy: Policy, layout: Layout, weights: Params, slots: Slots, until: Integer[Array, ""]) -> Slots:
    """Decodes until at most `until` slots are active, at most `segment` steps; weights as from `Policy.for_decoding`."""

    def unfinished(carry):
        steps, slots = carry
        return (steps < layout.segment) & (jnp.sum(slots.active) > until)

    def step(carry):
        steps, slots = carry
        hidden, cache = policy.decode(weights, slots.token, slots.length, slots.cache)
        slots = slots.replace(cache=cache, length=slots.length + slots.active)
        drawn = sample(
            policy.logits(weights, hidden), rng.fold_positions(slots.key, slots.made),
            temperature=slots.temperature, top_k=slots.top_k, top_p=slots.top_p,
        )  # fmt: skip
        return steps + 1, _constrain(_book(layout, slots, drawn, slots.active), layout)

    return jax.lax.while_loop(unfinished, step, (0, slots))[1]


@functools.partial(jax.jit, static_argnames=("layout", "width"))
def _resize(layout: Layout, width: int, buffer: Array) -> Array:
    """Keys or values of one layer at another width."""
    return _constrain(caches.resize(buffer, width), layout)


def widen(layout: Layout, slots: Slots, reach: int) -> None:
    """Gives the cache, in place, the width that rows of `reach` tokens need: one buffer after the other, never two caches."""
    width, cache = caches.rounded(lengths.bucket(reach, layout.length)), slots.cache
    for layer, (keys, values) in enumerate(cache):
        if values.shape[2] != width:
            cache[layer] = ()
            keys = _resize(layout, width, keys)
            cache[layer] = keys, _resize(layout, width, values)
