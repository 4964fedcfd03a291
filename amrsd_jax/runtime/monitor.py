"""The collapse monitor: measures signals of a collapsing policy at every step, and decides when one of them fires.

The measure of a signal is averaged over `monitor.window` steps, related to the run's own past, and compared with a threshold.
A signal *fires* when it is beyond its threshold for `monitor.patience` steps in a row. All functions are pure: the caller
keeps the monitor's state in a dict (`start.Progress.tracks`), so that a resumed run fires as an uninterrupted one does.
Signals, thresholds and patience are our choice; docs/monitor.md reports how each behaved.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from amrsd_jax.config import MonitorConfig
from amrsd_jax.records import StepRecord
from amrsd_jax.reflection.parse import WRITTEN

ACTIONS = ("off", "warn", "rollback", "stop")  # in ascending priority where several signals fire at one step
UpdateMetrics = Sequence[dict]  # of each optimiser update of a step, see `learning.step`
Tracks = dict[str, dict[str, Any]]  # signal -> fields of its `Track`

# ---------------------------------------------------------------- signals


@dataclasses.dataclass(frozen=True)
class Signal:
    """A quantity that is watched.

    Attributes:
      measure: (record, update metrics, rows of a group) -> value at one step, None where it is undefined.
      against: the value compared with the threshold: the averaged measure itself ("level"), its ratio to the first window
        ("start"), or its relative fall from the running best ("best").
      low: whether the signal fires at or below the threshold; otherwise at or above it.
    """

    measure: Callable[[StepRecord, UpdateMetrics, int], float | None]
    against: str = "level"
    low: bool = False

    def beyond(self, value: float, threshold: float) -> bool:
        """Returns whether a value is at the threshold or beyond it."""
        return value <= threshold if self.low else value >= threshold

    def check(self, threshold: float) -> str:
        """Returns the expected range of a threshold that is out of range; "" for one in range."""
        if self.against == "start" and not self.low:
            return "" if 1 < threshold < math.inf else "a ratio to the start above 1"
        if self.low:
            return "" if 0 < threshold < 1 else "a ratio to the start in (0, 1)"
        return "" if 0 < threshold <= 1 else "a share in (0, 1]"


def reward(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float:
    """Returns the mean reward of the verifier."""
    return float(record.rollouts.reward.mean())


def length(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float:
    """Returns the mean length of a response, tokens."""
    return float(record.rollouts.mask.sum(axis=1).mean())


def entropy(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float:
    """Returns the mean entropy of the policy over the step's updates, nats per token."""
    return update_mean(update_metrics, "entropy")


