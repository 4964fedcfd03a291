"""A run's checkpoint as a Hugging Face folder, and a run that begins from it."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.experiment import make_experiment
from amrsd_jax.export import export
from amrsd_jax.policy import huggingface
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.sections import ConfigError
from amrsd_jax.start import initial_params, trained_params
from amrsd_jax.validate import validate
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The folder of the finished run's last checkpoint."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert export(finished, folder) == 4
    return folder


@pytest.mark.slow
def test_a_run_begins_from_an_export_with_its_weights_and_tokenizer(finished, exported, tmp_path):
    config = tiny_config(model=str(exported), warmup__documents=0)
    config.architecture = {}
    run = make_experiment(validate(config), tmp_path)
    trained = make_experiment(validate(read_config(finished)), finished)
    assert run.tokenizer.get_vocab() == trained.tokenizer.get_vocab()
    assert run.policy.architecture == trained.policy.architecture
    last = trained_params(finished, 4, trained.policy, trained.mesh)
    jax.tree.map(np.testing.assert_array_equal, initial_params(run, tmp_path, Clock()), last)

    if importlib.util.find_spec("torch") is None:
        return  # parity is in tests/policy, with golden numbers
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(exported)("12+34=", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(exported)(tokens).logits
    ours = run.policy.logits(last, run.policy.forward(last, jnp.asarray(tokens.numpy(), jnp.int32)))
    assert np.abs(logits.numpy() - ours).max() < 1e-4


@pytest.mark.slow
def test_a_verifier_and_a_rule_that_are_not_there_are_not_missed(finished, exported, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["task"] = dict(name="rows", args=dict(train="gone.jsonl", test="gone.jsonl", verifier="gone.py:judge"))
    config["credit"]["rule"], config["credit"]["args"] = "renamed", dict(more=1.0)
    config["warmup"]["documents"], config["tokenizer"] = 0, str(run / "tokenizer")
    config["architecture"]["vocab_size"] = json.loads((exported / "config.json").read_text())["vocab_size"]
    (run / "config.json").write_text(json.dumps(config))
    assert export(run, tmp_path / "model") == 4


@pytest.mark.slow
def test_the_command_takes_a_step_and_says_what_is_wrong(finished, exported, tmp_path):
    command = [sys.executable, "-m", "amrsd_jax.export", f"--workdir={finished}", f"--out={tmp_path / 'half'}"]

    def run(*more):
        return subprocess.run([*command, *more], cwd=Path(__file__).parents[1], capture_output=True, text=True)

    done = run("--step=2", "--dtype=bfloat16")
    assert done.returncode == 0 and done.stdout.startswith("step 2: ")
    assert huggingface.read_architecture(tmp_path / "half").dtype == "bfloat16"
    done = run()
    assert done.returncode == 1 and "half: not empty; expected a new folder" in done.stderr.splitlines()[-1]
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 9; .* \[1, 2, 3, 4\]"):
        export(finished, tmp_path / "other", step=9)


def test_weights_and_a_warm_up_or_a_wrong_name_are_refused(tmp_path):
    huggingface.save_params(tmp_path / "m", huggingface.PRESETS["tiny"], {})
    config = tiny_config(model=str(tmp_path / "m"))
    config.architecture = {}
    with pytest.raises(ConfigError, match="warmup.documents = 10000: model = "):
        validate(config)
    with pytest.raises(ConfigError, match="model = 'tinny': did you mean 'tiny'"):
        validate(tiny_config(model="tinny"))
    (tmp_path / "m" / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ConfigError, match="model_type = 'mamba': not supported"):
        validate(tiny_config(model=str(tmp_path / "m"), warmup__documents=0))
