"""Validates a config before any compute: each field by its pydantic model, then against the registries and other fields.

Fields that the config leaves to its task or rule are filled in, so that the config that a run saves is complete.
"""

import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import ml_collections
import numpy as np
import pydantic
from pydantic import Field

from amrsd_jax import credit
from amrsd_jax.config import BenchmarkConfig, Config, DataSetConfig, LoraConfig, LossConfig, Questions, TaskConfig
from amrsd_jax.credit.check import check_rule, signal_shapes
from amrsd_jax.evaluate.benchmarks import OWN_SPLITS
from amrsd_jax.names import nearest
from amrsd_jax.policy.architecture import PRESETS, Architecture
from amrsd_jax.policy.chat_template import NAMED
from amrsd_jax.policy.huggingface import architecture_of, is_checkpoint
from amrsd_jax.records import Signals
from amrsd_jax.reflection.prompts import task_templates
from amrsd_jax.reflection.sources import SOURCES, samplers_of, sources_in
from amrsd_jax.runtime import monitor
from amrsd_jax.scoring.divergence import Divergence
from amrsd_jax.sections import ConfigError, Section, parse
from amrsd_jax.tasks import registry

CHANGEABLE = ("rope_theta", "rope_scaling", "max_positions", "dtype")  # fields of `architecture` that fit any weights
_NOISE = 0.01  # of a ratio between two programs in bfloat16, generously (our choice)


def validate(config: ml_collections.ConfigDict, splits: Sequence[str] = ("train", "test")) -> Config:
    """Returns the validated config, with every field that depends on task or rule filled in.

    Args:
      config: an edited `config.base()`; absent fields have their defaults.
      splits: splits that the task must have rows for.

    Raises:
      ConfigError: naming the field, its value and what was expected.
    """
    values = config.copy_and_resolve_references().to_dict()
    _fill_benchmarks(values)
    parsed = parse(Config, values)
    try:
        filled = _fill(parsed, splits)
        for name, benchmark in parsed.evaluation.benchmarks.items():
            _check_benchmark(parsed, name, benchmark)
        _check_model(filled)
        _check_monitor(filled)
        _check_together(filled)
        _check_chat_template(filled)
        _check_lengths(filled, splits)
        if "train" in splits:  # elsewhere the task is not asked for what the rule reads
            check_rule(credit.get(filled.credit.rule), filled)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return filled


def _fill_benchmarks(values: dict[str, Any]) -> None:
    """Fills the `Questions` fields that a benchmark leaves out from `evaluation`; `problems` becomes all rows of a data set."""
    evaluation = values.get("evaluation")
    if not isinstance(evaluation, dict) or not isinstance(evaluation.get("benchmarks"), dict):
        return
    shared = {name: evaluation[name] for name in Questions.model_fields if name in evaluation}
    for name, section in evaluation["benchmarks"].items():
        if isinstance(section, dict):
            task = section.get("task")
            name_of_task = task.get("name") if isinstance(task, dict) else None
            generated = isinstance(name_of_task, str) and registry.generated(name_of_task)
            rows = {} if generated else {"problems": 0}
            evaluation["benchmarks"][name] = shared | rows | section


def _fill(config: Config, splits: Sequence[str]) -> Config:
    """Returns the config with absent fields filled in from the task, the rule and the benchmarks' tasks."""
    rule = credit.get(config.credit.rule)
    tokenizer = config.tokenizer or (config.model if is_checkpoint(config.model) else "")
    hyper = _arguments("credit.args", rule.defaults, config.credit.args, rule.bounded, ge=0)
    benchmarks = {}
    for name, benchmark in config.evaluation.benchmarks.items():
        task = _fill_task(f"evaluation.benchmarks.{name}.task", benchmark.task, registry.SINGLE, ("test",))
        benchmarks[name] = _replace(benchmark, task=task)
    baseline = config.credit.baseline or rule.baseline
    credit_section = _replace(
        config.credit,
        args=hyper,
        context=config.credit.context or rule.context,
        baseline=baseline,
        normalize=baseline == "group" if config.credit.normalize is None else config.credit.normalize,
        negatives=rule.negative_count if config.credit.negatives is None else config.credit.negatives,
    )
    return _replace(
        config,
        tokenizer=tokenizer,
        task=_fill_task("task", config.task, registry.NAMES, splits),
        credit=credit_section,
        teacher=_replace(config.teacher, kind=config.teacher.kind or rule.teacher),
        distill=_divergence_fields(config, rule),
        loss=_replace(config.loss, old_logprobs=config.loss.old_logprobs or _old_logprobs(config.loss)),
        evaluation=_replace(config.evaluation, benchmarks=benchmarks),
    )


