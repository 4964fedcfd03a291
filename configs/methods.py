"""Names the methods, each with the fields in which it differs from GRPO on any task: `use(config, "sdpo")`.

Values are those of the papers or their code; the rules' docstrings have the details, and docs/methods.md what is left out. The
code of OPSD, RLSD, CEPO and SDPG averages over tokens; RLSD's and CEPO's has DAPO's clip bounds and verl's dual clip, SDPG's also
DAPO's dynamic sampling, in at most ten rounds, and soft penalty. Distilled RL's and RG-OPD's code, and the port of SRPO, average
over tokens, the first and the last with verl's dual clip. Methods whose code is verl's divide by the deviation of a sample.
CREDIT's and HSD's fields are their papers'. GSPO's narrow bounds are for its one ratio per sequence. An entry that names its rule
alone has GRPO's loss. Our choice: at most three rounds of dynamic sampling for `dapo`, and its soft penalty over the last eighth
of the response budget (SDPG: 512 of 4,096 tokens); Dr.GRPO's constant length is that budget.
"""

from ml_collections import ConfigDict

from amrsd_jax.names import nearest

METHODS = {
    "grpo": {"credit": {"rule": "grpo"}},
    "amrsd": {"credit": {"rule": "amrsd"}},
    "reinforce": {"credit": {"rule": "reinforce"}},
    "rloo": {"credit": {"rule": "rloo"}},
    "dr_grpo": {"credit": {"rule": "grpo", "normalize": False}, "loss": {"reduction": "constant"}},
    "dapo": {
        "credit": {"rule": "grpo"},
        "rollout": {"rounds": 3},
        "loss": {"clip_high": 0.28, "reduction": "token_mean"},
    },
    "gspo": {"credit": {"rule": "grpo"}, "loss": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}},
    "rlsd": {
        "credit": {"rule": "rlsd", "sample_std": True},
        "loss": {"clip_high": 0.28, "clip_dual": 3.0, "reduction": "token_mean"},
    },
    "rlrt": {"credit": {"rule": "rlrt"}},
    "rlcsd": {"credit": {"rule": "rlcsd", "sample_std": True}, "loss": {"reduction": "token_mean"}},
    "distilled_rl": {
        "credit": {"rule": "distilled_rl", "sample_std": True},
        "loss": {"clip_dual": 3.0, "reduction": "token_mean"},
    },
    "sc_grpo": {"credit": {"rule": "sc_grpo"}},
    "cast": {"credit": {"rule": "cast"}},
    "pbsd": {"credit": {"rule": "pbsd"}},
    "oppo": {"credit": {"rule": "oppo"}},
    "antisd": {"credit": {"rule": "antisd"}},
    "cepo": {
        "credit": {"rule": "cepo", "sample_std": True},
        "loss": {"clip_high": 0.28, "clip_dual": 3.0, "reduction": "token_mean"},
    },
    "credit": {"credit": {"rule": "credit"}, "teacher": {"rate": 0.01}},
    "hybrid": {"credit": {"rule": "hybrid"}},
    "sdpo": {"credit": {"rule": "sdpo", "normalize": False}, "loss": {"reduction": "token_mean"}},
    "srpo": {"credit": {"rule": "srpo", "sample_std": True}, "loss": {"clip_dual": 3.0, "reduction": "token_mean"}},
    "opd": {"credit": {"rule": "opd"}},
    "rg_opd": {"credit": {"rule": "rg_opd"}, "loss": {"reduction": "token_mean"}},
    "hsd": {"credit": {"rule": "hsd"}, "loss": {"kl": 1e-3}},
    "opsd": {"credit": {"rule": "opsd"}, "loss": {"reduction": "token_mean"}},
    "sdpg": {
        "credit": {"rule": "sdpg", "sample_std": True},
        "rollout": {"rounds": 10},
        "loss": {"clip_high": 0.28, "clip_dual": 10.0, "reduction": "token_mean", "kl": 1e-3, "kl_estimator": "k2"},
    },
    "feedback_reference": {
        "credit": {"rule": "feedback_alignment", "context": "reference_solution"},
        "rollout": {"group": 1},
    },
    "feedback_critic": {"credit": {"rule": "feedback_alignment"}, "rollout": {"group": 1}},
}


def use(config: ConfigDict, name: str) -> None:
    """Applies a method's settings to a config whose task is set; the number of rows per step does not change.

    Lengths that a method derives from the response budget follow `rollout.response_length` if that is changed later.

    Raises:
      ValueError: unknown name, with the nearest known one.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r}: {nearest(name, METHODS)}")
    rollout, rows = config.rollout, config.rollout.prompts * config.rollout.group
    config.update(METHODS[name])
    rollout.prompts = rows // rollout.group
    budget = rollout.get_ref("response_length")
    if config.loss.reduction == "constant":
        config.loss.constant_length = budget
    if name in ("dapo", "sdpg"):
        config.reward.overlong_buffer = budget // 8
