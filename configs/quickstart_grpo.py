"""The quickstart with GRPO in place of AMR-SD: the same task, model and budget, with the same credit for every token.

Command:   python -m amrsd_jax.main --config=configs/quickstart_grpo.py --workdir=runs/quickstart_grpo
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.credit.rule = "grpo"
    return config
