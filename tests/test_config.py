"""A wrong config is refused before any compute, by an error that names the field, its value and what was expected."""

import json

import pytest

from amrsd_jax import config as configuration
from amrsd_jax import credit, tasks
from amrsd_jax.checks import ConfigError, validate
from amrsd_jax.config import base, resolve
from amrsd_jax.runtime.workdir import claim, differences, to_json
from configs import quickstart, quickstart_grpo
from tests.tiny import tiny_config


def changed(**fields):
    """The default config with fields replaced, whatever their types; two underscores stand for the dot."""
    config = base()
    with config.ignore_type():
        for name, value in fields.items():
            *path, last = name.split("__")
            section = config
            for key in path:
                section = section[key]
            section[last] = value
    return config


def refuse(message, **fields):
    with pytest.raises(ConfigError, match=message):
        validate(changed(**fields))


# ---------------------------------------------------------------- what is right


@pytest.mark.parametrize("rule", credit.RULES)
def test_one_line_changes_the_rule(rule):
    config = quickstart.get_config()
    config.credit.rule = rule
    validate(config)
    assert resolve(config).credit.args.to_dict() == credit.get(rule).defaults


def test_resolving_spells_out_what_was_left_to_defaults():
    config = resolve(changed(credit__args={"tau": 0.5}, task__args={"digits": 3}))
    assert config.credit.args.to_dict() == credit.get("amrsd").defaults | {"tau": 0.5}
    assert config.task.args.to_dict() == {"digits": 3, "slip_rate": 0.7, "spread": 0.0}
    assert resolve(config).to_dict() == config.to_dict()


def test_the_two_quickstarts_differ_in_the_rule_alone():
    there = json.loads(to_json(quickstart.get_config()))
    assert differences(there, quickstart_grpo.get_config()) == ["credit.rule: 'amrsd' there, 'grpo' here"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(task__name="strings", task__args={"letters": 4}),  # arguments left out keep their defaults
        dict(task__name="rows", task__args={"train": "a", "test": "b"}, tokenizer="c", warmup__documents=0),
        dict(optimizer__clip_norm=1, rollout__temperature=1),  # an int where a float is expected
        dict(loss__reduction="constant", loss__constant_length=80),
        dict(loss__old_logp="trainer", loss__importance_cap=2.0),
        dict(architecture__width=64, architecture__qk_norm=False, architecture__rope_theta=100),
        dict(chat_template={"enable_thinking": False}),
        dict(reflection__templates={"hint": "{question} hint"}),
        dict(mesh__data=2, mesh__fsdp=2),
        dict(evaluation__every=0, optimizer__clip_norm=0.0, seed=2**32 - 1),
        dict(credit__context="peer_solution,feedback+reference_solution"),
        dict(credit__rule="sdpo", distill__alpha=1.0, distill__top_k=20, distill__support="union"),
        dict(credit__rule="feedback_alignment", external__workdir="there"),
        dict(teacher__kind="external", external__workdir="there"),
    ],
)
def test_valid(fields):
    validate(changed(**fields))


