"""The kin of GRPO on the quickstart's task: Dr.GRPO, DAPO, GSPO, each as the fields in which it differs from GRPO.

Command:   python -m amrsd_jax.main --config=configs/baselines.py:dapo --workdir=runs/dapo
Hardware:  two CPU cores, about four minutes each.

The values are the papers'; the quickstart's learning rate, batch and task are ours. Dr.GRPO's constant length is the
response budget. GSPO's narrow bounds are for its one ratio per sequence.
"""

from amrsd_jax.names import nearest
from configs import quickstart_grpo

BASELINES = {
    "dr_grpo": {"credit": {"normalize": False}, "loss": {"reduction": "constant", "constant_length": 64}},
    "dapo": {
        "rollout": {"rounds": 3},
        "reward": {"overlong_buffer": 8},
        "loss": {"clip_high": 0.28, "reduction": "token_mean"},
    },
    "gspo": {"loss": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}},
}


def get_config(name: str):
    if name not in BASELINES:
        raise ValueError(f"baseline {name!r}: {nearest(name, BASELINES)}")
    config = quickstart_grpo.get_config()
    config.update(BASELINES[name])
    return config
