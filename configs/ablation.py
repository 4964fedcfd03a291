"""AMR-SD's ablations on the quickstart's task: each takes one part of the method away, or replaces it.

Command:   python -m amrsd_jax.main --config=configs/ablation.py:shuffled --workdir=runs/ablation_shuffled
Hardware:  two CPU cores, about four minutes each.

The names are the keys of ABLATIONS. The teacher of the embedded task's model has only learned to read reflections: the
contexts `answer`, `reference` and `peer` show it something it has not seen in its warm-up.
"""

from amrsd_jax.names import nearest
from configs import quickstart

ABLATIONS = {
    # the context: what stands in place of the model's own reflection
    "answer": {"context": "answer"},
    "reference": {"context": "reference_solution"},
    "peer": {"context": "peer_solution"},
    "shuffled": {"context": "shuffled_reflection"},
    "oracle": {"context": "oracle_reflection"},
    # the gate
    "symmetric_gate": {"args": {"gamma": 0.2}},
    "no_threshold": {"args": {"tau": 0.0}},
    "no_clip": {"args": {"kappa": 1e9}},
    "no_annealing": {"args": {"decay_steps": 0}},
}


def get_config(name: str):
    if name not in ABLATIONS:
        raise ValueError(f"ablation {name!r}: {nearest(name, ABLATIONS)}")
    config = quickstart.get_config()
    config.credit.update(ABLATIONS[name])
    return config
