"""Compares credit rules: `python -m amrsd_jax.compare --rollouts=RUN [--methods=all|a,b,c] [--step=S] --out=FOLDER`.

RUN is the folder of a run, or one Parquet file of its rollouts. compare.json and compare.html are written to FOLDER.
"""

import sys

from absl import app, flags, logging

from amrsd_jax.flags import parser, require_named

ROLLOUTS = flags.DEFINE_string("rollouts", None, "Folder of a run, or one Parquet file of its rollouts.", required=True)
METHODS = flags.DEFINE_string(
    "methods",
    "all",
    "Comma-separated rules; rule@context selects another context, and all stands for every rule.",
)
OUT = flags.DEFINE_string("out", None, "Folder for compare.json and compare.html.", required=True)
STEP = flags.DEFINE_integer(
    "step", None, "Step whose rollouts are read; default: the last one whose policy is known best."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run that wrote the Parquet file, where the file was moved."
)
require_named("rollouts", "out")


def main(_: list[str]) -> None:
    from amrsd_jax import compare

    logging.set_verbosity(logging.WARNING)  # the checkpoint library logs a lot
    try:
        comparison = compare.compare(ROLLOUTS.value, METHODS.value, workdir=WORKDIR.value, step=STEP.value)
    except (OSError, ValueError) as error:
        sys.exit(f"compare error: {error}")
    print(f"{len(comparison.applied)} methods in {comparison.values['seconds']} s")
    print(compare.write(comparison, OUT.value))


if __name__ == "__main__":
    app.run(main, flags_parser=parser(__doc__))
