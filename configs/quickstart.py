"""AMR-SD on five-digit addition: a 0.6 M model unlearns a planted habit (forgotten carries) from verified rewards.

Command:   python -m amrsd_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
Hardware:  two CPU cores.

`--config.credit.rule=grpo` runs another rule of `amrsd_jax.credit` from the same start, with the same problems and noise.
"""

from amrsd_jax import config as configuration


def get_config():
    config = configuration.base()
    config.warmup.documents, config.warmup.rows = 20_000, 6

    config.rollout.update(prompts=16, group=8, prompt_length=24, response_length=64)
    config.credit.rule = "amrsd"
    config.reflection.update(prompt_length=144, tokens=24, context_length=112)
    config.learning.minibatches = 2
    config.optimizer.learning_rate, config.optimizer.schedule = 2e-4, "linear"
    config.steps = 36
    return config
