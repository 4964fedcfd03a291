"""The sampler: a stream of requests in, completions out as they finish.

A fixed number of slots lives on the device, each a row with its own length. Three pure jitted transitions move one
donated state: `admit` (prefill a few prompts, share each among its rollouts), `decode` (tokens until enough slots are
done), and the host's harvest between them, which frees finished slots for the next requests. The cache is as wide as the
rows in flight need, in few widths. A token's noise is a function of (key, row, position in the response): which slot or batch
a row ran in never shows.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Integer, Key

from amrsd_jax import lengths, processes, rng
from amrsd_jax.policy import Cache, Params, Policy
from amrsd_jax.sampling.warpers import sample


class Weights(NamedTuple):
    """What the sampler reads: parameters for `Policy.prefill`, as the learner has them, and the result of `for_decoding`."""

    params: Params
    decoding: Params


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt to be answered `count` times.

    Attributes:
      prompt: token ids.
      row: number of its first rollout, which keys its randomness; the others follow. Unique within a call and stream.
      count: rollouts that share the prefill.
      stream: which of the call's keys its randomness comes from.
      new_tokens: longest response; None is the layout's.
      temperature, top_k, top_p: see `warpers.sample`; 0 and 1 keep everything.
      tag: handed back with the completions.
    """

    prompt: Sequence[int]
    row: int
    count: int = 1
    stream: int = 0
    new_tokens: int | None = None
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
      began, ended: when it had its slot, in the host's seconds (`time.perf_counter`). The host looks now and then: of the
        time between two looks a row has the share of the decode steps that it was in.
    """

    request: Request
    index: int
    tokens: Integer[np.ndarray, " t"]
    logp: Float[np.ndarray, " t"]
    logp_plain: Float[np.ndarray, " t"]
    finish_reason: str
    began: float = 0.0
    ended: float = 0.0


@struct.dataclass
class Slots:
    """Device state: S rows in flight, room for T new tokens each. Attributes are per slot."""

    cache: Cache  # per layer, keys and values [S, K, W, H]; W is wide enough for the rows in flight
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

    def limit(self, request: Request) -> int:
        """Most new tokens of a request."""
        return self.new_tokens if request.new_tokens is None else request.new_tokens

    def put(self, tree):
        """Host values on every device of the mesh."""
        everywhere = None if self.sharding is None else NamedSharding(self.sharding.mesh, PartitionSpec())
        return processes.put(tree, everywhere)


# ---------------------------------------------------------------- transitions (device)


def _constrain(tree, layout: Layout):
    return tree if layout.sharding is None else jax.lax.with_sharding_constraint(tree, layout.sharding)


@functools.partial(jax.jit, static_argnames=("policy", "layout"))
def empty(policy: Policy, layout: Layout) -> Slots:
    """All slots free, and no room in the cache yet."""
    c, s, t = policy.architecture, layout.slots, layout.new_tokens
    nothing = jnp.zeros((s, c.kv_heads, 0, c.head_dim), c.dtype)
    slots = Slots(
        cache=[(nothing, nothing)] * c.layers,
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

    width = prompts.shape[1]
    cache = [
        tuple(buffer.at[where, :, :width].set(spread(new), mode="drop") for buffer, new in zip(old, fresh, strict=True))
        for old, fresh in zip(slots.cache, prompt_cache, strict=True)
    ]
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
    spare = max(0, width - buffer.shape[2])
    return _constrain(jnp.pad(buffer, ((0, 0), (0, 0), (0, spare), (0, 0)))[:, :, :width], layout)


def widen(layout: Layout, slots: Slots, reach: int) -> None:
    """Gives the cache, in place, the width that rows of `reach` tokens need: one buffer after the other, never two caches."""
    width, cache = lengths.bucket(reach, layout.length), slots.cache
    for layer, (keys, values) in enumerate(cache):
        if keys.shape[2] != width:
            cache[layer] = ()
            keys = _resize(layout, width, keys)
            cache[layer] = keys, _resize(layout, width, values)


# ---------------------------------------------------------------- schedule (host)


def complete(
    policy: Policy,
    layout: Layout,
    weights: Weights,
    requests: "Iterable[Request] | Queue",
    key: Key[Array, ""] | Key[Array, " C"],
) -> Iterator[Completion]:
    """Answers a stream of requests; completions come in the order in which they finish. See `harvests`."""
    for finished in harvests(policy, layout, weights, requests, key):
        yield from finished


def harvests(
    policy: Policy,
    layout: Layout,
    weights: Weights,
    requests: "Iterable[Request] | Queue",
    key: Key[Array, ""] | Key[Array, " C"],
) -> Iterator[list[Completion]]:
    """Answers a stream of requests; hands out what has finished whenever the host looks.

    The device is given its next work before that: what a caller does with completions costs no time until it takes longer
    than a segment.

    Args:
      policy, layout: what runs, in which shape.
      weights: of the policy; its parameters must not be donated before the last completion is there.
      requests: read lazily, as slots become free. To a `Queue`, requests may be added while completions are taken.
      key: of this call; two calls with one key repeat each other. Several where requests name their stream.

    Raises:
      ValueError: a prompt is empty or does not fit with its response into the layout, or a count is larger than its group.
    """
    queue = requests if isinstance(requests, Queue) else Queue(requests)
    owner: list[_Owner | None] = [None] * layout.slots
    slots, keys = empty(policy, layout), layout.put(key.reshape(-1))
    finished: list[Completion] = []
    while True:
        free = [slot for slot, owned in enumerate(owner) if owned is None]
        while batch := queue.take(len(free), layout):
            packed = _pack(batch, layout, free, owner)
            widen(layout, slots, _reach(owner, layout))
            slots = admit(policy, layout, weights.params, slots, keys, **packed)
        busy, begin = layout.slots - len(free), time.perf_counter()
        if busy:
            widen(layout, slots, _reach(owner, layout))
            slots = decode(policy, layout, weights.decoding, slots, layout.put(np.int32(_until(busy, queue, layout))))
        if finished:
            yield finished
        if not busy and not queue.waiting():
            return
        finished = _harvest(slots, owner, layout, begin)


@dataclasses.dataclass
class _Owner:
    """Whose a slot is since when: rollout `index` of a request, with `made` tokens when it was last looked at."""

    request: Request
    index: int
    began: float
    made: int = 1

    def reach(self, layout: Layout) -> int:
        """Most tokens that the row can have after the next segment."""
        return len(self.request.prompt) + min(self.made + layout.segment, layout.limit(self.request))


def _reach(owner: list[_Owner | None], layout: Layout) -> int:
    return max(owned.reach(layout) for owned in owner if owned)


def _until(busy: int, queue: "Queue", layout: Layout) -> int:
    """Slots that may still be active when the host looks again: with work waiting, it looks as soon as there is room for it,
    but not before a quarter of the slots or an admission's worth is free, as admissions cost the same for fewer rows."""
    if not queue.waiting():
        return 0
    wanted = max(queue.ahead.count, min(layout.admit * layout.group, layout.slots // 4))
    return max(0, busy - wanted)


class Queue:
    """Requests not yet admitted: those of an iterable, read as they are needed, and then those added later."""

    def __init__(self, requests: Iterable[Request] = ()):
        self._source, self._added = iter(requests), collections.deque()
        self._next: Request | None = None

    def add(self, request: Request) -> None:
        """Puts a request behind all others."""
        self._added.append(request)

    @property
    def ahead(self) -> Request | None:
        """The next request, None if there is none now."""
        if self._next is None:
            self._next = next(self._source, None) or (self._added.popleft() if self._added else None)
        return self._next

    def waiting(self) -> bool:
        return self.ahead is not None

    def take(self, free: int, layout: Layout) -> list[Request]:
        """Requests that are prefilled together and fit into the free slots."""
        batch, longest = [], 0
        while self.ahead is not None:
            _check(self.ahead, layout)
            longest = max(longest, len(self.ahead.prompt))
            if self.ahead.count > free or len(batch) >= layout.together(longest):
                break
            free -= self.ahead.count
            batch.append(self.ahead)
            self._next = None
        return batch


def _check(request: Request, layout: Layout) -> None:
    length, limit = len(request.prompt), layout.limit(request)
    if not 0 < limit <= layout.new_tokens:
        raise ValueError(f"request of row {request.row}: {limit} new tokens; expected 1 to {layout.new_tokens}")
    if not 0 < length <= layout.length - limit:
        raise ValueError(
            f"request of row {request.row}: prompt of {length} tokens; expected 1 to {layout.length - limit}"
        )
    if not 0 < request.count <= layout.group:
        raise ValueError(f"request of row {request.row}: count {request.count}; expected 1 to {layout.group}")


def _pack(batch: list[Request], layout: Layout, free: list[int], owner: list[_Owner | None]) -> dict[str, jax.Array]:
    """Arrays of one admission; takes slots from `free` and books them in `owner`."""
    now, longest = time.perf_counter(), max(len(request.prompt) for request in batch)
    a, width = layout.together(longest), layout.prompt_width(longest)
    arrays = {
        "prompts": np.zeros((a, width), np.int32),
        "lengths": np.ones(a, np.int32),
        "limits": np.zeros(a, np.int32),
        "streams": np.zeros(a, np.int32),
        "targets": np.full((a, layout.group), layout.slots, np.int32),
        "rows": np.zeros((a, layout.group), np.uint32),
        "temperature": np.ones(a, np.float32),
        "top_k": np.zeros(a, np.int32),
        "top_p": np.ones(a, np.float32),
    }
    for i, request in enumerate(batch):
        arrays["prompts"][i, : len(request.prompt)] = request.prompt
        arrays["lengths"][i], arrays["limits"][i] = len(request.prompt), layout.limit(request)
        arrays["streams"][i], arrays["temperature"][i] = request.stream, request.temperature
        arrays["top_k"][i], arrays["top_p"][i] = request.top_k, request.top_p
        for j in range(request.count):
            slot = free.pop(0)
            owner[slot] = _Owner(request, j, now)
            arrays["targets"][i, j], arrays["rows"][i, j] = slot, request.row + j
    return layout.put(arrays)


def _harvest(slots: Slots, owner: list[_Owner | None], layout: Layout, begin: float) -> list[Completion]:
    """Takes finished rows off the device, which has decoded since `begin`, and frees their slots."""
    active, made, tokens, logp, logp_plain = processes.fetch(
        (slots.active, slots.made, slots.tokens, slots.logp, slots.logp_plain)
    )
    seconds = time.perf_counter() - begin
    steps = max((int(made[slot]) - owned.made for slot, owned in enumerate(owner) if owned), default=0)
    finished = []
    for slot, owned in enumerate(owner):
        if owned is None:
            continue
        before, n = owned.made, int(made[slot])
        owned.made = n
        if active[slot]:
            continue
        owner[slot] = None
        reason = "stop" if tokens[slot, n - 1] in layout.stop_tokens else "length"
        found = (array[slot, :n].copy() for array in (tokens, logp, logp_plain))
        ended = begin + seconds * (n - before) / max(steps, 1)
        finished.append(Completion(owned.request, owned.index, *found, reason, owned.began, ended))
    return finished
