"""Evaluates a saved policy: that of a run's checkpoint, or a Hugging Face model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from amrsd_jax import tasks
from amrsd_jax.build import make_evaluator, make_policy, sampling_weights
from amrsd_jax.checks import ConfigError, validate
from amrsd_jax.config import resolve
from amrsd_jax.evaluate import files
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Params, Policy, huggingface
from amrsd_jax.policy.tokenizer import Tokenizer, load_tokenizer
from amrsd_jax.runtime.checkpoints import find_step
from amrsd_jax.runtime.summary import note
from amrsd_jax.runtime.workdir import differences, read_config
from amrsd_jax.start import saved_params


def evaluate_saved(config: ConfigDict, checkpoint: str, out: Path) -> files.Record:
    """Evaluates a policy on every benchmark of a config, and writes each to `out` as soon as it is done.

    A benchmark that `out` holds already, of the same policy and asked in the same way, is not asked again.

    Args:
      config: whose task, benchmarks, lengths, slots, mesh and seed count; what is about training does not.
      checkpoint: see `find`.

    Raises:
      ConfigError: the config is wrong, or `out` holds one of its benchmarks asked in another way.
      OSError, ValueError: naming what is wrong with the checkpoint or the rows.
    """
    saved = find(checkpoint, config)
    validate(saved.config, splits=("test",))
    config = resolve(saved.config)
    task = tasks.make(config.task.name, dict(config.task.args), config.seed, splits=("test",))
    mesh = meshes.make_mesh(**config.mesh)
    policy = make_policy(saved.model, saved.tokenizer, mesh)
    evaluator = make_evaluator(config, task, policy, saved.tokenizer, mesh)

    record, same = files.read_record(out), {"checkpoint": saved.name, "seed": config.seed}
    same |= {field: config.rollout[field] for field in ("prompt_length", "response_length")}
    same["chat_template"] = config.chat_template.to_dict()
    asked = {benchmark.name: benchmark.settings() | same for benchmark in evaluator.benchmarks}
    todo = [benchmark for benchmark in evaluator.benchmarks if not _done(out, record, benchmark.name, asked)]
    if not todo:
        return record
    out.mkdir(parents=True, exist_ok=True)
    weights = sampling_weights(policy, saved.read(policy, mesh), mesh)
    for benchmark in todo:
        note(f"{benchmark.name}: {saved.name}")
        evaluation = evaluator(benchmark, weights)
        files.write_answers(out / f"{benchmark.name}.parquet", benchmark, evaluation.answers)
        record[benchmark.name] = {"settings": asked[benchmark.name], "metrics": evaluation.metrics}
        files.write_record(out, record)
    return record


def _done(out: Path, record: files.Record, name: str, asked: dict[str, dict]) -> bool:
    """Whether a benchmark needs nothing more; refuses to write over one that was asked in another way."""
    if name not in record or not (out / f"{name}.parquet").exists():
        return False
    if different := differences(record[name]["settings"], ConfigDict(asked[name])):
        listed = "\n  ".join(different)
        raise ConfigError(f"{out} holds {name!r} asked in another way; use another --out. It differs in\n  {listed}")
    note(f"{name}: already in {out}")
    return True


# ---------------------------------------------------------------- which policy


@dataclasses.dataclass(frozen=True)
class Saved:
    """A policy that is not in memory yet.

    Attributes:
      name: for the record.
      config: what is evaluated, with this policy as its model.
      model: the config that the policy is made from.
      read: the policy and a mesh to its parameters.
    """

    name: str
    config: ConfigDict
    model: ConfigDict
    tokenizer: Tokenizer
    read: Callable[[Policy, Mesh], Params]


def find(checkpoint: str, config: ConfigDict) -> Saved:
    """The policy of a checkpoint, with the architecture and tokenizer that belong to it.

    Args:
      checkpoint: the workdir of a run, for its newest checkpoint; one of its folders `checkpoints/<step>`; a Hugging Face
        folder or hub id; or "" for the config's own model.

    Raises:
      ConfigError: it is none of these.
      OSError, ValueError: naming what is wrong with it.
    """
    folder, config = Path(checkpoint), config.copy_and_resolve_references()
    if checkpoint and (folder / "checkpoints").is_dir():
        return _of_run(folder, find_step(folder), config)
    if checkpoint and (folder / "state").is_dir():
        return _of_run(folder.parent.parent, int(folder.name), config)
    if not huggingface.is_place(checkpoint or config.model):
        expected = "a run, one of its checkpoints/<step>, or a Hugging Face folder or hub id"
        if checkpoint:
            raise ConfigError(f"checkpoint = {checkpoint!r}: expected {expected}")
        raise ConfigError(f"model = {config.model!r} has no weights and there is no checkpoint: expected {expected}")
    if checkpoint:
        bare = folder.is_dir() and not (folder / "tokenizer_config.json").exists()
        _set_model(config, checkpoint, config.tokenizer if bare else "", ConfigDict())
    with config.unlocked():
        config.tokenizer, config.lora.rank = config.tokenizer or config.model, 0  # fresh adapters would change nothing
    place = huggingface.locate(config.model, weights=True)
    huggingface.read_architecture(place)  # says what is wrong with a folder before its tokenizer is looked for

    def read(policy: Policy, mesh: Mesh) -> Params:
        return huggingface.load_params(place, policy, meshes.shardings(policy.abstract_params(), mesh))

    return Saved(config.model, config, config, load_tokenizer(config.tokenizer), read)


def _of_run(workdir: Path, step: int, config: ConfigDict) -> Saved:
    theirs = read_config(workdir)
    _set_model(config, theirs.model, str(workdir / "tokenizer"), theirs.architecture)

    def read(policy: Policy, mesh: Mesh) -> Params:
        return saved_params(workdir, step, policy, mesh)

    return Saved(f"{workdir} step {step}", config, theirs, load_tokenizer(workdir / "tokenizer"), read)


def _set_model(config: ConfigDict, model: str, tokenizer: str, architecture: ConfigDict) -> None:
    """Gives a config another model, and takes its warm-up, which would be for its own."""
    with config.unlocked():
        config.model, config.tokenizer, config.warmup.documents = model, tokenizer, 0
        config.architecture.update({field: architecture.get(field) for field in config.architecture})
