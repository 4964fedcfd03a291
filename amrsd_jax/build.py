"""Build: the parts that a config names, made once and checked against the machine before anything is allocated."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, PyTree
from ml_collections import ConfigDict

from amrsd_jax import credit, rng, tasks
from amrsd_jax.evaluate import Evaluator, benchmarks
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.step import Objective
from amrsd_jax.policy import Architecture, Params, Policy, architecture_of, attention, lora
from amrsd_jax.policy.tokenizer import Tokenizer, chat_ids, embedded_tokenizer, load_tokenizer
from amrsd_jax.records import Rollouts
from amrsd_jax.reflection.contexts import ContextMaker, Writers
from amrsd_jax.reflection.prompts import Templates, templates, words
from amrsd_jax.reflection.sources import sources_in, written_first
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.sampling import Layout, Weights, complete
from amrsd_jax.scoring.divergence import Divergence
from amrsd_jax.scoring.teachers import Teacher


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts that a config names, built once; nothing here changes during the run."""

    config: ConfigDict
    task: tasks.Task
    texts: Templates
    tokenizer: Tokenizer
    policy: Policy
    mesh: Mesh
    rule: credit.Rule
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    objective: Objective
    make_contexts: ContextMaker
    teacher: Teacher
    external: "Run | None"
    layouts: dict[str, Layout]
    evaluator: Evaluator
    scoring: dict
    batching: dict

    def encode(self, problem: tasks.Problem) -> list[int]:
        """Prompt ids of a problem."""
        return chat_ids(self.tokenizer, self.texts.ask(problem.question), **self.config.chat_template)

    def sampling_weights(self, params: Params) -> Weights:
        """What the sampler reads of parameters."""
        return sampling_weights(self.policy, params, self.mesh)

    def sampler(self, weights: Weights, stream: str, step: int):
        """The sampler of one purpose and step: requests in, completions out."""
        layout, key = self.layouts[stream], rng.key(self.config.seed, stream, step)
        policy = ((self.external or self) if stream == "critic" else self).policy
        return lambda requests: complete(policy, layout, weights, requests, key)

    def writers(self, weights: Weights, critic: Weights | None, step: int, clock: Clock) -> Writers:
        """Who can be asked to write a context at a step, from the sampling weights of each; the clock is told of their rows."""

        def writer(weights: Weights, stream: str):
            return clock.watched("reflections", self.sampler(weights, stream, step))

        return Writers(writer(weights, "reflection"), None if critic is None else writer(critic, "critic"))

    @property
    def reflects_early(self) -> bool:
        """Whether reflections can be asked for before all rollouts are there: no row or reward changes after that."""
        config = self.config
        return written_first(config.credit.context) and config.rollout.rounds == 1 and not config.reward.permute

    @property
    def critic(self) -> "Run | None":
        """The run whose policy is the frozen critic: the external one, or this one at step 0; None if no critic is asked."""
        asked = "critic_feedback" in sources_in(self.config.credit.context)
        return (self.external or self) if asked else None

    def penalty(self, rollouts: Rollouts) -> Float[np.ndarray, " N"] | float:
        """What is added to the verifier's reward [N]."""
        buffer, longest = self.config.reward.overlong_buffer, self.config.rollout.response_length
        if not buffer:
            return 0.0
        return credit.overlong_penalty(rollouts.mask.sum(axis=1), longest=longest, buffer=buffer)

    def needs_context(
        self, advantage: Float[np.ndarray, " N"], rollouts: Rollouts, step: int
    ) -> Bool[np.ndarray, " N"]:
        """Rows whose teacher is asked: those the rule declares, or with the savings switched off all of them."""
        if self.config.credit.context == "none":
            return np.zeros(len(advantage), bool)
        if not self.config.credit.exact_savings:
            return np.ones(len(advantage), bool)
        return self.rule.needs(advantage, rollouts.reward, step, **self.config.credit.args)


