"""Measures a case: its arms take turns in one process, so that their ratio does not depend on the load of the moment."""

import dataclasses
import time
from collections.abc import Callable, Iterable

import jax

from benchmarks.floors import Ceilings, Work


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of doing a case's work.

    Attributes:
      name: name of the implementation or method.
      run: does the work, and returns the number of tokens.
      programs: returns its main compiled programs; called after `run`, when they are in the cache.
      phases: returns the seconds of the last `run` by phase; {} if unknown.
      timeline: returns the timeline of the last `run` (`Clock.timeline`); {} if unknown.
    """

    name: str
    run: Callable[[], int]
    programs: Callable[[], Iterable[jax.stages.Compiled]] = tuple
    phases: Callable[[], dict[str, float]] = dict
    timeline: Callable[[], dict] = dict


@dataclasses.dataclass(frozen=True)
class Case:
    """Work, and the arms that do it.

    Attributes:
      suite, name: names of the suite and of the case.
      sizes: the sizes of the work, for the record.
      work: number of tokens sampled, scored or trained on -> the work that no implementation can avoid.
      arms: the arms; all others are compared with the first.
    """

    suite: str
    name: str
    sizes: dict
    work: Callable[[int], Work]
    arms: tuple[Arm, ...]


def measure(case: Case, ceilings: Ceilings, repeats: int) -> list[dict]:
    """Returns one row per arm, from a first run that compiles and `repeats` rounds in which each arm runs once.

    Columns: `seconds` is the fastest turn and `all_seconds` are all of them; `processor_seconds` is the least
    processor time of a turn, over all cores of the host; `times_first` and `processor_times_first` are the ratios of both to
    the first arm's; `floor_share` is the least possible time over `seconds`;
    `compile_seconds` is the time of the first run minus the fastest; `phases` and `timeline` are those of the fastest turn;
    `peak_bytes` and `peak_is` come from `peak`.

    Raises:
      RuntimeError: the arms gave different numbers of tokens, so they cannot be compared.
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
        raise RuntimeError(f"{case.suite}, {case.name}: the arms gave different numbers of tokens: {tokens}")
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
    """Returns the peak memory of an arm that has just run for the first time.

    A device that counts memory has one high-water mark for the whole process: an arm that did not raise it took at most that
    much. Elsewhere it is the largest of the arm's programs as compiled: arguments, results and temporaries.
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
