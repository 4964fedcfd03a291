"""Runs the host side of the sampler: a loop that admits requests to free slots and collects finished rows.

Each iteration fills free slots from the queue, dispatches one segment of decoding and reads the finished rows back, until no
request waits and no slot is busy. `transitions.py` has the programs that run on the device.
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
from amrsd_jax.records import Completion, Request
from amrsd_jax.sampling.requests import RequestQueue
from amrsd_jax.sampling.transitions import SamplerConfig, Slots, admit, deactivate, decode, empty_slots, resize_cache


class SamplerParams(NamedTuple):
    """The sampler's parameters: the policy's for `Policy.prefill`, and the result of `Policy.for_decoding`."""

    params: Params
    decoding: Params


@dataclasses.dataclass
class _Occupant:
    """The rollout that occupies a slot.

    Attributes:
      request, index: its request, and its number among the request's rollouts.
      admitted: when it was admitted, in seconds of `time.perf_counter`.
      generated: tokens sampled when the host last read the slots.
      searched: tokens that were searched for stop strings.
    """

    request: Request
    index: int
    admitted: float
    generated: int = 1
    searched: int = 0

    def longest(self, config: SamplerConfig) -> int:
        """Returns the most tokens, prompt included, that the row can have after the next segment."""
        limit = self.request.limit(config.new_tokens)
        return len(self.request.prompt) + min(self.generated + config.segment, limit)


def complete(
    policy: Policy,
    config: SamplerConfig,
    params: SamplerParams,
    requests: Iterable[Request] | RequestQueue,
    key: Key[Array, ""] | Key[Array, " C"],
) -> Iterator[Completion]:
    """Yields the completions of a stream of requests in the order in which they finish. See `completed_batches`."""
    for finished in completed_batches(policy, config, params, requests, key):
        yield from finished


def completed_batches(
    policy: Policy,
    config: SamplerConfig,
    params: SamplerParams,
    requests: Iterable[Request] | RequestQueue,
    key: Key[Array, ""] | Key[Array, " C"],
) -> Iterator[list[Completion]]:
    """Yields the completions of a stream of requests, in one list per segment of decoding; an empty one if none finished.

    The next segment is dispatched before a list is yielded, so the caller's work on it overlaps with decoding.

    Args:
      policy, config: the model and the sampler's static shape.
      params: parameters of the policy; they must not be donated before the last completion is yielded.
      requests: read lazily, as slots become free. A `RequestQueue` accepts more while completions are consumed.
      key: random key of this call, or C keys that requests name by `Request.stream`. Two calls with equal keys and rows
        sample the same tokens.

    Raises:
      ValueError: a prompt is empty, or a request does not fit into the sampler's shape.
    """
    queue = requests if isinstance(requests, RequestQueue) else RequestQueue(requests)
    occupants: list[_Occupant | None] = [None] * config.slots
    slots, keys = empty_slots(policy, config), config.put(key.reshape(-1))
    finished: list[Completion] = []
    while True:
        free = [slot for slot, occupant in enumerate(occupants) if occupant is None]
        while batch := queue.take(len(free), config):
            arrays = _assign_slots(batch, config, free, occupants)
            resize_cache(config, slots, _longest_row(occupants, config))
            slots = admit(policy, config, params.params, slots, keys, **arrays)
        busy, began = config.slots - len(free), time.perf_counter()
        if busy:
            resize_cache(config, slots, _longest_row(occupants, config))
            max_active = config.put(np.int32(_max_active(queue, config)))
            slots = decode(policy, config, params.decoding, slots, max_active)
        yield finished
        if not busy and queue.next is None:
            return
        finished, slots = _collect_finished(slots, occupants, config, began)


def _longest_row(occupants: list[_Occupant | None], config: SamplerConfig) -> int:
    return max(occupant.longest(config) for occupant in occupants if occupant)


def _max_active(queue: RequestQueue, config: SamplerConfig) -> int:
    """Returns how many slots may still be active when decoding stops before its segment ends.

    While requests wait, decoding stops once the next one fits and either a full admission or a quarter of the slots is
    free: an admission costs the same for fewer rows. Otherwise it goes on until every row is finished.
    """
    if queue.next is None:
        return 0
    together = max(config.admit, config.shards)
    wanted = max(queue.next.count, min(together * config.group, config.slots // 4))
    return max(0, config.slots - wanted)


def _assign_slots(
    batch: list[Request], config: SamplerConfig, free: list[int], occupants: list[_Occupant | None]
) -> dict[str, jax.Array]:
    """Moves slots from `free` to `occupants` for one admission, and returns the array arguments of `admit`."""
    now, longest = time.perf_counter(), max(len(request.prompt) for request in batch)
    a, width = config.prompts_per_admission(longest), config.prompt_width(longest)
    group = 1 if batch[0].count == 1 else config.group
    arrays = {
        "prompts": np.zeros((a, width), np.int32),
        "lengths": np.ones(a, np.int32),
        "limits": np.zeros(a, np.int32),
        "streams": np.zeros(a, np.int32),
        "targets": np.full((a, group), config.slots, np.int32),
        "rows": np.zeros((a, group), np.uint32),
        "temperature": np.ones((a, group), np.float32),
        "top_k": np.zeros(a, np.int32),
        "top_p": np.ones(a, np.float32),
    }
    for i, request in enumerate(batch):
        arrays["prompts"][i, : len(request.prompt)] = request.prompt
        arrays["lengths"][i], arrays["limits"][i] = len(request.prompt), request.limit(config.new_tokens)
        arrays["streams"][i], arrays["temperature"][i] = request.stream, request.temperature
        arrays["top_k"][i], arrays["top_p"][i] = request.top_k, request.top_p
        if request.greedy:
            arrays["temperature"][i, request.count - 1] = 0
        for j in range(request.count):
            slot = free.pop(0)
            occupants[slot] = _Occupant(request, j, now)
            arrays["targets"][i, j], arrays["rows"][i, j] = slot, request.row + j
    return config.put(arrays)


def _collect_finished(
    slots: Slots, occupants: list[_Occupant | None], config: SamplerConfig, began: float
) -> tuple[list[Completion], Slots]:
    """Reads the slots back, frees those that finished and returns their completions, and the slots with ended rows inactive.

    Args:
      began: when the segment was dispatched, in seconds of `time.perf_counter`. The end of a row is interpolated: the steps of
        a segment are taken to last equally long.
    """
    active, generated, tokens, logprobs = processes.fetch((slots.active, slots.generated, slots.tokens, slots.logprobs))
    seconds = time.perf_counter() - began
    steps = max((int(generated[slot]) - row.generated for slot, row in enumerate(occupants) if row), default=0)
    finished, ended_by_string = [], np.zeros(config.slots, bool)
    for slot, row in enumerate(occupants):
        if row is None:
            continue
        before, n = row.generated, int(generated[slot])
        end = config.stop_strings and config.stop_strings.end(tokens[slot, :n], row.searched)
        row.generated = row.searched = n
        if active[slot] and end is None:
            continue
        occupants[slot] = None
        ended_by_string[slot], n = active[slot], end or n
        reason = "stop" if end or tokens[slot, n - 1] in config.stop_tokens else "length"
        ended = began + seconds * (n - before) / max(steps, 1)
        arrays = tokens[slot, :n].copy(), logprobs[slot, :n].copy()
        finished.append(Completion(row.request, row.index, *arrays, reason, row.admitted, ended))
    if ended_by_string.any():
        slots = deactivate(config, slots, config.put(ended_by_string))
    return finished, slots
