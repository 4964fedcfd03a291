"""Summarises a step and a run: the row of metrics, and `results.json`."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import ScalarLike

from amrsd_jax.evaluate.estimators import wilson
from amrsd_jax.files import atomic_write, read_json_lines
from amrsd_jax.policy import Architecture
from amrsd_jax.processes import only_first
from amrsd_jax.records import Rollouts, StepRecord, select_rollouts
from amrsd_jax.reflection.parse import STATUSES
from amrsd_jax.runtime.hardware import model_flops_utilisation, peak_memory_gib
from amrsd_jax.runtime.monitor import zero_groups

# Names of the update's metrics in the run's metrics; others are terms of the loss.
_UPDATE_METRICS = {
    "entropy": "policy/entropy",
    "kl_old_new": "policy/kl_old_new",
    "kl_to_reference": "policy/kl_to_reference",
    "clip_frac_low": "policy/clip_frac_low",
    "clip_frac_high": "policy/clip_frac_high",
    "clip_frac_dual": "policy/clip_frac_dual",
    "covered": "distill/covered",
    "overlap": "distill/overlap",
    "expert_load_max": "experts/load_max",
    "experts_idle": "experts/idle",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "skipped": "updates/skipped",
}


def summary(
    record: StepRecord,
    update_metrics: Sequence[dict[str, ScalarLike]],
    seconds: dict[str, float],
    *,
    group: int,
    architecture: Architecture,
) -> dict[str, float | None]:
    """Returns the metrics of one training step. Metrics of updates are means over the step's updates.

    Args:
      record: the step's results before its updates.
      update_metrics: metrics of each optimiser update.
      seconds: seconds by phase.
      group: G.
      architecture: architecture of the policy, for its FLOPs.
    """
    row = _reward_metrics(record.rollouts) | _length_metrics(record.rollouts) | _reflection_metrics(record)
    row["groups/zero_advantage"] = zero_groups(record.credit.advantage, group)
    if by_set := _data_set_metrics(record, group):  # whose verifiers have scores of their own
        row = {name: value for name, value in row.items() if not name.startswith("reward/score_")} | by_set
    row |= {f"credit/{name}": value for name, value in record.credit.metrics.items()}
    for name in update_metrics[0]:
        mean = float(np.mean([metrics[name] for metrics in update_metrics]))
        row[_UPDATE_METRICS.get(name, f"loss/{name}")] = mean
    row |= record.data_metrics | {f"seconds/{name}": value for name, value in seconds.items()}
    row["seconds/step"] = sum(seconds.values())
    return row | _rates(record, seconds, architecture)


def _data_set_metrics(record: StepRecord, group: int) -> dict[str, float]:
    """Returns metrics of each set of a mixture that the step has prompts of: the set's name follows the first part of theirs."""
    rollouts, row = record.rollouts, {}
    for data_set in sorted({problem.data_set for problem in rollouts.problems} - {""}):
        rows = [i for i, problem in enumerate(rollouts.problems) if problem.data_set == data_set]
        own = select_rollouts(rollouts, rows)
        values = _reward_metrics(own) | _length_metrics(own) | {"data/prompts": len(rows) // group}
        values["groups/zero_advantage"] = zero_groups(record.credit.advantage[rows], group)
        row |= {name.replace("/", f"/{data_set}/", 1): value for name, value in values.items()}
    return row


def _reward_metrics(rollouts: Rollouts) -> dict[str, float]:
    verdicts, n = rollouts.verdicts, len(rollouts.verdicts)
    correct = int(rollouts.correct.sum())
    low, high = wilson(correct, n)
    row = {
        "reward/mean": float(rollouts.reward.mean()),
        "reward/std": float(rollouts.reward.std()),
        "reward/accuracy": correct / n,
        "reward/accuracy_low": low,
        "reward/accuracy_high": high,
        "reward/format": sum(verdict.format_ok for verdict in verdicts) / n,
    }
    for name in sorted({name for verdict in verdicts for name in verdict.scores}):
        row[f"reward/score_{name}"] = sum(verdict.scores.get(name, 0.0) for verdict in verdicts) / n
    return row


def _length_metrics(rollouts: Rollouts) -> dict[str, float]:
    lengths = rollouts.mask.sum(axis=1)
    return {
        "response_length/mean": float(lengths.mean()),
        "response_length/min": float(lengths.min()),
        "response_length/max": float(lengths.max()),
        "response_length/clip_ratio": rollouts.finish_reason.count("length") / len(lengths),
    }


def _reflection_metrics(record: StepRecord) -> dict[str, float | None]:
    status, logprobs = Counter(record.contexts.status), record.logprobs
    n = len(record.contexts.status)
    needed = n - status["not_needed"]
    mask = record.rollouts.mask * logprobs.scored[:, None]
    mismatch = (abs(logprobs.student_logprobs - record.rollouts.sampler_logprobs) * mask).sum()
    row = {
        "policy/sampler_mismatch": float(mismatch / mask.sum()) if mask.sum() else None,
        "reflection/needed": needed / n,
        "reflection/skipped": 1 - needed / n,
        "reflection/usable": status["ok"] / needed if needed else None,
    }
    reasons = (reason for reason in STATUSES if reason not in ("ok", "not_needed"))
    return row | {f"reflection/unusable_{reason}": status[reason] / n for reason in reasons}


def _rates(record: StepRecord, seconds: dict[str, float], architecture: Architecture) -> dict[str, float]:
    """Returns tokens per second, the utilisation of the devices during the update (mfu), and their peak memory."""
    tokens = float(record.rollouts.mask.sum())
    rows = record.rollouts.mask.sum(axis=1) + record.rollouts.prompt_length
    flops = 3 * architecture.forward_flops(int(rows.sum()), float(rows.mean()) / 2)
    device = jax.devices()[0]
    optional = {
        "mfu": model_flops_utilisation(flops, seconds["update"], jax.device_count(), device.device_kind),
        "memory/peak_gib": peak_memory_gib(),
    }
    rates = {
        "tokens/sampled": tokens,
        "tokens/sampled_per_s": tokens / seconds["sample"],
        "tokens/s": tokens / sum(seconds.values()),
    }
    return rates | {name: value for name, value in optional.items() if value is not None}


# ---------------------------------------------------------------- a run


@only_first
def write_results(
    workdir: Path, step: int, seconds: dict[str, float], wall_seconds: float, *, last: int, over: bool = True, **more
) -> dict:
    """Writes `results.json` and returns its content: evaluations, steps, seconds, share of reflections skipped, and `more`.

    Args:
      step, over: training steps done, and whether the run has ended there or was interrupted.
      last: see `evaluated`.
    """
    rows = read_json_lines(workdir / "metrics.jsonl")
    trained = [row for row in rows if row["kind"] == "train"]
    skipped = [row["reflection/skipped"] for row in trained]
    results = {
        "eval": evaluated([row for row in rows if row["kind"] == "eval"], last, step if over else None),
        "steps": step,
        "steps_without_signal": sum(row.get("grad_norm") == 0 for row in trained),
        "wall_seconds": wall_seconds,
        "seconds_by_phase": seconds,
        "reflections_skipped": float(np.mean(skipped)) if skipped else None,
    } | more
    atomic_write(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def evaluated(rows: Sequence[dict], last: int, end: int | None) -> dict:
    """Returns selected evaluations of a run, each with its step.

    Args:
      rows: the run's metrics of kind "eval".
      last: number of evaluations that mean_of_last averages, the one before training left out.
      end: number of steps after which the run has ended; None for an interrupted run, which has no final evaluation.

    Returns:
      initial (after step 0), final (after step `end`), best (by sampled accuracy; chosen on the test split itself, so an
      optimistic number) and mean_of_last, of the run's own test split; None for an evaluation that was not made.
      best_by_validation, where the task has a validation split: the test split's evaluation at the step that was best on
      validation. benchmarks: by name, those four of every other benchmark.
    """
    by_name: dict[str, list[dict]] = {}
    for row in rows:
        of_step: dict[str, dict] = {}
        for key, value in row.items():
            if key.startswith("eval/"):
                *benchmark, metric = key.removeprefix("eval/").split("/")
                of_step.setdefault("/".join(benchmark), {"step": row["step"]})[metric] = value
        for name, values in of_step.items():
            by_name.setdefault(name, []).append(values)
    test = by_name.pop("", [])
    results = _select(test, last, end)
    if "validation" in by_name:
        results["best_by_validation"] = _of_step(test, _best(by_name["validation"])["step"])
    return results | {"benchmarks": {name: _select(values, last, end) for name, values in by_name.items()}}


def _of_step(evaluations: Sequence[dict], step: int | None) -> dict | None:
    return next((values for values in evaluations if values["step"] == step), None)


def _select(evaluations: Sequence[dict], last: int, end: int | None) -> dict:
    """Returns the initial, final and best evaluation of a benchmark, and the mean of the last ones."""
    counted = [values for values in evaluations if values["step"]][-last:]
    mean = {
        name: float(np.mean([values[name] for values in counted]))
        for name in (counted[0] if counted else ())
        if name != "step" and not name.endswith(("_low", "_high"))  # a mean of intervals is not an interval
    }
    steps = {"steps": [values["step"] for values in counted]}
    return {
        "initial": _of_step(evaluations, 0),
        "final": _of_step(evaluations, end),
        "best": _best(evaluations),
        "mean_of_last": (steps | mean) if counted else None,
    }


def _best(evaluations: Sequence[dict]) -> dict | None:
    return max(evaluations, key=lambda values: values["sampled"], default=None)


def outcome(results: dict) -> list[str]:
    """Returns the console lines about a run from its results: one for its own test split, and one for each other benchmark."""
    lines = []
    evaluations = results["eval"]
    for name, selected in {"": evaluations, **evaluations["benchmarks"]}.items():
        before, after, best, mean = (selected[key] for key in ("initial", "final", "best", "mean_of_last"))
        if best is None:
            lines.append("no evaluation yet")
            continue
        first, last = (f"{one['sampled']:.3f}" if one else "(not evaluated)" for one in (before, after))
        line = f"{first} -> {last} on {best['n']} "
        line += f"{name or 'held-out'} problems; best {best['sampled']:.3f} at step {best['step']}"
        if mean:
            line += f", mean of the last {len(mean['steps'])} evaluations {mean['sampled']:.3f}"
        if chosen := selected.get("best_by_validation"):
            line += f", best by validation {chosen['sampled']:.3f} at step {chosen['step']}"
        lines.append(f"sampled accuracy {line}")
    if without := results["steps_without_signal"]:
        lines.append(f"no learning signal in {without} of {results['steps']} steps")
    return lines
