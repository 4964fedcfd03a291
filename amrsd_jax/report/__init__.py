"""Writes the report of a run: a page with curves, the teacher's gap and a heat map of token credit; and a figure for a README.

Both are made from the files of a workdir, without an accelerator.
"""

from pathlib import Path

from amrsd_jax.files import atomic_write
from amrsd_jax.report.figure import write_figure
from amrsd_jax.report.page import render
from amrsd_jax.report.read import read

__all__ = ["write", "write_figure"]


def write(workdir: Path | str) -> Path:
    """Writes `<workdir>/report.html`, one file that opens without a network, and returns its path.

    Raises:
      FileNotFoundError: there is no such workdir.
      ValueError: one of its files is broken; the message names the file.
    """
    path = Path(workdir) / "report.html"
    atomic_write(path, render(read(workdir)))
    return path
