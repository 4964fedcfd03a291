"""Published cases of exports."""

import json

import pytest

from amrsd_jax.export import export
from amrsd_jax.train import train
from tests.tiny import tiny_config
from tests.turn2 import cases

KINDS = ("export",)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(KINDS))
def test_export(case, finished, tmp_path):
    """The case's ids are those of Qwen3; here they are those of the embedded tokenizer."""
    ends = json.loads(case["input"]["model folder"].partition("generation_config.json ")[2])["eos_token_id"]
    generation = {"eos_token_id": list(range(2, 2 - len(ends), -1)), "bos_token_id": 0, "do_sample": True}
    export(finished, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(generation))
    config = tiny_config(rule="grpo", model=str(tmp_path / "model"), warmup__documents=0, steps=1)
    config.architecture = {}
    train(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == generation
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["bos_token_id"], written["pad_token_id"], written["eos_token_id"]) == (0, 0, 2)
