"""The methods that AMR-SD is compared with (`configs/methods.py`), on the quickstart's task.

Command:   python -m amrsd_jax.main --config=configs/baselines.py:sdpo --workdir=runs/sdpo
Hardware:  two CPU cores, about five minutes each.

Learning rate, batch and task are those of the quickstart (our choice). Methods whose teacher is shown an answer or a solution
start from a model that has learned to read these.
"""

from amrsd_jax.names import nearest
from configs import quickstart_grpo
from configs.methods import METHODS, use

READS_SOLUTIONS = {"warmup": {"solve": 0.4, "reflect": 0.2, "given": 0.25}}  # the warm-up's mix of documents
_READS_TRACES = {"warmup": {"solve": 0.4, "reflect": 0.15, "given": 0.2, "trace": 0.15}}
_OTHERS = {
    "reinforce": {},
    "rloo": {},
    "cast": {},
    "dr_grpo": {},
    "dapo": {},
    "gspo": {},
    "feedback_critic": _READS_TRACES,
}

BASELINES = tuple(name for name in METHODS if name not in ("amrsd", "grpo"))


def get_config(name: str = ""):
    if name not in BASELINES:
        raise ValueError(f"baseline {name!r}: {nearest(name, BASELINES)}")
    config = quickstart_grpo.get_config()
    config.update(_OTHERS.get(name, READS_SOLUTIONS))
    use(config, name)
    if config.rollout.group == 1:
        config.rollout.admit = 32
    return config
