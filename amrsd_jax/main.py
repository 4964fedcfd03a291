"""Trains from a config: python -m amrsd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart [--config.steps=5]"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

from amrsd_jax.flags import define_config, parser, require_named
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an existing run is resumed.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Only print every field of the run and its memory plan; status 1 if it does not fit."
)
flags.mark_flag_as_required("config")
flags.register_multi_flags_validator(
    ["workdir", "dry_run"],
    lambda values: values["workdir"] is not None or values["dry_run"],
    "--workdir must have a value, or --dry_run be given",
)
require_named("workdir")
parse = parser(__doc__, _CONFIG, validate)


def main(_):
    from amrsd_jax import processes
    from amrsd_jax.runtime.results import outcome
    from amrsd_jax.train import Diverged, train

    logging.set_verbosity(
        logging.FATAL
    )  # the checkpoint library logs every write, and a traceback of what it raises anyway
    if _DRY_RUN.value:
        sys.exit(0 if dry_run(_CONFIG.value) else 1)
    processes.initialize()
    workdir = Path(_WORKDIR.value)
    try:
        results = train(_CONFIG.value, workdir)
    except ConfigError as error:
        sys.exit(f"config error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}; the same command continues from the last checkpoint")
    except Diverged as error:
        write_report(workdir)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues from the last checkpoint")
    if processes.is_first():
        print("\n".join(outcome(results)))
        write_report(workdir)


def write_report(workdir: Path) -> None:
    """Writes the report of a run on process 0, and prints its place, or why there is none: the run itself is whole."""
    from amrsd_jax import processes, report

    if processes.is_first():
        try:
            print(f"report: {report.write(workdir)}")
        except (OSError, ValueError) as error:
            print(f"report error: {error}", file=sys.stderr)


def dry_run(edited: ConfigDict) -> bool:
    """Prints every field of a run, with a star where the config sets another value than the default, and its memory plan.

    Returns whether the run would be refused by neither; rows, weights and tokenizer have not been looked for.
    """
    from amrsd_jax import fields
    from amrsd_jax.plan import make_plan

    config = validate(edited)
    print(*fields.of_run(edited, config), "", sep="\n")
    try:
        plan = make_plan(config)
    except (OSError, ValueError) as error:
        sys.exit(f"config error: {error}")
    print(plan.table(), plan.summary(), *([] if plan.fits else [plan.advice()]), sep="\n")
    return plan.fits or not config.plan.refuse


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
