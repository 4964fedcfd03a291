"""python -m amrsd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart [--config.steps=5 ...]"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from amrsd_jax.checks import ConfigError, validate

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment, a file of configs/.",
    lock_config=False, accept_new_attributes=True,  # `validate` names an unknown field and the nearest known one
)  # fmt: skip
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run that is there is resumed.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    from amrsd_jax import report
    from amrsd_jax.train import train

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)  # the checkpoint library tells much
    workdir = Path(_WORKDIR.value)
    try:
        results = train(_CONFIG.value, workdir)
    except ConfigError as error:
        sys.exit(f"config error: {error}")
    before, after = results["eval"]["initial"], results["eval"]["final"]
    print(f"sampled accuracy {before['sampled']:.3f} -> {after['sampled']:.3f} on {after['n']} held-out problems")
    print(f"report: {report.write(workdir)}")


def parse(argv):
    """Flags to arguments; a wrong config is one line, not a traceback."""
    try:
        arguments = flags.FLAGS(argv)
        _CONFIG.value.lock()  # raises if its file could not be read
        validate(_CONFIG.value)
        return arguments
    except KeyError as error:
        sys.exit(f"config error: no such section: {' '.join(error.args[0].split())}")
    except (OSError, ValueError, flags.Error) as error:
        sys.exit(f"config error: {str(error).splitlines()[-1].strip()}")  # the cause, where a config file fails


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