def _fill_task(place: str, task: TaskConfig, names: Sequence[str], splits: Sequence[str]) -> TaskConfig:
    """Returns the section at a place of the config, with all arguments of its task; its name must be one of `names`."""
    _check_choice(f"{place}.name", task.name, names)
    if task.name == "mixture":
        if not task.args:
            raise ConfigError(f"{place}.args = {{}}: expected data sets by name, each dict(name=..., args=...)")
        ordered = sorted(task.args.items())  # as in config.json, since the order decides ties between sets
        return _replace(task, args={name: _fill_data_set(name, values, splits) for name, values in ordered})
    args = _arguments(f"{place}.args", registry.defaults(task.name), task.args)
    try:
        registry.check(task.name, args, splits)
    except ValueError as error:
        raise ConfigError(f"{place}{str(error).removeprefix('task')}") from error
    return _replace(task, args=args)


def _fill_data_set(name: str, values: Any, splits: Sequence[str]) -> dict[str, Any]:
    """Returns all fields of a set of a mixture, with all arguments of its task."""
    place = f"task.args.{name}"
    if not isinstance(values, dict):
        raise ConfigError(f"{place} = {values!r}: expected a data set of the mixture, dict(name=..., args=...)")
    _check_name(place, name)
    return _fill_task(place, parse(DataSetConfig, values, place), registry.DATA_SETS, splits).model_dump()


def _replace(section: Section, **changes: Any) -> Section:
    return section.model_copy(update=changes)


def _arguments(
    place: str, defaults: dict[str, Any], given: dict[str, Any], kinds: dict[str, Any] | None = None, **bounds: Any
) -> dict[str, Any]:
    """Returns arguments by name, with defaults.

    Each must have its type in `kinds`, or else that of its default, and then numbers must be within `bounds`.
    """

    def kind(default):
        number = isinstance(default, int | float) and not isinstance(default, bool)
        return Annotated[type(default), Field(**bounds)] if number and bounds else type(default)

    fields = {name: ((kinds or {}).get(name, kind(default)), default) for name, default in defaults.items()}
    model = pydantic.create_model("arguments", __base__=Section, **fields)
    return parse(model, given, place).model_dump()


def _divergence_fields(config: Config, rule: credit.Rule) -> dict[str, Any]:
    """Returns all fields of the rule's divergence; {} for a rule that does not distil."""
    if config.distill and not rule.distill:
        name, value = next(iter(config.distill.items()))
        distilling = ", ".join(sorted(name for name, other in credit.RULES.items() if other.distill))
        raise ConfigError(
            f"distill.{name} = {value!r}: rule {rule.name!r} does not distil; {distilling} do, and weigh the reward by "
            "credit.args.reward_weight"
        )
    if not rule.distill:
        return {}
    return parse(Divergence, rule.distill.model_dump() | config.distill, "distill").model_dump()


def _old_logprobs(loss: LossConfig) -> str:
    """Returns where the ratio's denominator comes from: two programs' bfloat16 noise must be well within the clip bounds."""
    return "update" if min(loss.clip_low, loss.clip_high) < _NOISE else "sampler"


# ---------------------------------------------------------------- checks of one field


def _check_choice(field: str, value: str, choices) -> None:
    if value not in choices:
        raise ConfigError(f"{field} = {value!r}: {nearest(value, choices)}")


