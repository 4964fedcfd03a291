"""Control of the quickstart: GRPO with rewards permuted within every batch. No learning is expected.

Command:   python -m amrsd_jax.main --config=configs/control_permuted.py --workdir=runs/control_permuted

With `--config.credit.rule=amrsd` it shows the teacher's own effect: its gap amplifies credit in one direction whatever the
rewards are, and its carries were right in the warm-up (docs/quickstart.md).
"""

from configs import quickstart_grpo


def get_config():
    config = quickstart_grpo.get_config()
    config.reward.permute = True
    return config
