"""Compiles the programs of a run, and notes what the compiler says of each."""

import dataclasses
import time
from pathlib import Path

import jax

from amrsd_jax.compile import contracts, hlo
from amrsd_jax.compile.programs import Program, programs
from amrsd_jax.compile.topology import Topology
from amrsd_jax.names import first_line
from amrsd_jax.plan import sizes
from amrsd_jax.plan.sizes import Planned

SIZES = ("argument", "output", "alias", "temp")


def with_layers(run: Planned, layers: int) -> Planned:
    """Returns the run with a model of fewer layers of the same sizes: it compiles sooner, and each layer is as it was."""
    architecture = dataclasses.replace(run.policy.architecture, layers=layers)
    return dataclasses.replace(run, policy=dataclasses.replace(run.policy, architecture=architecture))


def describe(run: Planned, target: Topology) -> dict:
    """Returns what is compiled for what, ready for JSON."""
    return dict(
        model=run.config.model,
        layers=run.policy.architecture.layers,
        attention=run.policy.attention,
        topology=target.name,
        device=target.devices[0].device_kind,
        clock=target.clock,
        mesh=dict(run.mesh.shape),
        jax=jax.__version__,
    )


def examine(run: Planned, program: Program, target: Topology, folder: Path | None = None) -> dict:
    """Compiles one program.

    Args:
      folder: where the optimised text is written; None for nowhere.

    Returns:
      program, phase; error where it does not compile, else bytes on a device (`argument`, `output`, `alias`, `temp`;
      `needed`, arguments and other results and temporaries; `held` beside the program; `memory` of the device; `planned`, the
      plan's for the phase), `seconds` of compiling, what `hlo.summary` returns, and `broken`: the contracts that it breaks.
    """
    always, phase = sizes.always(run), sizes.phases(run)[program.phase]
    beside = always | {name: phase[name] for name in ("decoding weights", "keys and values") if name in phase}
    held = sum(size for name, size in beside.items() if name not in program.arguments)
    row = dict(
        program=program.name,
        phase=program.phase,
        memory=target.memory,
        held=held,
        planned=sum(always.values()) + sum(phase.values()),
    )
    begin = time.perf_counter()
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:  # it does not fit, or the compiler cannot do it
        row |= dict(error=str(error), broken=[f"does not compile: {first_line(error)}"])
        return row | dict(seconds=round(time.perf_counter() - begin, 1))
    row["seconds"] = round(time.perf_counter() - begin, 1)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{program.name}.txt").write_text(text)
    row |= {name: getattr(memory, f"{name}_size_in_bytes") for name in SIZES}
    # Not `peak_memory_in_bytes`, which leaves out what the heap of the temporaries loses to its fragments.
    row["needed"] = row["argument"] + row["output"] - row["alias"] + row["temp"]
    row["held"] -= row["output"] if program.results else 0
    read = hlo.Text(text)
    row |= hlo.summary(read)
    return row | dict(broken=contracts.broken(run, program, read, row))


def chosen(run: Planned, names: list[str] | None) -> list[Program]:
    """Returns the programs of a run with these names; None for all.

    Raises:
      ValueError: there is no program of a name.
    """
    known = {program.name: program for program in programs(run)}
    for name in names or ():
        if name not in known:
            raise ValueError(f"--programs: {name!r} is none of {', '.join(known)}")
    return [known[name] for name in names or known]
