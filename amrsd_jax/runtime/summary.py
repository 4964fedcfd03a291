"""A step and a run in numbers: the metrics row, the line a person reads, and `results.json`."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from amrsd_jax.evaluate.statistics import wilson
from amrsd_jax.processes import first, only_first
from amrsd_jax.records import Made
from amrsd_jax.reflection.parse import STATUSES
from amrsd_jax.runtime.metrics import read_metrics

_POLICY = ("entropy", "kl", "clip_low", "clip_high")
_OPTIMIZER = ("grad_norm", "skipped", "learning_rate")


def summary(made: Made, learned: Sequence[dict], seconds: dict[str, float]) -> dict[str, float | None]:
    """Metrics of one training step. Shares are of rows, `loss/` and `policy/` are means over the step's updates.

    Args:
      made: what the step made.
      learned: what each optimiser update reported.
      seconds: by phase.
    """
    rollouts, contexts, scores, credit = made.rollouts, made.contexts, made.scores, made.credit
    n = len(rollouts.text)
    correct = sum(verdict.correct for verdict in rollouts.verdicts)
    low, high = wilson(correct, n)
    status = Counter(contexts.status)
    needed = n - status["not_needed"]
    scored = rollouts.mask * scores.scored[:, None]
    row = {
        "rollout/reward": float(rollouts.reward.mean()),
        "rollout/reward_sem": float(rollouts.reward.std() / np.sqrt(n)),
        "rollout/accuracy": correct / n,
        "rollout/accuracy_low": low,
        "rollout/accuracy_high": high,
        "rollout/format": sum(verdict.format_ok for verdict in rollouts.verdicts) / n,
        "rollout/length": float(rollouts.mask.sum(axis=1).mean()),
        "rollout/truncated": rollouts.finish_reason.count("length") / n,
        "rollout/flat_rows": float((credit.advantage == 0).mean()),
        "policy/sampler_gap": float((abs(scores.logp_student - rollouts.logp) * scored).sum() / scored.sum())
        if scored.sum()
        else None,
        "reflection/needed": needed / n,
        "reflection/saved": 1 - needed / n,
        "reflection/usable": status["ok"] / n,
    }
    row |= {
        f"reflection/fallback_{reason}": status[reason] / n for reason in STATUSES if reason not in ("ok", "not_needed")
    }
    for name in sorted({name for verdict in rollouts.verdicts for name in verdict.scores}):
        given = [verdict.scores[name] for verdict in rollouts.verdicts if name in verdict.scores]
        row[f"rollout/score_{name}"] = sum(given) / len(given)
    row |= {f"credit/{name}": value for name, value in credit.metrics.items()}
    for name in learned[0]:
        section = "policy" if name in _POLICY else "optimizer" if name in _OPTIMIZER else "loss"
        row[f"{section}/{name}"] = float(np.mean([update[name] for update in learned]))
    row |= made.drawn | {f"seconds/{name}": value for name, value in seconds.items()}
    row["seconds/step"] = sum(seconds.values())
    row["throughput/sampled_tokens_per_second"] = float(rollouts.mask.sum()) / seconds["sample"]
    return row


def one_line(step: int, steps: int, row: dict[str, float | None]) -> str:
    """A step for the eye."""
    parts = [
        f"step {step}/{steps}",
        f"accuracy {row['rollout/accuracy']:.3f}",
        f"length {row['rollout/length']:.0f}",
        f"entropy {row['policy/entropy']:.3f}",
        f"reflections {row['reflection/usable']:.0%} usable of {row['reflection/needed']:.0%} needed",
        f"{row['seconds/step']:.2f} s",
    ]
    if row["optimizer/skipped"]:
        parts.append("UPDATE SKIPPED: gradient not finite")
    return "  ".join(parts)


@only_first
def write_results(
    workdir: Path, step: int, seconds: dict[str, float], wall_seconds: float, *, last: int, **more
) -> dict:
    """Writes `results.json` from the run's metrics: what its evaluations came to, time, what was saved, and `more`."""
    rows = read_metrics(workdir / "metrics.jsonl")
    trained = [row for row in rows if row["kind"] == "train"]
    results = {
        "eval": evaluated([row for row in rows if row["kind"] == "eval"], last),
        "steps": step,
        "wall_seconds": wall_seconds,
        "seconds_by_phase": seconds,
        "savings": {"reflections": float(np.mean([row["reflection/saved"] for row in trained])) if trained else None},
    } | more
    draft = workdir / "results.tmp"
    draft.write_text(json.dumps(results, indent=2) + "\n")
    draft.replace(workdir / "results.json")
    return results


