"""Reads the text of a program that XLA has optimised: its loops, and what its operations move, exchange and keep.

The text gives every operation its computation, the layout and memory of its results (`S(1)` is on the chip), and the line of
Python that it comes from; the TPU's compiler adds `estimated_cycles`, of its own cost model. Everything is counted per loop
level: "0" runs once, "1" in one loop; "1?" in a branch there that may not be taken.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_OPERATION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_FREE = {  # operations that move nothing: views, calls, and the second half of what is asynchronous
    "parameter", "get-tuple-element", "tuple", "bitcast", "while", "constant", "call", "conditional", "after-all", "partition-id",
    "replica-id", "optimization-barrier", "iota", "async-update",
}  # fmt: skip
_SLICES, _UPDATES = ("dynamic-slice", "slice", "gather"), ("dynamic-update-slice", "scatter")
_UNKNOWN = 1 << 50  # an estimate that is larger stands for none


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Describes one array of an operation's result."""

    dtype: str
    shape: tuple[int, ...]
    layout: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the elements."""
        return -(-self.elements * _bits(self.dtype) // 8)

    @property
    def allocated(self) -> int:
        """Bytes with the padding of the layout's tiles."""
        order, tile = re.match(r"\{([\d,]+)", self.layout), re.search(r"T\((\d+),(\d+)\)", self.layout)
        dims = list(self.shape)
        if order and tile and len(dims) > 1:
            minor = [int(axis) for axis in order.group(1).split(",")]
            for axis, size in zip(minor, (int(tile.group(2)), int(tile.group(1))), strict=False):
                dims[axis] = -(-dims[axis] // size) * size
        return -(-math.prod(dims) * _bits(self.dtype) // 8)

    @property
    def on_chip(self) -> bool:
        """Whether it is in the chip's own memory, so that it costs no memory traffic."""
        return "S(" in self.layout

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Operation:
    """A line of the program.

    Attributes:
      name, opcode: as in the text.
      results: the arrays that it makes.
      operands: names of the operations that it reads.
      rest: the text behind the opening bracket.
      root: whether it is the result of its computation.
    """

    name: str
    opcode: str
    results: tuple[Buffer, ...]
    operands: tuple[str, ...]
    rest: str
    root: bool

    def called(self, *roles: str) -> list[str]:
        """Returns the names of the computations that it calls in these roles."""
        return [name for role in roles for name in re.findall(rf"\b{role}=%?([\w.\-]+)", self.rest)]

    @property
    def collective(self) -> str | None:
        """The kind of exchange between devices that it begins, None for other operations."""
        for kind in COLLECTIVES:
            fused = self.opcode in ("fusion", "custom-call", "async-start") and self.name.startswith(kind)
            if fused or self.opcode in (kind, f"{kind}-start"):
                return kind
        return None

    @property
    def cycles(self) -> int:
        """The compiler's estimate, 0 where it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found.group(1)) if found and int(found.group(1)) < _UNKNOWN else 0

    @property
    def free(self) -> bool:
        """Whether it moves nothing."""
        return self.opcode in _FREE or self.opcode.endswith("-done")


@dataclasses.dataclass(frozen=True)
class Loop:
    """Where a computation runs.

    Attributes:
      level: number of loops around it; with "?" in a branch that may not be taken.
      times: how often it runs in one run of the program; a loop of unknown length counts once.
    """

    level: str
    times: int

    def deeper(self, times: int) -> "Loop":
        """Returns the place inside of one more loop."""
        return Loop(f"{int(self.level[0]) + 1}{self.level[1:]}", self.times * times)

    @property
    def branch(self) -> "Loop":
        """The place inside of a branch."""
        return Loop(f"{self.level[0]}?", self.times)


class Text:
    """An optimised program."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Operation]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = self.computations[head.group(2)] = []
                self.entry = head.group(2) if head.group(1) else self.entry
            elif line == "}":
                current = None
            elif current is not None and (found := _OPERATION.match(line)):
                root, name, results, opcode, rest = found.groups()
                current.append(Operation(name, opcode, _buffers(results), _operands(rest), rest, bool(root)))
        alias = re.search(r"input_output_alias=\{(.*?)\}, entry", text)
        self.aliased = len(re.findall(r"(?:may|must)-alias", alias.group(1))) if alias else 0
        self._tables = {name: _table(text, name) for name in ("FileNames", "FileLocations", "StackFrames")}

    @functools.cached_property
    def loops(self) -> dict[str, Loop]:
        """Where each computation runs that is not part of a fusion."""
        found, pending = {self.entry: Loop("0", 1)}, [self.entry]
        while pending:
            here = found[name := pending.pop()]
            for operation in self.computations.get(name, ()):
                for other, place in self._calls(operation, here):
                    if other in self.computations and other not in found:
                        found[other] = place
                        pending.append(other)
        return found

    def _calls(self, operation: Operation, here: Loop) -> Iterator[tuple[str, Loop]]:
        """Yields the computations that an operation runs, and where."""
        if operation.opcode == "while":
            known = re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.rest)
            times = int(known.group(1)) if known else self._trips(operation.called("condition")[0])
            yield from ((name, here.deeper(times)) for name in operation.called("body", "condition"))
        elif operation.opcode in ("call", "async-start"):
            yield from ((name, here) for name in operation.called("to_apply", "calls"))
        elif operation.opcode == "conditional":
            branches = re.search(r"branch_computations=\{([^}]*)\}", operation.rest)
            names = re.findall(r"%?([\w.\-]+)", branches.group(1)) if branches else []
            names += operation.called("true_computation", "false_computation")
            yield from ((name, here.branch) for name in names)

    def _trips(self, condition: str) -> int:
        """Returns the largest constant of a condition that only counts, 1 for others."""
        operations = self.computations.get(condition, ())
        if any(operation.opcode in ("and", "reduce") or "and" in operation.name for operation in operations):
            return 1
        numbers = [re.match(r"(\d+)\)", operation.rest) for operation in operations if operation.opcode == "constant"]
        return max((int(number.group(1)) for number in numbers if number), default=1)

    def operations(self) -> Iterator[tuple[Operation, Loop]]:
        """Yields the operations that run, and where."""
        for name, loop in self.loops.items():
            yield from ((operation, loop) for operation in self.computations[name])

    # ---------------------------------------------------------------- where an operation comes from

    def source(self, operation: Operation) -> str:
        """Returns the innermost line of this package that an operation comes from, "" where the text does not say."""
        plain = re.search(r'source_file="([^"]*)" source_line=(\d+)', operation.rest)
        if plain:
            return f"{_short(plain.group(1))}:{plain.group(2)}"
        found = re.search(r"stack_frame_id=(\d+)", operation.rest)
        frame, lines = int(found.group(1)) if found else 0, []
        while frame in self._tables["StackFrames"]:
            location, parent = self._tables["StackFrames"][frame]
            file, _, line, *_ = self._tables["FileLocations"][int(location)]
            lines.append(f"{_short(self._tables['FileNames'][int(file)][0])}:{line}")
            frame = int(parent) - 1 if int(parent) <= frame else 0  # the text counts parents from 1, and none is 0
        ours = [line for line in lines if line.startswith("amrsd_jax/") and "/compile/" not in line]
        return next(iter(ours + lines), "")

    # ---------------------------------------------------------------- memory traffic

    @functools.cached_property
    def _results(self) -> dict[tuple[str, str], tuple[Buffer, ...]]:
        return {(c, o.name): o.results for c, operations in self.computations.items() for o in operations}

    def traffic(self, computation: str, operation: Operation) -> int:
        """Returns the bytes that an operation reads from memory and writes to it.

        An operand of which a fusion reads slices only counts with these, and one that is updated in place with its updates.
        """
        if operation.free:
            return 0
        if operation.opcode == "slice-start":  # onto the chip
            return operation.results[1].bytes
        if operation.opcode == "copy-start":  # results: target, source, context
            return sum(_moved(operation.results[:2]))
        operands = [self._results.get((computation, name), ()) for name in operation.operands]
        if operation.opcode == "dynamic-update-slice":
            return 2 * sum(_moved(operands[1]))
        if operation.opcode in _SLICES:
            return 2 * sum(_moved(operation.results))
        fusion, shared = self._fusion(operation), _shared(operation)
        read = sum(
            self._read(fusion, index, sum(_moved(buffers)))
            for index, buffers in enumerate(operands)
            if index not in shared
        )
        if any(index >= len(operands) for index in shared):  # the result is one of the operands
            return read
        return read + sum(
            sum(_moved([buffer])) if update is None else update
            for buffer, update in zip(operation.results, self._updates(operation), strict=True)
        )

    def in_place(self, operation: Operation) -> bool:
        """Returns whether an operation writes into an array that was there before."""
        shared = any(index >= len(operation.operands) for index in _shared(operation))
        updates = any(update is not None for update in self._updates(operation))
        return shared or updates or operation.opcode in _UPDATES

    def work(self, operation: Operation) -> str:
        """Returns the opcode of an operation, or of the last one that a fusion joins."""
        inside = self.computations.get(self._fusion(operation), ())
        return next((one.opcode for one in inside if one.root), operation.opcode)

    def _fusion(self, operation: Operation) -> str | None:
        return operation.called("calls")[0] if operation.opcode == "fusion" else None

    def _read(self, fusion: str | None, index: int, whole: int) -> int:
        """Returns the bytes that are read of an operand of `whole` bytes; a fusion may read slices of it only."""
        operations = self.computations.get(fusion, ())
        names = [o.name for o in operations if o.opcode == "parameter" and o.rest.startswith(f"{index})")]
        if not names or not whole:
            return whole
        total = 0
        while names:
            name = names.pop()
            for operation in operations:
                if name not in operation.operands:
                    continue
                if operation.opcode == "bitcast":
                    names.append(operation.name)
                elif operation.opcode in _SLICES and operation.operands[0] == name:
                    total += sum(buffer.bytes for buffer in operation.results)
                elif operation.opcode == "fusion":
                    total += self._read(self._fusion(operation), operation.operands.index(name), whole)
                elif not (operation.opcode in _UPDATES and operation.operands[0] == name):
                    return whole
        return min(total, whole)

    def _updates(self, operation: Operation) -> list[int | None]:
        """Returns for each result of a fusion that is one of its parameters with updates the bytes of these, else None."""
        none = [None] * len(operation.results)
        inside = {one.name: one for one in self.computations.get(self._fusion(operation), ())}
        root = next((one for one in inside.values() if one.root), None)
        outputs = root.operands if root and root.opcode == "tuple" else [root.name] if root else []

        def behind_views(name: str) -> Operation | None:
            one = inside.get(name)
            while one and one.opcode == "bitcast":
                one = inside.get(one.operands[0])
            return one

        def update(name: str) -> int | None:
            one = behind_views(name)
            if one is None or one.opcode not in _UPDATES or behind_views(one.operands[0]).opcode != "parameter":
                return None
            written = inside.get(one.operands[1 if one.opcode == "dynamic-update-slice" else 2])
            return sum(buffer.bytes for buffer in written.results)

        return list(map(update, outputs)) if len(outputs) == len(none) else none


# ---------------------------------------------------------------- summaries


def summary(text: Text, most: int = 12) -> dict:
    """Returns what a program does, ready for JSON.

    Returns:
      levels: per loop level the number of operations, and over all trips launches, bytes of memory traffic and cycles.
      exchanged: bytes of the results of collectives, by level and kind; over all trips.
      collectives: the largest, with trips, bytes of one and source.
      temporaries: the largest results in memory, with level, allocated bytes and source.
    """
    levels = collections.defaultdict(lambda: dict(operations=0, launches=0, bytes=0, cycles=0))
    exchanged = collections.defaultdict(collections.Counter)
    collectives, temporaries = collections.Counter(), {}
    for name, loop in text.loops.items():
        level = levels[loop.level]
        for operation in text.computations[name]:
            if not operation.free:
                level["operations"] += 1
                level["launches"] += loop.times
                level["bytes"] += text.traffic(name, operation) * loop.times
            level["cycles"] += operation.cycles * loop.times
            if (kind := operation.collective) and operation.results:
                largest = max(operation.results, key=lambda buffer: buffer.bytes)
                exchanged[loop.level][kind] += largest.bytes * loop.times
                collectives[kind, loop.level, loop.times, str(largest), largest.bytes, text.source(operation)] += 1
            if operation.free or operation.opcode.endswith("-start") or text.in_place(operation):
                continue
            for buffer in operation.results:
                size = buffer.allocated
                if not buffer.on_chip and size > temporaries.get(key := (str(buffer), loop.level), (0,))[0]:
                    temporaries[key] = size, operation.opcode, text.source(operation)
    by_size = sorted(temporaries.items(), key=lambda item: -item[1][0])[:most]
    return dict(
        levels={level: levels[level] for level in sorted(levels)},
        exchanged={level: dict(exchanged[level]) for level in sorted(exchanged)},
        collectives=[
            dict(zip(("kind", "level", "times", "array", "bytes", "source", "count"), (*key, count), strict=True))
            for key, count in sorted(collectives.items(), key=lambda item: -item[0][4] * item[0][2] * item[1])[:most]
        ],
        temporaries=[
            dict(array=array, level=level, bytes=size, opcode=opcode, source=source)
            for (array, level), (size, opcode, source) in by_size
        ],
        aliased=text.aliased,
    )


# ---------------------------------------------------------------- parts of the text


def _bits(dtype: str) -> int:
    return 8 if dtype == "pred" else int(re.search(r"\d+", dtype).group())


def _shared(operation: Operation) -> set[int]:
    """Returns the operands, and behind them the results, that the TPU's compiler lets share memory."""
    found = re.search(r'"aliasing_operands":\{"lists":\[(.*?)\]\}', operation.rest)
    return {int(index) for index in re.findall(r'"(\d+)"', found.group(1))} if found else set()


def _moved(buffers) -> Iterator[int]:
    """Yields the bytes of the arrays that are in memory."""
    return (buffer.bytes for buffer in buffers if not buffer.on_chip)


def _buffers(text: str) -> tuple[Buffer, ...]:
    return tuple(
        Buffer(dtype, tuple(int(size) for size in dims.split(",") if size), layout or "")
        for dtype, dims, layout in _ARRAY.findall(text)
    )


def _operands(rest: str) -> tuple[str, ...]:
    """Returns the names before the closing bracket."""
    depth = 1
    for end, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    return ()


def _table(text: str, name: str) -> dict[int, tuple[str, ...]]:
    """Returns one of the tables at the beginning of a text: number of a line -> its values."""
    found = re.search(rf"^{name}\n((?:\d+ .*\n)*)", text, re.M)
    lines = found.group(1).splitlines() if found else []
    return {
        int(number): tuple(re.findall(r"=(\d+)", value)) or (value.strip('"'),)
        for number, _, value in (line.partition(" ") for line in lines)
    }


def _short(path: str) -> str:
    """Returns a path from this package on, or from the site's packages on."""
    return re.sub(r"^.*/(?=amrsd_jax/)|^.*/site-packages/", "", path)
