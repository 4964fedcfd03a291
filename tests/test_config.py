"""A wrong config is refused before any compute, by an error that names the field, its value and what was expected."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from amrsd_jax import credit
from amrsd_jax.config import Config, base
from amrsd_jax.credit import Rule, TokenCredit
from amrsd_jax.credit.base import all_rows, no_rows
from amrsd_jax.sections import ConfigError
from amrsd_jax.tasks import registry
from amrsd_jax.validate import cannot_learn, validate
from configs import quickstart, quickstart_grpo
from tests.tiny import set_fields

ROWS = dict(task__name="rows", task__args={"train": "a", "test": "b"})
LETTERS = {"task": {"name": "choice", "args": {"test": "rows.jsonl"}}, "samples": 16}


def check(**fields) -> Config:
    return validate(set_fields(base(), **fields))


def refusal(**fields) -> str:
    with pytest.raises(ConfigError) as error:
        check(**fields)
    return str(error.value)


# ---------------------------------------------------------------- what is right


def test_the_defaults_are_valid_and_the_rule_s_and_task_s_own_are_filled_in():
    config, rule = validate(base()), credit.get("amrsd")
    assert config.credit.args == rule.defaults and config.credit.context == rule.context
    assert config.credit.negatives == rule.negative_count and config.teacher.kind == rule.teacher
    assert config.task.args == registry.defaults("addition") and config.distill == {}
    assert config.loss.old_logprobs == "sampler"
    filled = {
        "credit": {"args", "context", "negatives", "baseline", "normalize"},
        "teacher": {"kind"},
        "task": {"args"},
        "loss": {"old_logprobs"},
    }
    assert config.model_dump(exclude=filled) == Config().model_dump(exclude=filled)


def test_longer_rows_than_the_model_s_are_refused_unless_its_positions_are_scaled():
    longer = dict(rollout__prompt_length=1024, rollout__response_length=8192)
    named = refusal(model="qwen3-5m", architecture={"max_positions": 4096}, **longer)
    assert "rollout.prompt_length + rollout.response_length = 1024 + 8192 = 9216" in named and "= 4096)" in named
    for scaling in ({"rope_type": "yarn", "factor": 4.0}, {"rope_type": "linear", "factor": 2.5}):
        architecture = {"max_positions": 4096, "rope_scaling": scaling}
        assert check(architecture=architecture, **longer).architecture == architecture
        assert "at most 4096 tokens" in refusal(architecture=architecture | {"rope_scaling": {}}, **longer)
    named = refusal(reflection__context_length=30_000, rollout__response_length=4096)
    assert "reflection.context_length + rollout.response_length = 30000 + 4096" in named
    assert check(credit__rule="grpo", reflection__context_length=30_000, rollout__response_length=4096)
    validate(set_fields(base(), reflection__context_length=30_000, rollout__response_length=4096), splits=("test",))


@pytest.mark.parametrize("rule", credit.RULES)
def test_one_line_changes_the_rule_and_a_validated_config_is_its_own(rule):
    config = quickstart.get_config()
    config.credit.rule = rule
    config = validate(config)
    assert config.credit.args == credit.get(rule).defaults
    assert validate(ConfigDict(config.model_dump())) == config


def test_arguments_keep_the_defaults_of_what_they_leave_out():
    config = check(credit__args={"tau": 0.5}, task__args={"digits": 3}, credit__rule="amrsd")
    assert config.credit.args == credit.get("amrsd").defaults | {"tau": 0.5}
    assert config.task.args == registry.defaults("addition") | {"digits": 3}


def test_the_two_quickstarts_differ_in_the_rule_alone():
    amrsd, grpo = quickstart.get_config(), quickstart_grpo.get_config()
    assert (amrsd.credit.rule, grpo.credit.rule) == ("amrsd", "grpo")
    grpo.credit.rule = "amrsd"
    assert grpo == amrsd


@pytest.mark.parametrize(
    "fields",
    [
        dict(task__name="strings", task__args={"letters": 4}),
        ROWS | dict(tokenizer="c"),
        dict(optimizer__clip_norm=1, rollout__temperature=1),  # an int where a float is expected
        dict(loss__reduction="constant", loss__constant_length=80),
        dict(loss__old_logprobs="trainer", loss__importance_cap=2.0, rollout__top_k=5),
        dict(architecture__width=64, architecture__qk_norm=False, architecture__rope_theta=100),
        dict(chat_template={"enable_thinking": False}, reflection__templates={"hint": "{question} hint"}),
        dict(mesh__data=2, mesh__fsdp=2, evaluation__every=0, optimizer__clip_norm=0.0, seed=2**32 - 1),
        dict(credit__context="peer_solution,feedback+reference_solution"),
        dict(credit__rule="sdpo", distill__alpha=1.0, distill__top_k=20, distill__support="union"),
        dict(credit__rule="rlcsd", credit__negatives=2),
        dict(credit__rule="feedback_alignment", external__workdir="there"),
        dict(teacher__kind="external", external__workdir="there"),
    ],
)
def test_valid(fields):
    check(**fields)


def test_flags_override_fields_of_every_kind(monkeypatch):
    given = ["steps=3", "loss.kl=0.1", "credit.normalize=False", "loss.importance_cap=2.0", "loss.old_logprobs=trainer"]
    argv = ["program", *(f"--config.{field}" for field in given)]
    monkeypatch.setattr("sys.argv", argv)  # which config flags read before they are parsed
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_dict("config", base(), flag_values=values)
    values(argv)
    config = validate(holder.value)
    assert (config.steps, config.credit.normalize) == (3, False)
    assert (config.loss.kl, config.loss.importance_cap, config.loss.old_logprobs) == (0.1, 2.0, "trainer")


# ---------------------------------------------------------------- data sets of a mixture

SETS = {
    "sums": {
        "name": "mathematics",
        "share": 3,
        "args": {"train": "a", "test": "b"},
        "templates": {"solve": "{question} ="},
    },
    "letters": {"name": "choice", "args": {"train": "c", "test": "d"}},
}
MIXTURE = dict(task__name="mixture", task__args=SETS, tokenizer="any")


def test_the_sets_of_a_mixture_have_every_argument_of_their_tasks():
    config = check(**MIXTURE)
    sums, letters = config.task.args["sums"], config.task.args["letters"]
    assert (sums["share"], letters["share"]) == (3, 1) and sums["templates"] == SETS["sums"]["templates"]
    assert sums["args"] == registry.defaults("mathematics") | SETS["sums"]["args"]
    assert validate(ConfigDict(config.model_dump())) == config
    assert list(check(**MIXTURE | dict(task__args=dict(reversed(SETS.items())))).task.args) == list(config.task.args)


@pytest.mark.parametrize(
    "field, value, named",
    [
        ("sums.name", "mathmatics", ["task.args.sums.name = 'mathmatics'", "'mathematics'"]),
        ("sums.name", "addition", ["task.args.sums.name = 'addition'", "choice"]),
        ("sums.name", "mixture", ["task.args.sums.name = 'mixture'", "choice"]),
        ("sums.share", 0, ["task.args.sums.share = 0", "greater than 0"]),
        ("sums.share", -1.5, ["task.args.sums.share = -1.5", "greater than 0"]),
        ("sums.shares", 2, ["task.args.sums.shares = 2", "'share'"]),
        ("sums.args.questoin", "q", ["task.args.sums.args.questoin = 'q'", "'question'"]),
        ("sums.args.test", "", ["task.args.sums.args.test = ''", "JSON-lines"]),
        ("sums.args.verifier", "absent.py:f", ["task.args.sums.args.verifier = 'absent.py:f'"]),
        ("sums.templates.slove", "", ["task.args.sums.templates.slove", "'solve'"]),
        ("train", "a", ["task.args.train = 'a'", "dict(name="]),
        ("test", SETS["sums"], ["task.args.test", "other than test"]),
        ("a/b", SETS["sums"], ["task.args.a/b", "letters, digits"]),
    ],
)
def test_a_wrong_set_of_a_mixture_is_named(field, value, named):
    fields = ConfigDict({"args": SETS})
    *path, last = field.split(".")
    section = fields.args
    for key in path:
        section = section[key]
    with fields.ignore_type():
        section[last] = value
    message = refusal(**MIXTURE | dict(task__args=fields.args))
    assert [part for part in named if part not in message] == [], message


@pytest.mark.parametrize(
    "fields, named",
    [
        (dict(task__args={}), ["task.args = {}", "by name"]),
        (dict(reflection__templates={"solve": "x"}), ["reflection.templates.solve", "task.args.<set>.templates.solve"]),
        (dict(evaluation__benchmarks={"sums": LETTERS}), ["evaluation.benchmarks.sums", "task.args.sums"]),
        (dict(evaluation__benchmarks={"x": {"task": {"name": "mixture"}}}), ["evaluation.benchmarks.x.task.name", "choice"]),
        (dict(credit__context="oracle_reflection"), ["set 'letters' does not know"]),
        (dict(credit__rule="oracle_prefix"), ["'oracle_prefix' reads first_error", "set 'letters' does not know"]),
        (dict(credit__context="reference_solution"), ["set 'letters'", "task.args.letters.args.reference"]),
        (dict(task__args={"any": {"name": "ladder"}}, evaluation__problems=0), ["evaluation.problems = 0", "'ladder'"]),
        (dict(warmup__documents=5), ["warmup.documents = 5", "'mixture'"]),
        (dict(tokenizer=""), ["tokenizer = ''", "'mixture'"]),
    ],
)  # fmt: skip
def test_what_a_mixture_contradicts_is_refused(fields, named):
    message = refusal(**MIXTURE | fields)
    assert [part for part in named if part not in message] == [], message


def test_flags_add_a_set_and_change_one(monkeypatch):
    sets = [
        "task.args.sums.share=4",
        "task.args.codes={'name': 'code', 'share': 0.5, 'args': {'train': 'e', 'test': 'f'}}",
    ]
    argv = ["program", *(f"--config.{field}" for field in sets)]
    monkeypatch.setattr("sys.argv", argv)
    values = flags.FlagValues()
    config = set_fields(base(), **MIXTURE)
    holder = config_flags.DEFINE_config_dict(
        "config", config, flag_values=values, lock_config=False, accept_new_attributes=True
    )
    values(argv)
    args = validate(holder.value).task.args
    assert {name: section["share"] for name, section in args.items()} == {"sums": 4, "letters": 1, "codes": 0.5}


# ---------------------------------------------------------------- one field


@pytest.mark.parametrize(
    "field, value, named",
    [
        # unknown fields and choices: the nearest valid name
        ("stpes", 3, "'steps'"),
        ("rollout.gruop", 3, "'group'"),
        ("monitor.gap.actoin", "off", "'action'"),
        ("architecture.with", 3, "'width'"),
        ("credit.args.gama", 3, "'gamma'"),
        ("task.args.digit", 3, "'digits'"),
        ("task.name", "adition", "'addition'"),
        ("credit.rule", "amr-sd", "'amrsd'"),
        ("credit.context", "peer_solutoin", "'peer_solution'"),
        ("model", "qwen3-0.6", "'qwen3-0.6b'"),
        ("remat", "ful", "'full'"),
        ("lora.targets", "qury", "'query'"),
        ("loss.reduction", "token-mean", "'token_mean'"),
        ("monitor.gap.action", "halt", "rollback"),
        ("teacher.kind", "polcy", "'policy'"),
        # types
        ("steps", "3", "integer"),
        ("steps", True, "integer"),
        ("steps", 3.0, "integer"),
        ("steps", None, "integer"),
        ("optimizer.eps", "1e-8", "number"),
        ("credit.normalize", 1, "boolean"),
        ("model", 3, "string"),
        ("model", "", "1 character"),
        ("rollout", 3, "expected"),
        ("task.args", 3, "expected"),
        ("architecture.width", 1.5, "integer"),
        ("architecture.qk_norm", 1, "boolean"),
        ("loss.importance_cap", "2", "number"),
        ("task.args.digits", "x", "integer"),
        ("task.args.slip_rate", False, "number"),
        ("credit.args.lam", "x", "number"),
        ("credit.args.decay_steps", 1.5, "integer"),
        # ranges
        ("steps", 0, "1"),
        ("mesh.data", 0, "1"),
        ("seed", -1, "0"),
        ("seed", 2**32, str(2**32)),
        ("rollout.temperature", 0.0, "greater than 0"),
        ("rollout.top_p", 0.0, "greater than 0"),
        ("evaluation.top_p", 1.1, "1"),
        ("optimizer.b2", 1.0, "less than 1"),
        ("optimizer.learning_rate", -1e-4, "0"),
        ("credit.args.lam", -0.2, "0"),
        ("task.args.digits", 0, "1 to 18"),
        ("loss.constant_length", 0, "greater than 0"),
        ("architecture.width", 0, "1"),
        ("monitor.reward.threshold", 0.0, "(0, 1]"),
        ("monitor.longer.threshold", 1.0, "above 1"),
        ("evaluation.problems", 0, "at least 1"),
        ("architecture.rope_theta", 0.0, "above 0"),
        ("architecture.rope_scaling", "yarn", "fields"),
        ("rollout.stop", "x", "tuple"),
        ("chat_template.path", 3, "'chatml'"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_was_expected(field, value, named):
    message = refusal(**{field.replace(".", "__"): value})
    assert field in message and repr(value) in message and named in message


def floats(section, prefix=""):
    for name, value in section.items():
        if isinstance(value, ConfigDict):
            yield from floats(value, f"{prefix}{name}__")
        elif isinstance(value, float):
            yield f"{prefix}{name}"


def test_no_number_may_be_nan():
    fields = [*floats(base()), "credit__args__lam", "task__args__slip_rate"]
    message = refusal(**dict.fromkeys(fields, float("nan")))
    assert [f for f in fields[:-2] if f"{f.replace('__', '.')} = nan" not in message] == []
    for field in fields[-2:]:
        assert f"{field.replace('__', '.')} = nan" in refusal(**{field: float("nan")})


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_no_number_may_be_infinite(value):
    for field in (
        "loss.kl", "loss.entropy", "loss.clip_dual", "rollout.temperature", "optimizer.learning_rate", "optimizer.weight_decay",
        "warmup.learning_rate", "lora.alpha", "credit.args.lam", "architecture.rope_theta",
    ):  # fmt: skip
        assert f"{field} = {value}" in refusal(**{field.replace(".", "__"): value})


def test_narrow_bounds_of_the_ratio_take_their_denominator_from_the_update():
    assert check(loss__ratio="sequence", loss__clip_low=3e-4, loss__clip_high=4e-4).loss.old_logprobs == "update"
    assert check(loss__clip_low=3e-4, loss__old_logprobs="trainer").loss.old_logprobs == "trainer"
    assert check(loss__old_logprobs="update", rollout__top_p=0.9, loss__importance_cap=2.0).loss.importance_cap == 2


# ---------------------------------------------------------------- fields against each other


@pytest.mark.parametrize(
    "fields, named",
    [
        (
            dict(rollout__prompts=3, rollout__group=5, learning__minibatches=2, learning__micro_batches=2),
            ["rollout.group = 15", "learning.micro_batches = 4"],
        ),
        (dict(learning__skip=True), ["learning.skip = True", "learning.micro_batches"]),
        (dict(learning__skip=True, learning__micro_batches=2, loss__kl=0.1), ["learning.skip = True", "0.1"]),
        (
            dict(learning__share_prompts=True, architecture={"attention_softcap": 50.0}),
            ["learning.share_prompts = True", "soft caps"],
        ),
        (dict(loss__importance_cap=2.0), ["loss.importance_cap = 2.0", "'trainer'", "'sampler'"]),
        (dict(loss__reduction="constant"), ["loss.constant_length = None", "'constant'"]),
        (dict(loss__constant_length=9), ["loss.constant_length = 9", "'sequence_mean'"]),
        (dict(rollout__top_k=5), ["loss.old_logprobs = 'sampler'", "rollout.top_k = 5"]),
        (dict(rollout__top_p=0.9), ["loss.old_logprobs = 'sampler'", "rollout.top_p = 0.9"]),
        (dict(rollout__group=1, rollout__rounds=3), ["rollout.rounds = 3", "rollout.group = 1"]),
        (dict(reward__overlong_buffer=81), ["reward.overlong_buffer = 81", "rollout.response_length = 80"]),
        (dict(rollout__group=8, rollout__slots=7), ["rollout.group = 8", "slots = 7"]),
        (ROWS | dict(tokenizer="c", warmup__documents=5), ["warmup.documents = 5", "'rows'", "addition"]),
        (ROWS, ["tokenizer = ''", "'rows'"]),
        (dict(task__name="rows"), ["task.args.train = ''"]),
        (dict(warmup__solve=0.75, warmup__reflect=0.5), ["warmup.solve", "1.25"]),
        (dict(teacher__kind="external"), ["external.workdir = ''", "teacher.kind = 'external'"]),
        (dict(external__workdir="there"), ["external.workdir = 'there'", "teacher.kind"]),
        (dict(credit__rule="grpo", credit__args={"tau": 1.0}), ["credit.args.tau = 1.0"]),
        (dict(reflection__templates={"hnt": ""}), ["reflection.templates.hnt", "'hint'"]),
        (dict(reflection__chat_template={"path": "plain"}), ["reflection.chat_template.path", "chat_template.path"]),
        (
            dict(architecture={"rope_scaling": {"rope_type": "yarm", "factor": 4.0}}),
            ["architecture.rope_scaling.rope_type = 'yarm'", "'yarn'"],
        ),
        (dict(architecture={"rope_scaling": {"rope_type": "yarn"}}), ["architecture.rope_scaling.factor: missing"]),
        (dict(reflection__templates={"hint": 3}), ["reflection.templates.hint = 3", "string"]),
        (
            dict(reflection__templates={"teacher": "{question} {reflexion}"}),
            ["reflection.templates.teacher = '{question} {reflexion}'", "{reflection}"],
        ),
        (dict(reflection__templates={"solve": "Add."}), ["reflection.templates.solve = 'Add.'", "{question}"]),
        (dict(credit__rule="grpo", credit__context="answer"), ["credit.context = 'answer'", "'grpo'"]),
        (dict(credit__context="none"), ["credit.context = 'none'", "'amrsd'"]),
        (dict(credit__context="none+answer"), ["credit.context = 'none+answer'", "'none' alone"]),
        (dict(credit__negatives=3), ["credit.negatives = 3", "'amrsd'"]),
        (dict(credit__rule="grpo", teacher__kind="ema"), ["teacher.kind = 'ema'", "'grpo'"]),
        (dict(credit__rule="quoted_blame", teacher__kind="snapshot"), ["teacher.kind = 'snapshot'", "'quoted_blame'"]),
        (
            ROWS | dict(tokenizer="c", credit__rule="random_step"),
            ["'random_step' reads first_error", "'rows' does not know"],
        ),
        (dict(credit__rule="rlcsd", credit__negatives=0), ["credit.negatives = 0", "'rlcsd'"]),
        (ROWS | dict(tokenizer="c", credit__context="oracle_reflection"), ["'oracle_reflection'", "'rows'"]),
        (ROWS | dict(tokenizer="c", credit__context="reference_solution"), ["credit.context", "task.args.reference"]),
        (dict(distill__alpha=0.5), ["distill.alpha = 0.5", "'amrsd'", "sdpo"]),
        (dict(credit__rule="sdpo", distill__alpha=1.5), ["distill.alpha = 1.5", "1"]),
        (dict(credit__rule="sdpo", distill__support="both"), ["distill.support = 'both'", "union"]),
        (dict(architecture__heads=4, architecture__kv_heads=3), ["kv_heads = 3", "heads = 4"]),
        *[
            (dict(architecture__rope_theta=theta), [f"architecture.rope_theta = {theta}"])
            for theta in (0.0, -1.0, np.nan)
        ],
        (dict(lora__rank=100_000), ["lora.rank = 100000", "128", "'query'"]),
        (dict(lora__rank=65, lora__targets="query,value"), ["lora.rank = 65", "64", "'value'"]),
        (dict(credit__sample_std=True, credit__normalize=False), ["credit.sample_std = True", "normalize"]),
        (dict(credit__baseline="none", credit__normalize=True), ["credit.normalize = True", "'none'"]),
        (dict(credit__rule="rloo", credit__sample_std=True), ["credit.sample_std = True", "'leave_one_out'"]),
        (dict(credit__baseline="leave_one"), ["credit.baseline = 'leave_one'", "leave_one_out"]),
        (dict(loss__clip_dual=0.5), ["loss.clip_dual = 0.5", "1"]),
        *[
            (dict(credit__context=context), [repr(context)])
            for context in ("answer+", "+answer", "answer,,feedback", ",")
        ],
        (dict(credit__context="null,answer"), ["credit.context = 'null,answer'", "'null' alone"]),
        (dict(credit__context="question"), ["credit.context = 'question'", "teacher.kind = 'policy'"]),
        (
            dict(credit__context="question", teacher__kind="snapshot", teacher__every=1),
            ["credit.context = 'question'", "teacher.kind = 'snapshot'", "every = 1"],
        ),
        *[
            (
                dict(credit__context="question", teacher__kind=kind, teacher__rate=1.0),
                [f"teacher.kind = {kind!r}", "rate = 1"],
            )
            for kind in ("ema", "trust_region")
        ],
        (
            dict(credit__context="question", teacher__kind="initial", reflection__context_length=10),
            ["reflection.context_length = 10", "rollout.prompt_length"],
        ),
        (dict(optimizer__eps=0.0), ["optimizer.eps"]),
        (dict(credit__context="answer+question"), ["credit.context = 'answer+question'", "'question' alone"]),
        (dict(credit__rule="entropy_tokens", credit__args={"share": 1.5}), ["credit.args.share = 1.5", "1"]),
        (dict(credit__rule="rlsd", credit__args={"lam": 1.1}), ["credit.args.lam = 1.1", "1"]),
    ],
)
def test_contradictions_name_the_fields(fields, named):
    message = refusal(**fields)
    assert [part for part in named if part not in message] == []


# ---------------------------------------------------------------- benchmarks


@pytest.mark.parametrize(
    "benchmarks, named",
    [
        ({"validation": LETTERS}, ["benchmarks.validation"]),
        ({"a/b": LETTERS}, ["benchmarks.a/b"]),
        ({"aime": 3}, ["benchmarks.aime = 3"]),
        ({"aime": {"samples": 3}}, ["benchmarks.aime.task"]),
        ({"aime": LETTERS | {"sample": 4}}, ["benchmarks.aime.sample = 4", "'samples'"]),
        ({"aime": LETTERS | {"samples": "4"}}, ["benchmarks.aime.samples = '4'"]),
        ({"aime": LETTERS | {"every": 15}}, ["benchmarks.aime.every = 15", "evaluation.every = 10"]),
        ({"aime": {"task": {"name": ["choice"]}}}, ["benchmarks.aime.task.name = ['choice']", "string"]),
        ({"aime": {"task": {"name": "choise"}}}, ["benchmarks.aime.task.name = 'choise'", "'choice'"]),
        ({"aime": {"task": {"name": "choice"}}}, ["benchmarks.aime.task.args.test = ''"]),
        ({"aime": {"task": {"name": "choice", "args": {"tset": "a"}}}}, ["aime.task.args.tset = 'a'", "'test'"]),
        ({"sums": {"task": {"name": "addition"}, "problems": 0}}, ["benchmarks.sums.problems = 0"]),
    ],
)
def test_a_wrong_benchmark_is_named(benchmarks, named):
    message = refusal(evaluation__every=10, evaluation__benchmarks=benchmarks)
    assert [part for part in named if part not in message] == []


def test_a_benchmark_has_the_run_s_settings_where_it_sets_none():
    config = check(evaluation__every=0, evaluation__temperature=0.5, evaluation__benchmarks={"aime": LETTERS})
    aime = config.evaluation.benchmarks["aime"]
    assert (aime.samples, aime.problems, aime.every, aime.temperature) == (16, 0, 0, 0.5)
    assert aime.task.args["question"] == registry.defaults("choice")["question"]


# ---------------------------------------------------------------- a rule of one's own


def own_rule(read, **declared) -> Rule:
    """A rule whose credit is A times what `read` returns."""
    return Rule("own", lambda s: TokenCredit(s.sequence_advantage * read(s)), **declared)


def result(token_advantage, **fields) -> TokenCredit:
    """A rule's result with fields set past the type checks, which are on in tests alone."""
    credit = TokenCredit(token_advantage)
    vars(credit).update(fields)
    return credit