def evaluated(rows: Sequence[dict], last: int) -> dict:
    """What the evaluations of a run came to, each with its step.

    Returns:
      initial, final, best (by sampled accuracy; on a test split that choice makes it an optimistic number) and mean_of_last,
      of the `last` evaluations after training began, of the run's own test split. best_by_validation, where the task has a
      validation split: the test split's evaluation at the step that was best on validation. benchmarks: by name, those four
      of every other benchmark.
    """
    by_name: dict[str, list[dict]] = {}
    for row in rows:
        found: dict[str, dict] = {}
        for key, value in row.items():
            if key.startswith("eval/"):
                *benchmark, metric = key.removeprefix("eval/").split("/")
                found.setdefault("".join(benchmark), {"step": row["step"]})[metric] = value
        for name, values in found.items():
            by_name.setdefault(name, []).append(values)
    own = by_name.pop("")
    results = _four(own, last)
    if "validation" in by_name:
        chosen = _best(by_name["validation"])["step"]
        results["best_by_validation"] = next(values for values in own if values["step"] == chosen)
    return results | {"benchmarks": {name: _four(values, last) for name, values in by_name.items()}}


def _four(evaluations: Sequence[dict], last: int) -> dict:
    counted = [values for values in evaluations if values["step"]][-last:]
    mean = {
        name: float(np.mean([values[name] for values in counted]))
        for name in (counted[0] if counted else ())
        if name != "step" and not name.endswith(("_low", "_high"))  # the mean of intervals is none
    }
    steps = {"steps": [values["step"] for values in counted]}
    return {
        "initial": evaluations[0],
        "final": evaluations[-1],
        "best": _best(evaluations),
        "mean_of_last": (steps | mean) if counted else None,
    }


def _best(evaluations: Sequence[dict]) -> dict:
    return max(evaluations, key=lambda values: values["sampled"])


def outcome(found: dict) -> list[str]:
    """What a run came to, for the eye: a line for its own test split, and one for each other benchmark."""
    lines = []
    for name, four in {"": found, **found["benchmarks"]}.items():
        before, after, best, mean = (four[key] for key in ("initial", "final", "best", "mean_of_last"))
        line = f"{before['sampled']:.3f} -> {after['sampled']:.3f} on {after['n']} "
        line += f"{name or 'held-out'} problems; best {best['sampled']:.3f} at step {best['step']}"
        if mean:
            line += f", mean of the last {len(mean['steps'])} evaluations {mean['sampled']:.3f}"
        if "best_by_validation" in four:
            chosen = four["best_by_validation"]
            line += f", best by validation {chosen['sampled']:.3f} at step {chosen['step']}"
        lines.append(f"sampled accuracy {line}")
    return lines


@only_first
def note(text: str) -> None:
    """A chapter line on stderr: it tells what a run is doing, and where one hangs."""
    print(f"\033[33m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def bar(steps=None, *args, **more) -> tqdm:
    """A progress bar on stderr, of process 0 and where it is a terminal."""
    return tqdm(steps, *args, disable=None if first() else True, **more)


@only_first
def say(text: str) -> None:
    """A line on stderr, above the progress bar."""
    tqdm.write(text, file=sys.stderr)
