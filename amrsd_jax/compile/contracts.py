"""Checks what no compiled program of a run may do, whatever the hardware.

A program fits into the device's memory beside what the run holds. Sampling gathers nothing in its decode loop, and reuses the
cache that it is given without a copy. Scoring and learning never hold the logits of all tokens, and exchange nothing of the
output head's size inside a loop: it is gathered once, and its gradient is reduced once.
"""

import dataclasses
from collections.abc import Iterator

import jax

from amrsd_jax.compile.hlo import Buffer, Operation, Text
from amrsd_jax.compile.programs import Program, slots
from amrsd_jax.plan import parts
from amrsd_jax.plan.sizes import Planned
from amrsd_jax.platforms import row_devices

GIB = 1 << 30


def broken(run: Planned, program: Program, text: Text, row: dict) -> list[str]:
    """Returns a line for each contract that a program breaks, with the place in the source.

    Args:
      row: the program's sizes, as in `compiler.examine`.
    """
    run, action = dataclasses.replace(run, policy=program.policy), program.name.rpartition(".")[2]
    lines = list(_memory(row))
    if action in ("admit", "admit_reflections", "decode"):
        lines += _cache(run, program, text, row)
    if action == "decode":
        lines += _gathers(run, text)
    if program.phase in ("score", "update"):
        lines += [*_head_exchanges(run, text), *_all_logits(run, program, text)]
    return list(dict.fromkeys(lines))


def _memory(row: dict) -> Iterator[str]:
    need = row["needed"] + row["held"]
    if need > row["memory"]:
        yield f"does not fit: {need / GIB:.2f} GiB, {row['held'] / GIB:.2f} of them held beside it, of {row['memory'] / GIB:.2f}"


def _cache(run: Planned, program: Program, text: Text, row: dict) -> Iterator[str]:
    layers = slots(run, run.policy, run.samplers[program.name.partition(".")[0]]).cache
    size = parts.bytes_of(layers, jax.tree.map(lambda leaf: leaf.sharding, layers))
    if row["alias"] < size:
        yield f"the cache is not aliased: {row['alias'] / GIB:.2f} of {size / GIB:.2f} GiB are"
    layer = min(parts.bytes_of(leaf, leaf.sharding) for leaf in jax.tree.leaves(layers[0]))
    head = run.policy.architecture.head_dim
    for operation, _ in text.operations():
        for buffer in operation.results if text.work(operation) in ("copy", "transpose") else ():
            if not buffer.on_chip and buffer.bytes >= layer and head in buffer.shape:  # others are activations
                yield f"the cache is copied: {buffer}, {text.work(operation)} {text.source(operation)}"


def _gathers(run: Planned, text: Text) -> Iterator[str]:
    """Yields what decoding gathers of at least the smallest matrix's size; logits that `tensor` splits are the exception."""
    c = run.policy.architecture
    least = c.width * c.kv_heads * c.head_dim // run.mesh.shape["tensor"]
    for operation in _exchanges(text, "all-gather"):
        for buffer in operation.results:
            logits = _vocabulary(run, buffer) and c.width not in buffer.shape
            if buffer.elements >= least and not logits:
                yield f"gathered in the decode loop: {buffer} {text.source(operation)}"


def _head_exchanges(run: Planned, text: Text) -> Iterator[str]:
    """Yields the collectives inside loops whose result is at least as large as a device's share of the output head."""
    c = run.policy.architecture
    for operation in _exchanges(text):
        for buffer in operation.results:
            if _vocabulary(run, buffer) and buffer.elements * run.mesh.size >= c.vocab_size * c.width:
                yield f"exchanged in a loop: {operation.collective} {buffer} {text.source(operation)}"


def _all_logits(run: Planned, program: Program, text: Text) -> Iterator[str]:
    """Yields arrays with the logits of all response tokens of a device's rows, unless these are one chunk."""
    config, c = run.config, run.policy.architecture
    rows = config.scoring.rows if program.phase == "score" else run.micro_batch
    tokens = rows * run.response_length // row_devices(run.mesh)
    if tokens <= config.scoring.chunk:
        return
    for operation, _ in text.operations():
        for buffer in () if operation.free else operation.results:
            size = _vocabulary(run, buffer)
            if size and c.width not in buffer.shape and buffer.elements >= tokens * size:
                yield f"logits of all tokens: {buffer} {text.source(operation)}"


def _exchanges(text: Text, *kinds: str) -> Iterator[Operation]:
    """Yields the collectives inside of loops, of all kinds or of the given ones."""
    for operation, loop in text.operations():
        kind = operation.collective
        if loop.level[0] != "0" and kind and (kind in kinds or not kinds):
            yield operation


def _vocabulary(run: Planned, buffer: Buffer) -> int:
    """Returns the size of an axis that is the vocabulary, or a device's share of it; 0 without one."""
    whole = run.policy.architecture.vocab_size
    return next((size for size in buffer.shape if size in (whole, whole // run.mesh.shape["tensor"])), 0)
