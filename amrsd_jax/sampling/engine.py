"""The sampler: a stream of requests in, completions out as they finish.

A fixed number of slots lives on the device, each a row with its own length. Three pure jitted transitions move one
donated state: `admit` (prefill a few prompts, share each among its rollouts), `decode` (tokens until enough slots are
done), and the host's harvest between them, which frees finished slots for the next requests. A token's noise is a
function of (key of the call, row, position in the response): which slot or batch a row ran in never shows.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Integer, Key

from amrsd_jax import processes, rng
from amrsd_jax.policy import Cache, Params, Policy
from amrsd_jax.sampling.warpers import sample


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt to be answered `count` times.

    Attributes:
      prompt: token ids.
      row: number of its first rollout, which keys its randomness; the others follow. Unique within a call.
      count: rollouts that share the prefill.
      temperature, top_k, top_p: see `warpers.sample`; 0 and 1 keep everything.
      tag: handed back with the completions.
    """

    prompt: Sequence[int]
    row: int
    count: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    tag: Any = None


@dataclasses.dataclass(frozen=True)
class Completion:
    """One finished rollout; arrays are of its own length [t], the stop token included.

    Attributes:
      request, index: which request, and which of its `count` rollouts.
      tokens: sampled ids.
      logp: log-probability under the distribution each was drawn from (temperature and truncation).
      logp_plain: log-probability at temperature 1, nothing truncated.
      finish_reason: "stop" or "length".
    """

    request: Request
    index: int
    tokens: Integer[np.ndarray, " t"]
    logp: Float[np.ndarray, " t"]
    logp_plain: Float[np.ndarray, " t"]
    finish_reason: str


@struct.dataclass
class Slots:
    """Device state: S rows in flight, room for T new tokens each. Attributes are per slot."""

    cache: Cache  # per layer, keys and values [S, K, P + T, H]
    token: Integer[Array, " S"]  # last sampled, not yet read
    length: Integer[Array, " S"]  # tokens read so far, prompt included
    made: Integer[Array, " S"]  # new tokens so far
    active: Bool[Array, " S"]
    key: Key[Array, " S"]
    temperature: Float[Array, " S"]
    top_k: Integer[Array, " S"]
    top_p: Float[Array, " S"]
    tokens: Integer[Array, "S T"]
    logp: Float[Array, "S T"]
    logp_plain: Float[Array, "S T"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Static shape of an engine: everything that decides what is compiled.

    Attributes:
      slots: S, rows in flight.
      group: largest `count` of a request.
      prompt_length, new_tokens: P and T.
      admit: prompts prefilled together.
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
        if self.sharding is not None:
            ways = self.sharding.mesh.shape["data"] * self.sharding.mesh.shape["fsdp"]
            if self.slots % ways:
                raise ValueError(f"sampling.slots = {self.slots} does not divide over {ways} devices (data x fsdp)")

    def put(self, tree):
        """Host values on every device of the mesh."""
        everywhere = None if self.sharding is None else NamedSharding(self.sharding.mesh, PartitionSpec())
        return processes.put(tree, everywhere)


# ---------------------------------------------------------------- transitions (device)


def _constrain(tree, layout: Layout):
    return tree if layout.sharding is None else jax.lax.with_sharding_constraint(tree, layout.sharding)


@functools.partial(jax.jit, static_argnames=("policy", "layout"))
def empty(policy: Policy, layout: Layout) -> Slots:
    """All slots free."""
    c, s, t = policy.architecture, layout.slots, layout.new_tokens
    shape = (s, c.kv_heads, layout.prompt_length + t, c.head_dim)
    slots = Slots(
        cache=[(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype)) for _ in range(c.layers)],
        token=jnp.zeros(s, jnp.int32),
        length=jnp.zeros(s, jnp.int32),
        made=jnp.zeros(s, jnp.int32),
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
        active=jnp.where(live, ~stopped & (made < layout.new_tokens), slots.active),
        tokens=write(slots.tokens, token),
        logp=write(slots.logp, logp),
        logp_plain=write(slots.logp_plain, logp_plain),
    )


@functools.partial(jax.jit, static_argnames=("policy", "layout"), donate_argnames=("slots",))
def admit(
    policy: Policy,
    layout: Layout,
    params: Params,
    slots: Slots,
    call_key: Key[Array, ""],
    prompts: Integer[Array, "A P"],
    lengths: Integer[Array, " A"],
    targets: Integer[Array, "A G"],
    rows: Integer[Array, "A G"],
    temperature: Float[Array, " A"],
    top_k: Integer[Array, " A"],
    top_p: Float[Array, " A"],
) -> Slots:
    """Prefills A prompts once each, copies each into its slots, and samples the first tokens.

    Args:
      targets: slot of each rollout; S (out of range) where there is none.
      rows: number of each rollout, which keys its randomness.
    """
    hidden, prompt_cache = policy.prefill(params, prompts, lengths)
    group = targets.shape[1]
    where = targets.reshape(-1)

    def spread(a):
        return jnp.repeat(a, group, axis=0)

    def put(buffer, value):
        return buffer.at[where].set(value, mode="drop")

    width = prompts.shape[1]
    cache = [
        tuple(buffer.at[where, :, :width].set(spread(new), mode="drop") for buffer, new in zip(old, fresh, strict=True))
        for old, fresh in zip(slots.cache, prompt_cache, strict=True)
    ]
    keys, first = rng.fold_rows(call_key, rows.reshape(-1)), jnp.zeros(where.shape, jnp.int32)
    settings = dict(temperature=spread(temperature), top_k=spread(top_k), top_p=spread(top_p))
    drawn = sample(spread(policy.logits(params, hidden)), rng.fold_positions(keys, first), **settings)
    slots = slots.replace(
        cache=cache,
        length=put(slots.length, spread(lengths)),
        made=put(slots.made, first),
        key=put(slots.key, keys),
        **{name: put(getattr(slots, name), value) for name, value in settings.items()},
    )
    drawn = tuple(put(jnp.zeros(layout.slots, value.dtype), value) for value in drawn)
    live = put(jnp.zeros(layout.slots, bool), True)
    return _constrain(_book(layout, slots, drawn, live), layout)


