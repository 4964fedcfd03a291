"""Checks of a config that stop a wrong one before any compute: names, types, ranges, and fields against each other."""

import re
from collections.abc import Sequence

from ml_collections import ConfigDict

from amrsd_jax import credit, tasks
from amrsd_jax.config import ASKED, base
from amrsd_jax.evaluate.benchmarks import OWN
from amrsd_jax.learning.losses import KL_ESTIMATORS, RATIOS, REDUCTIONS
from amrsd_jax.names import nearest
from amrsd_jax.policy import attention, lora
from amrsd_jax.policy.architecture import PRESETS
from amrsd_jax.policy.huggingface import architecture_of, is_place
from amrsd_jax.policy.transformer import REMAT_POLICIES
from amrsd_jax.reflection.prompts import templates
from amrsd_jax.reflection.sources import SOURCES, sources_in
from amrsd_jax.runtime import monitor
from amrsd_jax.scoring.divergence import SUPPORTS
from amrsd_jax.scoring.teachers import KINDS

# Sections whose keys depend on a choice made beside them; their own registries check them.
_OPEN = (
    "task.args", "credit.args", "reflection.templates", "chat_template", "reflection.chat_template", "evaluation.benchmarks"
)  # fmt: skip


class ConfigError(ValueError):
    """A field of the config is wrong; the message names it, its value and what was expected."""


def validate(config: ConfigDict, splits: Sequence[str] = ("train", "test")) -> None:
    """Checks names, types, ranges, and fields against each other.

    Args:
      splits: those that the task must have rows for.

    Raises:
      ConfigError: naming the field, its value and what was expected.
    """
    _check_schema(config, base(), "")
    _choice("task.name", config.task.name, tasks.NAMES)
    _choice("credit.rule", config.credit.rule, credit.RULES)
    for source in sources_in(config.credit.context):
        _choice("credit.context", source, ("", *SOURCES))
    _choice("teacher.kind", config.teacher.kind, ("", *KINDS))
    if not is_place(config.model):
        _choice("model", config.model, PRESETS)
    arguments = credit.get(config.credit.rule).defaults
    _check_names("credit.args", config.credit.args, arguments, of=f" of rule {config.credit.rule!r}")
    _check_types("credit.args", config.credit.args, arguments)
    _check_types("task.args", config.task.args, tasks.defaults(config.task.name))
    _check_types("reflection.templates", config.reflection.templates, dict.fromkeys(config.reflection.templates, ""))
    try:
        tasks.check(config.task.name, dict(config.task.args), splits)
        templates(tasks.family(config.task.name), **config.reflection.templates)
        _check_architecture(config.model, {k: value for k, value in config.architecture.items() if value is not None})
        lora.make(**config.lora)
    except ValueError as error:
        raise ConfigError(str(error)) from error

    _choice("attention", config.attention, attention.BACKENDS)
    _choice("remat", config.remat, REMAT_POLICIES)
    _choice("loss.ratio", config.loss.ratio, RATIOS)
    _choice("loss.reduction", config.loss.reduction, REDUCTIONS)
    _choice("loss.kl_estimator", config.loss.kl_estimator, KL_ESTIMATORS)
    _choice("loss.old_logp", config.loss.old_logp, ("sampler", "trainer"))
    _choice("optimizer.schedule", config.optimizer.schedule, ("constant", "linear", "cosine"))

    for field in (
        "steps", "rollout.prompts", "rollout.group", "rollout.prompt_length", "rollout.response_length", "rollout.slots",
        "rollout.admit", "rollout.segment", "rollout.rounds", "reflection.prompt_length", "reflection.tokens",
        "reflection.context_length", "reflection.slots", "reflection.admit", "scoring.rows", "scoring.chunk",
        "learning.minibatches", "learning.micro_batches", "optimizer.max_skipped", "evaluation.last",
        "checkpoint.every", "checkpoint.keep", "report.rollouts_every", "mesh.fsdp", "mesh.tensor",
        "warmup.row_length", "warmup.rows", "warmup.lines", "teacher.every", "monitor.window", "monitor.patience",
    ):  # fmt: skip
        _at_least(config, field, 1)
    for field in (
        "seed", "lora.rank", "rollout.top_k", "reward.overlong_buffer",
        "loss.clip_low", "loss.clip_high", "loss.kl", "loss.entropy",
        "optimizer.learning_rate", "optimizer.clip_norm", "optimizer.warmup_updates", "reflection.temperature",
        "warmup.documents",
        "warmup.learning_rate", "optimizer.eps", "optimizer.weight_decay", "monitor.rollbacks",
        *(f"credit.args.{name}" for name in config.credit.args),  # strengths, thresholds, lengths: none means less
    ):  # fmt: skip
        _at_least(config, field, 0)
    _check_top_p(config, "rollout.top_p")
    for field in ("optimizer.b1", "optimizer.b2", "warmup.b2"):
        if not 0 <= _get(config, field) < 1:
            raise ConfigError(f"{field} = {_get(config, field)}: expected a number in [0, 1)")
    for field in ("warmup.solve", "warmup.reflect", "warmup.given", "warmup.trace", "warmup.peer", "teacher.rate"):
        if not 0 <= _get(config, field) <= 1:
            raise ConfigError(f"{field} = {_get(config, field)}: expected a share in [0, 1]")
    for field in ("loss.constant_length", "loss.importance_cap"):
        if _get(config, field) is not None and not _get(config, field) > 0:
            raise ConfigError(f"{field} = {_get(config, field)}: expected more than 0, or None")
    for name, signal in monitor.SIGNALS.items():
        _choice(f"monitor.{name}.action", config.monitor[name].action, monitor.ACTIONS)
        if expected := signal.check(config.monitor[name].threshold):
            raise ConfigError(f"monitor.{name}.threshold = {config.monitor[name].threshold}: expected {expected}")
    if config.seed >= 2**32:
        raise ConfigError(f"seed = {config.seed}: expected below 2**32, all that JAX's generator takes")
    if config.mesh.data != -1:
        _at_least(config, "mesh.data", 1)
    _check_asked(config, "evaluation", config.task.name)
    for name, section in config.evaluation.benchmarks.items():
        _check_benchmark(config, name, section)
    _check_together(config)