def _check_model(config: Config) -> None:
    sources = sources_in(config.credit.context)
    for source in sources:
        if source not in SOURCES:
            raise ConfigError(f"credit.context = {config.credit.context!r}: {source!r}: {nearest(source, SOURCES)}")
    for alone in ("none", "null", "question"):
        if alone in sources and len(sources) > 1:
            raise ConfigError(f"credit.context = {config.credit.context!r}: expected {alone!r} alone, or other sources")
    if not is_checkpoint(config.model):
        _check_choice("model", config.model, PRESETS)
    task_templates(config.task, config.reflection.templates)
    released = architecture_of(config.model)
    own = {name: value for name, value in vars(released).items() if name not in ("lora", "rope_scaling")}
    given = {k: v for k, v in config.architecture.items() if k != "rope_scaling"}
    _arguments("architecture", own, given, typing.get_type_hints(Architecture))
    scaling = config.architecture.get("rope_scaling", {})
    if not isinstance(scaling, dict):
        raise ConfigError(f"architecture.rope_scaling = {scaling!r}: expected its fields, as config.json has them")
    _check_adapters(config.lora, architecture_of(config.model, **config.architecture))
    if is_checkpoint(config.model):
        for name, value in config.architecture.items():
            if name not in CHANGEABLE and value != getattr(released, name):
                raise ConfigError(
                    f"architecture.{name} = {value}: model = {config.model!r} has weights of {name} = "
                    f"{getattr(released, name)}; expected it to be left out"
                )


def _check_adapters(lora: LoraConfig, architecture: Architecture) -> None:
    """Checks that an adapter's rank is at most that of its kernel, and that no expert has an adapter."""
    if lora.rank:
        dataclasses.replace(architecture, lora=lora)
    width, ffn = architecture.width, architecture.ffn
    query, value = architecture.heads * architecture.head_dim, architecture.kv_heads * architecture.head_dim
    ranks = {
        "query": min(width, query),
        "output": min(width, query),
        "key": min(width, value),
        "value": min(width, value),
    }
    for name in lora.projections:
        if lora.rank > (full := ranks.get(name, min(width, ffn))):
            raise ConfigError(f"lora.rank = {lora.rank}: expected at most {full}, the rank of the projection {name!r}")


def _check_monitor(config: Config) -> None:
    for name, signal in monitor.SIGNALS.items():
        threshold = getattr(config.monitor, name).threshold
        if expected := signal.check(threshold):
            raise ConfigError(f"monitor.{name}.threshold = {threshold}: expected {expected}")


def _check_benchmark(config: Config, name: str, benchmark: BenchmarkConfig) -> None:
    place, every = f"evaluation.benchmarks.{name}", config.evaluation.every
    _check_name(place, name)
    if config.task.name == "mixture" and name in config.task.args:
        raise ConfigError(f"{place}: task.args.{name} is a data set of that name; expected another")
    _check_problems(place, benchmark, benchmark.task)
    if benchmark.every % every if every else benchmark.every:
        raise ConfigError(f"{place}.every = {benchmark.every}: expected a multiple of evaluation.every = {every}")


def _check_name(place: str, name: str) -> None:
    """Checks the name of a benchmark or a data set, which is that of metrics and files."""
    if name in OWN_SPLITS or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(
            f"{place}: expected a name of letters, digits, _ and -, other than {' and '.join(OWN_SPLITS)}"
        )


def _check_problems(place: str, questions: Questions, task: TaskConfig) -> None:
    endless = [name for name, _ in registry.data_sets(task.name, task.args).values() if registry.generated(name)]
    if endless and not questions.problems:
        raise ConfigError(f"{place}.problems = 0: task {endless[0]!r} never runs out of problems; expected at least 1")


# ---------------------------------------------------------------- fields against each other


