"""Exports a run's policy as a folder that `transformers` loads; `python -m amrsd_jax.export` is the command.

Adapters are merged into the model, or exported alone in PEFT's format.
"""

from pathlib import Path

import jax

from amrsd_jax.experiment import make_architecture, policy_config
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Policy, huggingface, lora, peft
from amrsd_jax.runtime.checkpoints import find_step
from amrsd_jax.runtime.console import note
from amrsd_jax.runtime.workdir import read_tokenizer
from amrsd_jax.start import saved_params, trained_params


def export(workdir: Path, out: Path, *, step: int | None = None, dtype: str = "float32", adapters: bool = False) -> int:
    """Writes the policy and tokenizer of a run's checkpoint, and returns the checkpoint's step.

    Args:
      workdir: workdir of the run.
      out: a new or empty folder.
      step: step of the checkpoint; None is the newest whole one.
      dtype: data type of the weights.
      adapters: write only the adapters, in PEFT's format and float32. They name their base model only where `transformers`
        loads it by the config's `model`: not for a preset, a GGUF file, or a model of which the config changes the architecture.

    Raises:
      FileNotFoundError: there is no run, or no such checkpoint; the message lists the existing checkpoints.
      FileExistsError: `out` is not empty.
      OSError, ValueError: the checkpoint is damaged, no model of `transformers` has this architecture, or the run has no
        adapters.
    """
    config = policy_config(workdir)
    step = find_step(workdir, step)
    tokenizer = read_tokenizer(workdir)
    architecture = make_architecture(config, tokenizer)
    if adapters and not architecture.lora:
        raise ValueError(f"{workdir}: lora.rank = 0: the run has no adapters; expected a run with lora.rank above 0")
    policy, mesh = Policy(architecture), meshes.make_mesh(1, len(jax.devices()), 1)
    if adapters:
        base = config.model if huggingface.loads_as(config.model, policy.base.architecture) else None
        if base is None:
            note(f"model = {config.model!r}: transformers cannot load the base by this name, so the adapters name none")
        peft.save_adapters(out, architecture, trained_params(workdir, step, policy, mesh), base_model=base)
        return step
    params = saved_params(workdir, step, policy, mesh)
    if architecture.lora:
        params = lora.merge(params, architecture.lora)
    huggingface.save_params(out, architecture, params, tokenizer, source=config.model, dtype=dtype)
    return step