@pytest.mark.parametrize(
    "rule, named",
    [
        (own_rule(lambda s: s.student_entopy, student=True), ["student_entopy", "'student_entropy'"]),
        (own_rule(lambda s: s.student_entropy), ["student_entropy", "student=True"]),
        (own_rule(lambda s: s.student_logprobs), ["student_logprobs", "student=True"]),
        (own_rule(lambda s: s.gap), ["gap", "context"]),
        (own_rule(lambda s: s.gap, context="feedback", reads_gap=False), ["gap", "reads_gap"]),
        (own_rule(lambda s: s.negative_logprobs[0], context="feedback"), ["negative_logprobs", "negatives"]),
        (own_rule(lambda s: s.extras["anwser"][:, :1] * s.mask), ["anwser", "answer"]),
        (own_rule(lambda s: s.reward[:, None]), ["token_advantage", "(16, 1)", "(16, 5)"]),
        (own_rule(lambda s: jnp.ones((3, 7))), ["own", "TypeError"]),
        (Rule("own", lambda s: s.mask), ["own", "TokenCredit"]),
        (Rule("own", lambda s: result(s.mask, metrics={"n": s.mask.sum(1)})), ["metrics['n']", "(16,)", "()"]),
        (Rule("own", lambda s: result(s.mask, memory=s.mask.sum(1)), memory=(0.0,)), ["memory", "(16,)", "(1,)"]),
    ],
)
def test_a_rule_that_reads_what_it_does_not_get_is_refused(rule, named, monkeypatch):
    monkeypatch.setitem(credit.RULES, "own", rule)
    message = refusal(credit__rule="own")
    assert [part for part in ["credit.rule = 'own'", *named] if part not in message] == []


