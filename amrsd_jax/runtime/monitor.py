"""The collapse monitor: a few numbers of every step, and when one of them says that training is going wrong.

A step's measure of each signal is smoothed over `monitor.window` steps, set in relation to the run's own past, and compared
with a threshold; beyond it for `monitor.patience` steps in a row, the signal *fires*. Pure functions: what the monitor
remembers is a dict that the caller keeps (`start.Progress.tracks`), so a resumed run sees what an uninterrupted one does.
Signals, thresholds and patience are our choice; docs/monitor.md says what each was seen to do.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from ml_collections import ConfigDict

from amrsd_jax.records import Made

ACTIONS = ("off", "warn", "rollback", "stop")  # the later wins where several fire at one step
Tracks = dict[str, dict[str, Any]]  # signal -> fields of its `Track`

# ---------------------------------------------------------------- what is watched


@dataclasses.dataclass(frozen=True)
class Signal:
    """One thing to watch.

    Attributes:
      measure: (made, learned) -> its number at one step, None where there is nothing to measure.
      against: what the smoothed measure becomes: itself ("level"), its ratio to the first window ("start"), or its
        relative fall from the running best ("best").
      low: fires at or below the threshold; otherwise at or above it.
    """

    measure: Callable[[Made, Sequence[dict]], float | None]
    against: str = "level"
    low: bool = False

    def beyond(self, value: float, threshold: float) -> bool:
        return value <= threshold if self.low else value >= threshold

    def check(self, threshold: float) -> str:
        """What is expected of a threshold that this one is not; "" if it is right."""
        if self.against == "start" and not self.low:
            return "" if 1 < threshold < math.inf else "a ratio to the start above 1"
        if self.low:
            return "" if 0 < threshold < 1 else "a ratio to the start in (0, 1)"
        return "" if 0 < threshold <= 1 else "a share in (0, 1]"


def length(made: Made, learned) -> float:
    """Mean length of a response, tokens."""
    return float(made.rollouts.mask.sum(axis=1).mean())


def entropy(made: Made, learned) -> float:
    """Mean entropy of the policy over the step's updates, nats a token."""
    return float(np.mean([update["entropy"] for update in learned]))


def gap(made: Made, learned) -> float | None:
    """Mean |l_T - l_S| of the rows that have a teacher, or the divergence that is distilled, nats a token; None without."""
    if "divergence" in learned[0]:
        return float(np.mean([update["divergence"] for update in learned]))
    mask = made.rollouts.mask * made.scores.scored[:, None]
    difference = abs(made.scores.logp_teacher - made.scores.logp_student) * mask
    return float(difference.sum() / mask.sum()) if mask.sum() else None


def repetition(made: Made, learned) -> float:
    """Share of tokens in a 4-gram that its response has more than once."""
    return repeated_share(made.rollouts.response, made.rollouts.mask)


def mass(made: Made, learned) -> float | None:
    """Share of all |token advantage| on the hundredth of the step's tokens that has the most; None if all are 0."""
    return top_share(made.credit.token_advantage, made.rollouts.mask)


def timeouts(made: Made, learned) -> float:
    """Share of verdicts whose message says "timed out"."""
    return float(np.mean(["timed out" in verdict.message for verdict in made.rollouts.verdicts]))


SIGNALS = {
    "reward": Signal(lambda made, learned: float(made.rollouts.reward.mean()), against="best"),
    "entropy": Signal(entropy, against="start", low=True),
    "entropy_rise": Signal(entropy, against="start"),
    "shorter": Signal(length, against="start", low=True),
    "longer": Signal(length, against="start"),
    "truncation": Signal(lambda made, learned: float(np.mean([r == "length" for r in made.rollouts.finish_reason]))),
    "repetition": Signal(repetition),
    "gap": Signal(gap, against="start", low=True),
    "mass": Signal(mass),
    "flat": Signal(lambda made, learned: float((made.credit.advantage == 0).mean())),
    "timeouts": Signal(timeouts),
}


def repeated_share(response: Integer[np.ndarray, "N T"], mask: Float[np.ndarray, "N T"], n: int = 4) -> float:
    """Share of the tokens that count which lie in an n-gram that occurs more than once in their response; 0 without tokens.

    Occurrences may overlap. N-grams are told apart by 64-bit hashes, sorted row by row.
    """
    if response.shape[1] < n or not mask.sum():
        return 0.0
    width = response.shape[1] - n + 1
    whole = np.lib.stride_tricks.sliding_window_view(mask > 0, n, axis=1).all(axis=-1)
    code = np.zeros((len(response), width), np.uint64)
    for k in range(n):
        code = code * np.uint64(0x9E3779B97F4A7C15) + response[:, k : k + width].astype(np.uint64) + np.uint64(1)
    code = np.where(whole, code, np.arange(width, dtype=np.uint64))  # those with padding: all different
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
    """Share of the sum of |token_advantage| on the `share` of tokens (rounded up) with the largest; None if the sum is 0."""
    size = np.sort(abs(token_advantage[mask > 0]).astype(np.float64))
    if not size.sum():
        return None
    return float(size[-math.ceil(share * len(size)) :].sum() / size.sum())


