"""Credit assignment: one file per method. A rule is registered by being named here, and nowhere else."""

from amrsd_jax.credit import amrsd, controls, grpo, hybrid, masked_blame, oracle, prefix_credit, rlrt, rlsd
from amrsd_jax.credit.base import Rule, group_advantage, overlong_penalty
from amrsd_jax.names import nearest

_PUBLISHED = (grpo.RULE, amrsd.RULE, rlsd.RULE, rlrt.RULE, hybrid.RULE)
_OURS = (masked_blame.RULE, prefix_credit.RULE, *oracle.RULES, *controls.RULES)
RULES: dict[str, Rule] = {rule.name: rule for rule in (*_PUBLISHED, *_OURS)}


def get(name: str) -> Rule:
    """The rule of that name: `rule(advantage, logp_student, logp_teacher, mask, *, step, **hyper)`.

    Raises:
      ValueError: unknown name, with the nearest valid one.
    """
    if name not in RULES:
        raise ValueError(f"credit.rule = {name!r}: {nearest(name, RULES)}")
    return RULES[name]


__all__ = ["RULES", "Rule", "get", "group_advantage", "overlong_penalty"]
