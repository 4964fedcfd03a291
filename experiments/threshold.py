"""Question: which threshold tau separates disputes from noise? No paper states one; ours is 0.2 nats.

Command:  python -m experiments.threshold run --out=runs/experiments/credit_localisation    (whose runs it reads; a minute)
          python -m experiments.threshold table                          (from experiments/results/threshold.json)
Measured: on failures whose first wrong token is known, with the model's own critiques, with another failure's and with perfect
          ones: how many failures have any disputed token (gap below -tau); in how many of those the first disputed token is
          the first wrong one; how many of the correct tokens before it are disputed.
"""

from pathlib import Path

import numpy as np

from amrsd_jax.markdown import table as markdown
from amrsd_jax.records import LogProbs, Rollouts
from experiments.common import Row, Study, add_rows, circumstances, main, where
from experiments.credit_localisation import apply_to_dump, dumps

TAUS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
CRITIQUES = {
    "own": "masked_blame",
    "shuffled": "masked_blame@shuffled_reflection",
    "perfect": "masked_blame@oracle_reflection",
}
SHARES = {  # column: part, whole
    "failures disputed": ("disputed", "failures"),
    "first dispute is the error": ("found", "disputed"),
    "right tokens disputed": ("right_disputed", "right"),
}


def run(out: Path, results: Path) -> None:
    """Measures the steps of the localisation runs that the results lack."""
    for seed, step in dumps(results):
        _, rollouts, applied = apply_to_dump(out, seed, step, list(CRITIQUES.values()))
        command = "python -m experiments.threshold run --out=..."  # the folder of the localisation runs
        for critique, one in zip(CRITIQUES, applied, strict=True):
            key = {"critiques": critique, "seed": seed, "step": step, "command": command} | circumstances()
            add_rows(results, *(key | {"tau": tau} | disputes(rollouts, one.logprobs, tau) for tau in TAUS))


def disputes(rollouts: Rollouts, logprobs: LogProbs, tau: float) -> dict[str, int]:
    """Counts disputes in the failures that were scored and whose first wrong token is known.

    Returns:
      failures; disputed: those with a token whose gap is below -tau; found: those whose first such token is the first wrong
      one; right: tokens before the first wrong one; right_disputed: those of them that are disputed.
    """
    counts = dict.fromkeys(("failures", "disputed", "found", "right", "right_disputed"), 0)
    for i in np.flatnonzero(logprobs.scored & (rollouts.first_error[:, 0] >= 0)):
        first = int(rollouts.first_error[i, 0])
        disputed = np.flatnonzero((logprobs.gap[i] < -tau) & (rollouts.mask[i] > 0))
        counts["failures"] += 1
        counts["disputed"] += bool(len(disputed))
        counts["found"] += bool(len(disputed)) and int(disputed[0]) == first
        counts["right"] += first
        counts["right_disputed"] += int((disputed < first).sum())
    return counts


def table(rows: list[Row]) -> str:
    """Formats one line per threshold, all seeds and steps together."""

    def share(critique: str, tau: float, part: str, whole: str) -> str:
        chosen = [row for row in rows if (row["critiques"], row["tau"]) == (critique, tau)]
        parts, total = (sum(row[name] for row in chosen) for name in (part, whole))
        return f"{parts / total:.1%} of {total}" if total else "–"

    columns = [f"{name}: {critique}" for name in SHARES for critique in CRITIQUES]
    lines = [
        [f"{tau:g}", *(share(critique, tau, *names) for names in SHARES.values() for critique in CRITIQUES)]
        for tau in TAUS
    ]
    seeds, steps = (sorted({row[name] for row in rows}) for name in ("seed", "step"))
    return (
        f"{markdown(['tau', *columns], lines)}\n\nSeeds {', '.join(map(str, seeds))}, after {', '.join(map(str, steps))} "
        f"training steps together; {where(rows[0])}."
    )


STUDY = Study("threshold", run, table, page="docs/tables.md")

if __name__ == "__main__":
    main(STUDY, __doc__)
