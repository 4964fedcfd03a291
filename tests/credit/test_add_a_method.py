"""docs/add_a_method.md followed step by step: its rules register by their names, validate, and give its numbers."""

import re
from pathlib import Path

from amrsd_jax import credit
from amrsd_jax.validate import validate
from tests.tiny import tiny_config

DOCUMENT = Path(__file__).parents[2] / "docs" / "add_a_method.md"


def test_the_document_s_rules_work(monkeypatch):
    monkeypatch.setattr(credit, "RULES", dict(credit.RULES))
    before = set(credit.RULES)
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)):
        names = {}
        exec(compile(block, f"{DOCUMENT.name}, block {number}", "exec"), names)
        if "RULE" in names:
            credit.RULES[names["RULE"].name] = names["RULE"]
    added = set(credit.RULES) - before
    assert added
    for name in added:
        config = validate(tiny_config(rule=name))
        assert config.credit.context == credit.get(name).context
        assert config.credit.args == credit.get(name).defaults
