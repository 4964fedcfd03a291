"""Checks that a run can begin, and says what it is, before anything is computed."""

import json
from collections.abc import Iterable
from pathlib import Path

import jax

from amrsd_jax import own_code, processes, reflection_warmup
from amrsd_jax.experiment import Experiment
from amrsd_jax.files import atomic_write
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.platforms import row_devices
from amrsd_jax.policy import lora
from amrsd_jax.policy.tokenizer import Message, chat_ids
from amrsd_jax.reflection.parse import TAGS
from amrsd_jax.reflection.sources import samplers_of
from amrsd_jax.runtime.console import note
from amrsd_jax.runtime.rollouts import rollout_files, unreadable
from amrsd_jax.tasks import data_report, digest, registry
from amrsd_jax.tasks.mixture import Mixture, label, members
from amrsd_jax.tasks.stream import next_prompts
from amrsd_jax.validate import cannot_learn


def check_prompts(experiment: Experiment) -> None:
    """Checks that prompts fit: the training split's and every benchmark's, and those of reflections and teacher without texts.

    Also whether reflections can begin with their tag, and whether the config's reflection warm-up is possible.

    Raises:
      ValueError: none of a split fits into `rollout.prompt_length`, the teacher's not into `reflection.context_length`, or those
        of a writer not into `reflection.prompt_length`; a reflection would begin with its tag inside a thought; or see
        `reflection_warmup.check`.
    """
    encode, longest = experiment.prompt_ids, experiment.config.rollout.prompt_length
    for data_set, task in members(experiment.task).items():
        with registry.placed(data_set):
            next_prompts(
                task, "train", 0, 1, encode=lambda problem, name=data_set: encode(label(name, problem)), longest=longest
            )
    for benchmark in experiment.evaluator.benchmarks:
        experiment.evaluator.prompts(benchmark)
    settings, context = experiment.context_settings, experiment.config.credit.context
    if "reflection" in samplers_of(context) and settings.config.open_tag and settings.reflections_open_thinking:
        raise ValueError(
            "reflection.open_tag = True: the chat template begins a reflection inside a thought, where the tag would be lost; "
            "expected False, or a template without it (reflection.chat_template, e.g. enable_thinking = False)"
        )

    def check(field: str, whose: str, prompts: Iterable[list[Message]], **template: object) -> None:
        least = max(len(chat_ids(settings.tokenizer, messages, **template)) for messages in prompts)
        if least >= (limit := getattr(settings.config, field)):
            raise ValueError(
                f"reflection.{field} = {limit}: {whose} without question and text has {least} tokens; expected more"
            )

    families, writers = settings.templates.values(), samplers_of(context)
    if context != "none":
        prompts = (texts.teacher_prompt("", "") for texts in families)
        check("context_length", "the teacher's prompt", prompts, **settings.chat_template)
    if "reflection" in writers:
        prompts = (texts.reflection_prompt(tag, "", "", "", None, None) for texts in families for tag in TAGS.values())
        check("prompt_length", "the prompt of a reflection", prompts, **settings.reflection_chat_template)
    if "critic" in writers:
        prompts = (texts.repair_prompt("", "", "") for texts in families)
        check("prompt_length", "the critic's prompt", prompts, **settings.reflection_chat_template)
    reflection_warmup.check(experiment)


def read_rows(experiment: Experiment) -> dict[str, dict]:
    """Returns a record of the rows of the config's task and benchmarks, and of a rule in a user's file, to notice others by."""
    record, rule = {"task": digest.describe(experiment.task)}, experiment.config.credit.rule
    if ":" in rule:
        record["credit.rule"] = own_code.digest(rule)
    for benchmark in experiment.evaluator.benchmarks:
        if benchmark.task is not experiment.task:
            record[f"evaluation.benchmarks.{benchmark.name}"] = digest.describe(benchmark.task, ("test",))
    return {name: described for name, described in record.items() if described}


def describe(experiment: Experiment) -> None:
    """Prints what the run trains, on which devices and with which kernels, and warns of what cannot be split or learnt."""
    config, policy, mesh = experiment.config, experiment.policy, experiment.mesh
    shape = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    rank, trained = config.lora.rank, sum(a.size for a in jax.tree.leaves(lora.trainable(policy.abstract_params())))
    adapters = f", frozen; {trained:,} in adapters are trained (lora.rank = {rank})" if rank else ""
    note(f"{config.credit.rule} on {config.task.name}, {policy.architecture.parameters():,} parameters{adapters}")
    if isinstance(experiment.task, Mixture):
        total = sum(experiment.task.shares.values())
        note("  " + ", ".join(f"{name} {share / total:.1%}" for name, share in experiment.task.shares.items()))
    size, known = policy.architecture.vocab_size, len(experiment.tokenizer)
    if size > 2 * known:
        note(
            f"  the tokenizer has {known:,} of the model's {size:,} ids: the others are never sampled (architecture.vocab_size)"
        )
    kernels = f"attention {policy.attention}, cache {policy.decode_attention}"
    note(f"{jax.device_count()} x {jax.devices()[0].device_kind}, mesh {shape}; {kernels}")
    for line in meshes.replicated_by_size(policy.abstract_params(), mesh):
        note(f"  {line}")
    if config.learning.share_prompts and (devices := row_devices(mesh)) > 1:
        note(f"  rows are split over {devices} devices: every response runs its own prompt (learning.share_prompts)")
    if config.reflection.null_control_every and not experiment.rule.reads_gap:
        note(
            f"  reflection.null_control_every measures nothing: the teacher of rule {experiment.rule.name!r} has no gap"
        )
    for line in cannot_learn(config):
        note(f"  {line}")


@processes.only_first
def describe_data(experiment: Experiment, workdir: Path) -> None:
    """Prints a report on the task's rows and writes it to `data.json`, unless that file exists."""
    path = workdir / "data.json"
    if path.exists():
        return
    report = data_report.report(experiment.task, experiment.prompt_ids, experiment.config.rollout.prompt_length)
    for line in data_report.lines(report):
        note(line)
    if report:
        atomic_write(path, json.dumps(report, indent=2) + "\n")


@processes.only_first
def name_unreadable(workdir: Path, step: int) -> None:
    """Prints the saved rollouts of the first `step` steps that cannot be opened; those of later steps are written again."""
    for saved, path in rollout_files(workdir).items():
        if saved <= step and (fault := unreadable(path)):
            note(f"{fault}; report and compare leave it out")


@processes.only_first
def save_tokenizer(experiment: Experiment, workdir: Path) -> None:
    """Saves the tokenizer in the workdir, from which a resumed run loads it."""
    folder = workdir / "tokenizer"
    if not folder.exists():
        atomic_write(folder, experiment.tokenizer.save_pretrained)
