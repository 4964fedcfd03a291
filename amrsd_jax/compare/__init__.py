"""Compare: what different credit rules do to the very same tokens. No training; a run's dumped rollouts are enough.

`compare` loads rollouts, builds every method's contexts, scores and credit, and measures them; `write` leaves
`compare.json` and `compare.html` in a folder.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amrsd_jax.compare import frozen, measures, parameters, statistics
from amrsd_jax.compare.apply import Applied, apply, score_student
from amrsd_jax.compare.gradient import policy_gradient
from amrsd_jax.compare.methods import parse
from amrsd_jax.compare.page import render
from amrsd_jax.records import Rollouts
from amrsd_jax.runtime.compilation import use_compilation_cache

__all__ = ["Comparison", "compare", "write"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods side by side.

    Attributes:
      rollouts: that all were applied to; logp is the policy's.
      applied: one per method, in the order asked for.
      values: what `compare.json` holds.
    """

    rollouts: Rollouts
    applied: list[Applied]
    values: dict[str, Any]


def compare(
    source: Path | str,
    methods: str | Iterable[str] = "all",
    *,
    workdir: Path | str | None = None,
    step: int | None = None,
) -> Comparison:
    """Applies methods to the frozen rollouts of a run.

    Args:
      source, workdir, step: which rollouts, see `frozen.load`.
      methods: names, see `methods.parse`: `all`, `amrsd,grpo`, `all,amrsd@shuffled_reflection`.

    Raises:
      FileNotFoundError, ValueError: there are no such rollouts, or no such method.
    """
    begin, names = time.perf_counter(), parse(methods)
    if not names:
        raise ValueError(f"methods = {methods!r}: expected at least one")
    ice = frozen.load(source, workdir=workdir, step=step)
    params, rollouts, applied = apply_all(ice, names)
    answers = measures.answer_tokens(rollouts, ice.run.tokenizer)
    described = {one.name: measures.describe(one, rollouts, answers) for one in applied}
    values = {
        "rollouts": about(ice, rollouts),
        "parameters": {"checkpoint": params.checkpoint, "recorded_gap": recorded_gap(ice.rollouts, rollouts)},
        "notes": notes(ice, params, applied),
        "methods": described,
        "pairs": pairs(params, rollouts, applied),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return Comparison(rollouts, applied, values)


def apply_all(ice: frozen.Frozen, names: Sequence[str]) -> tuple[parameters.Parameters, Rollouts, list[Applied]]:
    """The parameters near frozen rollouts, the rollouts scored with them, and methods applied to these."""
    use_compilation_cache(ice.workdir)
    params = parameters.load(ice.run, ice.workdir, ice.step)
    rollouts, entropy = score_student(ice, params)
    return params, rollouts, apply(ice.run, ice.step, rollouts, entropy, params, names)


def write(comparison: Comparison, out: Path | str) -> Path:
    """Writes `compare.json` and `compare.html`, one file that opens without a network; returns the latter's path."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(comparison.values, indent=1, allow_nan=False) + "\n"
    (out / "compare.json").write_text(text, encoding="utf-8")
    page = out / "compare.html"
    page.write_text(render(comparison.rollouts, comparison.applied, comparison.values), encoding="utf-8")
    return page


# ---------------------------------------------------------------- parts of compare.json


def about(ice: frozen.Frozen, rollouts: Rollouts) -> dict[str, Any]:
    """Which rollouts these are."""
    correct = sum(verdict.correct for verdict in rollouts.verdicts)
    return {
        "run": ice.workdir.resolve().name,
        "file": ice.file.name,
        "task": ice.run.config.task.name,
        "method": ice.run.config.credit.rule,
        "step": ice.step,
        "rows": len(rollouts.text),
        "correct": correct,
        "failed": len(rollouts.text) - correct,
        "tokens": int(rollouts.mask.sum()),
    }


def recorded_gap(recorded: Rollouts, rollouts: Rollouts) -> float:
    """Mean |log p as recorded - log p as scored here|, nats a token: how near the parameters are to the run's own."""
    return float((np.abs(recorded.logp - rollouts.logp) * rollouts.mask).sum() / rollouts.mask.sum())


def notes(ice: frozen.Frozen, params: parameters.Parameters, applied: list[Applied]) -> list[str]:
    """What a reader must know before trusting the numbers."""
    found = []
    if params.checkpoint != ice.step:
        found.append(
            f"The rollouts were sampled after {ice.step} training steps; the nearest parameters before are those of step "
            f"{params.checkpoint}. Scores and gradients are those parameters'."
        )
    replaced = {one.run.config.teacher.kind for one in applied if "in place of" in one.teacher}
    if replaced:
        kinds = ", ".join(sorted(replaced))
        found.append(
            f"The run kept no teacher of kind {kinds}: methods that have one read the parameters of step 0 instead."
        )
    if ice.run.config.reward.permute:
        found.append("The run permuted its rewards: verdicts are those it trained on.")
    return found


def pairs(params: parameters.Parameters, rollouts: Rollouts, applied: list[Applied]) -> dict[str, Any]:
    """Matrices over methods: of raw credit, of what each adds to its row's advantage, and of policy gradients.

    Correlations run over all tokens that count. Raw credit mostly ranks rows, as all methods agree on which succeeded;
    `added` is the comparison of what methods do beyond GRPO. Signs are compared where both methods give credit; the
    overlap says how often that is.
    """
    counted = rollouts.mask > 0
    credit = np.stack([one.credit.token_advantage[counted] for one in applied])
    added = np.stack([measures.added(one.credit, rollouts)[counted] for one in applied])
    gradients = np.stack([policy_gradient(params.policy, rollouts, one) for one in applied])
    return {
        "methods": [one.name for one in applied],
        "rank_correlation": {
            "credit": statistics.rank_correlations(credit),
            "added": statistics.rank_correlations(added),
        },
        "sign_agreement": {"credit": statistics.sign_agreements(credit), "added": statistics.sign_agreements(added)},
        "overlap": {"credit": statistics.overlaps(credit), "added": statistics.overlaps(added)},
        "gradient_cosine": statistics.cosines(gradients),
        "gradient_norm": np.linalg.norm(gradients, axis=1).astype(float).tolist(),
    }
