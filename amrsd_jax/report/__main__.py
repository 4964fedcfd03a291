"""`python -m amrsd_jax.report --workdir=RUN [--figure=FILE.svg]` writes RUN/report.html, and the figure."""

from absl import app, flags

from amrsd_jax import report

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to report on.", required=True)
FIGURE = flags.DEFINE_string("figure", None, "Also write the picture for a README, an SVG, to this file.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    print(report.write(WORKDIR.value))
    if FIGURE.value:
        print(report.write_figure(WORKDIR.value, FIGURE.value))


if __name__ == "__main__":
    app.run(main)
