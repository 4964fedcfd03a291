"""Measures speed and memory of sampling, scoring and learning, and compares the speed with the least possible time.

    python -m benchmarks.run --suite=sampling,scoring,learning --model=qwen3-0.6b --out=bench.json

By default it runs a model of 20 M parameters on a CPU, in a few minutes, or Qwen3-0.6B in bfloat16 on an accelerator.
`docs/performance.md` says how to read the table.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags

from amrsd_jax.names import nearest
from amrsd_jax.policy import PRESETS, Architecture, Policy
from amrsd_jax.policy.architecture import change
from amrsd_jax.report import charts, timeline
from benchmarks import cases, tunix
from benchmarks.floors import Ceilings
from benchmarks.machine import describe, measure_ceilings
from benchmarks.measure import Case, measure
from benchmarks.step import training_steps

MODELS = PRESETS | {
    "qwen3-20m": Architecture(16384, 384, 8, 6, 3, 64, 1152),
    "smollm2-135m": Architecture(49152, 576, 30, 9, 3, 64, 1536, qk_norm=False),
}

# suite -> its cases, which are names of SIZES
SUITES = {
    "sampling": ("sampling", "long_tail"),
    "scoring": ("scoring", "scoring_tail"),
    "learning": ("learning", "learning_tail"),
    "groups": ("learning_groups",),
    "step": (),
}
# flag -> its meaning, and its default on a CPU and on an accelerator
SIZES = {
    "sampling": ("prompts x prompt tokens x new tokens", "16x256x512", "64x256x512"),
    "long_tail": ("prompts x slots x prompt tokens x longest response", "64x16x64x256", "256x64x256x512"),
    "scoring": ("rows x tokens x rows together", "8x1024x2", "64x1024x16"),
    "scoring_tail": ("rows x prompt tokens x longest response x rows together", "16x64x1024x2", "256x256x4096x8"),
    "learning": ("rows x tokens", "4x1024", "16x1024"),
    "learning_groups": (
        "prompts x group x prompt tokens x response tokens x micro-batches",
        "8x8x33x24x4",
        "8x8x1024x128x4",
    ),
    "learning_tail": ("rows x prompt tokens x longest response x micro-batches", "8x64x1024x4", "64x256x4096x16"),
}

SUITE = flags.DEFINE_list("suite", ["sampling", "scoring", "learning"], f"Some of {', '.join(SUITES)}.")
MODEL = flags.DEFINE_string("model", None, f"One of {', '.join(MODELS)}.")
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Compute dtype.")
REMAT = flags.DEFINE_string("remat", None, "What the backward pass recomputes: none, dots, full.")
PEER = flags.DEFINE_bool("peer", True, "Also measure tunix, where it is installed.")
RUN = flags.DEFINE_string("run", None, "Workdir of the run whose training steps the suite `step` repeats.")
METHODS = flags.DEFINE_list(
    "methods", ["grpo", "amrsd"], "Arms of the suite `step`; the others are compared with the first."
)
STEPS = flags.DEFINE_integer("steps", 4, "Training steps in a turn of the suite `step`.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 5, "Turns of every arm; the fastest counts.", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "JSON file to write.")
TIMELINE = flags.DEFINE_string("timeline", None, "SVG file to write: timelines of the arms of the suite `step`.")
for _name, (_what, _cpu, _accelerator) in SIZES.items():
    flags.DEFINE_string(_name, None, f"{_what}; {_cpu} on a CPU, {_accelerator} elsewhere.")


def run(
    suites: list[str],
    *,
    model: str | None = None,
    dtype: str | None = None,
    remat: str | None = None,
    peer: bool = True,
    workdir: Path | None = None,
    methods: Sequence[str] = ("grpo", "amrsd"),
    steps: int = 4,
    repeats: int = 5,
    **sizes: str | None,
) -> dict:
    """Measures suites, and prints a line for every arm as soon as its case is done.

    Args:
      suites: names of `SUITES`.
      model, dtype: None is the default of the platform.
      remat: None is that of configs.
      peer: also measure tunix, where it is installed.
      workdir, methods, steps: of the suite `step`, see `step.training_steps`.
      repeats: turns of every arm.
      **sizes: by name of `SIZES`; None is the default of the platform.

    Returns:
      the content of the JSON file: `machine` (`describe`), `ceilings` (bytes and FLOPs a second), `repeats`, `model`, `rows` (one
      per arm, see `measure`), `skipped` (what was not measured -> why).

    Raises:
      ValueError: unknown suite or model, a size that does not have the expected form, or no run for the suite `step`.
    """
    for suite in suites:
        if suite not in SUITES:
            raise ValueError(f"suite = {suite!r}: {nearest(suite, SUITES)}")
    if "step" in suites and workdir is None:
        raise ValueError("suite = 'step': expected --run, the workdir of a run")
    cpu = jax.default_backend() == "cpu"
    numbers = {name: _numbers(name, sizes.get(name) or SIZES[name][1 if cpu else 2]) for name in SIZES}
    model = model or ("qwen3-20m" if cpu else "qwen3-0.6b")
    if model not in MODELS:
        raise ValueError(f"model = {model!r}: {nearest(model, MODELS)}")
    architecture = change(MODELS[model], dtype=dtype or ("float32" if cpu else "bfloat16"))
    policy = Policy(architecture, remat or cases.DEFAULTS.remat)
    why_not = tunix.missing(architecture) if peer else "not asked for"
    machine = describe()
    ceilings = measure_ceilings(
        architecture.dtype, copy_bytes=2**27 if cpu else 2**31, matmul_size=1024 if cpu else 8192, repeats=repeats
    )
    found = {
        "machine": machine, "ceilings": vars(ceilings), "repeats": repeats,
        "model": {"name": model, "parameters": architecture.parameters(), "dtype": architecture.dtype, "remat": policy.remat},
        "rows": [], "skipped": {"tunix": why_not} if why_not else {},
    }  # fmt: skip
    print(heading(found), flush=True)
    for suite in suites:
        for name in SUITES[suite]:
            make = getattr(cases, name)
            _measure(found, make(policy, None if why_not else tunix, *numbers[name]), ceilings)
        if suite == "step":
            _measure(found, training_steps(workdir, methods, steps), ceilings)
    return found


def _measure(found: dict, case: Case, ceilings: Ceilings) -> None:
    for row in measure(case, ceilings, found["repeats"]):
        found["rows"].append(row)
        print(line(row), flush=True)


def _numbers(name: str, sizes: str) -> list[int]:
    """Parses sizes such as 16x128x256."""
    parts = sizes.split("x")
    what, example, _ = SIZES[name]
    if len(parts) != len(example.split("x")) or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"{name} = {sizes!r}: expected {what}, for example {example}")
    return list(map(int, parts))


def timelines(found: dict) -> str:
    """Draws the timeline of the fastest turn of every arm that has one, on one axis, as SVG text."""
    return charts.svg(timeline.together({row["arm"]: row["timeline"] for row in found["rows"] if row["timeline"]}))


def heading(found: dict) -> str:
    """Formats the machine and the model, and the head of the table."""
    machine, ceilings, model = found["machine"], found["ceilings"], found["model"]
    lines = [
        f"{machine['device']}: copy {ceilings['copy'] / 1e9:,.1f} GB/s, {model['dtype']} matmul "
        f"{ceilings['matmul'] / 1e12:,.3f} TFLOP/s; {model['name']}, {model['parameters']:,} parameters"
    ]
    if machine["load"] > machine["cores"] / 2:
        lines.append(f"load {machine['load']} on {machine['cores']} cores: on a CPU, compare processor seconds")
    lines += [f"{name} is left out: {why}" for name, why in found["skipped"].items()]
    columns = ["suite", "case", "arm", "seconds", "tokens/s", "x first", "processor s", "x first", "share of floor",
               "compile s", "peak GiB", "phases, s"]  # fmt: skip
    return "\n".join([*lines, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"])


def line(row: dict) -> str:
    """Formats an arm as a row of the table."""
    at_most = "<= " if row["peak_is"] == "at most" else ""
    cells = [
        row["suite"], row["case"], row["arm"], f"{row['seconds']:.3f}", f"{row['tokens_per_second']:,.0f}",
        f"{row['times_first']:.2f}", f"{row['processor_seconds']:.3f}", f"{row['processor_times_first']:.2f}",
        f"{row['floor_share']:.0%}" if row["floor_share"] else "", f"{row['compile_seconds']:.1f}",
        f"{at_most}{row['peak_bytes'] / 2**30:.2f}" if row["peak_bytes"] else "",
        ", ".join(f"{name} {seconds:.2f}" for name, seconds in row["phases"].items()),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    jax.config.update("jax_enable_compilation_cache", False)  # compile seconds are those of a first run
    sizes = {name: flags.FLAGS[name].value for name in SIZES}
    if TIMELINE.value and "step" not in SUITE.value:
        raise app.UsageError(
            f"--timeline={TIMELINE.value}: only the suite `step` is laid out in time; add it to --suite"
        )
    try:
        found = run(
            SUITE.value, model=MODEL.value, dtype=DTYPE.value, remat=REMAT.value, peer=PEER.value,
            workdir=RUN.value and Path(RUN.value), methods=METHODS.value, steps=STEPS.value, repeats=REPEATS.value, **sizes,
        )  # fmt: skip
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    if OUT.value:
        Path(OUT.value).write_text(json.dumps({"command": " ".join(sys.argv), **found}, indent=1) + "\n")
    if TIMELINE.value:
        Path(TIMELINE.value).write_text(timelines(found))


if __name__ == "__main__":
    app.run(main)
