"""Builds the parts that a config names, once per run, and checks them against the devices before anything is allocated."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree
from ml_collections import ConfigDict

from amrsd_jax import credit, processes, rng
from amrsd_jax.config import Config, base
from amrsd_jax.evaluate.benchmarks import benchmarks
from amrsd_jax.evaluate.evaluator import Evaluator
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.step import Objective
from amrsd_jax.platforms import platform, row_devices, runs_cudnn
from amrsd_jax.policy import Architecture, Params, Policy, architecture_of, attention, cache
from amrsd_jax.policy.huggingface import stop_ids
from amrsd_jax.policy.tokenizer import (
    Tokenizer,
    absent_ids,
    chat_ids,
    check_template,
    embedded_tokenizer,
    load_tokenizer,
    set_template,
    vocabulary_size,
)
from amrsd_jax.policy.transformer import around
from amrsd_jax.records import Problem
from amrsd_jax.reflection.prompts import Templates, task_templates, vocabulary_words
from amrsd_jax.reflection.settings import ContextSettings
from amrsd_jax.reflection.sources import begins_with_reflection, samplers_of
from amrsd_jax.runtime.console import note
from amrsd_jax.runtime.workdir import read_config, read_tokenizer
from amrsd_jax.sampling import Sampler, SamplerConfig, SamplerParams, StopStrings, complete
from amrsd_jax.scoring.divergence import Divergence
from amrsd_jax.scoring.score import Scorer
from amrsd_jax.scoring.teachers import Teacher
from amrsd_jax.tasks import registry
from amrsd_jax.tasks.base import Task
from amrsd_jax.validate import validate


@dataclasses.dataclass(frozen=True)
class ExternalPolicy:
    """Holds the policy of another run, which serves as teacher or critic, and the tokens that end its responses."""

    policy: Policy
    workdir: Path
    stop_tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that a config names. Nothing here changes during a run.

    Attributes:
      config: validated.
      task, tokenizer: the problems, and how prompts are encoded.
      templates: how prompts are made, by `Problem.data_set`.
      policy, mesh: the model that is trained, and the devices.
      rule: the credit rule.
      context_settings: how reflections and teacher prompts are made.
      teacher, external: the kind of teacher, and another run's policy if the config names one.
      samplers: the sampler's shape by purpose ("rollout", "reflection", "critic").
      scorer: how responses are scored.
      objective, schedule, optimizer: what an update minimises, and how.
      evaluator: the benchmarks.
    """

    config: Config
    task: Task
    tokenizer: Tokenizer
    templates: Mapping[str, Templates]
    policy: Policy
    mesh: Mesh
    rule: credit.Rule
    context_settings: ContextSettings
    teacher: Teacher
    external: ExternalPolicy | None
    samplers: dict[str, SamplerConfig]
    scorer: Scorer
    objective: Objective
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    evaluator: Evaluator

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Returns the prompt ids of a problem."""
        messages = self.templates[problem.data_set].question_prompt(problem.question, problem.messages)
        return chat_ids(self.tokenizer, messages, **template_arguments(self.config))

    def sampler_params(self, params: Params) -> SamplerParams:
        """Returns what the sampler reads, from all parameters of the policy."""
        return sampler_params(self.policy, params, self.mesh)

    def sampler(self, params: SamplerParams, stream: str, step: int) -> Sampler:
        """Returns the sampler of one stream ("reflection" or "critic") at one step."""
        policy = self.external.policy if stream == "critic" and self.external else self.policy
        key = rng.key(self.config.seed, stream, step)
        return lambda requests: complete(policy, self.samplers[stream], params, requests, key)

    @property
    def needs_critic(self) -> bool:
        """Whether a source needs the frozen critic, which is the external policy, or this one at step 0."""
        return "critic" in samplers_of(self.config.credit.context)


def make_experiment(config: Config, workdir: Path) -> Experiment:
    """Builds everything that a validated config names. A resumed run takes its tokenizer from the workdir.

    Raises:
      OSError, ValueError: rows, tokenizer, model or mesh do not fit.
    """
    rule = credit.get(config.credit.rule)
    task = registry.make(config.task.name, config.task.args, config.seed)
    texts = task_templates(config.task, config.reflection.templates)
    tokenizer = make_tokenizer(config, texts, task, workdir)
    mesh = meshes.make_mesh(**config.mesh.model_dump())
    policy = make_policy(config, tokenizer, mesh)
    meshes.check_divides(
        "rows of a micro-batch (prompts x group / minibatches / micro_batches)",
        config.rows // config.learning.parts,
        mesh,
    )
    meshes.check_divides("scoring.rows", config.scoring.rows, mesh)

    schedule = make_schedule(config.optimizer, config.updates)
    external, samplers = make_external(config, tokenizer, mesh), make_samplers(config, mesh, tokenizer)
    if external:  # as a critic it ends its responses in its own way
        critic = samplers["critic"]
        stop_tokens = tuple(sorted({*critic.stop_tokens, *external.stop_tokens}))
        samplers["critic"] = dataclasses.replace(critic, stop_tokens=stop_tokens)
    evaluator = make_evaluator(config, task, policy, tokenizer, mesh)
    reflection_template = template_arguments(config) | config.reflection.chat_template
    if config.reflection.chat_template:
        check_template(tokenizer, reflection_template)
    temperature = config.rollout.temperature
    return Experiment(
        config=config,
        task=task,
        tokenizer=tokenizer,
        templates=texts,
        policy=policy,
        mesh=mesh,
        rule=rule,
        context_settings=ContextSettings(
            config=config.reflection,
            task=task,
            tokenizer=tokenizer,
            templates=texts,
            chat_template=template_arguments(config),
            reflection_chat_template=reflection_template,
            group=config.rollout.group,
        ),
        teacher=Teacher(config.teacher, policy, external and external.policy),
        external=external,
        samplers=samplers,
        scorer=Scorer(config.scoring, temperature, meshes.rows(mesh)),
        objective=Objective(config.loss, rule_divergence(config), temperature, config.scoring.chunk),
        schedule=schedule,
        optimizer=make_optimizer(config.optimizer, schedule),
        evaluator=evaluator,
    )


def sampler_params(policy: Policy, params: Params, mesh: Mesh) -> SamplerParams:
    """Returns what the sampler reads. Adapters are not merged: their changes may be too small for the compute dtype.

    The weights for decoding are made layer by layer, then the others one by one: to gather all at once would need memory for
    them a second time.
    """
    layer, cast = decoding_programs(policy, mesh)
    indices = processes.put(list(np.arange(policy.architecture.layers, dtype=np.int32)), meshes.replicated(mesh))
    layers = [layer(params["layers"], index) for index in indices]
    rest = {name: cast[name]({name: tree})[name] for name, tree in around(params).items()}
    return SamplerParams(params, rest | {"layers": layers})


@functools.lru_cache
def decoding_programs(policy: Policy, mesh: Mesh):
    """Returns the programs that make the weights for decoding, `Policy.for_decoding` in parts.

    Returns:
      `Policy.layer_for_decoding`, and by name `Policy.cast_params` of a tree with that name alone.
    """
    where = decoding_shardings(policy, mesh)
    cast = {name: jax.jit(policy.cast_params, out_shardings={name: tree}) for name, tree in around(where).items()}
    return jax.jit(policy.layer_for_decoding, out_shardings=where["layers"][0]), cast


def decoding_shardings(policy: Policy, mesh: Mesh) -> PyTree:
    """Returns shardings of the result of `Policy.for_decoding`: over the tensor axis only, so that decoding gathers no weight."""
    params = policy.abstract_params()
    layer = jax.eval_shape(policy.layer_for_decoding, params["layers"], 0)
    stacked = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape), a.dtype), layer)
    where = meshes.shardings(params | {"layers": stacked}, mesh, over=("tensor",))
    layer = jax.tree.map(lambda stacked: NamedSharding(mesh, PartitionSpec(*stacked.spec[1:])), where["layers"])
    return where | {"layers": [layer] * policy.architecture.layers}


def template_arguments(config: Config) -> dict[str, Any]:
    """Returns the arguments of the chat template."""
    return {name: value for name, value in config.chat_template.items() if name != "path"}


def make_samplers(config: Config, mesh: Mesh, tokenizer: Tokenizer | None) -> dict[str, SamplerConfig]:
    """Returns the sampler's shape by purpose.

    Args:
      tokenizer: None where only sizes are needed.
    """
    rollout, reflection = config.rollout, config.reflection
    decode = tokenizer and functools.partial(tokenizer.decode, skip_special_tokens=False)
    shared = dict(
        segment=rollout.segment,
        stop_tokens=stop_ids(config.model, tokenizer) if tokenizer else (),
        absent=absent_ids(tokenizer) if tokenizer else (),
        stop_strings=StopStrings(rollout.stop, decode) if tokenizer and rollout.stop else None,
        sharding=meshes.rows(mesh),
    )
    responses = _named(
        "rollout", slots=rollout.slots, group=rollout.group, prompt_length=rollout.prompt_length,
        new_tokens=rollout.response_length, admit=rollout.admit, **shared,
    )  # fmt: skip
    written = samplers_of(config.credit.context)
    ways = 1 if written else row_devices(mesh)  # slots that the run does not use need not fit the devices
    reflections = _named(
        "reflection", slots=-(-reflection.slots // ways) * ways, group=1, prompt_length=reflection.prompt_length,
        new_tokens=reflection.tokens, admit=reflection.admit, **shared,
    )  # fmt: skip
    critic = dataclasses.replace(reflections, new_tokens=rollout.response_length)  # a repaired attempt is a response
    return {"rollout": responses, "reflection": reflections, "critic": critic}


def _named(section: str, **shape) -> SamplerConfig:
    """Returns a sampler's shape; an error about a field names its section."""
    try:
        return SamplerConfig(**shape)
    except ValueError as error:
        raise ValueError(f"{section}.{error}") from None


