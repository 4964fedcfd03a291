"""Writes RUN/report.html and a figure: `python -m amrsd_jax.report --workdir=RUN [--figure=FILE.svg]`.

Of several runs it writes one page with their curves over each other: `python -m amrsd_jax.report RUN RUN ... --out=FILE.html`.
"""

import sys

from absl import app, flags

from amrsd_jax import report
from amrsd_jax.flags import parser, require_named

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
FIGURE = flags.DEFINE_string("figure", None, "Also write the figure for a README, an SVG file.")
OUT = flags.DEFINE_string("out", None, "HTML file in which the curves of all runs are laid over each other.")
require_named("workdir", "out")


def main(argv: list[str]) -> None:
    runs = [*filter(None, [WORKDIR.value]), *argv[1:]]
    if not runs:
        raise app.UsageError("expected the folder of a run, --workdir=RUN")
    if len(runs) > 1 and not OUT.value:
        raise app.UsageError(f"{len(runs)} runs: expected the file of their page, --out=FILE.html")
    if FIGURE.value and OUT.value:
        raise app.UsageError("--figure is of one run; expected no --out")
    try:
        print(report.write_overlay(runs, OUT.value) if OUT.value else report.write(*runs))
        if FIGURE.value:
            print(report.write_figure(*runs, FIGURE.value))
    except (OSError, ValueError) as error:
        sys.exit(f"report error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parser(__doc__, positional=True))
