"""AMR-SD's ablations on the quickstart's task: each removes or replaces one part of the method.

Command:   python -m amrsd_jax.main --config=configs/ablation.py:shuffled --workdir=runs/ablation_shuffled
Hardware:  two CPU cores, about five minutes each.

The names are the keys of ABLATIONS. Where the teacher is shown an answer or a solution instead of a reflection, the warm-up
includes such contexts too.
"""

from amrsd_jax.names import nearest
from configs import quickstart
from configs.baselines import READS_SOLUTIONS

ABLATIONS = {
    # the context, instead of the model's own reflection
    "answer": READS_SOLUTIONS | {"credit": {"context": "answer"}},
    "reference": READS_SOLUTIONS | {"credit": {"context": "reference_solution"}},
    "peer": READS_SOLUTIONS | {"credit": {"context": "peer_solution"}},
    "shuffled": {"credit": {"context": "shuffled_reflection"}},
    "oracle": {"credit": {"context": "oracle_reflection"}},
    # the gate
    "symmetric_gate": {"credit": {"args": {"gamma": 0.2}}},
    "no_threshold": {"credit": {"args": {"tau": 0.0}}},
    "no_clip": {"credit": {"args": {"kappa": 1e9}}},
    "no_annealing": {"credit": {"args": {"decay_steps": 0}}},
}


def get_config(name: str = ""):
    if name not in ABLATIONS:
        raise ValueError(f"ablation {name!r}: {nearest(name, ABLATIONS)}")
    config = quickstart.get_config()
    config.update(ABLATIONS[name])
    return config
