"""The methods that AMR-SD is compared with, each as the fields in which it differs from GRPO on the quickstart's task.

Command:   python -m amrsd_jax.main --config=configs/baselines.py:sdpo --workdir=runs/sdpo
Hardware:  two CPU cores, about four minutes each.

The values are the papers' or their code's, as the rules' docstrings say in detail; learning rate, batch and task are the
quickstart's, ours. Dr.GRPO's constant length is the response budget. GSPO's narrow bounds are for its one ratio per
sequence. Methods whose teacher is shown an answer or a solution start from a model that has learned to read these.
"""

from amrsd_jax.names import nearest
from configs import quickstart_grpo

READS_SOLUTIONS = {  # the warm-up's mix of documents, and room for a solution in the teacher's prompt
    "warmup": {"solve": 0.4, "reflect": 0.2, "given": 0.25},
    "reflection": {"context_length": 112},
}
_ONE_ROLLOUT = {"rollout": {"prompts": 128, "group": 1, "admit": 32}}

BASELINES = {
    "dr_grpo": {"credit": {"normalize": False}, "loss": {"reduction": "constant", "constant_length": 64}},
    "dapo": {
        "rollout": {"rounds": 3},
        "reward": {"overlong_buffer": 8},
        "loss": {"clip_high": 0.28, "reduction": "token_mean"},
    },
    "gspo": {"loss": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}},
    "rlsd": READS_SOLUTIONS | {"credit": {"rule": "rlsd"}},
    "rlrt": READS_SOLUTIONS | {"credit": {"rule": "rlrt"}},
    "rlcsd": READS_SOLUTIONS | {"credit": {"rule": "rlcsd"}, "loss": {"reduction": "token_mean"}},
    "antisd": READS_SOLUTIONS | {"credit": {"rule": "antisd"}},
    "cepo": READS_SOLUTIONS | {"credit": {"rule": "cepo"}},
    "credit": READS_SOLUTIONS | {"credit": {"rule": "credit"}},
    "hybrid": READS_SOLUTIONS | {"credit": {"rule": "hybrid"}},
    "sdpo": READS_SOLUTIONS | {"credit": {"rule": "sdpo", "normalize": False}, "loss": {"reduction": "token_mean"}},
    "opsd": READS_SOLUTIONS | {"credit": {"rule": "opsd"}},
    "sdpg": READS_SOLUTIONS | {"credit": {"rule": "sdpg"}, "loss": {"kl": 1e-3, "kl_estimator": "k2"}},
    "feedback_reference": READS_SOLUTIONS
    | _ONE_ROLLOUT
    | {"credit": {"rule": "feedback_alignment", "context": "reference_solution"}},
    "feedback_critic": _ONE_ROLLOUT
    | {
        "credit": {"rule": "feedback_alignment"},
        "warmup": {"solve": 0.4, "reflect": 0.15, "given": 0.2, "trace": 0.15},
        "reflection": {"context_length": 112},
    },
}


def get_config(name: str):
    if name not in BASELINES:
        raise ValueError(f"baseline {name!r}: {nearest(name, BASELINES)}")
    config = quickstart_grpo.get_config()
    config.update(BASELINES[name])
    return config
