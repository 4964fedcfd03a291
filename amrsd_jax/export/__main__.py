"""`python -m amrsd_jax.export --workdir=RUN --out=FOLDER [--step=S]` writes a run's policy as `transformers` loads it."""

import sys
from pathlib import Path

from absl import app, flags, logging

from amrsd_jax.export import export

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; it is only read.", required=True)
OUT = flags.DEFINE_string("out", None, "Folder to write, new or empty.", required=True)
STEP = flags.DEFINE_integer("step", None, "Which checkpoint; by default the newest.")
ADAPTERS = flags.DEFINE_bool("adapters", False, "Write a run's adapters alone, as PEFT loads them.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the weights; float32 loses nothing.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)  # the checkpoint library tells much
    try:
        step = export(Path(WORKDIR.value), Path(OUT.value), step=STEP.value, dtype=DTYPE.value, adapters=ADAPTERS.value)
    except (OSError, ValueError) as error:
        sys.exit(f"export error: {error}")
    print(f"step {step}: {OUT.value}")


if __name__ == "__main__":
    app.run(main)
