"""Trains from a config: python -m amrsd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart [--config.steps=5]"""

import sys
from pathlib import Path

from absl import app, flags, logging

from amrsd_jax.flags import define_config, parser, require_named
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an existing run is resumed.")
flags.mark_flags_as_required(["config", "workdir"])
require_named("workdir")
parse = parser(_CONFIG, validate)


def main(argv):
    from amrsd_jax import processes, report
    from amrsd_jax.runtime.summary import outcome
    from amrsd_jax.train import train

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    logging.set_verbosity(
        logging.FATAL
    )  # the checkpoint library logs every write, and a traceback of what it raises anyway
    processes.initialize()
    workdir = Path(_WORKDIR.value)
    try:
        results = train(_CONFIG.value, workdir)
    except ConfigError as error:
        sys.exit(f"config error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}; the same command continues from the last checkpoint")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues from the last checkpoint")
    if not processes.is_first():
        return
    print("\n".join(outcome(results)))
    try:
        print(f"report: {report.write(workdir)}")
    except (OSError, ValueError) as error:
        print(f"report error: {error}", file=sys.stderr)  # the run itself is whole


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
