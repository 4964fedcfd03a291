"""Exports a run's policy for `transformers`: `python -m amrsd_jax.export --workdir=RUN --out=FOLDER [--step=S]`."""

import sys
from pathlib import Path

from absl import app, flags, logging

from amrsd_jax.export import export
from amrsd_jax.flags import parser, require_named

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; not modified.", required=True)
OUT = flags.DEFINE_string("out", None, "Folder to write, new or empty.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
ADAPTERS = flags.DEFINE_bool("adapters", False, "Write only the run's adapters, in PEFT's format.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Data type of the weights; float32 is exact.")
require_named("workdir", "out")


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # the checkpoint library logs much at INFO
    try:
        step = export(Path(WORKDIR.value), Path(OUT.value), step=STEP.value, dtype=DTYPE.value, adapters=ADAPTERS.value)
    except (OSError, ValueError) as error:
        sys.exit(f"export error: {error}")
    print(f"step {step}: {OUT.value}")


if __name__ == "__main__":
    app.run(main, flags_parser=parser(__doc__))
