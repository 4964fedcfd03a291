"""What a person looks at after a run: one page with curves, the teacher's gap and a heat map of token credit.

`write` makes the page, `write_figure` the small picture for a README; both only read the workdir's files and
need no accelerator.
"""

from pathlib import Path

from amrsd_jax.report.figure import write_figure
from amrsd_jax.report.page import render
from amrsd_jax.report.read import read

__all__ = ["write", "write_figure"]


def write(workdir: Path | str) -> Path:
    """Writes `<workdir>/report.html`, one file that opens without a network, and returns its path.

    Raises:
      FileNotFoundError: there is no such workdir.
      ValueError: a line of the metrics or a JSON file is broken; the message names file and line.
    """
    path = Path(workdir) / "report.html"
    path.write_text(render(read(workdir)), encoding="utf-8")
    return path