@functools.partial(jax.jit, static_argnames=("policy", "layout"), donate_argnames=("slots",))
def decode(policy: Policy, layout: Layout, weights: Params, slots: Slots, until: Integer[Array, ""]) -> Slots:
    """Decodes until at most `until` slots are active, at most `segment` steps; weights as from `Policy.unstack`."""

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


_unstack = jax.jit(Policy.unstack, static_argnums=0)


# ---------------------------------------------------------------- schedule (host)


def complete(
    policy: Policy,
    layout: Layout,
    params: Params,
    requests: Iterable[Request],
    key: Key[Array, ""],
) -> Iterator[Completion]:
    """Answers a stream of requests; completions come in the order in which they finish.

    Args:
      policy, layout: what runs, in which shape.
      params: result of `Policy.for_sampling`.
      requests: read lazily, as slots become free.
      key: of this call; two calls with one key repeat each other.

    Raises:
      ValueError: a prompt is empty or longer than the layout, or a count larger than its group.
    """
    queue = _Queue(requests, layout)
    owner: list[tuple[Request, int] | None] = [None] * layout.slots
    slots, key, weights = empty(policy, layout), layout.put(key), _unstack(policy, params)
    while True:
        free = [slot for slot, owned in enumerate(owner) if owned is None]
        while batch := queue.take(len(free)):
            slots = admit(policy, layout, params, slots, key, **_pack(batch, layout, free, owner))
        busy = layout.slots - len(free)
        if not busy:
            return
        # With more work waiting, look again as soon as an admission's worth of slots is free.
        until = max(0, busy - layout.admit * layout.group) if queue.waiting() else 0
        slots = decode(policy, layout, weights, slots, layout.put(np.int32(until)))
        yield from _harvest(slots, owner, layout)


class _Queue:
    """Requests not yet admitted."""

    def __init__(self, requests: Iterable[Request], layout: Layout):
        self._source, self._ahead, self._layout = iter(requests), collections.deque(), layout

    def waiting(self) -> bool:
        if not self._ahead:
            self._ahead.extend(self._check(request) for request in (next(self._source, None),) if request)
        return bool(self._ahead)

    def take(self, free: int) -> list[Request]:
        """Up to `admit` requests that fit into the free slots together."""
        batch = []
        while len(batch) < self._layout.admit and self.waiting() and self._ahead[0].count <= free:
            free -= self._ahead[0].count
            batch.append(self._ahead.popleft())
        return batch

    def _check(self, request: Request) -> Request:
        length, layout = len(request.prompt), self._layout
        if not 0 < length <= layout.prompt_length:
            raise ValueError(
                f"request of row {request.row}: prompt of {length} tokens; expected 1 to {layout.prompt_length}"
            )
        if not 0 < request.count <= layout.group:
            raise ValueError(f"request of row {request.row}: count {request.count}; expected 1 to {layout.group}")
        return request


def _pack(batch: list[Request], layout: Layout, free: list[int], owner: list) -> dict[str, jax.Array]:
    """Arrays of one admission; takes slots from `free` and books them in `owner`."""
    a = layout.admit
    arrays = {
        "prompts": np.zeros((a, layout.prompt_length), np.int32),
        "lengths": np.ones(a, np.int32),
        "targets": np.full((a, layout.group), layout.slots, np.int32),
        "rows": np.zeros((a, layout.group), np.uint32),
        "temperature": np.ones(a, np.float32),
        "top_k": np.zeros(a, np.int32),
        "top_p": np.ones(a, np.float32),
    }
    for i, request in enumerate(batch):
        arrays["prompts"][i, : len(request.prompt)] = request.prompt
        arrays["lengths"][i] = len(request.prompt)
        arrays["temperature"][i], arrays["top_k"][i], arrays["top_p"][i] = (
            request.temperature, request.top_k, request.top_p,
        )  # fmt: skip
        for j in range(request.count):
            slot = free.pop(0)
            owner[slot] = (request, j)
            arrays["targets"][i, j], arrays["rows"][i, j] = slot, request.row + j
    return layout.put(arrays)


def _harvest(slots: Slots, owner: list, layout: Layout) -> Iterator[Completion]:
    """Takes finished rows off the device and frees their slots."""
    active, made, tokens, logp, logp_plain = processes.fetch(
        (slots.active, slots.made, slots.tokens, slots.logp, slots.logp_plain)
    )
    for slot, owned in enumerate(owner):
        if owned is None or active[slot]:
            continue
        owner[slot] = None
        n = made[slot]
        reason = "stop" if tokens[slot, n - 1] in layout.stop_tokens else "length"
        yield Completion(*owned, tokens[slot, :n], logp[slot, :n], logp_plain[slot, :n], reason)