# ---------------------------------------------------------------- names and types


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(stpes=3), r"config.stpes = 3: no such field; did you mean 'steps'"),
        (dict(rollout__gruop=3), r"rollout.gruop = 3: no such field; did you mean 'group'\? expected one of admit, "),
        (dict(architecture__with=3), r"architecture.with = 3: no such field; did you mean 'width'"),
        (dict(credit__args__gama=3), r"credit.args.gama = 3: no such field of rule 'amrsd'; did you mean 'gamma'"),
        (
            dict(credit__rule="grpo", credit__args={"tau": 1}),
            r"credit.args.tau = 1: no such field of rule 'grpo'; it has none",
        ),
        (dict(task__args__digit=3), r"task.args.digit = 3: task 'addition' has no .*; did you mean 'digits'"),
        (dict(reflection__templates={"hnt": ""}), r"reflection.templates.hnt: did you mean 'hint'"),
        (dict(task__name="adition"), r"task.name = 'adition': did you mean 'addition'"),
        (dict(credit__rule="amr-sd"), r"credit.rule = 'amr-sd': did you mean 'amrsd'"),
        (dict(model="qwen3-0.6"), r"model = 'qwen3-0.6': did you mean 'qwen3-0.6b'"),
        (dict(remat="ful"), r"remat = 'ful': did you mean 'full'"),
        (dict(lora__rank=8, lora__targets="qury"), r"lora.targets = 'qury': 'qury': did you mean 'query'"),
        (dict(loss__reduction="token-mean"), r"loss.reduction = 'token-mean': did you mean 'token_mean'"),
        (dict(loss__old_logp="sample"), r"loss.old_logp = 'sample': did you mean 'sampler'"),
        (dict(optimizer__schedule="cosin"), r"optimizer.schedule = 'cosin': did you mean 'cosine'"),
        (dict(monitor__gap__action="halt"), r"monitor.gap.action = 'halt': expected one of"),
        (dict(monitor__lenght=3), r"monitor.lenght = 3: no such field"),
    ],
)
def test_wrong_names_are_told_the_nearest(fields, message):
    refuse(message, **fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(steps="3"), "steps = '3': expected int, like the default 30"),
        (dict(steps=True), "steps = True: expected int"),
        (dict(steps=3.0), "steps = 3.0: expected int"),
        (dict(steps=None), "steps = None: expected int"),
        (dict(optimizer__eps="1e-8"), "optimizer.eps = '1e-8': expected float"),
        (dict(credit__normalize=1), "credit.normalize = 1: expected bool"),
        (dict(model=3), "model = 3: expected str"),
        (dict(rollout=3), "rollout = 3: expected a section"),
        (dict(task__args=3), "task.args = 3: expected a section"),
        (dict(architecture__width=1.5), "architecture.width = 1.5: expected int or None"),
        (dict(architecture__qk_norm=1), "architecture.qk_norm = 1: expected bool or None"),
        (dict(loss__importance_cap="2"), "loss.importance_cap = '2': expected float or None"),
        (dict(task__args__digits="x"), "task.args.digits = 'x': expected int, like the default 5"),
        (dict(task__args={"slip_rate": False}), "task.args.slip_rate = False: expected float"),
        (dict(credit__args__lam="x"), "credit.args.lam = 'x': expected float"),
        (dict(credit__args__decay_steps=1.5), "credit.args.decay_steps = 1.5: expected int"),
        (dict(reflection__templates={"hint": 3}), "reflection.templates.hint = 3: expected str"),
    ],
)
def test_wrong_types_are_refused(fields, message):
    refuse(message, **fields)


def test_a_missing_field_is_named():
    config = base()
    del config.rollout["group"]
    with pytest.raises(ConfigError, match=r"rollout\.group: missing; start the config from"):
        validate(config)


# ---------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("steps", 0, "at least 1"),
        ("rollout.group", 0, "at least 1"),
        ("checkpoint.every", 0, "at least 1"),
        ("mesh.data", 0, "at least 1"),
        ("mesh.tensor", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "below 2"),
        ("rollout.top_k", -1, "at least 0"),
        ("evaluation.top_k", -1, "at least 0"),
        ("evaluation.samples", 0, "at least 1"),
        ("evaluation.problems", -1, "at least 0"),
        ("evaluation.last", 0, "at least 1"),
        ("optimizer.learning_rate", -1e-4, "at least 0"),
        ("optimizer.weight_decay", -0.1, "at least 0"),
        ("credit.args.decay_steps", -1, "at least 0"),
        ("credit.args.lam", -0.2, "at least 0"),
        ("task.args.digits", 0, "1 to 18"),
        ("rollout.top_p", 0.0, r"a number in \(0, 1\]"),
        ("evaluation.top_p", 1.1, r"a number in \(0, 1\]"),
        ("optimizer.b2", 1.0, r"a number in \[0, 1\)"),
        ("warmup.peer", 1.5, r"a share in \[0, 1\]"),
        ("loss.constant_length", 0, "more than 0, or None"),
        ("loss.importance_cap", -1.0, "more than 0, or None"),
        ("architecture.width", 0, "at least 1"),
        ("monitor.window", 0, "at least 1"),
        ("monitor.patience", 0, "at least 1"),
        ("monitor.rollbacks", -1, "at least 0"),
        ("monitor.reward.threshold", 0.0, r"a share in \(0, 1\]"),
        ("monitor.flat.threshold", 1.1, r"a share in \(0, 1\]"),
        ("monitor.entropy.threshold", 1.0, r"a ratio to the start in \(0, 1\)"),
        ("monitor.longer.threshold", 1.0, "a ratio to the start above 1"),
    ],
)
def test_out_of_range(field, value, expected):
    key = field.rpartition(".")[2]
    refuse(rf"{key} = {value}: expected {expected}", **{field.replace(".", "__"): value})


