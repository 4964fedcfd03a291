"""Writes what the compiler said as tables: of one compilation, and of two."""

from collections.abc import Iterable
from pathlib import Path

from amrsd_jax import markdown
from amrsd_jax.files import read_object

GIB, GB = 1 << 30, 1e9
NOTE = (
    "Compiled, not run. GiB on each device; ms by the compiler's cost model, which leaves out kernels and collectives."
)
_LEVELS = ["ms", "GB moved", "GB exchanged", "operations"]  # each by loop level


def read(path: Path) -> dict:
    """Reads a file of `--out`.

    Raises:
      OSError: it cannot be read.
      ValueError: it is another file.
    """
    try:
        done = read_object(path)
    except ValueError as error:
        raise ValueError(f"{path}: no file of --out: {error}") from error
    if not {"clock", "programs"} <= done.keys():
        raise ValueError(f"{path}: no file of --out: it lists no programs")
    return done


def table(done: dict) -> str:
    """Formats a compilation in Markdown: what was compiled for what, and a row per program."""
    mesh = " x ".join(map(str, done["mesh"].values()))
    what = f"{done['model']}, {done['layers']} layers, attention {done['attention']}; {done['topology']}, mesh {mesh}"
    head = ["program", "argument", "alias", "temp", "needed", "+ held", "of", "plan", *_LEVELS]
    return (
        f"{what}; jax {done['jax']}. {NOTE}\n\n{markdown.table(head, [cells(done, row) for row in done['programs']])}\n"
    )


def cells(done: dict, row: dict) -> list[str]:
    """Returns the cells of one program: GiB of one device, then milliseconds, GB and operations by loop level."""
    room, plan = f"{row['memory'] / GIB:.2f}", f"{row['planned'] / GIB:.2f}"
    if "error" in row:
        return [row["program"], *[""] * 4, "does not compile", room, plan, *[""] * len(_LEVELS)]
    sizes = [f"{row[name] / GIB:.2f}" for name in ("argument", "alias", "temp", "needed")]
    return [row["program"], *sizes, f"{total(row) / GIB:.2f}", room, plan, *_by_levels(done, row)]


def total(row: dict) -> int:
    """Returns the bytes of a program and of what is held beside it."""
    return row["needed"] + row["held"]


def _by_levels(done: dict, row: dict) -> list[str]:
    found, clock = row["levels"], done["clock"] or 1
    exchanged = {level: sum(kinds.values()) for level, kinds in row["exchanged"].items()}
    return [
        _by_level({level: one["cycles"] / clock * 1e3 for level, one in found.items()}, 0.05),
        _by_level({level: one["bytes"] / GB for level, one in found.items()}, 0.01),
        _by_level({level: size / GB for level, size in exchanged.items()}, 0.001),
        _by_level({level: one["operations"] for level, one in found.items()}, 1, 0),
    ]


def agreement(rows: Iterable[dict]) -> str:
    """Formats what the compiler says of each phase beside the plan, by the program of the phase that needs most."""
    largest = {}
    for row in sorted((row for row in rows if "error" not in row), key=total):
        largest[row["phase"]] = row
    rows = []
    for phase, row in largest.items():
        sizes = total(row), row["planned"]
        rows.append([phase, row["program"], *(f"{size / GIB:.2f}" for size in sizes), f"{sizes[1] / sizes[0]:.2f}"])
    return markdown.table(["phase", "program", "GiB by the compiler", "by the plan", "ratio"], rows)


def details(row: dict, most: int = 5) -> str:
    """Formats the largest temporaries and collectives of a program, with their source lines."""
    lines = [f"{row['program']}: {row['error'].strip()[:2000]}"] if "error" in row else []
    for one in row.get("temporaries", ())[:most]:
        size = f"{one['bytes'] / GIB:8.3f} GiB"
        lines.append(
            f"{row['program']:18} {size}  {one['array']} {one['opcode']}, level {one['level']}  {one['source']}"
        )
    for one in row.get("collectives", ())[:most]:
        size = f"{one['bytes'] * one['times'] * one['count'] / GB:8.3f} GB "
        times = f"{one['count']} x {one['times']}"
        lines.append(
            f"{row['program']:18} {size}  {one['kind']} {one['array']} {times}, level {one['level']}  {one['source']}"
        )
    return "\n".join(lines)


def comparison(old: dict, new: dict) -> str:
    """Formats two compilations as `before -> after`, for the programs that both have."""
    before = {row["program"]: row for row in old["programs"]}
    rows = []
    for row in new["programs"]:
        if row["program"] in before:
            both = zip(cells(old, before[row["program"]]), cells(new, row), strict=True)
            changes = [one if one == other else f"{one} -> {other}" for one, other in both]
            rows.append([changes[0], *changes[3:6], *changes[8:]])
    if not rows:
        return f"nothing to compare: the other file has {', '.join(before) or 'no program'}"
    return markdown.table(["program", "temp", "needed", "+ held", *_LEVELS], rows)


def _by_level(values: dict[str, float], least: float, digits: int = 2) -> str:
    """Formats the values of loop levels, without those that are smaller than `least`."""
    return ", ".join(f"{level}: {value:,.{digits}f}" for level, value in values.items() if value >= least)
