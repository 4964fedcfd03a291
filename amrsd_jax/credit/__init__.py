"""Credit assignment, one file per method. Every file of this folder that defines RULE, or several as RULES, is registered."""

import importlib
import pkgutil

from amrsd_jax import own_code
from amrsd_jax.credit.assign import assign, mean_gaps
from amrsd_jax.credit.base import GROUPED, Hyper, Rule, group_advantage, group_right, overlong_penalty
from amrsd_jax.names import nearest
from amrsd_jax.records import Signals, TokenCredit

RULES: dict[str, Rule] = {}
for _file in pkgutil.iter_modules(__path__, f"{__name__}."):
    _module = importlib.import_module(_file.name)
    for _rule in getattr(_module, "RULES", [_module.RULE] if hasattr(_module, "RULE") else []):
        RULES[_rule.name] = _rule


def get(name: str) -> Rule:
    """Returns the rule of that name, or the one that a file of the user's defines, `file.py:RULE` or `module:RULE`.

    Raises:
      ValueError: the name is unknown, and the message has the nearest valid one; or there is no rule in that file.
    """
    if ":" in name:
        return own_code.find("credit.rule", name, lambda value: isinstance(value, Rule), "an amrsd_jax.credit.Rule")[1]
    if name not in RULES:
        raise ValueError(f"credit.rule = {name!r}: {nearest(name, RULES)}")
    return RULES[name]


__all__ = [
    "GROUPED", "RULES", "Hyper", "Rule", "Signals", "TokenCredit", "assign", "get", "group_advantage", "group_right",
    "mean_gaps", "overlong_penalty",
]  # fmt: skip
