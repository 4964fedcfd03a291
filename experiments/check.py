"""Checks that the committed tables and figures are the ones that the committed results give.

Command:  python -m experiments.check      (exit code 1, and a line per outdated document)
"""

import sys

from experiments import (
    collapse,
    compilers,
    credit_localisation,
    hardware,
    ladder,
    learning_curves,
    padding,
    quickstart,
    threshold,
)

STUDIES = [
    module.STUDY
    for module in (
        quickstart,
        credit_localisation,
        threshold,
        learning_curves,
        collapse,
        padding,
        hardware,
        compilers,
        ladder,
    )
]

if __name__ == "__main__":
    outdated = [document for study in STUDIES for document in study.outdated()]
    print("\n".join(f"outdated: {document}" for document in outdated) or "all tables and figures are up to date")
    sys.exit(bool(outdated))