def floats(section, prefix=""):
    for name, value in section.items():
        if isinstance(value, configuration.ConfigDict):
            yield from floats(value, f"{prefix}{name}__")
        elif isinstance(value, float):
            yield f"{prefix}{name}"


@pytest.mark.parametrize("field", floats(base()))
def test_no_field_is_not_a_number(field):
    refuse(rf"{field.rpartition('__')[2]} = nan: .*expected", **{field: float("nan")})


# ---------------------------------------------------------------- fields against each other


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            dict(rollout__prompts=3, rollout__group=5, learning__minibatches=2, learning__micro_batches=2),
            "= 15 rows do not divide into .* = 4 pieces",
        ),
        (dict(rollout__temperature=0.0), "rollout.temperature = 0.0: .* expected more than 0"),
        (dict(learning__skip=True), "learning.skip = True: .* learning.micro_batches of at least 2"),
        (dict(learning__skip=True, learning__micro_batches=2, loss__kl=0.1), "learning.skip = True: .* not 0.1"),
        (dict(loss__importance_cap=2.0), "loss.importance_cap = 2.0 needs loss.old_logp = 'trainer', not 'sampler'"),
        (dict(loss__reduction="constant"), "loss.constant_length = None with loss.reduction = 'constant'"),
        (dict(loss__constant_length=9), "loss.constant_length = 9 with loss.reduction = 'sequence_mean'"),
        (dict(reward__overlong_buffer=81), "overlong_buffer = 81 is larger than rollout.response_length = 80"),
        (dict(rollout__group=8, rollout__slots=7), "rollout.group = 8 does not fit into rollout.slots = 7"),
        (
            dict(task__name="rows", task__args={"train": "a", "test": "b"}, tokenizer="c", warmup__documents=5),
            "warmup.documents = 5: task 'rows' has no demonstrator .* addition, strings",
        ),
        (
            dict(task__name="rows", task__args={"train": "a", "test": "b"}),
            "tokenizer = '': task 'rows' needs a tokenizer",
        ),
        (dict(task__name="rows", task__args=tasks.defaults("rows")), "task.args.train = '': expected a JSON-lines"),
        (dict(warmup__solve=0.75, warmup__reflect=0.5), r"warmup.solve \+ .* = 1.25: shares above 1"),
        (
            dict(teacher__kind="external"),
            "external.workdir = '': teacher.kind = 'external' needs the workdir of the run",
        ),
        (dict(external__workdir="there"), "external.workdir = 'there': neither the teacher"),
        (dict(distill__alpha=0.5), "distill.alpha = 0.5: rule 'amrsd' does not distil; opsd, sdpg, sdpo do"),
        (dict(credit__rule="sdpo", distill__alpha=1.5), r"distill.alpha = 1.5: expected a number in \[0, 1\]"),
        (dict(credit__rule="sdpo", distill__support="both"), "distill.support = 'both': expected one of"),
        (dict(credit__rule="sdpo", distill__coefficient=0.0), "distill.coefficient = 0.0: expected more than 0"),
        (dict(credit__rule="rlcsd", credit__args={"k": 0}), "credit.args.k = 0: rule 'rlcsd' contrasts at least 1"),
        (dict(credit__context="answer,peer"), "credit.context = 'peer': did you mean 'peer_solution'"),
        (
            dict(warmup__given=0.5),
            r"warmup.solve \+ warmup.reflect \+ warmup.given \+ warmup.trace = 1.25: shares above 1",
        ),
        (
            dict(architecture__heads=4, architecture__kv_heads=3),
            "kv_heads = 3 does not divide .*heads = 4",
        ),
    ],
)
def test_contradictions(fields, message):
    refuse(message, **fields)


# ---------------------------------------------------------------- workdirs


