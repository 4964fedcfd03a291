"""Evaluates a saved policy: a run's checkpoint or a Hugging Face model."""

import copy
import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from amrsd_jax import interrupt
from amrsd_jax.config import Config
from amrsd_jax.evaluate import files
from amrsd_jax.experiment import forget_rule, make_evaluator, make_policy, policy_config, sampler_params
from amrsd_jax.interrupt import Interrupt
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Params, Policy, huggingface
from amrsd_jax.policy.tokenizer import Tokenizer, load_tokenizer, set_template
from amrsd_jax.runtime.checkpoints import CHECKSUMS, find_step
from amrsd_jax.runtime.console import note, track
from amrsd_jax.runtime.workdir import differences, locked, read_tokenizer
from amrsd_jax.sections import ConfigError
from amrsd_jax.start import saved_params
from amrsd_jax.tasks import digest, registry
from amrsd_jax.tasks.base import Task
from amrsd_jax.validate import CHANGEABLE, validate


def evaluate_saved(config: ConfigDict, checkpoint: str, out: Path) -> files.Record:
    """Evaluates a policy on every benchmark of a config; writes each result to `out` as soon as it is complete.

    Benchmarks that `out` holds already, with the same policy and settings, are not repeated.

    Args:
      config: supplies task, benchmarks, lengths, slots, mesh and seed; its training sections are ignored.
      checkpoint: see `find`.
      out: folder to write.

    Raises:
      ConfigError: the config is wrong, or `out` holds one of its benchmarks with other settings.
      OSError, ValueError: the checkpoint or the rows are wrong; the message names them.
      Interrupted: a signal was received; the benchmarks that were finished are in `out`.
    """
    saved = find(checkpoint, config)
    forget_rule(saved.config)
    checked = validate(saved.config, splits=("test",))
    model = saved.model or checked
    task = make_task(checked)
    mesh = meshes.make_mesh(**checked.mesh.model_dump())
    policy = make_policy(model, saved.tokenizer, mesh)
    evaluator = make_evaluator(checked, task, policy, saved.tokenizer, mesh)

    record, common = files.read_record(out), {"checkpoint": saved.name, "weights": saved.weights, "seed": checked.seed}
    common |= {field: getattr(checked.rollout, field) for field in ("prompt_length", "response_length")}
    common |= {"stop": list(checked.rollout.stop), "chat_template": checked.chat_template}
    architecture = dataclasses.asdict(dataclasses.replace(policy.architecture, lora=None))
    common |= {"architecture": architecture, "tokenizer": model.tokenizer}
    settings = {
        benchmark.name: benchmark.settings() | common | {"rows": digest.describe(benchmark.task, (benchmark.split,))}
        for benchmark in evaluator.benchmarks
    }
    todo = [b for b in evaluator.benchmarks if not _is_complete(out, record, b.name, settings[b.name])]
    if not todo:
        return record
    for benchmark in todo:
        evaluator.prompts(benchmark)  # raises where none fits, before the parameters are read
    with locked(out), Interrupt():
        params = sampler_params(policy, saved.read(policy, mesh), mesh)
        for benchmark in todo:
            note(f"{benchmark.name}: {saved.name}")
            interrupt.check()
            evaluation = evaluator(benchmark, params, track)
            files.write_answers(out / f"{benchmark.name}.parquet", benchmark, evaluation.answers)
            record[benchmark.name] = {"settings": settings[benchmark.name], "metrics": evaluation.metrics}
            files.write_record(out, record)
    return record


def make_task(config: Config) -> Task:
    """Returns the task of an evaluation. Training rows are read for a validation split alone, and not missed for it."""
    name, args = config.task.name, copy.deepcopy(config.task.args)
    rows = registry.row_arguments(name, args)
    if any(one["validation"] and one["train"] for one in rows):
        try:
            return registry.make(name, args, config.seed, splits=("test",))
        except OSError as error:
            note(f"the validation split is left out: {error}")
    for one in rows:
        one |= {"train": "", "validation": 0.0}
    return registry.make(name, args, config.seed, splits=("test",))


def _is_complete(out: Path, record: files.Record, name: str, settings: dict) -> bool:
    """Whether `out` holds a benchmark's result; refuses to overwrite one with other settings."""
    if name not in record:
        return False
    if different := differences(record[name]["settings"], settings):
        listed = "\n  ".join(different)
        raise ConfigError(f"{out} holds {name!r} with other settings; use another --out. They differ in\n  {listed}")
    if not (out / f"{name}.parquet").exists():
        note(f"{name}: its answers are no longer in {out}, so it is evaluated again")
        return False
    note(f"{name}: already in {out}")
    return True


