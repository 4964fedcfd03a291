"""Small things to test with: a config that trains in seconds (two-digit addition, 50 k parameters), and rollouts made by hand."""

import ml_collections
import numpy as np

from amrsd_jax import config as configuration
from amrsd_jax.records import Problem, Rollouts, Verdict

SUM = Problem("sum", "5+7", "12", reference="worked")


def set_fields(config: ml_collections.ConfigDict, **fields) -> ml_collections.ConfigDict:
    """Sets fields of a config, whatever their type; two underscores stand for the dot: `set_fields(config, loss__kl=0.1)`."""
    with config.ignore_type(), config.unlocked():
        for name, value in fields.items():
            *path, last = name.split("__")
            section = config
            for key in path:
                section = section[key]
            section[last] = value
    return config


def tiny_config(rule="amrsd", **fields) -> ml_collections.ConfigDict:
    """Returns the config of a run of seconds, with fields set as by `set_fields`."""
    config = configuration.base()
    config.steps = 4
    config.task.args.digits = 2
    config.architecture.update(width=64, layers=2, heads=2, kv_heads=1, head_dim=32, ffn=128)
    config.warmup.documents, config.warmup.row_length, config.warmup.rows = 10_000, 96, 8
    config.rollout.update(prompts=4, group=8, prompt_length=16, response_length=32, slots=32, admit=4, segment=16)
    config.reflection.update(prompt_length=96, tokens=16, context_length=32, slots=16, admit=8)
    config.scoring.update(rows=8, chunk=256)
    config.credit.rule = rule
    config.learning.minibatches = 2
    config.optimizer.learning_rate = 1e-4
    config.evaluation.update(problems=16, every=2)
    config.checkpoint.every = 2
    config.report.rollouts_every = 2
    config.mesh.data = 1
    return set_fields(config, **fields)


def tiny_rollouts(correct, length=1, **fields) -> Rollouts:
    """Returns responses of `length` tokens to one problem, correct or not as given, with fields replaced."""
    rows = len(correct)
    record = dict(
        problems=(SUM,) * rows,
        text=("",) * rows,
        verdicts=tuple(Verdict(float(right), "message", None, True) for right in correct),
        finish_reason=("stop",) * rows,
        prompt=np.zeros((rows, 1), np.int32),
        prompt_length=np.ones(rows, np.int32),
        response=np.zeros((rows, length), np.int32),
        mask=np.ones((rows, length), np.float32),
        sampler_logprobs=np.zeros((rows, length), np.float32),
        reward=np.array(correct, np.float32),
        first_error=np.full((rows, 2), -1, np.int32),
    )
    return Rollouts(**record | fields)
