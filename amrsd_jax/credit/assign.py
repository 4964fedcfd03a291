"""Assign credit: from rewards to an advantage per row, and by the rule to an advantage per token."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from amrsd_jax.credit.base import Rule, group_advantage
from amrsd_jax.records import Credit, Rollouts, Scores


def advantages(reward: Float[np.ndarray, " N"], group: int, *, normalize: bool) -> Float[np.ndarray, " N"]:
    """Group-relative advantage of every row; rows of a group are neighbours."""
    return group_advantage(reward.reshape(-1, group), normalize=normalize).reshape(-1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(rule: Rule, hyper: tuple, arrays: tuple, inputs: dict):
    return rule(*arrays, **inputs, **dict(hyper))


def assign(
    rule: Rule,
    hyper: dict,
    step: int,
    advantage: Float[np.ndarray, " N"],
    rollouts: Rollouts,
    scores: Scores,
    *,
    noise: Float[np.ndarray, " N"] | None = None,
    memory: Sequence[float] = (),
) -> Credit:
    """Applies a rule; adds to its metrics how far teacher and student are apart on correct and on failed rows.

    Args:
      noise, memory: inputs of that name, see `base.INPUTS`; an empty memory is the rule's first.
    """
    arrays = (advantage, scores.logp_student, scores.logp_teacher, rollouts.mask)
    known = vars(rollouts) | vars(scores) | {"noise": noise, "memory": np.float32(memory or rule.memory)}
    inputs = {"step": np.float32(step)} | {name: known[name] for name in rule.inputs}
    token_advantage, metrics = jax.device_get(
        _apply(rule, tuple(sorted(hyper.items())), jax.device_put(arrays), jax.device_put(inputs))
    )
    memory = tuple(map(float, metrics.pop("memory", ())))
    gap = scores.logp_teacher - scores.logp_student
    correct = np.array([verdict.correct for verdict in rollouts.verdicts])
    for name, rows in (("correct", correct), ("failed", ~correct)):
        mask = rollouts.mask * (rows & scores.scored)[:, None]
        metrics[f"gap_{name}"] = float((gap * mask).sum() / mask.sum()) if mask.sum() else None
    metrics = {name: value if value is None else float(value) for name, value in metrics.items()}
    return Credit(advantage, token_advantage, metrics, memory)
