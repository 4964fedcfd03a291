"""Every config of configs/ is valid, builds, runs a step, and says in its docstring how to run it."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from amrsd_jax.build import build
from amrsd_jax.checks import validate
from amrsd_jax.config import resolve
from amrsd_jax.runtime.metrics import read_metrics
from amrsd_jax.train import train
from configs import ablation, baselines, tables

FILES = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.py") if path.stem != "__init__")
NAMED = {
    "ablation": ablation.ABLATIONS,
    "baselines": baselines.BASELINES,
    "tables": tables.TABLES,
}  # files of several configs
CASES = [(name, ()) for name in FILES if name not in NAMED]
CASES += [(name, (key,)) for name, keys in NAMED.items() for key in keys]
GIVEN = {"gsm8k_tiny": ("train", "test", "tokenizer")}  # what the command line has to name


cases = pytest.mark.parametrize(
    "name, argument", CASES, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)


def load(name, argument, request):
    """A config on one device, given what its command line has to name."""
    config = importlib.import_module(f"configs.{name}").get_config(*argument)
    if name in GIVEN:
        data = request.getfixturevalue("shared_data")
        config.task.args.update(train=str(data / "math/gsm8k/train.jsonl"), test=str(data / "math/gsm8k/test.jsonl"))
        config.tokenizer = str(data / "tokenizer/qwen3")
    config.mesh.data = 1
    return config


@cases
def test_a_config_is_valid_and_builds(name, argument, request, tmp_path):
    assert f"--config=configs/{name}.py" in importlib.import_module(f"configs.{name}").__doc__
    config = load(name, argument, request)
    validate(config)
    run = build(resolve(config), tmp_path)
    assert run.policy.architecture.vocab_size >= len(run.tokenizer)


@pytest.mark.slow
@cases
def test_a_config_runs_one_step_on_the_tiny_model(name, argument, request, tmp_path):
    """The config's own method, task and lengths; the model, the number of rows and the warm-up made small."""
    config = load(name, argument, request)
    config.architecture.update(width=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=64)
    config.steps, config.warmup.documents = 1, min(config.warmup.documents, 60)
    config.rollout.update(
        prompts=8 // min(config.rollout.group, 4), group=min(config.rollout.group, 4), admit=4, slots=8
    )
    config.reflection.update(slots=8, admit=4)
    config.scoring.update(rows=8, chunk=512)
    config.learning.update(minibatches=1, micro_batches=1)
    config.evaluation.update(problems=4, every=0)
    results = train(config, tmp_path / "run")
    assert results["steps"] == 1
    row = read_metrics(tmp_path / "run" / "metrics.jsonl")[1]
    assert np.isfinite(row["loss/total"]) and not row["optimizer/skipped"]


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'shuffled'"):
        ablation.get_config("shufled")
    with pytest.raises(ValueError, match="did you mean 'dapo'"):
        baselines.get_config("dapo2")
    with pytest.raises(ValueError, match="did you mean 'hard'"):
        tables.get_config("hrd")
