"""A run's policy as a folder that `transformers` loads; `python -m amrsd_jax.export` is the command."""

from pathlib import Path

import jax


def export(workdir: Path, out: Path, *, step: int | None = None, dtype: str = "float32") -> int:
    """Writes the policy of a run's checkpoint with its tokenizer; returns the checkpoint's step.

    Args:
      workdir: of the run.
      out: a new or empty folder.
      step: of the checkpoint; None is the newest.
      dtype: of the weights.

    Raises:
      FileNotFoundError: no run, or no such checkpoint; the message lists those there are.
      FileExistsError: `out` holds something.
      ValueError: no family of `transformers` has this architecture.
    """
    from amrsd_jax.build import make_architecture
    from amrsd_jax.learning import mesh as meshes
    from amrsd_jax.policy import Policy, huggingface
    from amrsd_jax.policy.tokenizer import load_tokenizer
    from amrsd_jax.runtime.checkpoints import load_policy
    from amrsd_jax.runtime.workdir import read_config

    config = read_config(workdir)
    steps = sorted(int(path.parent.name) for path in (workdir / "checkpoints").glob("[0-9]*/state"))
    if not steps or step not in (None, *steps):
        raise FileNotFoundError(
            f"{workdir / 'checkpoints'}: no checkpoint {step or ''}; there are those of steps {steps}"
        )
    step = steps[-1] if step is None else step
    tokenizer = load_tokenizer(workdir / "tokenizer")
    policy = Policy(make_architecture(config, tokenizer))
    abstract, mesh = policy.abstract_params(), meshes.make_mesh(1, len(jax.devices()), 1)
    params = load_policy(workdir / "checkpoints" / str(step) / "state", abstract, meshes.shardings(abstract, mesh))
    huggingface.save_params(out, policy.architecture, params, tokenizer, dtype=dtype)
    return step
