"""The host's side of the sampler: a stream of requests in, completions out as they finish.

It fills free slots from the queue, lets the device decode, and takes off what is done, until nothing waits and no slot is
busy. See `transitions.py` for what runs on the device.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from amrsd_jax import processes
from amrsd_jax.policy import Params, Policy
from amrsd_jax.sampling.requests import Completion, Queue, Request
from amrsd_jax.sampling.transitions import Layout, Slots, admit, decode, empty, widen


class Weights(NamedTuple):
    """What the sampler reads: parameters for `Policy.prefill`, as the learner has them, and the result of `for_decoding`."""

    params: Params
    decoding: Params


def complete(
    policy: Policy,
    layout: Layout,
    weights: Weights,
    requests: Iterable[Request] | Queue,
    key: Key[Array, ""] | Key[Array, " C"],
) -> Iterator[Completion]:
    """Answers a stream of requests; completions come in the order in which they finish. See `harvests`."""
    for finished in harvests(policy, layout, weights, requests, key):
        yield from finished


def harvests(
    policy: Policy,
    layout: Layout,
    weights: Weights,
    requests: Iterable[Request] | Queue,
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
        return len(self.request.prompt) + min(self.made + layout.segment, self.request.limit(layout))


def _reach(owner: list[_Owner | None], layout: Layout) -> int:
    return max(owned.reach(layout) for owned in owner if owned)


def _until(busy: int, queue: Queue, layout: Layout) -> int:
    """Slots that may still be active when the host looks again: with work waiting, it looks as soon as there is room for it,
    but not before a quarter of the slots or an admission's worth is free, as admissions cost the same for fewer rows."""
    if not queue.waiting():
        return 0
    wanted = max(queue.ahead.count, min(layout.admit * layout.group, layout.slots // 4))
    return max(0, busy - wanted)


def _pack(batch: list[Request], layout: Layout, free: list[int], owner: list[_Owner | None]) -> dict[str, jax.Array]:
    """Arrays of one admission; takes slots from `free` and books them in `owner`."""
    now, longest = time.perf_counter(), max(len(request.prompt) for request in batch)
    a, width = layout.together(longest), layout.prompt_width(longest)
    group = 1 if batch[0].single else layout.group
    arrays = {
        "prompts": np.zeros((a, width), np.int32),
        "lengths": np.ones(a, np.int32),
        "limits": np.zeros(a, np.int32),
        "streams": np.zeros(a, np.int32),
        "targets": np.full((a, group), layout.slots, np.int32),
        "rows": np.zeros((a, group), np.uint32),
        "temperature": np.ones(a, np.float32),
        "top_k": np.zeros(a, np.int32),
        "top_p": np.ones(a, np.float32),
    }
    for i, request in enumerate(batch):
        arrays["prompts"][i, : len(request.prompt)] = request.prompt
        arrays["lengths"][i], arrays["limits"][i] = len(request.prompt), request.limit(layout)
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
