"""Checks that the committed tables and figures are the ones that the committed results give.

Command:  python -m experiments.check      (exit code 1, and a line per outdated document)
"""

import sys

from experiments import (
    collapse,
    compilers,
    credit_localisation,
    hardware,
    information,
    ladder,
    learning_curves,
    padding,
    quickstart,
    real_model,
    reflecting,
    smollm2,
    threshold,
)
from experiments.common import no_arguments

STUDIES = [
    *smollm2.MORE,
    *(
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
            smollm2,
            reflecting,
            information,
            real_model,
        )
    ),
]

if __name__ == "__main__":
    no_arguments(__doc__)
    outdated = [document for study in STUDIES for document in study.outdated()]
    print("\n".join(f"outdated: {document}" for document in outdated) or "all tables and figures are up to date")
    sys.exit(bool(outdated))
