"""Compiles a run for hardware that is not there: `python -m amrsd_jax.compile --config=CONFIG --topology=v5e:2x4`.

Prints a table: GiB on each device, the compiler's estimate of time, bytes moved and exchanged by loop level, the largest
temporaries with their source lines. With --check, exits with status 1 if a program does not fit or breaks a contract.
"""

import json
import sys
from pathlib import Path

from absl import app, flags

from amrsd_jax.flags import define_config, parser

_CONFIG = define_config()
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Hardware: a TPU slice such as v5e:1x1, v5e:2x4, v5p:2x2x2, v6e:4x4, or GPUs: h100:1, h100:8."
)
_PROGRAMS = flags.DEFINE_list("programs", None, "Which programs; default: all of the run.")
_LAYERS = flags.DEFINE_integer("layers", None, "Compile a model with this many layers of the same sizes.", 1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all figures.")
_HLO = flags.DEFINE_string("hlo", None, "Folder for the optimised programs.")
_CHECK = flags.DEFINE_boolean("check", False, "Exit with status 1 if a program does not fit or breaks a contract.")
_COMPARE = flags.DEFINE_string("compare", None, "A file of --out, to print what has changed since.")
flags.mark_flags_as_required(["config", "topology"])


def main(_: list[str]) -> None:
    from amrsd_jax.compile import compiler, report
    from amrsd_jax.compile.topology import topology
    from amrsd_jax.plan import sizes
    from amrsd_jax.validate import validate

    try:
        old = report.read(Path(_COMPARE.value)) if _COMPARE.value else None
        target, config = topology(_TOPOLOGY.value), validate(_CONFIG.value)
        run = sizes.planned(config, devices=target.devices)
        if _LAYERS.value:
            run = compiler.with_layers(run, _LAYERS.value)
        chosen = compiler.chosen(run, _PROGRAMS.value)
        for path in filter(
            None, (_OUT.value and Path(_OUT.value).parent, _HLO.value)
        ):  # not after minutes of compiling
            Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"config error: {error}")
    done = compiler.describe(run, target) | {"programs": []}
    for program in chosen:
        row = compiler.examine(run, program, target, _HLO.value and Path(_HLO.value))
        done["programs"].append(row)
        print(f"{program.name}: {row['seconds']} s", file=sys.stderr, flush=True)
        if _OUT.value:
            Path(_OUT.value).write_text(json.dumps(done, indent=1) + "\n")
    print(report.table(done), *filter(None, map(report.details, done["programs"])), sep="\n")
    if old:
        print(report.comparison(old, done))
    broken = [f"broken: {row['program']}: {line}" for row in done["programs"] for line in row["broken"]]
    print(*broken, sep="\n", end="\n" if broken else "")
    sys.exit(1 if _CHECK.value and broken else 0)


if __name__ == "__main__":
    app.run(main, flags_parser=parser(__doc__, _CONFIG))
