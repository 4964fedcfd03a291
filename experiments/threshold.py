"""Question: which threshold tau tells a dispute from noise? No paper gives one; ours is 0.2 nats.

Command:  python -m experiments.threshold run --out=runs/localisation    (the runs of experiments.credit_localisation; a minute)
          python -m experiments.threshold table                          (from results/threshold.json)
Measured: on failures whose first wrong token is known, with the model's own critiques, with another failure's and with perfect
          ones: how many failures have a disputed token (gap below -tau) at all; in how many of those the first disputed token
          is the true first wrong one; how many of the right tokens before it are disputed.
"""

import argparse
import datetime
import json
import os
import platform
from pathlib import Path

import numpy as np
from jaxtyping import Float

from amrsd_jax.records import Rollouts, Scores
from experiments.credit_localisation import SEEDS, STEPS

TAUS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
CRITIQUES = {
    "own": "masked_blame",
    "shuffled": "masked_blame@shuffled_reflection",
    "perfect": "masked_blame@oracle_reflection",
}
RESULTS = Path(__file__).parent / "results" / "threshold.json"


def run(out: Path) -> None:
    """Measures the dumps of the localisation runs, and writes the results file."""
    from amrsd_jax.compare import apply_all, frozen

    rows = []
    for seed in SEEDS:
        for step in STEPS:
            ice = frozen.load(out / f"seed_{seed}", step=step + 1)
            _, rollouts, applied = apply_all(ice, list(CRITIQUES.values()))
            for critique, one in zip(CRITIQUES, applied, strict=True):
                for tau in TAUS:
                    counts = disputes(rollouts, one.scores, tau)
                    rows.append(
                        {"critiques": critique, "seed": seed, "step": step, "tau": tau} | counts | circumstances()
                    )
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


def disputes(rollouts: Rollouts, scores: Scores, tau: float) -> dict[str, int]:
    """Counts over the failures that were scored and whose first wrong token is known.

    Returns:
      failures; disputed: those with a token whose gap is below -tau; found: those whose first such token is the first wrong
      one; right: tokens before the first wrong one; right_disputed: those of them that are disputed.
    """
    counts = dict.fromkeys(("failures", "disputed", "found", "right", "right_disputed"), 0)
    gap: Float[np.ndarray, "N T"] = scores.logp_teacher - scores.logp_student
    for i in np.flatnonzero(scores.scored & (rollouts.first_error[:, 0] >= 0)):
        first = int(rollouts.first_error[i, 0])
        marked = np.flatnonzero((gap[i] < -tau) & (rollouts.mask[i] > 0))
        counts["failures"] += 1
        counts["disputed"] += bool(len(marked))
        counts["found"] += bool(len(marked)) and int(marked[0]) == first
        counts["right"] += first
        counts["right_disputed"] += int((marked < first).sum())
    return counts


def circumstances() -> dict[str, str]:
    """Where and when."""
    return {
        "command": "python -m experiments.threshold run --out=runs/localisation",
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
    }


def table() -> str:
    """The Markdown table of the results file, seeds and steps together."""
    rows = json.loads(RESULTS.read_text())
    kinds = list(CRITIQUES)
    heads = [f"{what}: {kind}" for what in ("first dispute is the error", "right tokens disputed") for kind in kinds]
    lines = [f"| tau | {' | '.join(f'failures disputed: {kind}' for kind in kinds)} | {' | '.join(heads)} |"]
    lines.append("|" + "---|" * (1 + 3 * len(kinds)))
    for tau in TAUS:
        sums = {
            kind: {
                name: sum(row[name] for row in rows if row["critiques"] == kind and row["tau"] == tau)
                for name in ("failures", "disputed", "found", "right", "right_disputed")
            }
            for kind in kinds
        }
        shares = [
            _share(sums[kind][part], sums[kind][whole])
            for part, whole in (("disputed", "failures"), ("found", "disputed"), ("right_disputed", "right"))
            for kind in kinds
        ]
        lines.append(f"| {tau:g} | {' | '.join(shares)} |")
    one = rows[0]
    lines.append(
        f"\nSeeds {', '.join(map(str, SEEDS))}, after {', '.join(map(str, STEPS))} training steps together; "
        f"{one['hardware']}, {one['date']}."
    )
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%} of {whole}" if whole else "–"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/localisation"))
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments.out)
    print(table())
