"""Every config of configs/ is valid and can be planned, says how to run it, and two are run on real rows."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amrsd_jax.experiment import make_architecture, make_experiment
from amrsd_jax.plan import make_plan
from amrsd_jax.policy.tokenizer import chat_ids
from amrsd_jax.reflection.prompts import fill
from amrsd_jax.tasks import registry
from amrsd_jax.validate import validate
from configs import ablation, baselines, code, families, mathematics, science, tables
from configs.benchmark import choose
from configs.methods import METHODS, use
from tests import runs

ROOT = Path(__file__).parents[1]
NAMED = {  # files of several configs
    "ablation": ablation.ABLATIONS, "baselines": baselines.BASELINES, "code": code.SETS, "families": families.FAMILIES,
    "mathematics": mathematics.TRAIN, "science": science.SCIENCES, "tables": tables.TABLES,
}  # fmt: skip
FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if "def get_config" in path.read_text("utf-8"))
CASES = [(name, ()) for name in FILES if name not in NAMED] + [(name, (key,)) for name in NAMED for key in NAMED[name]]
_GSM8K = dict(folder="math/gsm8k", train="train.jsonl", test="test.jsonl")
_MBPP = "code/mbpp/mbpp.jsonl#task_id="
_AIME = dict(folder="math", test="aime24/test.jsonl")
ROWS = {  # rows of the configs, as a command line would name them on this machine
    ("gsm8k_tiny",): _GSM8K,
    ("gsm8k",): _GSM8K,
    ("mathematics", "dapo_math"): _AIME | dict(train="dsr_sub/train.jsonl"),  # which has the columns
    ("mathematics", "dsr_sub"): _AIME | dict(train="dsr_sub/train.jsonl"),
    ("mathematics", "math_train"): _AIME | dict(train="math_train/train.jsonl"),
    **{("science", name): dict(folder=f"sciknoweval/{folder}") for name, folder in science.SCIENCES.items()},
    ("code", "mbpp"): dict(folder="", train=f"{_MBPP}601:975", test=f"{_MBPP}11:511"),
    ("code", "humaneval"): dict(folder="", train=f"{_MBPP}601:975", test="code/humaneval/test.jsonl"),
    ("tools",): dict(folder="tooluse", train="train_rebuilt.json"),
}


def get(name, *argument, tokenizer="somewhere"):
    """A config as users get it, but for the tokenizer and the architecture, which would come from the web."""
    config = importlib.import_module(f"configs.{name}").get_config(*argument)
    if config.model.startswith("Qwen/"):
        config.model = config.model.removeprefix("Qwen/").lower()
    if config.model.startswith("smollm2"):  # comes with a package that need not be installed
        config.model = "tiny"
    if not registry.embedded(config.task.name):
        config.tokenizer = str(tokenizer)
    return config


def local(name, *argument, data):
    """The same, with the rows and the tokenizer of this machine, on one device."""
    config, rows = get(name, *argument, tokenizer=data / "tokenizer/qwen3"), ROWS[name, *argument]
    config.task.args.update(rows | dict(folder=str(data / rows["folder"])))
    for benchmark, section in config.evaluation.benchmarks.items():
        folder = {"hmmt25": "hmmt_feb_2025", "minerva": "minerva_math"}.get(benchmark, benchmark)
        columns = {"question": "problem"} if benchmark in ("amc23", "minerva") else {}  # where the hub's differ
        section.task.args.update(test=str(data / "math" / folder / "test.jsonl"), **columns)
    config.mesh.update(data=1, fsdp=1)
    return config


def test_every_config_is_valid_and_says_how_to_run_it():
    for name, argument in CASES:
        assert f"--config=configs/{name}.py" in importlib.import_module(f"configs.{name}").__doc__
        validate(get(name, *argument))


@pytest.mark.slow
@pytest.mark.parametrize("case", {name: (name, *argument) for name, argument in CASES}.values(), ids="-".join)
def test_a_config_can_be_planned(case, tmp_path):
    """One of each file, on eight devices."""
    assert make_plan(validate(get(*case))).peak > 0


@pytest.mark.slow
@pytest.mark.parametrize("case", ROWS, ids="-".join)
def test_a_config_reads_real_rows(case, shared_data, tmp_path):
    experiment = make_experiment(validate(local(*case, data=shared_data)), tmp_path)  # allocates nothing
    assert experiment.task.size("train") > 0
    problem = experiment.task.problem("train", 0)
    assert 0 < len(experiment.prompt_ids(problem)) <= experiment.config.rollout.prompt_length


@pytest.mark.parametrize(
    "case", [case for case in CASES if case[0] in ("quickstart", "collapse", "strings", "tables", "long_tail")], ids=str
)
def test_the_teacher_s_prompt_has_room_for_what_the_rules_show(case, tmp_path):
    """The longest text that a rule shows by default is the verifier's message with a solution."""
    config = validate(get(case[0], *case[1]))
    experiment = make_experiment(config, tmp_path)
    templates, settings = experiment.context_settings.templates[""], experiment.context_settings
    problems = [experiment.task.problem("train", index) for index in range(1000)]
    for problem in sorted(problems, key=lambda problem: len(problem.question))[-20:]:
        verdict = experiment.task.verify(problem, "")
        texts = [
            fill(templates.given_feedback, verdict=verdict.message),
            fill(templates.given_solution, solution=experiment.task.solution(problem)),
        ]
        prompt = templates.teacher_prompt(problem.question, "\n".join(texts))
        assert len(chat_ids(settings.tokenizer, prompt)) <= config.reflection.context_length


