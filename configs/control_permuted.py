"""Control of the quickstart: rewards permuted within every batch, so that they say nothing. Accuracy must not rise.

Command:   python -m amrsd_jax.main --config=configs/control_permuted.py --workdir=runs/control_permuted
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.reward.permute = True
    return config