def _check_together(config: Config) -> None:
    """Checks fields of different sections against each other."""
    rule, context, task = credit.get(config.credit.rule), config.credit.context, config.task.name
    embedded, sources = registry.embedded(task), sources_in(config.credit.context)
    _check_problems("evaluation", config.evaluation, config.task)
    if (context == "none") != (rule.context == "none"):
        reads = "reads no teacher" if rule.context == "none" else "needs a teacher that sees something"
        raise ConfigError(f"credit.context = {context!r}: rule {rule.name!r} {reads}; its own is {rule.context!r}")
    kind, every, rate = config.teacher.kind, config.teacher.every, config.teacher.rate
    follows = {"policy": True, "snapshot": every == 1, "ema": rate == 1, "trust_region": rate == 1}
    if context == "question" and follows.get(kind):
        raise ConfigError(
            f"credit.context = 'question': teacher.kind = {kind!r}, with every = {every} and rate = {rate}, is the student "
            "itself, so that every gap would be 0; expected another teacher"
        )
    if context == "question" and config.reflection.context_length < config.rollout.prompt_length:
        raise ConfigError(
            f"reflection.context_length = {config.reflection.context_length}: credit.context = 'question' shows the student's "
            f"own prompt; expected at least rollout.prompt_length = {config.rollout.prompt_length}"
        )
    if bool(config.credit.negatives) != bool(rule.negatives):
        expected = "contrasts; expected at least 1" if rule.negatives else "does not contrast; expected 0"
        raise ConfigError(f"credit.negatives = {config.credit.negatives}: rule {rule.name!r} {expected}")
    if config.credit.sample_std and not config.credit.normalize:
        raise ConfigError(
            f"credit.sample_std = True: expected credit.normalize = True (baseline {config.credit.baseline!r}); nothing is "
            "divided by a deviation"
        )
    if config.credit.baseline == "none" and config.credit.normalize:
        raise ConfigError(
            "credit.normalize = True with credit.baseline = 'none': equal rewards of 1 would be divided by a deviation of 0; "
            "expected False, or another baseline"
        )
    needs_reference = all("reference_solution" in together.split("+") for together in context.split(","))
    for data_set, (name, args) in registry.data_sets(task, config.task.args).items():
        if registry.generated(name):
            continue
        which, place = (
            (f"set {data_set!r}", f"task.args.{data_set}.args") if data_set else (f"task {task!r}", "task.args")
        )
        if "oracle_reflection" in sources:
            raise ConfigError(f"credit.context = {context!r}: {which} does not know where an attempt goes wrong")
        if needs_reference and not (args.get("reference") or args.get("answer_after")):
            raise ConfigError(
                f"credit.context = {context!r}: rows of {which} have no worked solution; name its column in "
                f"{place}.reference, or show something else (answer, peer_solution)"
            )
    if config.rollout.rounds > 1 and config.rollout.group == 1:
        raise ConfigError(
            f"rollout.rounds = {config.rollout.rounds}: with rollout.group = 1 every group has equal rewards; expected 1"
        )
    _check_external(config, sources)
    _check_division(config)
    if (config.rollout.top_k or config.rollout.top_p < 1) and config.loss.old_logprobs == "sampler":
        raise ConfigError(
            f"loss.old_logprobs = 'sampler' with rollout.top_k = {config.rollout.top_k}, "
            f"rollout.top_p = {config.rollout.top_p}: the sampler's probabilities are those of the truncated distribution, "
            "which is not the one that is trained; expected 'trainer' or 'update'"
        )
    if config.reward.overlong_buffer > config.rollout.response_length:
        raise ConfigError(
            f"reward.overlong_buffer = {config.reward.overlong_buffer}: expected at most "
            f"rollout.response_length = {config.rollout.response_length}"
        )
    if config.warmup.documents and not embedded:
        raise ConfigError(
            f"warmup.documents = {config.warmup.documents}: task {task!r} has no demonstrator to write them; "
            f"embedded tasks are {', '.join(sorted(filter(registry.embedded, registry.NAMES)))}"
        )
    if config.warmup.documents and is_checkpoint(config.model):
        raise ConfigError(
            f"warmup.documents = {config.warmup.documents}: model = {config.model!r} has weights, and a warm-up begins "
            "from random ones; expected 0"
        )
    if not (config.tokenizer or embedded):
        raise ConfigError(f"tokenizer = '': task {task!r} needs a tokenizer folder or hub id")


def _check_chat_template(config: Config) -> None:
    path = config.chat_template.get("path", "")
    if not isinstance(path, str):
        raise ConfigError(f"chat_template.path = {path!r}: expected a file, or {' or '.join(map(repr, NAMED))}")
    if "path" in config.reflection.chat_template:
        raise ConfigError("reflection.chat_template.path: a run has one template; expected chat_template.path")


def _check_lengths(config: Config, splits: Sequence[str]) -> None:
    """Checks that no row is longer than those that the model is meant for."""
    architecture = architecture_of(config.model, **config.architecture)
    rollout, reflection, sources = config.rollout, config.reflection, sources_in(config.credit.context)
    response = ("rollout.response_length", rollout.response_length)
    rows = [(("rollout.prompt_length", rollout.prompt_length), response)]
    if "train" in splits and sources != ["none"]:
        rows.append((("reflection.context_length", reflection.context_length), response))
    writers = samplers_of(config.credit.context) if "train" in splits else set()
    if "critic" in writers:
        rows.append((("reflection.prompt_length", reflection.prompt_length), response))
    if "reflection" in writers or ("train" in splits and reflection.warmup.attempts):
        rows.append((("reflection.prompt_length", reflection.prompt_length), ("reflection.tokens", reflection.tokens)))
    for (prompt, p), (new, t) in rows:
        if p + t > architecture.longest_row:
            raise ConfigError(
                f"{prompt} + {new} = {p} + {t} = {p + t}: model = {config.model!r} is meant for rows of at most "
                f"{architecture.longest_row} tokens (max_position_embeddings = {architecture.max_positions}); expected "
                "shorter ones, or architecture.rope_scaling of rope_type 'yarn' or 'linear' with a factor"
            )


