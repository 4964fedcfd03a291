"""Summarises a training step as a row of metrics."""

from collections import Counter
from collections.abc import Sequence

import jax
from jaxtyping import ScalarLike

from amrsd_jax.evaluate.estimators import t_interval, wilson
from amrsd_jax.policy import Architecture
from amrsd_jax.records import Rollouts, StepRecord, select_rollouts
from amrsd_jax.reflection.parse import STATUSES
from amrsd_jax.runtime.hardware import model_flops_utilisation, peak_memory_gib
from amrsd_jax.runtime.monitor import update_mean, zero_groups

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
    devices: int,
) -> dict[str, float | None]:
    """Returns the metrics of one training step. Metrics of updates are means over the updates that have them.

    Args:
      record: the step's results before its updates.
      update_metrics: metrics of each optimiser update.
      seconds: seconds by phase.
      group: G.
      architecture: architecture of the policy, for its FLOPs.
      devices: number of devices of the mesh.
    """
    row = _reward_metrics(record.rollouts, group) | _length_metrics(record.rollouts) | _reflection_metrics(record)
    row["policy/sampler_mismatch"] = _sampler_mismatch(record)
    row["groups/zero_advantage"] = zero_groups(record.credit.advantage, group)
    if by_set := _data_set_metrics(record, group):  # whose verifiers have scores of their own
        row = {name: value for name, value in row.items() if not name.startswith("reward/score_")} | by_set
    row |= {f"credit/{name}": value for name, value in record.credit.metrics.items()}
    for name in update_metrics[0]:
        row[_UPDATE_METRICS.get(name, f"loss/{name}")] = update_mean(update_metrics, name)
    row |= record.data_metrics | {f"seconds/{name}": value for name, value in seconds.items()}
    row["seconds/step"] = sum(seconds.values())
    return row | _rates(record, seconds, architecture, devices)


def _data_set_metrics(record: StepRecord, group: int) -> dict[str, float]:
    """Returns metrics of each set of a mixture that the step has prompts of: the set's name follows the first part of theirs."""
    rollouts, row = record.rollouts, {}
    for data_set in sorted({problem.data_set for problem in rollouts.problems} - {""}):
        rows = [i for i, problem in enumerate(rollouts.problems) if problem.data_set == data_set]
        own = select_rollouts(rollouts, rows)
        values = _reward_metrics(own, group) | _length_metrics(own) | {"data/prompts": len(rows) // group}
        values["groups/zero_advantage"] = zero_groups(record.credit.advantage[rows], group)
        row |= {name.replace("/", f"/{data_set}/", 1): value for name, value in values.items()}
    return row


def _reward_metrics(rollouts: Rollouts, group: int) -> dict[str, float]:
    verdicts, n = rollouts.verdicts, len(rollouts.verdicts)
    correct = int(rollouts.correct.sum())
    low, high = _over_prompts(rollouts.correct.reshape(-1, group).mean(axis=1).tolist())
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


def _over_prompts(accuracies: list[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean over prompts, since responses to one prompt are alike; Wilson's where all agree."""
    if len(set(accuracies)) == 1:
        return wilson(round(accuracies[0] * len(accuracies)), len(accuracies))
    _, low, high = t_interval(accuracies)
    return max(low, 0.0), min(high, 1.0)


def _length_metrics(rollouts: Rollouts) -> dict[str, float]:
    lengths = rollouts.mask.sum(axis=1)
    return {
        "response_length/mean": float(lengths.mean()),
        "response_length/min": float(lengths.min()),
        "response_length/max": float(lengths.max()),
        "response_length/clip_ratio": rollouts.finish_reason.count("length") / len(lengths),
    }


def _sampler_mismatch(record: StepRecord) -> float | None:
    """Returns the mean of |log-prob when sampled - the student's| over the rows it scored, nats; None if there is none."""
    logprobs, mask = record.logprobs, record.rollouts.mask * (record.all_scored | record.logprobs.scored)[:, None]
    difference = abs(logprobs.student_logprobs - record.rollouts.sampler_logprobs) * mask
    return float(difference.sum() / mask.sum()) if mask.sum() else None


def _reflection_metrics(record: StepRecord) -> dict[str, float | None]:
    status, n = Counter(record.contexts.status), len(record.contexts.status)
    needed = n - status["not_needed"]
    row = {
        "reflection/needed": needed / n,
        "reflection/skipped": 1 - needed / n,
        "reflection/usable": status["ok"] / needed if needed else None,
        "reflection/cut": len(record.contexts.all_cut()) / status["ok"] if status["ok"] else None,
    }
    reasons = (reason for reason in STATUSES if reason not in ("ok", "not_needed"))
    return row | {f"reflection/unusable_{reason}": status[reason] / n for reason in reasons}


def _rates(record: StepRecord, seconds: dict[str, float], architecture: Architecture, devices: int) -> dict[str, float]:
    """Returns tokens per second, the utilisation of the devices during the update (mfu), and their peak memory."""
    tokens = record.data_metrics["tokens/sampled"]
    prompts = record.rollouts.prompt_length
    rows = record.rollouts.mask.sum(axis=1) + prompts
    logits = 2 * architecture.vocab_size * architecture.width * int(prompts.sum())  # of prompts, which are not computed
    flops = architecture.forward_flops(int(rows.sum()), float(rows.mean()) / 2) - logits
    flops *= 2 if architecture.lora else 3  # frozen weights have no gradient
    kind = jax.devices()[0].device_kind
    optional = {
        "mfu": model_flops_utilisation(flops, seconds["update"], devices, kind),
        "memory/peak_gib": peak_memory_gib(),
    }
    rates = {
        "tokens/sampled_per_s": tokens / seconds["sample"],
        "tokens/s": tokens / sum(seconds.values()),
    }
    return rates | {name: value for name, value in optional.items() if value is not None}
