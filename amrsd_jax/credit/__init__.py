"""Credit assignment: one file per method. A rule is registered by being named here, and nowhere else."""

from amrsd_jax.credit import amrsd, grpo
from amrsd_jax.credit.base import Rule, group_advantage, overlong_penalty
from amrsd_jax.names import nearest

RULES: dict[str, Rule] = {module.RULE.name: module.RULE for module in (amrsd, grpo)}


def get(name: str) -> Rule:
    """The rule of that name: `rule(advantage, logp_student, logp_teacher, mask, *, step, **hyper)`.

    Raises:
      ValueError: unknown name, with the nearest valid one.
    """
    if name not in RULES:
        raise ValueError(f"credit.rule = {name!r}: {nearest(name, RULES)}")
    return RULES[name]


__all__ = ["RULES", "Rule", "get", "group_advantage", "overlong_penalty"]
