"""`python -m amrsd_jax.compare --rollouts=RUN [--methods=all|a,b,c] [--step=S] --out=FOLDER` compares credit rules.

RUN is the folder of a run, or one Parquet file of its rollouts; the folder gets compare.json and compare.html.
"""

import sys

from absl import app, flags, logging

ROLLOUTS = flags.DEFINE_string("rollouts", None, "Folder of a run, or one Parquet file of its rollouts.", required=True)
METHODS = flags.DEFINE_string(
    "methods",
    "all",
    "Rules with commas between them, each perhaps with another context: rule@context; all: every rule.",
)
OUT = flags.DEFINE_string("out", None, "Folder for compare.json and compare.html.", required=True)
STEP = flags.DEFINE_integer("step", None, "Which dump of a run; by default one whose policy is still known.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run that wrote a file which does not lie in it any more.")


def main(argv: list[str]) -> None:
    from amrsd_jax import compare

    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)  # the checkpoint library tells much
    try:
        found = compare.compare(ROLLOUTS.value, METHODS.value, workdir=WORKDIR.value, step=STEP.value)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"compare error: {error}")
    print(f"{len(found.applied)} methods in {found.values['seconds']} s")
    print(compare.write(found, OUT.value))


if __name__ == "__main__":
    app.run(main)
