"""A run's policy as a folder that `transformers` loads; `python -m amrsd_jax.export` is the command.

Adapters are merged into the model, or written alone as PEFT loads them.
"""

from pathlib import Path

import jax

from amrsd_jax.build import make_architecture
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Policy, huggingface, lora, peft
from amrsd_jax.policy.tokenizer import load_tokenizer
from amrsd_jax.runtime.checkpoints import find_step
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.start import learned_params, saved_params


def export(workdir: Path, out: Path, *, step: int | None = None, dtype: str = "float32", adapters: bool = False) -> int:
    """Writes the policy of a run's checkpoint with its tokenizer; returns the checkpoint's step.

    Args:
      workdir: of the run.
      out: a new or empty folder.
      step: of the checkpoint; None is the newest.
      dtype: of the weights.
      adapters: write those alone, in PEFT's format and float32.

    Raises:
      FileNotFoundError: no run, or no such checkpoint; the message lists those there are.
      FileExistsError: `out` holds something.
      ValueError: no family of `transformers` has this architecture, or there are no adapters.
    """
    config = read_config(workdir)
    step = find_step(workdir, step)
    tokenizer = load_tokenizer(workdir / "tokenizer")
    architecture = make_architecture(config, tokenizer)
    if adapters and not architecture.lora:
        raise ValueError(f"{workdir}: lora.rank = 0: the run has no adapters to write alone")
    policy, mesh = Policy(architecture), meshes.make_mesh(1, len(jax.devices()), 1)
    if adapters:
        peft.save_adapters(out, architecture, learned_params(workdir, step, policy, mesh), base_model=config.model)
        return step
    params = saved_params(workdir, step, policy, mesh)
    if architecture.lora:
        params = lora.merge(params, architecture.lora)
    huggingface.save_params(out, architecture, params, tokenizer, dtype=dtype)
    return step
