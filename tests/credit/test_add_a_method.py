"""docs/add_a_method.md followed step by step: its rules and its source register, validate, and give its numbers."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from amrsd_jax import credit
from amrsd_jax.compare.methods import method_config, possible
from amrsd_jax.experiment import make_experiment
from amrsd_jax.preflight import read_rows
from amrsd_jax.reflection import sources
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate
from tests.tiny import tiny_config

DOCUMENT = Path(__file__).parents[2] / "docs" / "add_a_method.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
RULES = [block for block in BLOCKS if "\nRULE = " in block]
SOURCE = next(block for block in BLOCKS if "SOURCES[" in block)


@pytest.fixture(autouse=True)
def registered_for_a_test(monkeypatch):
    monkeypatch.setattr(credit, "RULES", dict(credit.RULES))
    yield
    sources.SOURCES.pop("first_line", None)


def test_the_document_s_rules_work():
    before = set(credit.RULES)
    for number, block in enumerate(BLOCKS):
        names = {}
        exec(compile(block, f"{DOCUMENT.name}, block {number}", "exec"), names)
        if "RULE" in names:
            credit.RULES[names["RULE"].name] = names["RULE"]
    added = set(credit.RULES) - before
    assert len(added) == len(RULES) > 0
    for name in added:
        config = validate(tiny_config(rule=name))
        assert config.credit.context == credit.get(name).context
        assert config.credit.args == credit.get(name).defaults


def test_a_rule_and_its_context_may_be_in_a_file_outside_of_the_package(tmp_path):
    """Without the checkout; the name of the file's rule is its place."""
    (tmp_path / "doubt.py").write_text(f"{RULES[0]}\n{SOURCE}")
    place = f"{tmp_path / 'doubt.py'}:RULE"
    config = validate(tiny_config(rule=place, credit__context="first_line,feedback", credit__args={"tau": 0.1}))
    assert credit.get(place).name == "doubt" and "doubt" not in credit.RULES
    assert (config.credit.rule, config.credit.args) == (place, {"strength": 0.5, "tau": 0.1})


def test_a_comparison_with_all_methods_has_that_of_the_run(tmp_path):
    """Also where its folder has an @, which else stands before a context."""
    (tmp_path / "me@lab").mkdir()
    (tmp_path / "me@lab" / "mine.py").write_text(RULES[0])
    place = f"{tmp_path / 'me@lab' / 'mine.py'}:RULE"
    config = validate(tiny_config(rule=place))
    assert possible(config, "all")[0][:2] == [place, next(iter(credit.RULES))]
    assert method_config(config, f"{place}@verdict").credit.context == "verdict"


def test_an_edited_file_is_another_rule_to_a_resumed_run(tmp_path):
    def recorded(text):
        (tmp_path / "mine.py").write_text(text)
        config = validate(tiny_config(rule=f"{tmp_path / 'mine.py'}:RULE"))
        return read_rows(make_experiment(config, tmp_path))["credit.rule"]

    assert recorded(RULES[0]) == recorded(RULES[0]) != recorded(RULES[0] + "#")


@pytest.mark.parametrize(
    "text, name, message",
    [
        ("RULE = 1", "RULE", "RULE is int; expected an amrsd_jax.credit.Rule"),
        ("from amrsd_jax.credit.grpo import RULE as DOUBT", "RULE", "no 'RULE' there; .*: expected one of DOUBT"),
        ("import nowhere", "RULE", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_file_without_the_rule_is_named(tmp_path, text, name, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=f"mine.py:{name}': {message}"):
        validate(tiny_config(rule=f"{tmp_path / 'mine.py'}:{name}"))


def test_the_document_s_source_gives_a_text_or_the_reason():
    exec(SOURCE, {})
    problems = [SimpleNamespace(reference=text) for text in ("one\ntwo", None)]
    rollouts = SimpleNamespace(problems=problems, text=["", ""])
    texts = sources.SOURCES["first_line"](None, rollouts, [0, 1], None)
    assert [texts.get(row)[1:] for row in (0, 1)] == [("ok", "A solution begins: one"), ("no_reference", "")]