@pytest.mark.parametrize(
    "needs_teacher, named",
    [
        (no_rows, ["no needs_teacher"]),
        (lambda s, hyper: s.scored, ["needs_teacher of credit.rule = 'own' reads scored", "before the teacher"]),
        (lambda s, hyper: s.advantage > hyper.strenght, ["needs_teacher", "strenght"]),
        (lambda s, hyper: s.mask > 0, ["needs_teacher", "bool of shape (16, 5)", "(16,)"]),
        (lambda s, hyper: s.advantage, ["needs_teacher", "float32 of shape (16,)"]),
    ],
)
def test_a_wrong_choice_of_the_rows_that_need_a_teacher_is_refused(needs_teacher, named, monkeypatch):
    monkeypatch.setitem(credit.RULES, "own", own_rule(lambda s: s.gap, context="feedback", needs_teacher=needs_teacher))
    message = refusal(credit__rule="own")
    assert [part for part in named if part not in message] == [], message


@pytest.mark.parametrize(
    "needs_teacher",
    [
        lambda s, hyper: np.repeat(s.advantage.reshape(-1, s.group).any(axis=1), s.group),
        lambda s, hyper: np.average(s.mask, axis=1, weights=s.mask) * s.group_right / s.group < 1,
        lambda s, hyper: np.random.default_rng(s.step).random(len(s.reward)) < 0.5,
    ],
)
def test_a_choice_of_rows_may_use_what_a_step_gives_it(needs_teacher, monkeypatch):
    own = own_rule(lambda s: s.gap, context="feedback", needs_teacher=needs_teacher)
    monkeypatch.setitem(credit.RULES, "own", own)
    assert check(credit__rule="own").credit.rule == "own"


