"""Question: what did the changes for TPUs and GPUs bring, by the compilers of that hardware?

Command:  git worktree add BEFORE 3760ba1      (the last commit before them that has `amrsd_jax.compile`)
          python -m experiments.compilers run --before=BEFORE --results=experiments/results/compilers.json [--case=NAME]
          python -m experiments.compilers table
Table:    docs/performance.md: these rows beside those of `experiments.hardware`, whose cases they are. One case in full:
          `python -m COMMAND --out=old.json` in BEFORE, then here `python -m COMMAND --compare=old.json`.
"""

from pathlib import Path

from amrsd_jax.markdown import table as markdown
from experiments import hardware
from experiments.common import Row, Study, add_rows, has_row, main, read_rows

GIB, GB = 1 << 30, 1e9


def run(folder: Path, results: Path, before: str, case: str | None) -> None:
    """Compiles, in the checkout `before`, the cases that the results lack."""
    for name in [case] if case else hardware.CASES:
        if not has_row(results, case=name) and (row := hardware.compile_case(name, Path(before).resolve())):
            add_rows(results, row)


def table(rows: list[Row]) -> str:
    """Formats what the programs of both commits need, as `before -> after`, and the command of each run."""
    before = {row["case"]: row for row in rows}
    after = [row for row in read_rows(hardware.STUDY.results) if row["case"] in before]
    cells = []
    for row in after:
        old = before[row["case"]]
        known = {program["program"]: program for program in old["programs"]}
        for program in row["programs"]:
            both = _figures(old, known.get(program["program"])), _figures(row, program)
            if both[0] and both[0] != both[1]:
                figures = [one if one == other else f"{one} -> {other}" for one, other in zip(*both, strict=True)]
                cells.append([row["case"], program["program"], *figures])
    columns = ["run", "program", "temporaries, GiB", "ms", "GB moved", "GB exchanged", "operations"]
    commands = [[row["case"], f"`python -m {row['command']}`"] for row in after]
    return f"{markdown(columns, cells)}\n\n{markdown(['run', 'command'], commands)}"


def _figures(case: Row, program: Row | None) -> list[str]:
    """Returns the cells of a program; sums over loop levels leave out branches that may not be taken."""
    if program is None:
        return []
    if "error" in program:
        return ["does not compile", *[""] * 4]
    levels = [level for name, level in program["levels"].items() if "?" not in name]
    exchanged = [sum(kinds.values()) for name, kinds in program["exchanged"].items() if "?" not in name]
    seconds = sum(level["cycles"] for level in levels) / (case["clock"] or 1)
    return [
        f"{program['temp'] / GIB:.2f}",
        f"{seconds * 1e3:,.1f}" if seconds else "",
        f"{sum(level['bytes'] for level in levels) / GB:,.2f}",
        f"{sum(exchanged) / GB:,.2f}",
        f"{sum(level['operations'] for level in levels):,}",
    ]


STUDY = Study("compilers", run, table, "docs/performance.md")

if __name__ == "__main__":
    main(
        STUDY,
        __doc__,
        before=dict(help="a checkout of the commit before", default="before"),
        case=dict(choices=list(hardware.CASES), help="one case; default: all"),
    )
