"""Defines the device side of the sampler: the state of the rows in flight, and the jitted programs that update it.

The state has a fixed number of slots, each a row with a length of its own. `admit` prefills a few prompts and copies each to
the slots of its rollouts, `decode` generates tokens until enough slots have finished, and `resize_cache` gives the cache one
of a few widths. The noise of a token depends only on (key, row, position in the response), never on the slot or the batch.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Integer, Key

from amrsd_jax import lengths, processes, rng
from amrsd_jax.platforms import row_devices
from amrsd_jax.policy import Cache, Params, Policy
from amrsd_jax.policy import cache as caches
from amrsd_jax.sampling.stop import StopStrings
from amrsd_jax.sampling.warpers import sample


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """The static shape of a sampler; programs are compiled for each value.

    Attributes:
      slots: S, rows in flight.
      group: G, largest `count` of a request.
      prompt_length, new_tokens: P and T. A row holds P + T tokens in all; a prompt may be longer than P if its response is
        limited to what is left.
      admit: A, prompts of up to P tokens prefilled together, see `prompts_per_admission`. Of longer ones it is fewer.
      segment: most decode steps before the host reads the slots.
      stop_tokens: ids that end a response.
      absent: ids that the tokenizer lacks; they are never sampled.
      stop_strings: strings that end a response; the programs do not depend on them.
      sharding: of the slot axis; None on one device.
    """

    slots: int
    group: int
    prompt_length: int
    new_tokens: int
    admit: int
    segment: int
    stop_tokens: tuple[int, ...]
    sharding: NamedSharding | None = None
    absent: tuple[range, ...] = ()
    stop_strings: StopStrings | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        if self.group > self.slots:
            raise ValueError(f"slots = {self.slots}: a group of {self.group} rollouts does not fit")
        if self.slots % self.shards:
            raise ValueError(f"slots = {self.slots} does not divide over {self.shards} devices (data x fsdp)")

    @property
    def shards(self) -> int:
        """Number of devices that the slots are split over."""
        return row_devices(self.sharding and self.sharding.mesh)

    @property
    def length(self) -> int:
        """P + T, tokens of the longest row."""
        return self.prompt_length + self.new_tokens

    def prompt_width(self, longest: int) -> int:
        """Returns the padded width of prompts that are prefilled together, the longest of them of `longest` tokens."""
        return lengths.bucket(longest, self.prompt_length if longest <= self.prompt_length else self.length)

    def prompts_per_admission(self, longest: int) -> int:
        """Returns how many prompts are prefilled together at that width: equally many on each device, so at least one each.

        Beyond that at most A, and at most as many tokens as A prompts of P have.
        """
        together = min(self.admit, self.admit * self.prompt_length // self.prompt_width(longest))
        return max(1, together // self.shards) * self.shards

    def put(self, tree):
        """Places host values on every device of the mesh."""
        replicated = None if self.sharding is None else NamedSharding(self.sharding.mesh, PartitionSpec())
        return processes.put(tree, replicated)


@struct.dataclass
class Slots:
    """Device state of S rows in flight, each with room for T new tokens."""

    cache: Cache  # wide enough for the longest row in flight
    token: Integer[Array, " S"]  # last sampled token, not yet in the cache
    length: Integer[Array, " S"]  # tokens in the cache, prompt included
    generated: Integer[Array, " S"]  # tokens sampled so far
    limit: Integer[Array, " S"]  # most tokens to sample
    active: Bool[Array, " S"]
    key: Key[Array, " S"]
    temperature: Float[Array, " S"]
    top_k: Integer[Array, " S"]
    top_p: Float[Array, " S"]
    tokens: Integer[Array, "S T"]
    logprobs: Float[Array, "S T"]


def _constrain(slots: Slots, config: SamplerConfig) -> Slots:
    """Returns the state with its shardings stated, which lets XLA reuse the memory of a donated one on any mesh."""
    if config.sharding is None:
        return slots
    others = jax.lax.with_sharding_constraint(slots.replace(cache=[]), config.sharding)
    return others.replace(cache=_constrain_cache(slots.cache, config))


def _constrain_cache(cache: Cache, config: SamplerConfig) -> Cache:
    if config.sharding is None:
        return cache
    return jax.lax.with_sharding_constraint(cache, caches.shardings(cache, config.sharding))


@functools.partial(jax.jit, static_argnames=("policy", "config"))
def empty_slots(policy: Policy, config: SamplerConfig) -> Slots:
    """Returns a state whose slots are all free and whose cache has no positions yet."""
    c, s, t = policy.architecture, config.slots, config.new_tokens
    nothing = jnp.zeros((s, 0, c.kv_heads, c.head_dim), c.dtype)
    slots = Slots(
        cache=[policy.cache_layout.lay_out(nothing, nothing)] * c.layers,
        token=jnp.zeros(s, jnp.int32),
        length=jnp.zeros(s, jnp.int32),
        generated=jnp.zeros(s, jnp.int32),
        limit=jnp.zeros(s, jnp.int32),
        active=jnp.zeros(s, bool),
        key=jax.random.split(jax.random.key(0, impl="threefry2x32"), s),
        temperature=jnp.ones(s),
        top_k=jnp.zeros(s, jnp.int32),
        top_p=jnp.ones(s),
        tokens=jnp.zeros((s, t), jnp.int32),
        logprobs=jnp.zeros((s, t)),
    )
    return _constrain(slots, config)


def _record(config: SamplerConfig, slots: Slots, token: Array, logprob: Array, where: Bool[Array, " S"]) -> Slots:
    """Appends sampled tokens and their log-probabilities [S] to the slots marked by `where`, and ends rows that are done."""
    column = jnp.where(where, slots.generated, config.new_tokens)  # T is out of range: that write is dropped
    rows = jnp.arange(config.slots)
    generated = slots.generated + where
    stopped = jnp.isin(token, jnp.array(config.stop_tokens, jnp.int32))
    return slots.replace(
        token=jnp.where(where, token, slots.token),
        generated=generated,
        active=jnp.where(where, ~stopped & (generated < slots.limit), slots.active),
        tokens=slots.tokens.at[rows, column].set(token, mode="drop"),
        logprobs=slots.logprobs.at[rows, column].set(logprob, mode="drop"),
    )


def _collectives_may_deadlock() -> bool:
    """Whether independent collectives of a program could wait for each other: CPUs of several processes run them in any order."""
    return jax.default_backend() == "cpu" and jax.process_count() > 1


def _copy_prompts(config: SamplerConfig, cache: Cache, prompts: caches.Layer, source: Integer[Array, " S"]) -> Cache:
    """Returns the cache with prompt `source[s]` at the beginning of slot s; -1 leaves a slot as it is.

    Every device receives a layer's prompts once, and copies them, in place, to those of its own slots that take one.

    Args:
      prompts: arrays of a layer, with an axis of L before their own.
    """

    def local(layer, prompts, source):
        """Returns the layer, and the number of copies that are left to do, which is 0."""
        taken = source >= 0
        slots, count = jnp.nonzero(taken, size=len(source))[0], jnp.sum(taken)

        def put(old, new, slot):
            prompt = jax.lax.dynamic_index_in_dim(new, source[slot])
            return jax.lax.dynamic_update_slice_in_dim(old, prompt, slot, axis=0)

        def copy(carry):
            i, layer = carry
            return i + 1, jax.tree.map(lambda old, new: put(old, new, slots[i]), layer, prompts)

        done, layer = jax.lax.while_loop(lambda carry: carry[0] < count, copy, (jnp.zeros_like(count), layer))
        return layer, count - done

    def copy_layer(layer, prompts):
        if config.sharding is None:
            return local(layer, prompts, source)
        split = caches.spec(layer, config.sharding)
        specs = dict(
            in_specs=(split, PartitionSpec(None, *split[1:]), config.sharding.spec), out_specs=(split, PartitionSpec())
        )
        return jax.shard_map(local, mesh=config.sharding.mesh, check_vma=False, **specs)(layer, prompts, source)

    copied, left = [], 0
    for i, layer in enumerate(cache):
        # A layer's prompts are received once the layer before it has its own: XLA would keep those of all layers at once.
        index = i if config.shards == 1 else i + left
        layer, left = copy_layer(layer, jax.tree.map(operator.itemgetter(index), prompts))
        copied.append(layer)
    return copied


@functools.partial(jax.jit, static_argnames=("policy", "config"), donate_argnames=("slots",))
def admit(
    policy: Policy,
    config: SamplerConfig,
    params: Params,
    slots: Slots,
    call_keys: Key[Array, " C"],
    prompts: Integer[Array, "A P"],
    lengths: Integer[Array, " A"],
    limits: Integer[Array, " A"],
    streams: Integer[Array, " A"],
    targets: Integer[Array, "A G"],
    rows: Integer[Array, "A G"],
    temperature: Float[Array, "A G"],
    top_k: Integer[Array, " A"],
    top_p: Float[Array, " A"],
) -> Slots:
    """Prefills A prompts once each, copies each into the slots of its rollouts, and samples the first tokens.

    Args:
      policy, config: the model and the sampler's static shape.
      params: parameters for `Policy.prefill`.
      slots: the state; donated.
      call_keys: the keys that `streams` refers to.
      prompts, lengths: right-padded prompts and their lengths.
      limits: most new tokens of each prompt's rollouts.
      streams: index into `call_keys`.
      targets: slot of each rollout; S, which is out of range, for none.
      rows: number of each rollout, from which its randomness is derived.
      temperature, top_k, top_p: see `warpers.sample`.
    """
    slots, group = _constrain(slots, config), targets.shape[1]
    split = None if _collectives_may_deadlock() else config.sharding  # None: every device prefills all prompts
    hidden, prompt_cache = dataclasses.replace(policy, rows=split).prefill(params, prompts, lengths)
    # The state is updated after the prefill: CPU devices wait for each other for ever where an exchange may run beside a loop.
    hidden, state = jax.lax.optimization_barrier((hidden, slots.replace(cache=[])))
    slots = state.replace(cache=slots.cache)
    target = targets.reshape(-1)

    def repeat(a):
        return jnp.repeat(a, group, axis=0)

    def put(buffer, value):
        return buffer.at[target].set(value, mode="drop")

    source = put(jnp.full(config.slots, -1), repeat(jnp.arange(len(prompts))))
    keys, zero = rng.fold(repeat(call_keys[streams]), rows.reshape(-1)), jnp.zeros(target.shape, jnp.int32)
    settings = dict(temperature=temperature.reshape(-1), top_k=repeat(top_k), top_p=repeat(top_p))
    if split is not None:  # a few rows are sent to all devices, or XLA would gather the head on each
        hidden = jax.lax.with_sharding_constraint(hidden, NamedSharding(split.mesh, PartitionSpec()))
    logits = repeat(policy.logits(params, hidden))
    token, logprob = sample(logits, rng.fold(keys, zero), **settings, absent=config.absent)
    slots = slots.replace(
        cache=_copy_prompts(config, slots.cache, prompt_cache, source),
        length=put(slots.length, repeat(lengths)),
        generated=put(slots.generated, zero),
        limit=put(slots.limit, repeat(limits)),
        key=put(slots.key, keys),
        **{name: put(getattr(slots, name), value) for name, value in settings.items()},
    )
    token, logprob = (put(jnp.zeros(config.slots, a.dtype), a) for a in (token, logprob))
    return _constrain(_record(config, slots, token, logprob, put(jnp.zeros(config.slots, bool), True)), config)


@functools.partial(jax.jit, static_argnames=("policy", "config"), donate_argnames=("slots",))
def decode(
    policy: Policy, config: SamplerConfig, params: Params, slots: Slots, max_active: Integer[Array, ""]
) -> Slots:
    """Decodes until at most `max_active` slots are active, or one segment has passed.

    Args:
      policy, config: the model and the sampler's static shape.
      params: result of `Policy.for_decoding`.
      slots: the state; donated.
      max_active: number of active slots at which decoding stops.
    """

    def unfinished(carry):
        steps, slots = carry
        return (steps < config.segment) & (jnp.sum(slots.active) > max_active)

    def step(carry):
        steps, slots = carry
        hidden, cache = policy.decode(params, slots.token, slots.length, slots.cache)
        slots = slots.replace(cache=cache, length=slots.length + slots.active)
        token, logprob = sample(
            policy.logits(params, hidden), rng.fold(slots.key, slots.generated),
            temperature=slots.temperature, top_k=slots.top_k, top_p=slots.top_p, absent=config.absent,
        )  # fmt: skip
        return steps + 1, _constrain(_record(config, slots, token, logprob, slots.active), config)

    return _constrain(jax.lax.while_loop(unfinished, step, (0, _constrain(slots, config)))[1], config)


@functools.partial(jax.jit, static_argnames=("config",), donate_argnames=("slots",))
def deactivate(config: SamplerConfig, slots: Slots, ended: Bool[Array, " S"]) -> Slots:
    """Ends the rows of the slots marked by `ended`."""
    return _constrain(slots.replace(active=slots.active & ~ended), config)


@functools.partial(jax.jit, static_argnames=("config", "width"))
def _resize(config: SamplerConfig, width: int, layer: caches.Layer) -> caches.Layer:
    """Returns the cache of one layer with `width` positions."""
    return _constrain_cache([layer.resize(width)], config)[0]


def resize_cache(config: SamplerConfig, slots: Slots, longest: int) -> None:
    """Gives the cache, in place, the width that rows of up to `longest` tokens need.

    Layers are replaced one by one, so that there are never two whole caches.
    """
    cache = slots.cache
    width = caches.round_up(lengths.bucket(longest, config.length), type(cache[0]))
    for i, layer in enumerate(cache):
        if layer.length != width:
            cache[i] = _resize(config, width, layer)