@pytest.mark.parametrize(
    "name, argument",
    [("science", "chemistry"), ("tools", ""), ("mathematics", ""), ("gsm8k", ""), ("code", "mbpp"), ("code", "lcb")],
)
def test_a_benchmark_takes_every_method_by_one_word(name, argument):
    for method, fields in METHODS.items():
        config = validate(get(name, f"{argument},{method}"))
        assert config.credit.rule == fields["credit"]["rule"] and config.rows == 256
        assert (config.rollout.prompt_length, config.rollout.response_length) == (2048, 8192)
        if name != "gsm8k" and argument != "mbpp":  # the ones whose rows have solutions
            assert config.credit.context != "reference_solution"


def test_methods_have_the_settings_that_their_code_has():
    """Aggregation, clip bounds, dual clip, rounds of dynamic sampling, and the deviation that advantages are divided by."""
    published = {
        "opsd": ("token_mean", 0.2, 0.2, 0.0, 1, False),
        "rlsd": ("token_mean", 0.2, 0.28, 3.0, 1, True),
        "cepo": ("token_mean", 0.2, 0.28, 3.0, 1, True),
        "sdpg": ("token_mean", 0.2, 0.28, 10.0, 10, True),
        "distilled_rl": ("token_mean", 0.2, 0.2, 3.0, 1, True),
        "srpo": ("token_mean", 0.2, 0.2, 3.0, 1, True),
        "rlcsd": ("token_mean", 0.2, 0.2, 0.0, 1, True),
    }
    for method, expected in published.items():
        config = validate(get("science", f"chemistry,{method}"))
        loss = config.loss
        values = (loss.reduction, loss.clip_low, loss.clip_high, loss.clip_dual, config.rollout.rounds)
        assert (*values, config.credit.sample_std) == expected
    assert validate(get("science", "chemistry,gspo")).loss.old_logprobs == "update"
    assert validate(get("science", "chemistry,credit")).teacher.rate == 0.01
    assert validate(get("code", "lcb,cepo")).credit.context == "peer_solution"  # there is no right program to show


@pytest.mark.parametrize("model", ["qwen3-1.7b", "qwen3-4b", "qwen2.5-7b"])
def test_a_benchmark_takes_another_model_by_one_flag(model):
    config = get("science", "chemistry")
    config.model = model
    assert make_architecture(validate(config), None).vocab_size >= 151_936


def test_the_system_message_of_science_is_that_of_its_rows(shared_data):
    for folder in science.SCIENCES.values():
        for line in (shared_data / "sciknoweval" / folder / "train.json").read_text("utf-8").splitlines():
            assert json.loads(line)["system"] == science.SYSTEM


def test_a_method_keeps_the_rows_of_a_step():
    config = science.get_config("chemistry,feedback_critic")
    assert (config.rollout.prompts, config.rollout.group) == (256, 1)
    assert science.get_config("dapo,chemistry").reward.overlong_buffer == 1024
    assert science.get_config("chemistry,dr_grpo").loss.constant_length == 8192
    assert science.get_config("chemistry,sdpg").reward.overlong_buffer == 1024
    config = science.get_config("chemistry,sdpg")
    config.rollout.response_length = 2048  # as a flag behind the method does
    assert validate(config).reward.overlong_buffer == 256
    assert science.get_config("chemistry,opsd").credit.context == "answer"
    with pytest.raises(ValueError, match="method 'sdpoo': did you mean 'sdpo'"):
        use(config, "sdpoo")


def test_a_data_set_and_a_method_by_name():
    assert choose("b,sdpo", "ab") == choose("sdpo,b", "ab") == ("b", "sdpo")
    assert choose("", "ab", default="a") == ("a", "amrsd") and choose("grpo") == ("", "grpo")
    for argument, message in {
        "a,sdpoo": "'sdpoo': did you mean 'sdpo'",
        "a,b": "'a,b': a and b are both given; expected one data set",
        "a,grpo,sdpo": "grpo and sdpo are both given; expected one method",
        "sdpo": "'sdpo': no data set; expected one of a, b",
    }.items():
        with pytest.raises(ValueError, match=message):
            choose(argument, "ab")
    for module, wrong, near in (
        (ablation, "shufled", "shuffled"),
        (baselines, "dapo2", "dapo"),
        (tables, "hrd", "hard"),
    ):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            module.get_config(wrong)