def _check_architecture(model: str, changes: dict) -> None:
    architecture_of(model, **changes)
    if not is_place(model):
        return
    own = architecture_of(model)
    for name, value in changes.items():
        if name not in ("rope_theta", "dtype") and value != getattr(own, name):
            raise ConfigError(
                f"architecture.{name} = {value}: model = {model!r} brings its weights, of {name} = {getattr(own, name)}; "
                "expected None"
            )


def _check_asked(config: ConfigDict, section: str, task: str) -> None:
    """What an evaluation of a task asks for, as far as the section says."""
    there = {field: f"{section}.{field}" for field in ASKED if field in _get(config, section)}
    for field, place in there.items():
        if field == "top_p":
            _check_top_p(config, place)
        else:
            _at_least(config, place, 1 if field == "samples" else 0)
    if tasks.embedded(task) and not _get(config, there.get("problems", "evaluation.problems")):
        raise ConfigError(f"{section}.problems = 0: task {task!r} never runs out of problems; expected at least 1")


def _check_benchmark(config: ConfigDict, name: str, section) -> None:
    field, own = f"evaluation.benchmarks.{name}", config.evaluation
    if name in OWN or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"{field}: expected a name of letters, digits, _ and -, other than {' and '.join(OWN)}")
    known = {key: own[key] for key in ASKED} | {"task": base().task}
    if not isinstance(section, ConfigDict) or not isinstance(section.get("task"), ConfigDict):
        raise ConfigError(f"{field}: expected a section with task=dict(name=..., args=dict(test=...))")
    _check_names(field, section, known)
    _check_types(field, {key: value for key, value in section.items() if key != "task"}, known)
    _check_names(f"{field}.task", section.task, known["task"])
    given = section.task.get("name", "")
    _choice(f"{field}.task.name", given, tasks.NAMES)
    args = section.task.get("args", {})
    try:
        _check_types("task.args", args, tasks.defaults(given))
        tasks.check(given, dict(args), splits=("test",))
    except ValueError as error:
        raise ConfigError(f"{field}.{error}") from error
    _check_asked(config, field, given)
    every = section.get("every", own.every)
    if every % own.every if own.every else every:
        raise ConfigError(f"{field}.every = {every}: expected a multiple of evaluation.every = {own.every}")


