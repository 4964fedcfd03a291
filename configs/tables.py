"""AMR-SD on chains of lookups in a hidden table: a hundred unrelated facts, each unreliable at a rate of its own.

Command:   python -m amrsd_jax.main --config=configs/tables.py:hard --workdir=runs/tables_hard
Hardware:  two CPU cores.

`hard` starts at 1 to 3 % accuracy, so that most groups hold failures only; `easy` at about 12 %. The model has
0.34 M parameters; its warm-up is longer than the quickstart's, so that the critiques it writes are true.
"""

from amrsd_jax import config as configuration
from amrsd_jax.names import nearest

TABLES = {
    "hard": {"steps": 60, "task": {"args": {"low": 0.35, "high": 0.85}}, "rollout": {"prompts": 4, "group": 8}},
    "easy": {"steps": 60, "task": {"args": {"low": 0.55, "high": 0.95}}, "rollout": {"prompts": 8, "group": 2}},
}


def get_config(name: str = ""):
    if name not in TABLES:
        raise ValueError(f"tables {name!r}: {nearest(name, TABLES)}")
    config = configuration.base()
    config.task.name = "tables"
    config.architecture.update(width=96, layers=3, heads=4, kv_heads=2, head_dim=24, ffn=288)
    config.warmup.update(documents=36_000, rows=8, solve=0.25, reflect=0.35, given=0.1, peer=0.3, lines=8)

    config.rollout.update(prompt_length=20, response_length=64, slots=32)
    config.reflection.update(prompt_length=152, tokens=12, context_length=120, slots=32, admit=32)
    config.credit.rule = "amrsd"
    config.loss.reduction = "token_mean"
    config.optimizer.learning_rate = 5e-4
    config.evaluation.update(every=10, problems=128)
    config.update(TABLES[name])
    return config
