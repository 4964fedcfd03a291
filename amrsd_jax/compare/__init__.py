"""Compares the credit that different rules give to the same tokens, those of a run's saved rollouts. Nothing is trained.

`compare` loads rollouts, builds every method's contexts, scores and credit, and measures them; `write` writes
`compare.json` and `compare.html`.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amrsd_jax import own_code
from amrsd_jax.compare import load, measures, pairwise, parameters
from amrsd_jax.compare.apply import Applied, apply, score_student
from amrsd_jax.compare.gradient import gradients, require_room
from amrsd_jax.compare.methods import parse, possible
from amrsd_jax.compare.page import render
from amrsd_jax.files import atomic_write, read_object
from amrsd_jax.records import Rollouts
from amrsd_jax.runtime.compilation import use_compilation_cache
from amrsd_jax.runtime.console import note

__all__ = ["Comparison", "compare", "write"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
      rollouts: those that all methods were applied to; sampler_logprobs are the loaded policy's.
      applied: the methods applied to them, in the order of the names.
      values: the content of `compare.json`.
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
    """Applies methods to the saved rollouts of a run.

    Args:
      source, workdir, step: which rollouts, see `load.load`.
      methods: names, see `methods.parse`: `all`, `amrsd,grpo`, `all,amrsd@shuffled_reflection`.

    Raises:
      FileNotFoundError, ValueError: there are no such rollouts, or no such method, or it does not go with the run's rows. What
        `all` stands for and does not go with them is left out, with a note.
      OSError: the folder of temporary files has no room for the methods' gradients, each as large as the trained parameters.
    """
    begin, methods = time.perf_counter(), methods if isinstance(methods, str) else list(methods)
    if not parse(methods):
        raise ValueError(f"methods = {methods!r}: expected at least one")
    loaded = load.load(source, workdir=workdir, step=step)
    names, left_out = possible(loaded.experiment.config, methods)
    for line in left_out:
        note(line)
    require_room(loaded.experiment.policy, len(names))
    params, rollouts, applied = apply_all(loaded, names)
    tokenizer = loaded.experiment.tokenizer
    marks = measures.answer_tokens(rollouts, tokenizer), measures.digit_tokens(rollouts, tokenizer)
    described = {one.name: measures.describe(one, rollouts, *marks) for one in applied}
    values = {
        "rollouts": about(loaded, rollouts),
        "parameters": {"checkpoint": params.checkpoint, "recorded_gap": recorded_gap(loaded.rollouts, rollouts)},
        "notes": notes(loaded, params, applied) + left_out,
        "methods": described,
        "pairs": pairs(params, rollouts, applied),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return Comparison(rollouts, applied, values)


def apply_all(
    loaded: load.LoadedRollouts, names: Sequence[str]
) -> tuple[parameters.Parameters, Rollouts, list[Applied]]:
    """Returns the parameters nearest to loaded rollouts, the rollouts scored with them, and the applied methods."""
    use_compilation_cache(loaded.workdir)
    params = parameters.load(loaded.experiment, loaded.workdir, loaded.step)
    rows = len(loaded.rollouts.text)
    note(f"{rows} rollouts of step {loaded.step + 1}, scored with the parameters after step {params.checkpoint}")
    rollouts, entropy = score_student(loaded, params)
    return params, rollouts, apply(loaded.experiment, loaded.step, rollouts, entropy, params, names)


def write(comparison: Comparison, out: Path | str) -> Path:
    """Writes `compare.json` and `compare.html`, one file that opens without a network; returns the latter's path."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(comparison.values, indent=1, allow_nan=False) + "\n"
    page = render(comparison.rollouts, comparison.applied, comparison.values)  # may fail, so before a file is replaced
    atomic_write(out / "compare.json", text)
    atomic_write(out / "compare.html", page)
    return out / "compare.html"


# ---------------------------------------------------------------- parts of compare.json


def about(loaded: load.LoadedRollouts, rollouts: Rollouts) -> dict[str, Any]:
    """Returns the source and the size of the rollouts."""
    correct = sum(verdict.correct for verdict in rollouts.verdicts)
    return {
        "run": loaded.workdir.resolve().name,
        "file": loaded.file.name,
        "task": loaded.experiment.config.task.name,
        "method": loaded.experiment.config.credit.rule,
        "step": loaded.step,
        "rows": len(rollouts.text),
        "correct": correct,
        "failed": len(rollouts.text) - correct,
        "tokens": int(rollouts.mask.sum()),
    }


def recorded_gap(recorded: Rollouts, rollouts: Rollouts) -> float:
    """Returns the mean |recorded log p - log p scored here| in nats per token; 0 if the parameters are those that sampled."""
    difference = np.abs(recorded.sampler_logprobs - rollouts.sampler_logprobs)
    return float((difference * rollouts.mask).sum() / rollouts.mask.sum())


def notes(loaded: load.LoadedRollouts, params: parameters.Parameters, applied: list[Applied]) -> list[str]:
    """Returns sentences that a reader must know before trusting the numbers."""
    lines = []
    if params.checkpoint != loaded.step:
        lines.append(
            f"The rollouts were sampled after {loaded.step} training steps; the nearest earlier parameters are those of step "
            f"{params.checkpoint}. They give the scores and gradients."
        )
    replaced = {one.experiment.config.teacher.kind for one in applied if "in place of" in one.teacher}
    if replaced:
        kinds = ", ".join(sorted(replaced))
        lines.append(
            f"The run kept no teacher of kind {kinds}: methods with such a teacher use the parameters of step 0 instead."
        )
    rule, known = loaded.experiment.config.credit.rule, loaded.workdir / "rows.json"
    if ":" in rule and known.exists() and read_object(known).get("credit.rule") != own_code.digest(rule):
        lines.append(
            f"{rule.rpartition(':')[0]} has changed since the run began: the credit shown is that of its present text."
        )
    if loaded.experiment.config.reward.permute:
        lines.append("The run permuted its rewards: verdicts are the permuted ones.")
    return lines


def pairs(params: parameters.Parameters, rollouts: Rollouts, applied: list[Applied]) -> dict[str, Any]:
    """Returns matrices over methods: of credit, of what each adds to its row's advantage, and of policy gradients.

    Correlations run over all response tokens. `credit` mostly ranks rows, because all methods agree on which succeeded; `added`
    compares what methods do beyond GRPO. Signs are compared where both methods give credit; the overlap says how often
    that is.
    """
    counted = rollouts.mask > 0
    credit = np.stack([one.credit.token_advantage[counted] for one in applied])
    added = np.stack([measures.added(one.credit, measures.trained(one, rollouts))[counted] for one in applied])
    products = pairwise.inner_products(gradients(params.policy, rollouts, applied))
    return {
        "methods": [one.name for one in applied],
        "rank_correlation": {
            "credit": pairwise.rank_correlations(credit),
            "added": pairwise.rank_correlations(added),
        },
        "sign_agreement": {"credit": pairwise.sign_agreements(credit), "added": pairwise.sign_agreements(added)},
        "overlap": {"credit": pairwise.overlaps(credit), "added": pairwise.overlaps(added)},
        "gradient_cosine": pairwise.cosines(products),
        "gradient_norm": np.sqrt(np.diag(products)).tolist(),
    }