def _check_top_p(config: ConfigDict, field: str) -> None:
    if not 0 < _get(config, field) <= 1:
        raise ConfigError(f"{field} = {_get(config, field)}: expected a number in (0, 1]")


def _check_together(config: ConfigDict) -> None:
    rule, context = credit.get(config.credit.rule), config.credit.context
    if context and (context == "none") != (rule.context == "none"):
        reads = "reads no teacher" if rule.context == "none" else "needs a teacher that sees something"
        raise ConfigError(f"credit.context = {context!r}: rule {rule.name!r} {reads}; its own is {rule.context!r}")
    if "oracle_reflection" in sources_in(context) and not tasks.embedded(config.task.name):
        raise ConfigError(
            f"credit.context = {context!r}: task {config.task.name!r} does not know where an attempt goes wrong"
        )
    _check_reference(config, context or rule.context)
    if rule.negatives and config.credit.args.get("k", 1) < 1:
        raise ConfigError(f"credit.args.k = {config.credit.args.k}: rule {rule.name!r} contrasts at least 1 context")
    _check_distillation(config, rule)
    external = config.teacher.kind == "external"
    if external and not config.external.workdir:
        raise ConfigError(
            "external.workdir = '': teacher.kind = 'external' needs the workdir of the run that it comes from"
        )
    if config.external.workdir and not external and "critic_feedback" not in sources_in(context or rule.context):
        raise ConfigError(
            f"external.workdir = {config.external.workdir!r}: neither the teacher (teacher.kind) nor a critic "
            "(credit.context = 'critic_feedback') comes from it"
        )
    rows = config.rollout.prompts * config.rollout.group
    pieces = config.learning.minibatches * config.learning.micro_batches
    if rows % pieces:
        raise ConfigError(
            f"rollout.prompts x rollout.group = {rows} rows do not divide into learning.minibatches x "
            f"learning.micro_batches = {pieces} pieces"
        )
    if config.learning.skip and (config.loss.kl or config.loss.entropy or config.learning.micro_batches == 1):
        raise ConfigError(
            f"learning.skip = True: expected loss.kl = 0, not {config.loss.kl}, and loss.entropy = 0, not "
            f"{config.loss.entropy}, by which every row learns; and learning.micro_batches of at least 2"
        )
    if not config.rollout.temperature > 0:
        raise ConfigError(
            f"rollout.temperature = {config.rollout.temperature}: a greedy policy has no gradient; expected more than 0"
        )
    if (config.rollout.top_k or config.rollout.top_p < 1) and config.loss.old_logp == "sampler":
        raise ConfigError(
            f"loss.old_logp = 'sampler' with rollout.top_k = {config.rollout.top_k}, rollout.top_p = {config.rollout.top_p}: "
            "the sampler's probabilities are those of the truncated distribution, which is not the one trained; use 'trainer'"
        )
    if config.loss.importance_cap is not None and config.loss.old_logp != "trainer":
        raise ConfigError(
            f"loss.importance_cap = {config.loss.importance_cap} needs loss.old_logp = 'trainer', "
            f"not {config.loss.old_logp!r}: there is no second view of the policy to weigh against"
        )
    if (config.loss.reduction == "constant") != (config.loss.constant_length is not None):
        raise ConfigError(
            f"loss.constant_length = {config.loss.constant_length} with loss.reduction = {config.loss.reduction!r}: "
            "the length belongs to reduction 'constant', which needs it"
        )
    if config.reward.overlong_buffer > config.rollout.response_length:
        raise ConfigError(
            f"reward.overlong_buffer = {config.reward.overlong_buffer} is larger than "
            f"rollout.response_length = {config.rollout.response_length}"
        )
    if config.rollout.group > config.rollout.slots:
        raise ConfigError(
            f"rollout.group = {config.rollout.group} does not fit into rollout.slots = {config.rollout.slots}"
        )
    if config.warmup.documents and not tasks.embedded(config.task.name):
        raise ConfigError(
            f"warmup.documents = {config.warmup.documents}: task {config.task.name!r} has no demonstrator to write them; "
            f"embedded tasks are {', '.join(sorted(filter(tasks.embedded, tasks.NAMES)))}"
        )
    if config.warmup.documents and is_place(config.model):
        raise ConfigError(
            f"warmup.documents = {config.warmup.documents}: model = {config.model!r} brings its weights, and a warm-up "
            "begins from random ones; expected 0"
        )
    if not (config.tokenizer or is_place(config.model) or tasks.embedded(config.task.name)):
        raise ConfigError(f"tokenizer = '': task {config.task.name!r} needs a tokenizer folder or hub id")
    shares = config.warmup.solve + config.warmup.reflect + config.warmup.given + config.warmup.trace
    if shares > 1 + 1e-9:  # 0.4 + 0.35 + 0.25 may be a rounding above 1
        raise ConfigError(f"warmup.solve + warmup.reflect + warmup.given + warmup.trace = {shares}: shares above 1")


