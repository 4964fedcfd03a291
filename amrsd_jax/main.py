"""python -m amrsd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart [--config.steps=5 ...]"""

import sys
from pathlib import Path

from absl import app, flags, logging

from amrsd_jax.checks import ConfigError, validate
from amrsd_jax.flags import define_config, parser

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run that is there is resumed.")
flags.mark_flags_as_required(["config", "workdir"])
parse = parser(_CONFIG, validate)


def main(argv):
    from amrsd_jax import processes, report
    from amrsd_jax.runtime.summary import outcome
    from amrsd_jax.train import train

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)  # the checkpoint library tells much
    processes.join()
    workdir = Path(_WORKDIR.value)
    try:
        results = train(_CONFIG.value, workdir)
    except ConfigError as error:
        sys.exit(f"config error: {error}")
    if not processes.first():
        return
    print("\n".join(outcome(results["eval"])))
    print(f"report: {report.write(workdir)}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
