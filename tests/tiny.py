"""A run small enough to train in seconds: two-digit addition, a 50 k model, a short warm-up."""

from amrsd_jax import config as configuration


def tiny_config(rule="amrsd", **fields):
    """Fields with two underscores for the dot: `tiny_config(loss__kl=0.1)`."""
    config = configuration.base()
    config.steps = 4
    config.task.args.digits = 2
    config.architecture.update(width=64, layers=2, heads=2, kv_heads=1, head_dim=32, ffn=128)
    config.warmup.documents, config.warmup.row_length, config.warmup.rows = 10_000, 96, 8
    config.rollout.update(prompts=4, group=8, prompt_length=16, response_length=32, slots=32, admit=4, segment=16)
    config.reflection.update(prompt_length=96, tokens=16, context_length=32, slots=16, admit=8)
    config.scoring.update(rows=8, chunk=256)
    config.credit.rule = rule
    config.learning.minibatches = 2
    config.optimizer.learning_rate = 1e-4
    config.evaluation.update(problems=16, every=2)
    config.checkpoint.every = 2
    config.report.rollouts_every = 2
    config.mesh.data = 1
    for name, value in fields.items():
        *path, last = name.split("__")
        section = config
        for key in path:
            section = section[key]
        section[last] = value
    return config