def sampling_weights(policy: Policy, params: Params, mesh: Mesh) -> Weights:
    """See `Run.sampling_weights`. Adapters are not merged: what they add may be less than the compute dtype can tell."""
    return Weights(params, _for_decoding(policy, mesh)(params))


@functools.lru_cache
def _for_decoding(policy: Policy, mesh: Mesh):
    return jax.jit(policy.for_decoding, out_shardings=decoding_shardings(policy, mesh))


def decoding_shardings(policy: Policy, mesh: Mesh) -> PyTree:
    """Where the result of `Policy.for_decoding` lives: split over the tensor axis only, so that no token gathers a weight."""
    where = meshes.shardings(policy.abstract_params(), mesh, over=("tensor",))
    layer = jax.tree.map(lambda stacked: NamedSharding(mesh, PartitionSpec(*stacked.spec[1:])), where["layers"])
    return where | {"layers": [layer] * policy.architecture.layers}


def build(config: ConfigDict, workdir: Path) -> Run:
    """Everything the config names. A resumed run takes its tokenizer from the workdir."""
    seed, rollout, reflection, loss = config.seed, config.rollout, config.reflection, config.loss
    rule = credit.get(config.credit.rule)
    task = tasks.make(config.task.name, dict(config.task.args), seed)
    texts = templates(task.family, **config.reflection.templates)
    tokenizer = make_tokenizer(config, texts, task, workdir)
    mesh = meshes.make_mesh(**config.mesh)
    policy = make_policy(config, tokenizer, mesh)
    rows = rollout.prompts * rollout.group
    pieces = config.learning.minibatches * config.learning.micro_batches
    meshes.check_divides("rows of a micro-batch (prompts x group / minibatches / micro_batches)", rows // pieces, mesh)
    meshes.check_divides("scoring.rows", config.scoring.rows, mesh)

    schedule, optimizer = make_update(config)
    objective = Objective(
        ratio=loss.ratio, clip_low=loss.clip_low, clip_high=loss.clip_high, reduction=loss.reduction,
        constant_length=loss.constant_length, kl=loss.kl, entropy=loss.entropy, importance_cap=loss.importance_cap,
        temperature=rollout.temperature, chunk=config.scoring.chunk, micro_batches=config.learning.micro_batches,
        skip=config.learning.skip, kl_estimator=loss.kl_estimator, distil=distilled(config, rule),
    )  # fmt: skip
    make_contexts = ContextMaker(
        config.credit.context, rule.negatives, config.credit.args.get("k", 0), task, tokenizer, texts,
        dict(config.chat_template), dict(config.chat_template) | dict(reflection.chat_template), rollout.group,
        reflection.prompt_length, reflection.context_length, reflection.temperature, reflection.peers, reflection.reference,
    )  # fmt: skip
    external = build_external(config, tokenizer)
    teacher = Teacher(
        config.teacher.kind, policy, external and external.policy, config.teacher.every, config.teacher.rate
    )
    return Run(
        config, task, texts, tokenizer, policy, mesh, rule, schedule, optimizer, objective, make_contexts, teacher, external,
        make_layouts(config, mesh, (tokenizer.eos_token_id,)), make_evaluator(config, task, policy, tokenizer, mesh),
        scoring=dict(rows=config.scoring.rows, temperature=rollout.temperature, chunk=config.scoring.chunk,
                     sharding=meshes.rows(mesh)),
        batching=dict(minibatches=config.learning.minibatches, mask_truncated=loss.mask_truncated),
    )  # fmt: skip


def make_update(config: ConfigDict) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The learning rate by update, and the optimiser."""
    c = config.optimizer
    schedule = make_schedule(
        learning_rate=c.learning_rate, schedule=c.schedule, warmup_updates=c.warmup_updates,
        total_updates=config.steps * config.learning.minibatches,
    )  # fmt: skip
    optimizer = make_optimizer(
        schedule, b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay, clip_norm=c.clip_norm
    )
    return schedule, optimizer


def make_layouts(config: ConfigDict, mesh: Mesh, stop_tokens: tuple[int, ...]) -> dict[str, Layout]:
    """The sampler's shape for each of its purposes."""
    rollout, reflection = config.rollout, config.reflection
    fixed = dict(segment=rollout.segment, stop_tokens=stop_tokens, sharding=meshes.rows(mesh))
    answers = Layout(
        slots=rollout.slots, group=rollout.group, prompt_length=rollout.prompt_length,
        new_tokens=rollout.response_length, admit=rollout.admit, **fixed,
    )  # fmt: skip
    thoughts = Layout(
        slots=reflection.slots, group=1, prompt_length=reflection.prompt_length,
        new_tokens=reflection.tokens, admit=reflection.admit, **fixed,
    )  # fmt: skip
    traces = dataclasses.replace(thoughts, new_tokens=rollout.response_length)  # a repaired attempt is as long as one
    return {"rollout": answers, "evaluation": answers, "reflection": thoughts, "critic": traces}


def make_evaluator(config: ConfigDict, task: tasks.Task, policy: Policy, tokenizer: Tokenizer, mesh: Mesh) -> Evaluator:
    """The benchmarks of a resolved config, to be asked of a policy; rows of further benchmarks are read at once."""
    layout = make_layouts(config, mesh, (tokenizer.eos_token_id,))["evaluation"]
    return Evaluator(benchmarks(config, task), config.seed, policy, layout, tokenizer, dict(config.chat_template))


def make_policy(config: ConfigDict, tokenizer: Tokenizer | None, mesh: Mesh) -> Policy:
    """The policy on a mesh; see `make_architecture` and `attention.choose`."""
    architecture = make_architecture(config, tokenizer)
    backend = attention.choose(config.attention, architecture, mesh.devices.flat[0].platform)
    return Policy(architecture, config.remat, meshes.rows(mesh), backend)


def make_architecture(config: ConfigDict, tokenizer: Tokenizer | None) -> Architecture:
    """The model's architecture with the config's changes; an embedded tokenizer decides its vocabulary.

    Args:
      tokenizer: None where only sizes are asked for and the config names a tokenizer: it is taken to fit.

    Raises:
      ValueError: the tokenizer is larger than the vocabulary.
    """
    changes = {name: value for name, value in config.architecture.items() if value is not None}
    if not config.tokenizer:  # rounded up so that it can be split over a mesh
        changes["vocab_size"] = max(changes.get("vocab_size", 0), -(-len(tokenizer) // 16) * 16)
    architecture = architecture_of(config.model, **changes)
    if tokenizer is not None and architecture.vocab_size < len(tokenizer):
        raise ValueError(
            f"architecture.vocab_size = {architecture.vocab_size}: the tokenizer has {len(tokenizer)} entries"
        )
    return dataclasses.replace(architecture, lora=lora.make(**config.lora))


def distilled(config: ConfigDict, rule: credit.Rule) -> Divergence | None:
    """The divergence of a rule that distils, as a resolved config has it."""
    return Divergence(**config.distill) if rule.distil else None


def build_external(config: ConfigDict, tokenizer: Tokenizer) -> Run | None:
    """The parts of the run whose parameters are the external teacher's or the critic's, on this run's mesh."""
    if not config.external.workdir:
        return None
    workdir = Path(config.external.workdir)
    theirs = read_config(workdir)
    theirs.mesh = config.mesh
    if theirs.lora.rank:
        raise ValueError(f"external.workdir = {config.external.workdir!r}: a run with adapters; expected one without")
    external = build(theirs, workdir)
    if external.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"external.workdir = {config.external.workdir!r}: its tokenizer is not this run's")
    return external


def make_tokenizer(config: ConfigDict, texts: Templates, task: tasks.Task, workdir: Path) -> Tokenizer:
    """The config's tokenizer, or the embedded task's own; saved beside the checkpoints, and read back from there."""
    folder = workdir / "tokenizer"
    if folder.exists():
        return load_tokenizer(folder)
    if config.tokenizer:
        return load_tokenizer(config.tokenizer)
    return embedded_tokenizer([*words(texts), *task.chain.words])
