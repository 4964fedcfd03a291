"""How a case is measured: its arms take turns in one process, so that their ratio does not depend on the hour."""

import dataclasses
import time
from collections.abc import Callable, Iterable

import jax

from benchmarks.floors import Ceilings, Work


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of doing a case's work.

    Attributes:
      name: who does it.
      run: does all of it, and returns the number of tokens when it is done.
      programs: the compiled programs that it runs over and over; asked for after `run`, so that they are compiled.
      phases: seconds of the last `run` by part, where they are known.
      timeline: the last `run` laid out in time, where it is known (`Clock.timeline`).
    """

    name: str
    run: Callable[[], int]
    programs: Callable[[], Iterable[jax.stages.Compiled]] = tuple
    phases: Callable[[], dict[str, float]] = dict
    timeline: Callable[[], dict] = dict


@dataclasses.dataclass(frozen=True)
class Case:
    """One task and the arms that do it.

    Attributes:
      suite, name: what it is called.
      sizes: what was asked for, for the record.
      work: what no implementation can do without, from the number of tokens sampled, scored or trained on.
      arms: the first is what the others are compared with.
    """

    suite: str
    name: str
    sizes: dict
    work: Callable[[int], Work]
    arms: tuple[Arm, ...]


def measure(case: Case, ceilings: Ceilings, repeats: int) -> list[dict]:
    """One row an arm: every arm once to compile, then `repeats` rounds in which each has its turn.

    Columns: `seconds` is the fastest turn and `all_seconds` are all of them; `processor_seconds` is the least that the
    process computed for in a turn, on all cores of the host together; `times_first` and `processor_times_first` are how
    many times as much of either the arm takes as the first one; `floor_share` is the least possible time over `seconds`;
    `compile_seconds` is the first call less a steady one; `phases` and `timeline` are those of the fastest turn; `peak_bytes`
    and `peak_is` are those of `peak`.

    Raises:
      RuntimeError: two runs did not give the same number of tokens, so they cannot be compared.
    """
    wall, processor, inside = ({arm.name: [] for arm in case.arms} for _ in range(3))
    tokens, peaks = {}, {}

    def turn(arm):
        begin = time.perf_counter(), time.process_time()
        tokens[arm.name] = arm.run()
        wall[arm.name].append(time.perf_counter() - begin[0])
        processor[arm.name].append(time.process_time() - begin[1])
        inside[arm.name].append({"phases": arm.phases(), "timeline": arm.timeline()})

    for arm in case.arms:
        before = _device_peak()
        turn(arm)
        peaks[arm.name] = peak(arm, before)
    for _ in range(repeats):
        for arm in case.arms:
            turn(arm)
    if len(set(tokens.values())) > 1:
        raise RuntimeError(f"{case.suite}, {case.name}: the arms did not give equally many tokens: {tokens}")
    fastest = {name: min(times[1:]) for name, times in wall.items()}
    busy = {name: min(times[1:]) for name, times in processor.items()}
    first = case.arms[0].name
    floor = case.work(tokens[first]).floor(ceilings)
    return [
        {
            "suite": case.suite, "case": case.name, "arm": arm.name, "sizes": case.sizes, "tokens": tokens[first],
            "seconds": fastest[arm.name], "all_seconds": wall[arm.name][1:], "processor_seconds": busy[arm.name],
            "tokens_per_second": tokens[first] / fastest[arm.name],
            "times_first": fastest[arm.name] / fastest[first], "processor_times_first": busy[arm.name] / busy[first],
            "floor_seconds": floor, "floor_share": floor / fastest[arm.name],
            "compile_seconds": max(0.0, wall[arm.name][0] - fastest[arm.name]),
            **inside[arm.name][wall[arm.name].index(fastest[arm.name], 1)],
            **peaks[arm.name],
        }
        for arm in case.arms
    ]  # fmt: skip


def peak(arm: Arm, before: int | None) -> dict:
    """Peak memory of an arm that has just run for the first time.

    A device that keeps count has one high-water mark for the whole process: where the arm did not raise it, the arm took
    at most that much. Elsewhere it is the largest of the arm's programs by its compiler: arguments, results, temporaries.
    """
    after = _device_peak()
    if after is not None:
        return {"peak_bytes": after, "peak_is": "measured" if after > before else "at most"}
    sizes = [_program_bytes(program) for program in arm.programs()]
    return {"peak_bytes": max(sizes, default=None), "peak_is": "of the largest program"}


def _device_peak() -> int | None:
    stats = jax.devices()[0].memory_stats()
    return stats and stats.get("peak_bytes_in_use")


def _program_bytes(program: jax.stages.Compiled) -> int:
    stats = program.memory_analysis()
    donated = stats.alias_size_in_bytes  # counted once as an argument and once as a result
    return stats.argument_size_in_bytes + stats.output_size_in_bytes - donated + stats.temp_size_in_bytes
