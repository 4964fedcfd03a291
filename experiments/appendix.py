"""Writes the long tables of the experiments into docs/tables.md, from the committed results.

Command:  python -m experiments.appendix
"""

from amrsd_jax.files import atomic_write
from experiments import collapse, credit_localisation, learning_curves, real_model, threshold
from experiments.common import ROOT, no_arguments, read_rows

HEAD = """# Tables of the experiments

[findings.md](findings.md) and [monitor.md](monitor.md) say what these tables show. This page is written by
`python -m experiments.appendix` from `experiments/results/`; `python -m experiments.check` says whether it is up to date."""
NOTES = {
    credit_localisation: "Blame is minus credit; the last three columns are about the teacher's gap, on rows with a context.",
    threshold: "Cells are shares, and of how many; a token is disputed where its gap is below -tau.",
    learning_curves: "Rows `arm@name=value` change one argument of the rule, with one seed per warm start.",
    real_model: "SmolLM2-135M; arms are compared within a start and seed, of which all share parameters, problems and noise. In "
    "brackets is the part of the study: core, try (our own rule), others, pilot (chooses the learning rate), more (seeds of no "
    "part).",
    collapse: "",
}


def page() -> str:
    """Returns the page: a section per experiment, with its question or claim, its command and its table."""
    sections = [HEAD]
    for module, note in NOTES.items():
        title = module.STUDY.name.replace("_", " ").capitalize()
        command = f"Printed by `python -m {module.__name__} table`. {note}".strip()
        table = module.STUDY.table(read_rows(module.STUDY.results))
        sections.append("\n\n".join([f"## {title}", module.__doc__.split("\n")[0], command, table]))
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    no_arguments(__doc__)
    atomic_write(ROOT / "docs" / "tables.md", page())