def test_without_savings_no_choice_of_rows_is_needed(monkeypatch):
    monkeypatch.setitem(credit.RULES, "own", own_rule(lambda s: s.gap, context="feedback"))
    assert "no needs_teacher" in refusal(credit__rule="own")
    assert not check(credit__rule="own", credit__exact_savings=False).credit.exact_savings


def test_a_teacher_that_nothing_reads_is_no_fault_where_nothing_is_trained():
    assert validate(set_fields(base(), credit__rule="grpo", teacher__kind="ema"), splits=()).teacher.kind == "ema"


def test_a_rule_is_checked_where_it_trains_alone(monkeypatch):
    """Where a run is exported or evaluated, the verifier that declares the rule's extras may be missing."""
    monkeypatch.setitem(credit.RULES, "own", own_rule(lambda s: s.extras["span"][:, :1] * s.mask))
    assert "extras" in refusal(credit__rule="own")
    assert validate(set_fields(base(), credit__rule="own"), splits=()).credit.rule == "own"


def test_a_rule_may_pass_its_signals_to_jax(monkeypatch):
    """But what it does not get is found there too."""
    monkeypatch.setitem(
        credit.RULES, "own", own_rule(jax.jit(lambda s: jax.tree.map(jnp.abs, s).reward[:, None] * s.mask))
    )
    check(credit__rule="own")
    monkeypatch.setitem(credit.RULES, "own", own_rule(jax.jit(lambda s: s.gap)))
    assert "reads gap" in refusal(credit__rule="own")