def gap(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float | None:
    """Returns the mean |l_T - l_S| over rows with a teacher, or the distilled divergence, nats per token; None without one."""
    if "divergence" in update_metrics[0]:
        return update_mean(update_metrics, "divergence") if len(record.contexts.rows) else None
    mask = record.rollouts.mask * record.logprobs.scored[:, None]
    return float((abs(record.logprobs.gap) * mask).sum() / mask.sum()) if mask.sum() else None


def truncation(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float:
    """Returns the share of responses that reached the length limit."""
    return float(np.mean([reason == "length" for reason in record.rollouts.finish_reason]))


def repetition(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float:
    """Returns the share of tokens in 4-grams that occur more than once in their response."""
    return repeated_share(record.rollouts.response, record.rollouts.mask)


def mass(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float | None:
    """Returns the share of the sum of |token advantage| on the 1 % of tokens with the largest; None if all are 0."""
    return top_share(record.credit.token_advantage, record.rollouts.mask)


def zero_advantage(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float | None:
    """Returns the share of groups whose rows all have advantage 0, e.g. because their rewards are equal.

    None where groups have one row and no row has an advantage, as with the group's mean as baseline: rules that are used with
    such groups give credit without it.
    """
    return zero_groups(record.credit.advantage, group) if group > 1 or record.credit.advantage.any() else None


def unusable(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float | None:
    """Returns the share of the needed reflections that were written and are unusable; None where none was needed."""
    needed = [status for status in record.contexts.status if status != "not_needed"]
    return float(np.mean([status in WRITTEN for status in needed])) if needed else None


def timeouts(record: StepRecord, update_metrics: UpdateMetrics, group: int) -> float:
    """Returns the share of verdicts whose verifier ran out of time."""
    return float(np.mean([verdict.timed_out for verdict in record.rollouts.verdicts]))


SIGNALS = {
    "reward": Signal(reward, against="best"),
    "entropy": Signal(entropy, against="start", low=True),
    "entropy_rise": Signal(entropy, against="start"),
    "shorter": Signal(length, against="start", low=True),
    "longer": Signal(length, against="start"),
    "truncation": Signal(truncation),
    "repetition": Signal(repetition),
    "gap": Signal(gap, against="start", low=True),
    "mass": Signal(mass),
    "zero_advantage": Signal(zero_advantage),
    "unusable": Signal(unusable),
    "timeouts": Signal(timeouts),
}


def update_mean(update_metrics: UpdateMetrics, name: str) -> float:
    """Returns the mean of a metric over the step's updates, without those where it is nan; nan if it is so in all."""
    values = np.array([float(update[name]) for update in update_metrics])
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def zero_groups(advantage: Float[np.ndarray, " N"], group: int) -> float:
    """Returns the share of groups whose rows all have advantage 0."""
    return float((advantage.reshape(-1, group) == 0).all(axis=1).mean())


def repeated_share(response: Integer[np.ndarray, "N T"], mask: Float[np.ndarray, "N T"], n: int = 4) -> float:
    """Returns the share of tokens in n-grams that occur more than once in their response; 0 without tokens.

    Occurrences may overlap. N-grams are compared by 64-bit hashes, sorted row by row.
    """
    if response.shape[1] < n or not mask.sum():
        return 0.0
    width = response.shape[1] - n + 1
    whole = np.lib.stride_tricks.sliding_window_view(mask > 0, n, axis=1).all(axis=-1)
    code = np.zeros((len(response), width), np.uint64)
    for k in range(n):
        code = code * np.uint64(0x9E3779B97F4A7C15) + response[:, k : k + width].astype(np.uint64) + np.uint64(1)
    code = np.where(whole, code, np.arange(width, dtype=np.uint64))  # n-grams with padding must equal no other
    order = np.argsort(code, axis=1)
    ranked = np.take_along_axis(code, order, axis=1)
    same = np.pad(ranked[:, 1:] == ranked[:, :-1], ((0, 0), (1, 1)))
    repeated = np.zeros_like(whole)
    np.put_along_axis(repeated, order, same[:, 1:] | same[:, :-1], axis=1)
    covered = np.zeros(mask.shape, bool)
    for k in range(n):
        covered[:, k : k + width] |= repeated & whole
    return float(covered.sum() / (mask > 0).sum())


def top_share(
    token_advantage: Float[np.ndarray, "N T"], mask: Float[np.ndarray, "N T"], share: float = 0.01
) -> float | None:
    """Returns the share of the sum of |token_advantage| on the largest `share` of tokens (rounded up); None if the sum is 0."""
    size = np.sort(abs(token_advantage[mask > 0]).astype(np.float64))
    if not size.sum():
        return None
    return float(size[-math.ceil(share * len(size)) :].sum() / size.sum())


# ---------------------------------------------------------------- firing


@dataclasses.dataclass(frozen=True)
class Track:
    """The state of one signal.

    Attributes:
      recent: measures of the last steps, at most a window of them.
      start: mean of the first full window; None before.
      best: highest mean of a full window so far.
      streak: number of steps in a row, up to the latest, at which the value was beyond the threshold.
    """

    recent: list[float] = dataclasses.field(default_factory=list)
    start: float | None = None
    best: float | None = None
    streak: int = 0


@dataclasses.dataclass(frozen=True)
class Alarm:
    """A signal that starts to fire: its value, the threshold, and the configured action."""

    signal: str
    value: float
    threshold: float
    action: str

    def line(self, step: int) -> str:
        """Returns a line for the console."""
        side = "at most" if SIGNALS[self.signal].low else "at least"
        return (
            f"collapse monitor, step {step}: {self.signal} {self.value:.3g} ({side} {self.threshold:g}): {self.action}"
        )

    def record(self, step: int) -> dict[str, Any]:
        """Returns the entry for `results.json`."""
        return {"signal": self.signal, "step": step, "value": self.value, "threshold": self.threshold}


def watched(config: MonitorConfig) -> list[str]:
    """Returns the names of the signals that are not off."""
    return [name for name in SIGNALS if getattr(config, name).action != "off"]


def measure(
    record: StepRecord, update_metrics: UpdateMetrics, config: MonitorConfig, group: int
) -> dict[str, float | None]:
    """Measures the watched signals of one step; None where a signal is undefined or not finite.

    Args:
      group: G, rows of a group.
    """
    values = {name: SIGNALS[name].measure(record, update_metrics, group) for name in watched(config)}
    return {name: v if v is not None and math.isfinite(v) else None for name, v in values.items()}


def observe(
    tracks: Tracks, measured: dict[str, float | None], config: MonitorConfig
) -> tuple[Tracks, dict[str, float | None], list[Alarm]]:
    """Advances the monitor by one step.

    An undefined measure leaves its signal unchanged: the step neither adds to the streak nor ends it.

    Args:
      tracks: the monitor's state; {} at the start.
      measured: measures of this step, by signal.
      config: `config.monitor`.

    Returns:
      the new state; metrics `monitor/<signal>`, the value that is compared with the threshold, and `monitor/<signal>_fired`,
      0 or 1; alarms of the signals that start to fire at this step, by descending priority of their actions.
    """
    tracks, row, alarms = dict(tracks), {}, []
    for name, raw in measured.items():
        signal, settings = SIGNALS[name], getattr(config, name)
        track, value = Track(**tracks.get(name, {})), None
        if raw is not None:
            track, now = _follow(track, raw, config.window)
            value = _relate(signal, track, now)
            beyond = value is not None and signal.beyond(value, settings.threshold)
            track = dataclasses.replace(track, streak=track.streak + 1 if beyond else 0)
            if track.streak == config.patience:
                alarms.append(Alarm(name, value, float(settings.threshold), settings.action))
        tracks[name] = dataclasses.asdict(track)
        row |= {f"monitor/{name}": value, f"monitor/{name}_fired": int(track.streak >= config.patience)}
    return tracks, row, sorted(alarms, key=lambda alarm: -ACTIONS.index(alarm.action))


def healthy(tracks: Tracks, config: MonitorConfig) -> bool:
    """Returns whether no signal with action rollback or stop was beyond its threshold at the last step."""
    acting = [name for name in watched(config) if getattr(config, name).action != "warn"]
    return not any(tracks[name]["streak"] for name in acting if name in tracks)


def rolls_back(config: MonitorConfig) -> bool:
    """Returns whether any signal has action rollback."""
    return any(getattr(config, name).action == "rollback" for name in SIGNALS)


def _follow(track: Track, raw: float, window: int) -> tuple[Track, float | None]:
    """Returns the track with one more measure, and the mean of the last window, None before the first is full."""
    recent = [*track.recent, raw][-window:]
    if len(recent) < window:
        return dataclasses.replace(track, recent=recent), None
    now = math.fsum(recent) / window
    start, best = (now, now) if track.start is None else (track.start, max(track.best, now))
    return dataclasses.replace(track, recent=recent, start=start, best=best), now


def _relate(signal: Signal, track: Track, now: float | None) -> float | None:
    """Returns the value that is compared with the threshold; None before the first window, or if it is relative to 0."""
    if now is None or signal.against == "level":
        return now
    if signal.against == "start":
        return now / track.start if track.start > 0 else None
    return 1 - now / track.best if track.best > 0 else None