def _check_reference(config: ConfigDict, context: str) -> None:
    """A context that is nothing without a worked solution, on rows that have none."""
    name, args = config.task.name, config.task.args
    needed = all("reference_solution" in together.split("+") for together in context.split(","))
    if needed and not (tasks.embedded(name) or args.get("reference") or args.get("answer_after")):
        raise ConfigError(
            f"credit.context = {context!r}: rows of task {name!r} have no worked solution; name its column in "
            "task.args.reference, or show something else (answer, peer_solution)"
        )


def _check_distillation(config: ConfigDict, rule: credit.Rule) -> None:
    given = {name: value for name, value in config.distill.items() if value is not None}
    if given and not rule.distil:
        name, value = next(iter(given.items()))
        distilling = ", ".join(sorted(name for name, other in credit.RULES.items() if other.distil))
        raise ConfigError(
            f"distill.{name} = {value!r}: rule {rule.name!r} does not distil; {distilling} do, and weigh the reward by "
            "credit.args.reward_weight"
        )
    if "support" in given:
        _choice("distill.support", given["support"], SUPPORTS)
    for field in ("top_k", "entry_clip", "importance_cap"):
        if field in given:
            _at_least(config, f"distill.{field}", 0)
    if not given.get("coefficient", 1) > 0:
        raise ConfigError(f"distill.coefficient = {given['coefficient']}: expected more than 0")
    if not 0 <= given.get("alpha", 0) <= 1:
        raise ConfigError(f"distill.alpha = {given['alpha']}: expected a number in [0, 1]")


def _check_schema(config, schema, prefix: str) -> None:
    _check_names(prefix.rstrip(".") or "config", config, schema)
    for key, default in schema.items():
        field = f"{prefix}{key}"
        if key not in config:
            raise ConfigError(f"{field}: missing; start the config from amrsd_jax.config.base()")
        value = config[key]
        if isinstance(default, ConfigDict):
            if not isinstance(value, ConfigDict):
                raise ConfigError(f"{field} = {value!r}: expected a section, as in amrsd_jax.config.base()")
            if field not in _OPEN:
                _check_schema(value, default, f"{field}.")
        elif default is None:
            wanted = schema.get_type(key)
            if value is not None and not _is(value, wanted):
                raise ConfigError(f"{field} = {value!r}: expected {wanted.__name__} or None")
        else:
            _check_type(field, value, default)


def _check_types(section: str, given, defaults) -> None:
    for key, value in given.items():
        if key in defaults:
            _check_type(f"{section}.{key}", value, defaults[key])


def _check_type(field: str, value, default) -> None:
    if not _is(value, type(default)):
        raise ConfigError(f"{field} = {value!r}: expected {type(default).__name__}, like the default {default!r}")


def _is(value, wanted: type) -> bool:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return True
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


def _check_names(section: str, given, known, of: str = "") -> None:
    for key in given:
        if key not in known:
            expected = nearest(key, known) if known else "it has none"
            raise ConfigError(f"{section}.{key} = {given[key]!r}: no such field{of}; {expected}")


def _choice(field: str, value, choices) -> None:
    if value not in choices:
        raise ConfigError(f"{field} = {value!r}: {nearest(value, choices)}")


def _at_least(config, field: str, least) -> None:
    if not _get(config, field) >= least:  # which NaN is not either
        raise ConfigError(f"{field} = {_get(config, field)}: expected at least {least}")


def _get(config, field: str):
    for key in field.split("."):
        config = config[key]
    return config
