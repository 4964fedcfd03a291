"""Every config of configs/ is valid, builds, and says in its docstring how to run it."""

import importlib
from pathlib import Path

import pytest

from amrsd_jax.build import build
from amrsd_jax.checks import validate
from amrsd_jax.config import resolve
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


@pytest.mark.parametrize(
    "name, argument", CASES, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)
def test_a_config_is_valid_and_builds(name, argument, request, tmp_path):
    module = importlib.import_module(f"configs.{name}")
    assert f"--config=configs/{name}.py" in module.__doc__
    config = module.get_config(*argument)
    if name in GIVEN:
        data = request.getfixturevalue("shared_data")
        config.task.args.update(train=str(data / "math/gsm8k/train.jsonl"), test=str(data / "math/gsm8k/test.jsonl"))
        config.tokenizer = str(data / "tokenizer/qwen3")
    validate(config)
    config.mesh.data = 1
    run = build(resolve(config), tmp_path)
    assert run.policy.architecture.vocab_size >= len(run.tokenizer)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'shuffled'"):
        ablation.get_config("shufled")
    with pytest.raises(ValueError, match="did you mean 'dapo'"):
        baselines.get_config("dapo2")
    with pytest.raises(ValueError, match="did you mean 'hard'"):
        tables.get_config("hrd")
