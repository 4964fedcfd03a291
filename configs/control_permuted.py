"""Control of the quickstart: GRPO with rewards permuted within every batch, so that they say nothing. No learning is expected.

Command:   python -m amrsd_jax.main --config=configs/control_permuted.py --workdir=runs/control_permuted

With `--config.credit.rule=amrsd` it asks another question: what the teacher alone teaches. Its gap amplifies credit in one
direction whatever the rewards say, and its carries were right in the warm-up.
"""

from configs import quickstart_grpo


def get_config():
    config = quickstart_grpo.get_config()
    config.reward.permute = True
    return config
