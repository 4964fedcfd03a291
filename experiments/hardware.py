"""Question: on which hardware do the configs run, by the compilers of that hardware?

Command:  python -m experiments.hardware run --results=experiments/results/hardware.json [--case=NAME]
          (compiles what the file lacks, two to five minutes a case on two quiet cores; libtpu, or for GPUs jax 0.12 with CUDA)
          python -m experiments.hardware table
Table:    docs/scaling.md. `python -m amrsd_jax.compile` compiles every program of a run for hardware that is not there.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from amrsd_jax.markdown import table as markdown
from experiments.common import ROOT, Row, Study, add_rows, circumstances, has_row, main

GIB = 1 << 30
SCIENCE = "--config=configs/science.py:chemistry"
NOTEBOOK = [  # the config of notebooks/03_real_model.ipynb
    "--config=configs/gsm8k.py", "--config.model=Qwen/Qwen3-0.6B", "--config.mesh.fsdp=1", "--config.lora.rank=16",
    "--config.rollout.prompts=4", "--config.rollout.slots=32", "--config.rollout.admit=4", "--config.rollout.segment=32",
    "--config.rollout.prompt_length=320", "--config.rollout.response_length=512", "--config.reflection.prompt_length=1536",
    "--config.reflection.context_length=640", "--config.reflection.slots=16", "--config.reflection.admit=4",
    "--config.scoring.rows=8", "--config.scoring.chunk=1024", "--config.learning.micro_batches=4",
]  # fmt: skip
GSM8K = [  # 64 rows of 512 + 512 tokens
    "--config=configs/gsm8k.py", "--config.model=Qwen/Qwen3-0.6B", "--config.mesh.fsdp=1", "--config.remat=full",
    "--config.rollout.prompts=8", "--config.rollout.group=8", "--config.rollout.slots=64", "--config.rollout.admit=8",
    "--config.rollout.prompt_length=512", "--config.rollout.response_length=512", "--config.scoring.rows=64",
    "--config.learning.micro_batches=4",
]  # fmt: skip
V5E = ["--config.mesh.fsdp=8", "--config.mesh.tensor=4", "--config.learning.micro_batches=32"]
KEPT = ("program", "phase", "error", "temp", "needed", "held", "planned", "memory", "levels", "exchanged", "broken")
CASES = {  # name: topology, flags
    "science, Qwen3-8B on v5p": ("v5p:2x2x2", [SCIENCE]),
    "science, Qwen3-8B on v6e": ("v6e:4x4", [SCIENCE, "--config.mesh.fsdp=16"]),
    "science, Qwen3-8B on v5e": ("v5e:4x8", [SCIENCE, *V5E]),
    "science, Qwen3-8B on H100": ("h100:8", [SCIENCE]),
    "science, Qwen3-1.7B on v5e": ("v5e:2x4", [SCIENCE, "--config.model=Qwen/Qwen3-1.7B"]),
    "GSM8K, Qwen3-0.6B on H100": ("h100:1", [*GSM8K, "--config.scoring.chunk=1024"]),
    "notebook 03 on Colab's v5e": ("v5e:1x1", NOTEBOOK),
}


def command(case: str) -> list[str]:
    """Returns the command that compiles a case, from the name of its module on."""
    topology, flags = CASES[case]
    return ["amrsd_jax.compile", *flags, f"--topology={topology}"]


def compile_case(name: str, checkout: Path = ROOT) -> Row | None:
    """Compiles a case and returns its row, None where its compiler is not installed.

    Args:
      checkout: of the commit whose programs are compiled.
    """
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out.json"
        line = [sys.executable, "-m", *command(name), f"--out={out}"]
        subprocess.run(line, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, check=False)
        if not out.exists():
            print(f"{name}: not compiled", file=sys.stderr)
            return None
        done = json.loads(out.read_text())
    programs = [{key: row[key] for key in KEPT if key in row} for row in done.pop("programs")]
    return {"case": name, "command": " ".join(command(name))} | done | {"programs": programs} | circumstances(checkout)


def run(folder: Path, results: Path, case: str | None) -> None:
    """Compiles the cases that the results lack; a case whose compiler is not installed is left out."""
    for name in [case] if case else CASES:
        if not has_row(results, case=name) and (row := compile_case(name)):
            add_rows(results, row)


def table(rows: list[Row]) -> str:
    """Formats the largest program of each case beside the plan, and what is broken."""
    cells = []
    for row in rows:
        mesh = " x ".join(str(size) for size in row["mesh"].values())
        broken = [f"{one['program']}: {line}" for one in row["programs"] for line in one["broken"]]
        fitting = [one for one in row["programs"] if "needed" in one]
        largest = max(fitting, key=lambda one: one["needed"] + one["held"])
        sizes = [largest["needed"] + largest["held"], max(one["planned"] for one in row["programs"]), largest["memory"]]
        gib = [f"{size / GIB:.1f}" for size in sizes]
        verdict = "; ".join(broken) or "passes"
        where, line = f"{row['topology']}, {mesh}", f"`python -m {row['command']}`"
        cells.append([row["case"], where, largest["program"], *gib, verdict, line])
    columns = [
        "run",
        "slice, mesh",
        "largest program",
        "GiB by the compiler",
        "by the plan",
        "of",
        "`--check`",
        "command",
    ]
    return markdown(columns, cells)


STUDY = Study("hardware", run, table, "docs/scaling.md")

if __name__ == "__main__":
    main(STUDY, __doc__, case=dict(choices=list(CASES), help="one case; default: all"))
