"""docs/add_a_task.md, followed: its verifier is one file, its config is valid, and its rows are verified."""

import re
from pathlib import Path

from amrsd_jax.tasks import registry
from amrsd_jax.tasks.selftest import selftest
from amrsd_jax.validate import validate

PAGE = Path(__file__).parents[2] / "docs" / "add_a_task.md"


def test_the_page(tmp_path, monkeypatch):
    page = PAGE.read_text()
    row = re.search(r"^ {4}(\{.*\})$", page, flags=re.MULTILINE)[1]
    _, verifier, config = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "estimates.py").write_text(verifier)
    (tmp_path / "estimates.jsonl").write_text(f"{row}\n")
    monkeypatch.chdir(tmp_path)
    module = {}
    exec(compile(config, "estimates_config.py", "exec"), module)
    edited = module["get_config"]()
    edited.tokenizer = "any"

    section = validate(edited).task
    assert registry.extras(section.name, section.args) == (("answer",), ("distance",))
    task = registry.make(section.name, section.args, seed=0)
    problem = task.problem("test", 0)
    close, far, none = (task.verify(problem, text) for text in ("Perhaps 1950.", "It is 1500.", "I cannot say."))
    assert close.correct and close.scores == {"distance": 60} and close.spans == {"answer": (8, 12)}
    assert not far.correct and far.reward == none.reward == 0
    assert selftest(task, "test") == []