def test_a_workdir_is_claimed_once_and_resumed_by_the_same_config(tmp_path):
    workdir = tmp_path / "runs" / "a"
    assert claim(workdir, base()) is False
    assert json.loads((workdir / "config.json").read_text()) == json.loads(to_json(base()))
    assert claim(workdir, base()) is True
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


def test_a_workdir_of_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    claim(tmp_path, resolve(base()))
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ConfigError) as refusal:
        claim(tmp_path, resolve(changed(steps=31, credit__rule="grpo")))
    lines = str(refusal.value).splitlines()
    assert f"{tmp_path} holds a run of another config" in lines[0] and "--workdir" in lines[0]
    assert "  steps: 30 there, 31 here" in lines
    assert "  credit.rule: 'amrsd' there, 'grpo' here" in lines
    assert "  credit.args.tau: 0.2 there, '(absent)' here" in lines
    assert (tmp_path / "config.json").read_text() == before


def test_a_config_survives_its_file():
    config = changed(architecture__rope_theta=1e6, optimizer__learning_rate=3e-5, chat_template={"a": [1, 2]})
    assert differences(json.loads(to_json(config)), config) == []
    assert differences(json.loads(to_json(base())), config) == [
        "architecture.rope_theta: None there, 1000000.0 here",
        "chat_template.a: '(absent)' there, [1, 2] here",
        "optimizer.learning_rate: 0.0001 there, 3e-05 here",
    ]


@pytest.mark.parametrize("fields", [dict(rollout__top_k=5), dict(rollout__top_p=0.9)])
def test_truncated_sampling_needs_the_trainers_own_probabilities(fields):
    with pytest.raises(ConfigError, match="loss.old_logp = 'sampler' with rollout.top_k"):
        validate(changed(**fields))
    validate(changed(loss__old_logp="trainer", **fields))


LETTERS = {"task": {"name": "choice", "args": {"test": "rows.jsonl"}}, "samples": 16}


@pytest.mark.parametrize(
    "benchmarks, message",
    [
        (
            {"validation": LETTERS},
            "evaluation.benchmarks.validation: expected a name of letters, .* other than test and",
        ),
        ({"a/b": LETTERS}, "evaluation.benchmarks.a/b: expected a name"),
        ({"aime": 3}, r"evaluation.benchmarks.aime: expected a section with task=dict\(name=..., args="),
        ({"aime": LETTERS | {"sample": 4}}, "benchmarks.aime.sample = 4: no such field; did you mean 'samples'"),
        ({"aime": LETTERS | {"samples": "4"}}, "benchmarks.aime.samples = '4': expected int"),
        ({"aime": LETTERS | {"top_p": 0.0}}, r"benchmarks.aime.top_p = 0.0: expected a number in \(0, 1\]"),
        ({"aime": LETTERS | {"every": 15}}, "benchmarks.aime.every = 15: expected a multiple of evaluation.every = 10"),
        ({"aime": {"task": {"name": "choise"}}}, "benchmarks.aime.task.name = 'choise': did you mean 'choice'"),
        ({"aime": {"task": {"name": "choice"}}}, "benchmarks.aime.task.args.test = '': expected a JSON-lines file"),
        ({"aime": {"task": {"name": "choice", "args": {"tset": "a"}}}}, "aime.task.args.tset = 'a': .* 'test'"),
        (
            {"sums": {"task": {"name": "addition"}, "problems": 0}},
            "benchmarks.sums.problems = 0: task 'addition' never",
        ),
    ],
)
def test_a_wrong_benchmark_is_named(benchmarks, message):
    with pytest.raises(ConfigError, match=message):
        validate(tiny_config(evaluation__every=10, evaluation__benchmarks=benchmarks))


def test_benchmarks_are_spelled_out_and_the_rest_is_the_runs():
    config = tiny_config(evaluation__every=0, evaluation__benchmarks={"aime": LETTERS})
    validate(config)
    aime = resolve(config).evaluation.benchmarks.aime
    assert (aime.samples, aime.problems, aime.every, aime.task.args.question) == (16, 0, 0, "question")
    with pytest.raises(ConfigError, match="evaluation.problems = 0: task 'addition' never runs out"):
        validate(tiny_config(evaluation__problems=0))