# ---------------------------------------------------------------- finding the policy


@dataclasses.dataclass(frozen=True)
class Saved:
    """A saved policy whose parameters are not loaded yet.

    Attributes:
      name: name of the checkpoint for the record.
      config: config of the evaluation, with this policy as its model.
      model: config of the run that trained it; None for a checkpoint, whose model is that of `config`.
      tokenizer: the policy's tokenizer.
      weights: CRC-32 of a checkpoint's checksums, by which it is known from another one of the same name; "" without such.
      read: loads the parameters, given the policy and a mesh.
    """

    name: str
    config: ConfigDict
    model: Config | None
    tokenizer: Tokenizer
    weights: str
    read: Callable[[Policy, Mesh], Params]


def find(checkpoint: str, config: ConfigDict) -> Saved:
    """Locates the policy of a checkpoint, with its own architecture and tokenizer.

    Args:
      checkpoint: the workdir of a run, for its newest checkpoint; one of its folders `checkpoints/<step>`; a Hugging Face
        folder or hub id; or "" for the config's own model.
      config: of the evaluation.

    Raises:
      ConfigError: `checkpoint` is none of these.
      OSError, ValueError: the checkpoint is damaged or incomplete; the message names it.
    """
    folder, config = Path(checkpoint), config.copy_and_resolve_references()
    if checkpoint and (folder / "checkpoints").is_dir():
        return _of_run(folder, find_step(folder), config)
    if checkpoint and folder.parent.name == "checkpoints" and folder.name.isdecimal() and folder.is_dir():
        run = folder.parent.parent
        return _of_run(run, find_step(run, int(folder.name)), config)
    if not huggingface.is_checkpoint(checkpoint or config.model):
        expected = "a run, one of its checkpoints/<step>, or a Hugging Face folder or hub id"
        if checkpoint:
            raise ConfigError(f"checkpoint = {checkpoint!r}: expected {expected}")
        raise ConfigError(f"model = {config.model!r} has no weights and there is no checkpoint: expected {expected}")
    if checkpoint:
        bare = folder.is_dir() and not (folder / "tokenizer_config.json").exists()
        changes = {name: value for name, value in config.architecture.items() if name in CHANGEABLE}
        _set_model(config, checkpoint, config.tokenizer if bare else "", ConfigDict(changes))
    with config.unlocked():
        config.tokenizer = config.tokenizer or config.model
        config.lora.rank = 0  # new adapters would not change the policy
    place = huggingface.checkpoint_place(config.model, weights=True)
    huggingface.read_architecture(place)  # names an incomplete folder before its tokenizer is loaded

    def read(policy: Policy, mesh: Mesh) -> Params:
        return huggingface.load_params(place, policy, meshes.shardings(policy.abstract_params(), mesh))

    tokenizer = load_tokenizer(config.tokenizer, config.chat_template.get("path", ""))
    return Saved(config.model, config, None, tokenizer, "", read)


def _of_run(workdir: Path, step: int, config: ConfigDict) -> Saved:
    trained, tokenizer = policy_config(workdir), read_tokenizer(workdir)
    _set_model(config, trained.model, str(workdir / "tokenizer"), ConfigDict(trained.architecture))
    template = config.chat_template.get("path", "")
    if template and template != trained.chat_template.get("path", ""):  # else the saved tokenizer has it
        set_template(tokenizer, template)

    def read(policy: Policy, mesh: Mesh) -> Params:
        return saved_params(workdir, step, policy, mesh)

    written = workdir / "checkpoints" / str(step) / CHECKSUMS
    weights = f"{zlib.crc32(written.read_bytes()):08x}" if written.exists() else ""
    return Saved(f"{workdir} step {step}", config, trained, tokenizer, weights, read)


def _set_model(config: ConfigDict, model: str, tokenizer: str, architecture: ConfigDict) -> None:
    """Replaces a config's model, and removes the warm-ups, which belong to the model replaced."""
    with config.unlocked():
        config.model, config.tokenizer, config.warmup.documents = model, tokenizer, 0
        config.architecture, config.reflection.warmup.attempts = architecture, 0