def test_a_rule_may_be_a_partial_of_a_function(monkeypatch):
    def scaled(s, *, scale=1.0, shift=0.0):
        return TokenCredit((s.sequence_advantage * scale + shift) * s.mask)

    for function in (functools.partial(scaled, scale=2.0), jax.jit(functools.partial(scaled, scale=2.0))):
        monkeypatch.setitem(credit.RULES, "own", Rule("own", function))
        config = check(credit__rule="own", credit__args={"shift": 0.5})
        assert config.credit.args == {"scale": 2.0, "shift": 0.5}


def test_a_rule_may_read_what_it_declares(monkeypatch):
    def read(s):
        place = (s.extras["answer"][:, :1] + s.first_error[:, :1]) * s.noise[:, None]
        return (
            s.replace(reward=s.advantage).reward[:, None] * s.student_entropy * s.gap * s.negative_logprobs[1] + place
        )

    declared = dict(student=True, context="feedback", negatives="other_prompts", negative_count=2)
    declared |= dict(needs_teacher=all_rows)
    monkeypatch.setitem(credit.RULES, "own", own_rule(read, **declared))
    assert check(credit__rule="own").credit.negatives == 2


def test_a_rule_brings_its_baseline_and_only_grpo_s_is_divided():
    def section(**fields):
        return check(**{f"credit__{name}": value for name, value in fields.items()}).credit

    for rule, expected in (
        ("grpo", ("group", True)),
        ("rloo", ("leave_one_out", False)),
        ("reinforce", ("batch", False)),
    ):
        assert (section(rule=rule).baseline, section(rule=rule).normalize) == expected
    assert not section(rule="amrsd", baseline="none").normalize
    assert section(rule="rloo", normalize=True).normalize


def test_a_config_that_cannot_learn_is_told():
    def told(rule="grpo", **fields):
        return cannot_learn(validate(set_fields(base(), credit__rule=rule, **fields)))

    assert told() == []
    assert "learning_rate = 0" in told(optimizer__learning_rate=0.0)[0]
    alone = dict(rollout__group=1)
    for rule in ("grpo", "amrsd", "rlsd"):
        assert "rollout.group = 1" in told(rule, **alone)[0]
    assert "rollout.group = 1" in told("rloo", **alone)[0] and told("reinforce", **alone) == []
    for rule in ("antisd", "oracle_prefix", "prefix_credit"):  # they give credit without an advantage
        assert told(rule, **alone) == []
    for rule in ("hybrid", "sdpo"):  # so would they, but there is no sibling to show
        assert "peer_solution" in told(rule, **alone)[0] and told(rule, credit__context="answer", **alone) == []
    assert "'rlcsd'" in told("rlcsd", rollout__group=2)[0]
    assert told("rlcsd", rollout__group=3) == told("cepo", rollout__group=2) == []