# ---------------------------------------------------------------- when it fires


@dataclasses.dataclass(frozen=True)
class Track:
    """What is remembered of one signal.

    Attributes:
      recent: its measures at the last steps, at most a window of them.
      start: their mean when the window was first full; None before.
      best: the highest mean of a full window so far.
      streak: steps in a row, until now, at which its value was beyond the threshold.
    """

    recent: list[float] = dataclasses.field(default_factory=list)
    start: float | None = None
    best: float | None = None
    streak: int = 0


@dataclasses.dataclass(frozen=True)
class Alarm:
    """A signal that fires: its value, the threshold, and the action that the config asks for."""

    signal: str
    value: float
    threshold: float
    action: str

    def line(self, step: int) -> str:
        """For the eye."""
        side = "at most" if SIGNALS[self.signal].low else "at least"
        return (
            f"collapse monitor, step {step}: {self.signal} {self.value:.3g} ({side} {self.threshold:g}): {self.action}"
        )

    def record(self, step: int) -> dict[str, Any]:
        """For `results.json`."""
        return {"signal": self.signal, "step": step, "value": self.value, "threshold": self.threshold}


def watched(config: ConfigDict) -> list[str]:
    """Names of the signals that are not off."""
    return [name for name in SIGNALS if config[name].action != "off"]


def measure(made: Made, learned: Sequence[dict], config: ConfigDict) -> dict[str, float | None]:
    """The watched signals of one step; None where there is nothing to measure, or no finite number comes out."""
    values = {name: SIGNALS[name].measure(made, learned) for name in watched(config)}
    return {name: v if v is not None and math.isfinite(v) else None for name, v in values.items()}


def observe(
    tracks: Tracks, measured: dict[str, float | None], config: ConfigDict
) -> tuple[Tracks, dict[str, float | None], list[Alarm]]:
    """One step.

    A signal without a measure is left as it was: such a step neither adds to its streak nor ends it.

    Args:
      tracks: what is remembered; {} at the start.
      measured: of this step, by signal.
      config: `config.monitor`.

    Returns:
      what is remembered now; metrics `monitor/<signal>`, the value that is compared with the threshold, and
      `monitor/<signal>_fired`, 0 or 1; alarms of the signals that begin to fire at this step, the strongest action first.
    """
    tracks, row, alarms = dict(tracks), {}, []
    for name, raw in measured.items():
        signal, threshold = SIGNALS[name], float(config[name].threshold)
        track, value = Track(**tracks.get(name, {})), None
        if raw is not None:
            track, now = _follow(track, raw, config.window)
            value = _relate(signal, track, now)
            beyond = value is not None and signal.beyond(value, threshold)
            track = dataclasses.replace(track, streak=track.streak + 1 if beyond else 0)
            if track.streak == config.patience:
                alarms.append(Alarm(name, value, threshold, config[name].action))
        tracks[name] = dataclasses.asdict(track)
        row |= {f"monitor/{name}": value, f"monitor/{name}_fired": int(track.streak >= config.patience)}
    return tracks, row, sorted(alarms, key=lambda alarm: -ACTIONS.index(alarm.action))


def healthy(tracks: Tracks, config: ConfigDict) -> bool:
    """Whether no signal that would roll back or stop is beyond its threshold, for however few steps."""
    acting = [name for name in watched(config) if config[name].action != "warn"]
    return not any(tracks[name]["streak"] for name in acting if name in tracks)


def rolls_back(config: ConfigDict) -> bool:
    """Whether a signal asks for it."""
    return any(config[name].action == "rollback" for name in SIGNALS)


def _follow(track: Track, raw: float, window: int) -> tuple[Track, float | None]:
    """The track with one more measure, and the mean of the last window; None before the first is full."""
    recent = [*track.recent, raw][-window:]
    if len(recent) < window:
        return dataclasses.replace(track, recent=recent), None
    now = math.fsum(recent) / window
    start, best = (now, now) if track.start is None else (track.start, max(track.best, now))
    return dataclasses.replace(track, recent=recent, start=start, best=best), now


def _relate(signal: Signal, track: Track, now: float | None) -> float | None:
    """The value that the threshold is for; None without one, or where there is nothing above 0 to relate it to."""
    if now is None or signal.against == "level":
        return now
    if signal.against == "start":
        return now / track.start if track.start > 0 else None
    return 1 - now / track.best if track.best > 0 else None
