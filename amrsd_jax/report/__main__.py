"""Writes RUN/report.html and a figure: `python -m amrsd_jax.report --workdir=RUN [--figure=FILE.svg]`."""

import sys

from absl import app, flags

from amrsd_jax import report
from amrsd_jax.flags import parser, require_named

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
FIGURE = flags.DEFINE_string("figure", None, "Also write the figure for a README, an SVG file.")
require_named("workdir")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        print(report.write(WORKDIR.value))
        if FIGURE.value:
            print(report.write_figure(WORKDIR.value, FIGURE.value))
    except (OSError, ValueError) as error:
        sys.exit(f"report error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parser(__doc__))
