"""Checks what a compiled program must not do: not fit, gather while it decodes, keep all logits, copy the cache."""

import math
from collections.abc import Iterator

import jax

from amrsd_jax.compile.hlo import Operation, Text
from amrsd_jax.compile.programs import Program, slots
from amrsd_jax.plan.sizes import Planned

GIB = 1 << 30


def broken(run: Planned, program: Program, text: Text, row: dict) -> list[str]:
    """Returns a line for each contract that a program breaks."""
    stream, _, action = program.name.rpartition(".")
    lines = []
    need = row["peak"] + row["held"]
    if need > row["memory"]:
        lines.append(f"needs {need / GIB:.2f} GiB of {row['memory'] / GIB:.2f}")
    if stream:
        cache = _bytes(slots(run, run.samplers[stream]).cache)
        if row["alias"] < cache:
            lines.append(f"does not alias the cache: {row['alias'] / GIB:.2f} of {cache / GIB:.2f} GiB are")
    if action == "decode":
        lines += [f"in the decode loop: {one}" for one in _exchanges(text, _smallest_weight(run), ("all-gather",))]
    if program.phase != "sample":
        lines += [f"in a loop: {one} of the head's size" for one in _head_exchanges(run, text)]
        lines += _all_logits(run, program, text)
    return lines


def _bytes(tree) -> int:
    """Returns the bytes of one device's shards."""
    return sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def _smallest_weight(run: Planned) -> int:
    """Returns the elements of the smallest matrix of a layer on one device."""
    c = run.policy.architecture
    return c.width * c.kv_heads * c.head_dim // run.mesh.shape["tensor"]


def _exchanges(text: Text, elements: int, kinds: tuple[str, ...]) -> Iterator[str]:
    """Yields the collectives inside of loops whose results have at least so many elements."""
    for operation, loop in text.operations():
        if loop.level[0] == "0" or operation.collective not in kinds:
            continue
        largest = max(operation.results, key=lambda buffer: buffer.elements)
        if largest.elements >= elements:
            yield _line(text, operation, str(largest))


def _head_exchanges(run: Planned, text: Text) -> Iterator[str]:
    """Yields the collectives inside of loops on an array of the vocabulary's and the model's width, or a shard of it."""
    c, devices = run.policy.architecture, run.mesh.size
    for operation, loop in text.operations():
        if loop.level[0] == "0" or not operation.collective:
            continue
        for buffer in operation.results:
            if _vocabulary(run, buffer.shape) and buffer.elements * devices >= c.vocab_size * c.width:
                yield _line(text, operation, str(buffer))
                break


def _all_logits(run: Planned, program: Program, text: Text) -> Iterator[str]:
    """Yields the arrays with logits of all response tokens of a device's rows."""
    config, c = run.config, run.policy.architecture
    rows = config.scoring.rows if program.phase == "score" else run.micro_batch
    ways = run.mesh.shape["data"] * run.mesh.shape["fsdp"]
    columns = max(1, min(run.response_length, config.scoring.chunk // rows))
    if columns == run.response_length:
        return
    seen = set()
    for operation, _ in text.operations():
        for buffer in operation.results:
            width = _vocabulary(run, buffer.shape)
            weight = width and c.width in buffer.shape
            if (
                width
                and not weight
                and not operation.free
                and buffer.elements // width >= rows // ways * run.response_length
            ):
                if str(buffer) not in seen:
                    yield f"an array of all logits: {buffer} ({text.source(operation)})"
                seen.add(str(buffer))


def _vocabulary(run: Planned, shape: tuple[int, ...]) -> int:
    """Returns the size of an axis that is the vocabulary, or what a device has of it; 0 without one."""
    whole = run.policy.architecture.vocab_size
    return next((size for size in shape if size in (whole, whole // run.mesh.shape["tensor"])), 0)


def _line(text: Text, operation: Operation, array: str) -> str:
    return f"{operation.collective} {array} ({text.source(operation)})"
