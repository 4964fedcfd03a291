"""Measures a finished run: its curve, its rollouts, and how far its policy went from the start."""

from pathlib import Path

import numpy as np

from amrsd_jax.compare import load
from amrsd_jax.compare.measures import TAU, auroc
from amrsd_jax.files import read_json_lines
from amrsd_jax.reflection.quotes import quoted
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.rollouts import read_rollouts, rollout_files
from amrsd_jax.start import initial_params
from experiments.common import Row
from experiments.curves import curve

QUANTILE = 0.95
SERIES = (
    "reward/mean", "response_length/mean", "groups/zero_advantage", "grad_norm", "reflection/needed", "reflection/usable",
    "reflection/unusable_leak", "reflection/unusable_no_partner", "credit/amplified", "credit/delta", "credit/paid",
    "credit/marked",
)  # fmt: skip


def measured(workdir: Path, results: dict) -> Row:
    """Reads the fields of a run's row from its workdir."""
    metrics, rows = read_json_lines(workdir / "metrics.jsonl"), load.read_config(workdir).rows
    return curve(metrics, rows) | {
        "wall_seconds": round(results["wall_seconds"], 2),
        "greedy": [results["eval"][when]["greedy"] for when in ("initial", "final")],
        "greedy_curve": [_rounded(row["eval/greedy"]) for row in metrics if row["kind"] == "eval"],
        "series": {name: series_of(metrics, name) for name in SERIES},
        "rollouts": [examined(read_rollouts(path).to_pylist()) for path in rollout_files(workdir).values()],
        "kl_to_start": kl_to_start(workdir),
        "others": {
            name: [selected[when]["sampled"] for when in ("initial", "final")]
            for name, selected in results["eval"]["benchmarks"].items()
        },
        "steps_without_signal": results["steps_without_signal"],
    }


def series_of(metrics: list[dict], name: str) -> list[float | None]:
    """Returns a metric of every training step, rounded; None where a step has none."""
    values = [row.get(name) for row in metrics if row["kind"] == "train"]
    return [None if value is None else _rounded(value) for value in values]


def examined(rows: list[dict]) -> dict:
    """Measures saved rollouts of one step.

    Returns:
      step; nll: mean of -log-prob of all sampled tokens, an estimate of the policy's entropy at the sampling temperature;
      failures: rows with a gap whose first error is a part of them (`localised`); auroc: means over them of the AUROC of
      -gap at the first error, for the teacher's `gap`, for the `null` control's, and for `contrast`, their difference; that of
      the gap's `magnitude`, and of -log-prob of the token, its `surprise`;
      critiques: failures with a usable critique whose first error is a part of them; quoting: those whose
      critique points at a number (`reflection.quotes`); right: those where this number begins inside the first error;
      above_tau: of all tokens with a gap, the share at which AMR-SD would act (gap on successes and -gap on failures above 0.2
      nats), for gap and null; null_quantile: of that signed gap of the control, in nats. None where nothing was measured.
    """
    areas = {name: [] for name in ("gap", "null", "contrast", "magnitude", "surprise")}
    signed = {"gap": [], "null": []}
    for row in rows:
        if row["gap"] is None:
            continue
        gaps = {"gap": np.array(row["gap"])}
        if row.get("null_gap") is not None:
            gaps["null"] = np.array(row["null_gap"])
        for name, gap in gaps.items():
            signed[name].append(gap if row["reward"] >= 1 else -gap)
        if not localised(row):
            continue
        if "null" in gaps:
            gaps["contrast"] = gaps["gap"] - gaps["null"]
        gaps |= {"magnitude": -np.abs(gaps["gap"]), "surprise": np.array(row["student_logprobs"])}
        wrong = np.zeros(len(row["gap"]), bool)
        wrong[row["first_error_start"] : row["first_error_end"]] = True
        for name, gap in gaps.items():
            if (area := auroc(-gap, wrong)) is not None:
                areas[name].append(area)
    joined = {name: np.concatenate(values) if values else np.zeros(0) for name, values in signed.items()}
    return {
        "step": rows[0]["step"],
        "nll": _rounded(-np.mean(np.concatenate([row["student_logprobs"] for row in rows]))),
        "failures": len(areas["gap"]),
        **pointed(rows),
        "auroc": {name: _rounded(np.mean(values)) if values else None for name, values in areas.items()},
        "above_tau": {
            name: _rounded((values > TAU).mean()) if len(values) else None for name, values in joined.items()
        },
        "null_quantile": _rounded(np.quantile(joined["null"], QUANTILE)) if len(joined["null"]) else None,
    }


def localised(row: dict) -> bool:
    """Returns whether the first error of a saved rollout is known and is a part of its text, without the stop token."""
    text = len(row["token_text"]) - (row["finish_reason"] == "stop")
    return 0 <= row["first_error_start"] < text and row["first_error_end"] - row["first_error_start"] < text


def pointed(rows: list[dict]) -> dict[str, int]:
    """Counts failures with a critique, those whose critique points at a number, and those where that is the error's."""
    known = [
        row for row in rows
        if row["reward"] < 1 and row["reflection_kind"] == "critique" and row["reflection_status"] == "ok" and localised(row)
    ]  # fmt: skip
    spans = [quoted(row["question"], row["response"], row["reflection"]) for row in known]
    right = 0
    for row, span in zip(known, spans, strict=True):
        if span is not None:
            ends = np.cumsum([len(text) for text in row["token_text"]])
            token = np.searchsorted(ends, span[0], side="right")
            right += bool(row["first_error_start"] <= token < row["first_error_end"])
    return {"critiques": len(known), "quoting": sum(span is not None for span in spans), "right": right}


def _rounded(value: float) -> float:
    return round(float(value), 4)


def kl_to_start(workdir: Path) -> float:
    """Estimates KL(policy before the last update || policy at step 0) at the sampling temperature, in nats per token.

    From the rollouts of the last step; the estimator is exp(d) - 1 - d with d = log-prob at step 0 - log-prob when sampled ("k3",
    http://joschu.net/blog/kl-approx.html).
    """
    loaded = load.load(workdir, step=max(rollout_files(workdir)))
    experiment, rollouts = loaded.experiment, loaded.rollouts
    start = initial_params(experiment, workdir, Clock())
    logprobs, _ = experiment.scorer.score_rollouts(experiment.policy, start, rollouts)
    difference = (logprobs - rollouts.sampler_logprobs)[rollouts.mask > 0]
    return _rounded(np.mean(np.expm1(difference) - difference))