def make_evaluator(config: Config, task: Task, policy: Policy, tokenizer: Tokenizer, mesh: Mesh) -> Evaluator:
    """Returns the evaluator of a config's benchmarks, reads their rows, and tries the chat template.

    Raises:
      OSError, ValueError: rows or chat template are wrong.
    """
    sampler, arguments = make_samplers(config, mesh, tokenizer)["rollout"], template_arguments(config)
    for line in check_template(tokenizer, arguments):
        note(line)
    return Evaluator(benchmarks(config, task), config.seed, policy, sampler, tokenizer, arguments)


def make_policy(config: Config, tokenizer: Tokenizer | None, mesh: Mesh) -> Policy:
    """Returns the policy on a mesh; the config selects its attention kernels, "auto" those that suit the mesh's devices."""
    architecture, devices = make_architecture(config, tokenizer), (platform(mesh), runs_cudnn(mesh))
    backend = attention.choose_backend(config.attention, architecture, *devices)
    layout = cache.choose_layout(config.decode_attention, architecture, *devices)
    return Policy(architecture, config.remat, meshes.rows(mesh), backend, layout)


def make_architecture(config: Config, tokenizer: Tokenizer | None) -> Architecture:
    """Returns the model's architecture with the config's changes; without `config.tokenizer`, the vocabulary fits `tokenizer`.

    Args:
      tokenizer: None where only sizes are needed and the config names a tokenizer, which is assumed to fit.

    Raises:
      ValueError: the tokenizer is larger than the vocabulary.
    """
    changes: dict[str, Any] = dict(config.architecture)
    if not config.tokenizer:  # rounded up so that it can be split over a mesh
        changes.setdefault("vocab_size", -(-len(tokenizer) // 16) * 16)
    architecture = architecture_of(config.model, **changes)
    if tokenizer is not None and architecture.vocab_size < vocabulary_size(tokenizer):
        raise ValueError(
            f"architecture.vocab_size = {architecture.vocab_size}: the tokenizer has {vocabulary_size(tokenizer)} ids"
        )
    return dataclasses.replace(architecture, lora=config.lora if config.lora.rank else None)


def reflects_early(config: Config) -> bool:
    """Returns whether a group's reflections can be requested as soon as it is verified, because its advantages are then final."""
    final = config.rollout.rounds == 1 and not config.reward.permute and config.credit.baseline in credit.GROUPED
    return begins_with_reflection(config.credit.context) and final


def rule_divergence(config: Config) -> Divergence | None:
    """Returns the divergence of a rule that distils, with the config's changes."""
    rule = credit.get(config.credit.rule)
    return rule.distill and Divergence(**rule.distill.model_dump() | config.distill)


def make_external(config: Config, tokenizer: Tokenizer, mesh: Mesh) -> ExternalPolicy | None:
    """Returns the policy of the run that `external.workdir` names, on this run's mesh.

    Raises:
      OSError, ValueError: there is no such run, it has adapters, its tokenizer differs, or it is meant for shorter rows.
    """
    if not config.external.workdir:
        return None
    place, workdir = f"external.workdir = {config.external.workdir!r}", Path(config.external.workdir)
    other = policy_config(workdir)
    if other.lora.rank:
        raise ValueError(f"{place}: a run with adapters; expected one without")
    other_tokenizer = read_tokenizer(workdir)
    if other_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"{place}: its tokenizer differs from this run's")
    kernels = dict(attention=config.attention, decode_attention=config.decode_attention)  # of this machine
    policy = make_policy(other.model_copy(update=kernels), other_tokenizer, mesh)
    rollout, reflection = config.rollout, config.reflection
    reads = reflection.context_length if config.teacher.kind == "external" else 0
    writes = reflection.prompt_length if "critic" in samplers_of(config.credit.context) else 0
    if (row := max(reads, writes) + rollout.response_length) > policy.architecture.longest_row:
        raise ValueError(
            f"{place}: its model is meant for rows of at most {policy.architecture.longest_row} tokens, and is given {row} "
            "(the longest prompt of a teacher or critic, and rollout.response_length); expected shorter ones"
        )
    return ExternalPolicy(policy, workdir, stop_ids(other.model, other_tokenizer))


def policy_config(workdir: Path) -> Config:
    """Returns a run's config as far as its policy needs it: without rows, verifier, benchmarks and rule, which need not be there.

    Raises:
      FileNotFoundError, ConfigError: see `read_config`.
    """
    config = read_config(workdir)
    with config.unlocked():
        config.evaluation.benchmarks, args = {}, config.task.args.to_dict()
        for one in registry.row_arguments(config.task.name, args):
            one |= {name: "" for name in ("train", "test", "verifier") if name in one}
        config.task.args = args
    forget_rule(config)
    return validate(config, splits=())


def forget_rule(config: ConfigDict) -> None:
    """Replaces a config's rule by GRPO. A policy that is not trained needs no rule, so a file of the user's need not be there."""
    with config.unlocked():
        for section in ("credit", "teacher", "distill", "external"):
            config[section] = base()[section]
        config.credit.rule = "grpo"


def make_tokenizer(config: Config, texts: Mapping[str, Templates], task: Task, workdir: Path | None) -> Tokenizer:
    """Returns the tokenizer saved in the workdir, else the config's, else the embedded task's own.

    Raises:
      ValueError: it cannot be loaded, or there is no such chat template; the message names the folder, or the field.
    """
    if workdir and (workdir / "tokenizer").exists():
        return read_tokenizer(workdir)
    path = config.chat_template.get("path", "")
    if config.tokenizer:
        return load_tokenizer(config.tokenizer, path)
    tokenizer = embedded_tokenizer([*vocabulary_words(texts[""]), *task.chain.words])
    if path:
        set_template(tokenizer, path)
    return tokenizer
