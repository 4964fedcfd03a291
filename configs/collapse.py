"""AMR-SD on three-digit addition with a 0.08 M model that is accurate from the start: a short run to study collapses.

Command:   python -m amrsd_jax.main --config=configs/collapse.py --workdir=runs/collapse
Hardware:  two CPU cores.

With `--config.credit.rule=hybrid --config.credit.context=answer`, whose teacher is shown the answer, the run collapses;
`--config.monitor.reward.action=stop` then stops it (docs/monitor.md).
"""

from amrsd_jax import config as configuration


def get_config():
    config = configuration.base()
    config.task.args.digits, config.task.args.slip_rate = 3, 0.3
    config.architecture.update(width=64, layers=2, heads=2, kv_heads=1, head_dim=32, ffn=128)
    config.warmup.documents, config.warmup.row_length = 16_000, 128

    config.rollout.update(prompts=8, group=8, prompt_length=16, response_length=48, slots=64, admit=8, segment=16)
    config.credit.rule = "amrsd"
    config.reflection.update(prompt_length=112, tokens=20, context_length=88, slots=32, admit=16)
    config.scoring.chunk = 1024
    config.learning.minibatches = 2
    config.optimizer.learning_rate = 1e-4
    config.evaluation.update(problems=128, every=30)
    config.report.rollouts_every = 30
    config.steps = 150
    return config
