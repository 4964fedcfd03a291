"""AMR-SD on additions of 1 to 18 digits, log-normal: most responses are short, a few are eight times as long.

Command:   python -m amrsd_jax.main --config=configs/long_tail.py --workdir=runs/long_tail
Hardware:  two CPU cores.

Responses of reasoning models have such lengths, and a step waits for its longest row. `python -m benchmarks.run --suite=step
--run=runs/long_tail` measures what a method adds to such a step (docs/performance.md).
"""

from amrsd_jax import config as configuration


def get_config():
    config = configuration.base()
    config.task.args.update(digits=2, spread=1.0)
    config.warmup.update(documents=16_000, rows=1, row_length=512)

    config.rollout.update(prompts=16, group=8, prompt_length=48, response_length=208, segment=16)
    config.credit.rule = "amrsd"
    config.reflection.update(prompt_length=224, tokens=24, context_length=288)
    config.scoring.rows = 16  # a last piece of each width is padded
    config.learning.update(minibatches=2, micro_batches=4)
    config.optimizer.learning_rate, config.optimizer.schedule = 2e-4, "linear"
    config.steps = 24
    return config
