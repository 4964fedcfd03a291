"""Applies a rule to the arrays of a step."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer

from amrsd_jax.credit.base import Rule, group_right
from amrsd_jax.records import Credit, LogProbs, Rollouts, Signals, TokenCredit


def mean_gaps(
    gap: Float[np.ndarray, "N T"], rollouts: Rollouts, scored: Bool[np.ndarray, " N"]
) -> dict[str, float | None]:
    """Returns the mean gap over the tokens of scored `correct` and `failed` rows; None where there are none."""
    means = {}
    for name, rows in (("correct", rollouts.correct), ("failed", ~rollouts.correct)):
        mask = rollouts.mask * (rows & scored)[:, None]
        means[name] = float((gap * mask).sum() / mask.sum()) if mask.sum() else None
    return means


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(rule: Rule, hyper: tuple[tuple[str, Any], ...], signals: Signals) -> TokenCredit:
    return rule(signals, **dict(hyper))


def assign(
    rule: Rule,
    hyper: dict[str, Any],
    step: int,
    advantage: Float[np.ndarray, " N"],
    rollouts: Rollouts,
    logprobs: LogProbs,
    *,
    group: int,
    mask_truncated: bool = False,
    quoted: Integer[np.ndarray, "N 2"] | None = None,
    noise: Float[np.ndarray, " N"] | None = None,
    memory: Sequence[float] = (),
) -> Credit:
    """Returns a rule's credit; its metrics also have the mean gap between teacher and student on correct and on failed rows.

    Args:
      hyper: all hyper-parameters of the rule.
      group: responses per prompt, G.
      mask_truncated: whether the loss leaves out responses that reached the length limit. They get no credit then, and a rule
        that counts tokens does not count theirs.
      quoted, noise, memory: see `Signals`; () stands for `Rule.memory`.
    """
    signals = Signals(
        step=np.float32(step),
        advantage=advantage,
        reward=rollouts.reward,
        mask=rollouts.trained(mask_truncated),
        group=np.float32(group),
        group_right=group_right(rollouts.reward, group),
        first_error=rollouts.first_error,
        quoted=quoted,
        noise=noise,
        memory=np.float32(memory or rule.memory),
        extras=rollouts.extras,
        **vars(logprobs),
    )
    credit = jax.device_get(_apply(rule, tuple(sorted(hyper.items())), jax.device_put(signals)))
    metrics = {name: float(value) for name, value in credit.metrics.items()}
    metrics |= {f"gap_{name}": value for name, value in mean_gaps(logprobs.gap, rollouts, logprobs.scored).items()}
    memory = () if credit.memory is None else tuple(map(float, credit.memory))
    # A rule of a user's may be NaN on tokens that do not count, which would make every gradient NaN.
    return Credit(advantage, np.where(signals.mask > 0, credit.token_advantage, np.float32(0)), metrics, memory)
