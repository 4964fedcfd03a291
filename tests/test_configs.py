"""Every config of configs/ is valid, builds, runs a step, and says in its docstring how to run it."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from amrsd_jax.build import build
from amrsd_jax.checks import validate
from amrsd_jax.config import resolve
from amrsd_jax.runtime.metrics import read_metrics
from amrsd_jax.train import train
from configs import ablation, baselines, mathematics, science, tables
from configs.benchmark import choose
from configs.methods import METHODS, use

FILES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "configs").glob("*.py")
    if "def get_config" in path.read_text("utf-8")
)
NAMED = {
    "ablation": ablation.ABLATIONS,
    "baselines": baselines.BASELINES,
    "mathematics": mathematics.TRAIN,
    "science": science.SCIENCES,
    "tables": tables.TABLES,
}  # files of several configs
CASES = [(name, ()) for name in FILES if name not in NAMED]
CASES += [(name, (key,)) for name, keys in NAMED.items() for key in keys]
# what the command line would say of rows on this machine, in ../shared/data
_GSM8K = dict(folder="math/gsm8k", train="train.jsonl", test="test.jsonl")
_AIME = dict(folder="math", test="aime24/test.jsonl")
ROWS = {
    ("gsm8k_tiny",): _GSM8K,
    ("gsm8k",): _GSM8K,
    ("mathematics", "dapo_math"): _AIME | dict(train="dsr_sub/train.jsonl"),  # which has the columns
    ("mathematics", "dsr_sub"): _AIME | dict(train="dsr_sub/train.jsonl"),
    ("mathematics", "math_train"): _AIME | dict(train="math_train/train.jsonl"),
    **{("science", name): dict(folder=f"sciknoweval/{folder}") for name, folder in science.SCIENCES.items()},
    ("tools",): dict(folder="tooluse", train="train_rebuilt.json"),
}


ONE_WILL_DO = {
    "science": "chemistry",
    "mathematics": "dapo_math",
}  # for a step: the others are other rows in other files
STEPPED = [(name, argument) for name, argument in CASES if argument in ((), (ONE_WILL_DO.get(name, *argument),))]


def named(value):
    return "-".join(value) if isinstance(value, tuple) else value


cases = pytest.mark.parametrize("name, argument", CASES, ids=named)


def load(name, argument, request):
    """A config on one device, given what its command line has to name."""
    config = importlib.import_module(f"configs.{name}").get_config(*argument)
    if (name, *argument) in ROWS:
        at_home(config, ROWS[name, *argument], request.getfixturevalue("shared_data"))
    config.mesh.update(data=1, fsdp=1)
    return config


def at_home(config, rows, data):
    """Rows, tokenizer and architecture on this machine in place of those of the web."""
    config.task.args.update(rows | dict(folder=str(data / rows["folder"])))
    config.tokenizer = str(data / "tokenizer/qwen3")
    for name, section in config.evaluation.benchmarks.items():
        folder = {"hmmt25": "hmmt_feb_2025", "minerva": "minerva_math"}.get(name, name)
        columns = {"question": "problem"} if name in ("amc23", "minerva") else {}  # where the hub's differ
        section.task.args.update(test=str(data / "math" / folder / "test.jsonl"), **columns)
    if config.model.startswith("Qwen/"):
        config.model = config.model.removeprefix("Qwen/").lower()


@cases
def test_a_config_is_valid_and_builds(name, argument, request, tmp_path):
    assert f"--config=configs/{name}.py" in importlib.import_module(f"configs.{name}").__doc__
    config = load(name, argument, request)
    validate(config)
    run = build(resolve(config), tmp_path)
    assert run.policy.architecture.vocab_size >= len(run.tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("name, argument", STEPPED, ids=named)
def test_a_config_runs_one_step_on_the_tiny_model(name, argument, request, tmp_path):
    """The config's own method, task and lengths; the model, the number of rows and the warm-up made small."""
    config = load(name, argument, request)
    config.architecture.update(width=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=64)
    config.steps, config.warmup.documents = 1, min(config.warmup.documents, 60)
    config.rollout.update(
        prompts=8 // min(config.rollout.group, 4), group=min(config.rollout.group, 4), admit=4, slots=8
    )
    config.reflection.update(slots=8, admit=4)
    if config.rollout.prompt_length > 1000:  # lengths of real models: decoding 8,192 tokens takes minutes
        config.rollout.update(prompt_length=768, response_length=32)
        config.reflection.update(prompt_length=1024, tokens=32, context_length=1024)
    config.scoring.update(rows=8, chunk=512)
    config.learning.update(minibatches=1, micro_batches=1)
    config.evaluation.update(problems=4, samples=2, every=0)
    for benchmark in config.evaluation.benchmarks.values():
        benchmark.problems = 1
    results = train(config, tmp_path / "run")
    assert results["steps"] == 1
    row = read_metrics(tmp_path / "run" / "metrics.jsonl")[1]
    assert np.isfinite(row["loss/total"]) and not row["optimizer/skipped"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name, argument", [("science", "chemistry"), ("tools", ""), ("mathematics", ""), ("gsm8k", "")]
)
def test_a_benchmark_takes_every_method_by_one_word(name, argument, method, request):
    config = importlib.import_module(f"configs.{name}").get_config(f"{argument},{method}")
    at_home(config, dict(folder=""), Path("anywhere"))
    validate(config)
    resolved = resolve(config)
    asked = METHODS[method]
    assert resolved.credit.rule == asked["credit"]["rule"]
    assert resolved.rollout.prompts * resolved.rollout.group == 256
    assert (resolved.rollout.prompt_length, resolved.rollout.response_length) == (2048, 8192)
    if name != "gsm8k":  # the only one whose rows have solutions
        assert resolved.credit.context != "reference_solution"