def _check_external(config: Config, sources: list[str]) -> None:
    teacher = config.teacher.kind == "external"
    if teacher and not config.external.workdir:
        raise ConfigError(
            "external.workdir = '': teacher.kind = 'external' needs the workdir of the run that it comes from"
        )
    if config.external.workdir and not teacher and "critic_feedback" not in sources:
        raise ConfigError(
            f"external.workdir = {config.external.workdir!r}: neither the teacher (teacher.kind) nor a critic "
            "(credit.context = 'critic_feedback') comes from it"
        )


def _check_division(config: Config) -> None:
    learning, loss = config.learning, config.loss
    if config.rows % learning.parts:
        raise ConfigError(
            f"rollout.prompts x rollout.group = {config.rows} rows do not divide into learning.minibatches x "
            f"learning.micro_batches = {learning.parts} parts"
        )
    if learning.share_prompts:
        model = architecture_of(config.model, **config.architecture)
        parts = {"windows": any(model.windows), "experts": model.experts, "soft caps": model.attention_softcap}
        if has := [name for name, present in parts.items() if present]:
            raise ConfigError(f"learning.share_prompts = True: expected False for a model with {' and '.join(has)}")
    if learning.skip and (loss.kl or loss.entropy or learning.micro_batches == 1):
        raise ConfigError(
            f"learning.skip = True: expected loss.kl = 0 (not {loss.kl}) and loss.entropy = 0 (not {loss.entropy}), which "
            f"give every row a gradient, and learning.micro_batches of at least 2 (not {learning.micro_batches})"
        )


# ---------------------------------------------------------------- configs that are valid, and cannot learn


def cannot_learn(config: Config) -> list[str]:
    """Returns a warning for each setting of a config with which rewards change no parameter, or no row has a teacher."""
    lines, group, rule = [], config.rollout.group, credit.get(config.credit.rule)
    if not config.optimizer.learning_rate:
        lines.append("optimizer.learning_rate = 0: no parameter will change")
    grouped = config.credit.baseline in credit.GROUPED
    if group == 1 and grouped and not _credits_equal_rewards(config):
        lines.append(
            "rollout.group = 1: an advantage compares the responses of a group, so that it is always 0, and rule "
            f"{config.credit.rule!r} gives no credit then: nothing will be learnt from rewards"
        )
    elif group == 1 and all("peer_solution" in together.split("+") for together in config.credit.context.split(",")):
        lines.append(
            f"rollout.group = 1: credit.context = {config.credit.context!r} shows other responses of the group, and there are "
            "none: no row will have a teacher"
        )
    if group == 2 and rule.negatives == "wrong_peers" and "peer_solution" in config.credit.context:
        lines.append(
            f"rollout.group = 2: rule {rule.name!r} contrasts a right and a wrong response beside the row's own: no row will "
            "have both"
        )
    return lines


def _credits_equal_rewards(config: Config) -> bool:
    """Returns whether a rule may give credit where every advantage is 0, by applying it to random signals.

    One with a memory may, since what it remembers can open a gate.
    """
    rule, generator = credit.get(config.credit.rule), np.random.default_rng(0)

    def value(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        numbers = generator.normal(size=shape.shape) if shape.dtype == np.float32 else np.ones(shape.shape)
        return numbers.astype(shape.dtype)

    arrays = jax.tree.map(value, signal_shapes(rule, config))
    arrays |= {name: np.zeros_like(arrays[name]) for name in ("advantage", "reward", "memory")}
    arrays["mask"] = np.ones_like(arrays["mask"])
    arrays |= {name: np.tile(np.int32([1, 2]), (len(arrays[name]), 1)) for name in ("first_error", "quoted")}
    signals = Signals(**jax.tree.map(jax.numpy.asarray, arrays))
    return bool(rule.distill or rule.memory or np.any(rule(signals, **config.credit.args).token_advantage))
