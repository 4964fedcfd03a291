"""docs/coming_from.md, followed: its configs are valid, and verl's rows are read and verified as it says."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from amrsd_jax.tasks import registry
from amrsd_jax.validate import validate

PAGE = Path(__file__).parents[1] / "docs" / "coming_from.md"
TRL, REWARD, VERL, TUNIX = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("text", [TRL, VERL, TUNIX], ids=["trl", "verl", "tunix"])
def test_configs_are_valid(text, tmp_path, monkeypatch):
    (tmp_path / "gsm8k_reward.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    config = _config(text)
    assert config.rollout.prompts * config.rollout.group % config.learning.minibatches == 0
    validate(config)


def test_rows_of_verl(tmp_path, monkeypatch):
    (tmp_path / "gsm8k_reward.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    row = {
        "prompt": [{"role": "user", "content": "What is 1000 + 72?"}],
        "reward_model": {"style": "rule", "ground_truth": "1072"},
    }
    for split in ("train", "test"):
        parquet.write_table(pa.Table.from_pylist([row]), f"{split}.parquet")
    section = validate(_config(VERL)).task
    task = registry.make(section.name, section.args, seed=0)
    problem = task.problem("train", 0)
    assert problem.question == "What is 1000 + 72?"
    assert [task.verify(problem, text).reward for text in ("#### 1,072", "#### 72", "1072")] == [1, 0, 0]


def _config(text):
    module = {}
    exec(compile(text, "config.py", "exec"), module)
    config = module["get_config"]()
    config.model, config.tokenizer = "qwen3-0.6b", "any"  # the model's own is on the hub
    return config
