"""Trains every combination of seeds and fields, one after the other on this machine:

python -m amrsd_jax.sweep --config=CONFIG [--config.FIELD=VALUE] --out=FOLDER --seeds=0,1,2 --set FIELD=VALUE,VALUE [--set ...]

All combinations are checked before the first one is trained. The same command continues a sweep: it skips finished runs. At the
end it writes table.md and report.html to FOLDER. Exits with status 1 if a run failed.
"""

import sys
from pathlib import Path

from absl import app, flags

from amrsd_jax.flags import config_arguments, define_config, parser, require_named
from amrsd_jax.sections import ConfigError

_CONFIG = define_config()
OUT = flags.DEFINE_string("out", None, "Folder of the runs, each in a folder named after its values.", required=True)
SEEDS = flags.DEFINE_list("seeds", [], "Seeds, separated by commas.")
SET = flags.DEFINE_multi_string(
    "set", [], "FIELD=VALUE,VALUE,...: values of a field of the config. Commas in quotes or brackets belong to a value."
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only list the runs: new, unfinished or finished.")
flags.mark_flag_as_required("config")
require_named("out")


def main(_: list[str]) -> None:
    from amrsd_jax.sweep.grid import axes, expand
    from amrsd_jax.sweep.runs import state, summarise, train_all

    out = Path(OUT.value)
    try:
        runs = expand(out, config_arguments(sys.argv), axes(SET.value, SEEDS.value))
    except ConfigError as error:
        sys.exit(f"config error: {error}")
    if DRY_RUN.value:
        print("\n".join(f"{state(run):10} {run.workdir}" for run in runs))
        return
    faults = train_all(runs)
    try:
        print(summarise(out, runs))
    except (OSError, ValueError) as error:
        faults.append(f"report error: {error}")
    sys.exit("\n".join(faults) or None)


if __name__ == "__main__":
    app.run(main, flags_parser=parser(__doc__, _CONFIG))
