"""Writes the report of a run: a page with curves, the teacher's gap and a heat map of token credit; and a figure for a README.

Also a page that lays the curves of several runs over each other. All are made from the files of workdirs, without an accelerator.
"""

from collections.abc import Sequence
from pathlib import Path

from amrsd_jax.files import atomic_write
from amrsd_jax.report.figure import write_figure
from amrsd_jax.report.overlay import render as render_overlay
from amrsd_jax.report.page import render
from amrsd_jax.report.read import read

__all__ = ["write", "write_figure", "write_overlay"]


def write(workdir: Path | str) -> Path:
    """Writes `<workdir>/report.html`, one file that opens without a network, and returns its path.

    Raises:
      FileNotFoundError: there is no such workdir.
      ValueError: one of its files is broken; the message names the file.
    """
    path = Path(workdir) / "report.html"
    atomic_write(path, render(read(workdir)))
    return path


def write_overlay(workdirs: Sequence[Path | str], path: Path | str) -> Path:
    """Writes the page of several runs to `path`, and returns `path`.

    Raises:
      ValueError: none of the folders holds a run with a step.
    """
    atomic_write(Path(path), render_overlay(workdirs))
    return Path(path)
