"""Credit assignment: one file per method. A file of this folder that holds a RULE (or several, RULES) is a method."""

import importlib
import pkgutil

from amrsd_jax.credit.base import Rule, group_advantage, overlong_penalty
from amrsd_jax.names import nearest

RULES: dict[str, Rule] = {}
for _file in pkgutil.iter_modules(__path__, f"{__name__}."):
    _module = importlib.import_module(_file.name)
    for _rule in getattr(_module, "RULES", [_module.RULE] if hasattr(_module, "RULE") else []):
        RULES[_rule.name] = _rule


def get(name: str) -> Rule:
    """The rule of that name: `rule(advantage, logp_student, logp_teacher, mask, *, step, **inputs, **hyper)`.

    Raises:
      ValueError: unknown name, with the nearest valid one.
    """
    if name not in RULES:
        raise ValueError(f"credit.rule = {name!r}: {nearest(name, RULES)}")
    return RULES[name]


__all__ = ["RULES", "Rule", "get", "group_advantage", "overlong_penalty"]
