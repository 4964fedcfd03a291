"""A run's policy as a folder that `transformers` loads; `python -m amrsd_jax.export` is the command.

Adapters are merged into the model, or written alone as PEFT loads them.
"""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from amrsd_jax.build import build, make_architecture
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Params, Policy, huggingface, lora, peft
from amrsd_jax.policy.tokenizer import load_tokenizer
from amrsd_jax.runtime.checkpoints import load_policy
from amrsd_jax.runtime.metrics import Clock
from amrsd_jax.runtime.workdir import read_config
from amrsd_jax.start import initial_params


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
    steps = sorted(int(path.parent.name) for path in (workdir / "checkpoints").glob("[0-9]*/state"))
    if not steps or step not in (None, *steps):
        raise FileNotFoundError(
            f"{workdir / 'checkpoints'}: no checkpoint {step or ''}; there are those of steps {steps}"
        )
    step = steps[-1] if step is None else step
    tokenizer = load_tokenizer(workdir / "tokenizer")
    architecture = make_architecture(config, tokenizer)
    if adapters and not architecture.lora:
        raise ValueError(f"{workdir}: lora.rank = 0: the run has no adapters to write alone")
    abstract, mesh = lora.learns(Policy(architecture).abstract_params()), meshes.make_mesh(1, len(jax.devices()), 1)
    params = load_policy(workdir / "checkpoints" / str(step) / "state", abstract, meshes.shardings(abstract, mesh))
    if adapters:
        peft.save_adapters(out, architecture, params, base_model=config.model)
        return step
    if architecture.lora:
        params = lora.merge(lora.join(_base(workdir, config), params), architecture.lora)
    huggingface.save_params(out, architecture, params, tokenizer, dtype=dtype)
    return step


def _base(workdir: Path, config: ConfigDict) -> Params:
    """What a run's adapters were trained beside, made again as the run made it, over all devices."""
    config.mesh.update(data=1, fsdp=len(jax.devices()), tensor=1)
    return lora.split(initial_params(build(config, workdir), workdir, Clock()))[0]
