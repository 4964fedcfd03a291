"""The configuration of a run: every field with its default, and the checks that stop a wrong one before any compute."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from amrsd_jax import credit, tasks
from amrsd_jax.learning.losses import RATIOS, REDUCTIONS
from amrsd_jax.names import nearest
from amrsd_jax.policy.architecture import PRESETS, preset
from amrsd_jax.policy.transformer import REMAT_POLICIES
from amrsd_jax.reflection.prompts import templates
from amrsd_jax.reflection.sources import SOURCES
from amrsd_jax.scoring.teachers import KINDS

# Sections whose keys depend on a choice made beside them; their own registries check them.
_OPEN = ("task.args", "credit.args", "reflection.templates", "chat_template")


class ConfigError(ValueError):
    """A field of the config is wrong; the message names it, its value and what was expected."""


def base() -> ConfigDict:
    """Every field, at its default. Configs start from this and change what they are about."""
    config = ConfigDict()
    config.seed = 0
    config.steps = 30  # training steps: one batch of rollouts each

    config.model = "tiny"  # a preset of policy.architecture
    config.architecture = ConfigDict(  # fields of the preset to replace; None keeps the preset's
        dict(
            vocab_size=placeholder(int), width=placeholder(int), layers=placeholder(int), heads=placeholder(int),
            kv_heads=placeholder(int), head_dim=placeholder(int), ffn=placeholder(int), qk_norm=placeholder(bool),
            qkv_bias=placeholder(bool), tied=placeholder(bool), rope_theta=placeholder(float), dtype=placeholder(str),
        )
    )  # fmt: skip
    config.tokenizer = ""  # folder or hub id; "" is the embedded task's own
    config.chat_template = ConfigDict()  # arguments of the chat template, e.g. enable_thinking
    config.remat = "none"  # what the backward pass recomputes: none, dots, full
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # data = -1 takes the devices that remain

    config.task = ConfigDict(
        dict(
            name="addition",
            args=ConfigDict(),  # those of the task that differ from its defaults
        )
    )
    config.warmup = ConfigDict(  # supervised warm-up of embedded tasks; 0 documents skips it
        dict(
            documents=0,
            row_length=160,  # packed tokens a row
            rows=8,  # rows an update; small batches are decisive for tiny models
            learning_rate=3e-3,
            b2=0.98,
            solve=0.5,  # share of documents that solve,
            reflect=0.25,  # that reflect; the rest solve with a reflection in view
            peer=0.6,  # share of reflecting documents that show a correct peer
        )
    )

    config.rollout = ConfigDict(
        dict(
            prompts=16,  # B, problems a step
            group=8,  # G, rollouts a problem
            prompt_length=32,  # P; longer prompts are skipped and counted
            response_length=80,  # T
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            slots=128,  # rows in flight
            admit=16,  # prompts prefilled together
            segment=64,  # decode steps between two looks of the host
            rounds=1,  # DAPO's dynamic sampling: batches drawn at most, to replace groups of equal rewards
        )
    )
    config.reward = ConfigDict(
        dict(
            overlong_buffer=0,  # DAPO's soft penalty over the last tokens of the budget; 0 is off
            permute=False,  # control run: rewards shuffled within the batch
        )
    )
    config.credit = ConfigDict(
        dict(
            rule="amrsd",
            args=ConfigDict(),  # those of the rule that differ from its defaults
            context="",  # what the teacher sees besides the question, a name of reflection.sources; "" is the rule's own
            normalize=True,  # divide advantages by the group's standard deviation (GRPO) or not (Dr.GRPO)
            exact_savings=True,  # skip reflection and teacher for rows whose credit they cannot change
        )
    )
    config.teacher = ConfigDict(
        dict(
            kind="",  # policy, snapshot, ema, initial; "" is the rule's own
            every=10,  # steps between refreshes of a snapshot
            rate=0.05,  # share of the policy in a moving average, per step
        )
    )
    config.reflection = ConfigDict(
        dict(
            prompt_length=192,  # longest reflection prompt; the attempt is shortened to fit
            tokens=128,  # longest reflection (our choice)
            context_length=192,  # R, longest teacher prompt; the reflection is shortened to fit
            temperature=0.7,  # our choice
            peers=True,  # show a verified-correct sibling
            reference=False,  # show the reference solution where no such sibling is shown
            slots=64,
            admit=32,
            templates=ConfigDict(),  # replacements for texts of reflection.prompts
        )
    )
    config.scoring = ConfigDict(
        dict(
            rows=32,  # rows scored together
            chunk=4096,  # tokens whose logits exist at one time
        )
    )
    config.loss = ConfigDict(
        dict(
            ratio="token",  # token, or one per sequence (GSPO)
            clip_low=0.2,
            clip_high=0.2,
            reduction="sequence_mean",  # sequence_mean, token_mean, constant
            constant_length=placeholder(int),  # divisor of reduction = constant
            kl=0.0,  # coefficient of the k3 KL to the policy at step 0
            entropy=0.0,  # coefficient of the entropy bonus
            old_logp="sampler",  # denominator of the ratio: as sampled, or recomputed by the trainer
            importance_cap=placeholder(float),  # truncated importance weight between the two; needs old_logp = trainer
            mask_truncated=False,  # leave out responses that hit the length limit
        )
    )
    config.learning = ConfigDict(
        dict(
            minibatches=1,  # optimiser updates a step
            micro_batches=1,  # pieces of an update whose gradients are accumulated
        )
    )
    config.optimizer = ConfigDict(
        dict(
            learning_rate=1e-4,
            schedule="constant",  # constant, linear, cosine
            warmup_updates=0,
            b1=0.9,
            b2=0.95,
            eps=1e-8,
            weight_decay=0.0,
            clip_norm=1.0,
            max_skipped=3,  # updates refused in a row (gradient not finite) before the run stops
        )
    )
    config.evaluation = ConfigDict(
        dict(
            every=10,  # steps; 0 evaluates only before and after
            problems=256,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
    )
    config.checkpoint = ConfigDict(dict(every=10, keep=2))  # steps; latest kept, besides the best
    config.report = ConfigDict(dict(rollouts_every=5))  # steps between dumps of rollouts; first and last always
    return config


def validate(config: ConfigDict) -> None:
    """Checks names, types, ranges, and fields against each other.

    Raises:
      ConfigError: naming the field, its value and what was expected.
    """
    _check_schema(config, base(), "")
    _choice("task.name", config.task.name, tasks.NAMES)
    _choice("credit.rule", config.credit.rule, credit.RULES)
    _choice("credit.context", config.credit.context, ("", *SOURCES))
    _choice("teacher.kind", config.teacher.kind, ("", *KINDS))
    _choice("model", config.model, PRESETS)
    arguments = credit.get(config.credit.rule).defaults
    _check_names("credit.args", config.credit.args, arguments, of=f" of rule {config.credit.rule!r}")
    _check_types("credit.args", config.credit.args, arguments)
    _check_types("task.args", config.task.args, tasks.defaults(config.task.name))
    _check_types("reflection.templates", config.reflection.templates, dict.fromkeys(config.reflection.templates, ""))
    try:
        tasks.check(config.task.name, dict(config.task.args))
        templates(tasks.family(config.task.name), **config.reflection.templates)
        preset(config.model, **{name: value for name, value in config.architecture.items() if value is not None})
    except ValueError as error:
        raise ConfigError(str(error)) from error

    _choice("remat", config.remat, REMAT_POLICIES)
    _choice("loss.ratio", config.loss.ratio, RATIOS)
    _choice("loss.reduction", config.loss.reduction, REDUCTIONS)
    _choice("loss.old_logp", config.loss.old_logp, ("sampler", "trainer"))
    _choice("optimizer.schedule", config.optimizer.schedule, ("constant", "linear", "cosine"))

    for field in (
        "steps", "rollout.prompts", "rollout.group", "rollout.prompt_length", "rollout.response_length", "rollout.slots",
        "rollout.admit", "rollout.segment", "rollout.rounds", "reflection.prompt_length", "reflection.tokens",
        "reflection.context_length", "reflection.slots", "reflection.admit", "scoring.rows", "scoring.chunk",
        "learning.minibatches", "learning.micro_batches", "optimizer.max_skipped", "evaluation.problems",
        "checkpoint.every", "checkpoint.keep", "report.rollouts_every", "mesh.fsdp", "mesh.tensor",
        "warmup.row_length", "warmup.rows", "teacher.every",
    ):  # fmt: skip
        _at_least(config, field, 1)
    for field in (
        "seed", "rollout.top_k", "reward.overlong_buffer", "loss.clip_low", "loss.clip_high", "loss.kl", "loss.entropy",
        "optimizer.learning_rate", "optimizer.clip_norm", "optimizer.warmup_updates", "evaluation.every",
        "evaluation.temperature", "evaluation.top_k", "reflection.temperature", "warmup.documents",
        "warmup.learning_rate", "optimizer.eps", "optimizer.weight_decay",
        *(f"credit.args.{name}" for name in config.credit.args),  # strengths, thresholds, lengths: none means less
    ):  # fmt: skip
        _at_least(config, field, 0)
    for field in ("rollout.top_p", "evaluation.top_p"):
        if not 0 < _get(config, field) <= 1:
            raise ConfigError(f"{field} = {_get(config, field)}: expected a number in (0, 1]")
    for field in ("optimizer.b1", "optimizer.b2", "warmup.b2"):
        if not 0 <= _get(config, field) < 1:
            raise ConfigError(f"{field} = {_get(config, field)}: expected a number in [0, 1)")
    for field in ("warmup.solve", "warmup.reflect", "warmup.peer", "teacher.rate"):
        if not 0 <= _get(config, field) <= 1:
            raise ConfigError(f"{field} = {_get(config, field)}: expected a share in [0, 1]")
    for field in ("loss.constant_length", "loss.importance_cap"):
        if _get(config, field) is not None and not _get(config, field) > 0:
            raise ConfigError(f"{field} = {_get(config, field)}: expected more than 0, or None")
    if config.seed >= 2**32:
        raise ConfigError(f"seed = {config.seed}: expected below 2**32, all that JAX's generator takes")
    if config.mesh.data != -1:
        _at_least(config, "mesh.data", 1)
    _check_together(config)


def _check_together(config: ConfigDict) -> None:
    rule, context = credit.get(config.credit.rule), config.credit.context
    if context and (context == "none") != (rule.context == "none"):
        reads = "reads no teacher" if rule.context == "none" else "needs a teacher that sees something"
        raise ConfigError(f"credit.context = {context!r}: rule {rule.name!r} {reads}; its own is {rule.context!r}")
    if context == "oracle_reflection" and not tasks.embedded(config.task.name):
        raise ConfigError(
            f"credit.context = {context!r}: task {config.task.name!r} does not know where an attempt goes wrong"
        )
    rows = config.rollout.prompts * config.rollout.group
    pieces = config.learning.minibatches * config.learning.micro_batches
    if rows % pieces:
        raise ConfigError(
            f"rollout.prompts x rollout.group = {rows} rows do not divide into learning.minibatches x "
            f"learning.micro_batches = {pieces} pieces"
        )
    if not config.rollout.temperature > 0:
        raise ConfigError(
            f"rollout.temperature = {config.rollout.temperature}: a greedy policy has no gradient; expected more than 0"
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
    if not config.tokenizer and not tasks.embedded(config.task.name):
        raise ConfigError(f"tokenizer = '': task {config.task.name!r} needs a tokenizer folder or hub id")
    if config.warmup.solve + config.warmup.reflect > 1:
        raise ConfigError(
            f"warmup.solve + warmup.reflect = {config.warmup.solve + config.warmup.reflect}: shares above 1"
        )


def resolve(config: ConfigDict) -> ConfigDict:
    """A valid config with what it leaves to its task and rule spelled out, so that what is written down is complete."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.task.args = tasks.defaults(config.task.name) | dict(config.task.args)
        rule = credit.get(config.credit.rule)
        config.credit.args = rule.defaults | dict(config.credit.args)
        config.credit.context = config.credit.context or rule.context
        config.teacher.kind = config.teacher.kind or rule.teacher
    return config


# ---------------------------------------------------------------- files


def to_json(config: ConfigDict) -> str:
    """The frozen config as written into a workdir."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def differences(saved: dict[str, Any], config: ConfigDict) -> list[str]:
    """Fields in which a saved config and this one differ, one line each."""
    old, new = _flat(saved), _flat(json.loads(to_json(config)))
    absent = "(absent)"
    return [
        f"{field}: {old.get(field, absent)!r} there, {new.get(field, absent)!r} here"
        for field in sorted(old.keys() | new.keys())
        if old.get(field, absent) != new.get(field, absent)
    ]


def claim(workdir: Path, config: ConfigDict) -> bool:
    """Makes a workdir this config's own; returns whether it already held a run of the same config, to be resumed.

    Raises:
      ConfigError: it holds a run of another config; the message lists the differing fields.
    """
    path = workdir / "config.json"
    if path.exists():
        different = differences(json.loads(path.read_text()), config)
        if different:
            listed = "\n  ".join(different)
            raise ConfigError(
                f"{workdir} holds a run of another config; use another --workdir. It differs in\n  {listed}"
            )
        return True
    workdir.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(to_json(config))
    draft.replace(path)
    return False


# ---------------------------------------------------------------- checks


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


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