# ---------------------------------------------------------------- two of them, on real rows


def run(config, workdir, *fields):
    """Trains by the command in a process of its own, on one device; returns its notes and its peak memory in KiB."""
    command = [
        sys.executable, "-c",
        "from absl import app\nfrom amrsd_jax import main\n"
        "try: app.run(main.main, flags_parser=main.parse)\n"
        # not ru_maxrss, which begins with the peak of the process that started this one
        "finally: print('peak KiB', *[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])",
        f"--config=configs/{config}", f"--workdir={workdir}", *(f"--config.{field}" for field in fields),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""}, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr, int(done.stdout.split("peak KiB")[1])


@pytest.mark.slow
def test_real_gsm8k_rows_through_a_real_tokenizer(shared_data, tmp_path):
    """By config alone, with the full vocabulary of 151,936, in less than 4 GiB."""
    folder, tokenizer = shared_data / "math" / "gsm8k", shared_data / "tokenizer" / "qwen3"
    notes, peak = run("gsm8k_tiny.py", tmp_path, f"task.args.folder={folder}", f"tokenizer={tokenizer}")
    assert peak < 4 * 2**20 and "data train: 7473 rows" in notes
    trained = runs.metrics(tmp_path, "train")
    assert len(trained) == 2
    assert all(row["reflection/needed"] == 1.0 and np.isfinite(row["loss/total"]) for row in trained)
    assert all(row["problem_id"].startswith("train-") for row in runs.rollouts(tmp_path, 1))
    report = json.loads((tmp_path / "data.json").read_text())
    assert report["splits"]["test"]["selftest"] == {"rows": 512, "faults": []}
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_step_on_real_chemistry_rows(shared_data, tmp_path):
    """The chemistry experiment's config with 20 M random parameters and the full vocabulary, and a budget for a CPU."""
    notes, peak = run(
        "science.py:chemistry", tmp_path, "steps=1", f"task.args.folder={shared_data / 'sciknoweval' / 'chemistry'}",
        "model=tiny", "architecture.vocab_size=151936", f"tokenizer={shared_data / 'tokenizer' / 'qwen3'}", "mesh.fsdp=1",
        "rollout.prompts=2", "rollout.group=4", "rollout.slots=8", "rollout.admit=2", "rollout.prompt_length=768",
        "rollout.response_length=32", "reflection.prompt_length=1024", "reflection.slots=8", "reflection.admit=4",
        "reflection.tokens=16", "reflection.context_length=1024", "learning.micro_batches=2", "scoring.chunk=512",
        "evaluation.problems=2", "evaluation.samples=1", "credit.exact_savings=False",  # or no row would need a teacher
        "credit.context=self_reflection,answer",  # for what a random model writes has no tags
    )  # fmt: skip
    assert peak < 4 * 2**20 and "data train: 1890 rows" in notes
    (row,) = runs.metrics(tmp_path, "train")
    assert np.isfinite(row["loss/total"]) and row["reflection/needed"] == row["reflection/usable"] == 1.0
    saved = runs.rollouts(tmp_path, 1)
    assert len(saved) == 8 and any(any(line["gap"]) for line in saved)  # the teacher has read them


@pytest.mark.slow
def test_two_steps_on_real_programming_tasks(shared_data, tmp_path):
    """MBPP's config with 20 M random parameters: every response is a verdict of the sandbox, and its message the context."""
    if not shutil.which("bwrap"):
        pytest.skip("no bubblewrap to run programs in")
    rows = f"{shared_data}/code/mbpp/mbpp.jsonl#task_id="
    notes, _ = run(
        "code.py:mbpp", tmp_path, "steps=2", f"task.args.train={rows}601:975", f"task.args.test={rows}11:511",
        "model=tiny", "architecture.vocab_size=151936", f"tokenizer={shared_data / 'tokenizer' / 'qwen3'}", "mesh.fsdp=1",
        "rollout.prompts=2", "rollout.group=4", "rollout.slots=8", "rollout.admit=2", "rollout.prompt_length=512",
        "rollout.response_length=32", "reflection.prompt_length=768", "reflection.slots=8", "reflection.admit=4",
        "reflection.tokens=16", "reflection.context_length=768", "learning.micro_batches=2", "scoring.chunk=512",
        "evaluation.problems=2", "evaluation.samples=1", "credit.exact_savings=False", "report.rollouts_every=1",
        "credit.context=self_reflection,feedback",
    )  # fmt: skip
    assert "data train: 374 rows" in notes and "programs run in bubblewrap" in notes
    trained = runs.metrics(tmp_path, "train")
    assert len(trained) == 2 and all(np.isfinite(row["loss/total"]) for row in trained)
    assert len(runs.rollouts(tmp_path, 2)) == 8
    assert json.loads((tmp_path / "data.json").read_text())["splits"]["train"]["selftest"]["faults"] == []