@pytest.mark.parametrize("model", ["Qwen3-1.7B", "Qwen3-4B", "Qwen2.5-7B"])
def test_a_benchmark_takes_another_model_by_one_flag(model, shared_data, tmp_path):
    config = science.get_config("chemistry")
    config.model = f"Qwen/{model}"
    at_home(config, ROWS["science", "chemistry"], shared_data)
    config.mesh.update(data=1, fsdp=1)
    validate(config)
    run = build(resolve(config), tmp_path)  # nothing is allocated
    assert run.policy.architecture.vocab_size >= 151_936


def test_the_system_message_of_science_is_the_rows_own(shared_data):
    for folder in science.SCIENCES.values():
        for line in (shared_data / "sciknoweval" / folder / "train.json").read_text("utf-8").splitlines():
            assert json.loads(line)["system"] == science.SYSTEM


def test_a_method_keeps_the_rows_of_a_step():
    config = science.get_config("chemistry,feedback_critic")
    assert (config.rollout.prompts, config.rollout.group) == (256, 1)
    assert science.get_config("dapo,chemistry").reward.overlong_buffer == 1024
    assert science.get_config("chemistry,dr_grpo").loss.constant_length == 8192
    assert science.get_config("chemistry,opsd").credit.context == "answer"
    with pytest.raises(ValueError, match="method 'spdo': did you mean 'sdpo'"):
        use(config, "spdo")


def test_a_data_set_and_a_method_by_name():
    assert choose("b,sdpo", "ab") == choose("sdpo,b", "ab") == ("b", "sdpo")
    assert choose("", "ab", default="a") == ("a", "amrsd") and choose("grpo") == ("", "grpo")
    for argument, message in {
        "a,spdo": "'spdo': did you mean 'sdpo'",
        "a,b": "'a,b': a and b are two; expected one data set",
        "a,grpo,sdpo": "grpo and sdpo are two; expected one method",
        "sdpo": "'sdpo': no data set; expected one of a, b",
    }.items():
        with pytest.raises(ValueError, match=message):
            choose(argument, "ab")


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'shuffled'"):
        ablation.get_config("shufled")
    with pytest.raises(ValueError, match="did you mean 'dapo'"):
        baselines.get_config("dapo2")
    with pytest.raises(ValueError, match="did you mean 'hard'"):
        tables.get_config("hrd")
