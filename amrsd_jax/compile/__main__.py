"""Compiles a run for hardware that is not there: `python -m amrsd_jax.compile --config=CONFIG --topology=v5e:2x4`.

Prints a table: GiB on each device, the compiler's estimate of time, bytes moved and exchanged by loop level, the largest
temporaries with their source lines. With --check, exits with status 1 if a program does not fit or breaks a contract.
"""

import json
import sys
import tempfile
from pathlib import Path

from absl import app, flags

from amrsd_jax.flags import define_config, parser

_CONFIG = define_config()
_TOPOLOGY = flags.DEFINE_string("topology", None, "Hardware: a TPU slice such as v5e:1x1, v5e:2x4, v5p:2x2x2, v6e:4x4.")
_PROGRAMS = flags.DEFINE_list("programs", None, "Which programs; default: all of the run.")
_LAYERS = flags.DEFINE_integer("layers", None, "Compile a model with this many layers of the same sizes.", 1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all figures.")
_HLO = flags.DEFINE_string("hlo", None, "Folder for the optimised programs.")
_CHECK = flags.DEFINE_boolean("check", False, "Exit with status 1 if a program does not fit or breaks a contract.")
_COMPARE = flags.DEFINE_string("compare", None, "A file of --out, to print what has changed since.")
flags.mark_flags_as_required(["config", "topology"])


def main(argv: list[str]) -> None:
    import jax

    from amrsd_jax.compile import compiler, report
    from amrsd_jax.compile.topology import topology
    from amrsd_jax.plan import sizes
    from amrsd_jax.validate import validate

    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    rows = []
    try:
        target = topology(_TOPOLOGY.value)
        config = validate(_CONFIG.value)
        with tempfile.TemporaryDirectory() as nowhere:
            run = sizes.planned(config, Path(nowhere), target.devices)
        if _LAYERS.value:
            run = compiler.with_layers(run, _LAYERS.value)
        for row in compiler.compile_run(run, target, _PROGRAMS.value, _HLO.value and Path(_HLO.value)):
            print(
                f"{row['program']}: {row.get('seconds', '')} s", *row["broken"], sep="\n  ", file=sys.stderr, flush=True
            )
            rows.append(row)
    except (OSError, ValueError) as error:
        sys.exit(f"config error: {error}")
    case = dict(
        topology=target.name,
        device=target.devices[0].device_kind,
        clock=target.clock,
        mesh=dict(run.mesh.shape),
        model=config.model,
        layers=run.policy.architecture.layers,
        attention=run.policy.attention,
        jax=jax.__version__,
    )
    done = case | dict(programs=rows)
    shape = " x ".join(str(size) for size in run.mesh.shape.values())
    print(
        f"{config.model}, {case['layers']} layers, {target.name}, mesh {shape}, attention {run.policy.attention}. {report.NOTE}"
    )
    print(report.table(case, rows), *map(report.details, rows), sep="\n")
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(done, indent=1) + "\n")
    if _COMPARE.value:
        print(report.comparison(json.loads(Path(_COMPARE.value).read_text()), done))
    broken = [f"{row['program']}: {line}" for row in rows for line in row["broken"]]
    print(*(f"broken: {line}" for line in broken), sep="\n")
    sys.exit(1 if _CHECK.value and broken else 0)


if __name__ == "__main__":
    app.run(main, flags_parser=parser(_CONFIG))
