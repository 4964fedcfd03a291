"""Computes the policy gradient of a method's credit at the loaded parameters."""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Float, PyTree

from amrsd_jax import processes
from amrsd_jax.compare.apply import Applied
from amrsd_jax.learning import step
from amrsd_jax.learning.batch import make_batches, micro_batches
from amrsd_jax.learning.step import Objective, loss_weights
from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.records import Rollouts
from amrsd_jax.runtime.console import track
from amrsd_jax.scoring.teachers import Blend

_BLOCK = 1 << 22  # entries of each gradient that are in memory at one time


def require_room(policy: Policy, methods: int) -> None:
    """Checks that the gradients of this many methods fit into the folder of temporary files.

    Raises:
      OSError: they do not.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(lora.trainable(policy.abstract_params())))
    folder, needed = tempfile.gettempdir(), 4 * size * methods
    if needed > (free := shutil.disk_usage(folder).free):
        raise OSError(
            f"{folder}: {free / 2**30:.1f} GiB free, and the policy gradients of {methods} methods take "
            f"{needed / 2**30:.1f} GiB; name fewer methods, or another folder with TMPDIR"
        )


def gradients(params: Params, rollouts: Rollouts, methods: Sequence[Applied]) -> Iterator[Float[np.ndarray, "K b"]]:
    """Yields the policy gradients of K methods, a block of parameters at a time.

    They are kept in a temporary file: each is as large as the model.
    """
    with tempfile.TemporaryFile() as file:
        for method in track(methods, "policy gradients"):
            file.write(policy_gradient(params, rollouts, method).data)
        size = file.tell() // (4 * len(methods))
        for begin in range(0, size, _BLOCK):
            count = min(_BLOCK, size - begin)
            block = np.empty((len(methods), count), np.float32)
            for row in range(len(methods)):
                file.seek(4 * (row * size + begin))
                file.readinto(block[row].data)
            yield block


def policy_gradient(params: Params, rollouts: Rollouts, method: Applied) -> Float[np.ndarray, " P"]:
    """Returns the gradient of a method's loss over all rows in one update, as one host vector over all trainable parameters.

    The loss is the clipped surrogate with the method's credit, and its divergence where it distils. The ratio is 1, because the
    old log-probabilities are the update's own. KL penalty, entropy bonus and importance weight are left out: they do
    not depend on the credit rule (our choice).
    """
    experiment = method.experiment
    loss = experiment.objective.loss.model_copy(update=dict(kl=0.0, entropy=0.0, importance_cap=None))
    objective = dataclasses.replace(experiment.objective, loss=loss)
    learning, teacher = experiment.config.learning, experiment.teacher.model
    contexts = method.contexts if objective.distill else None
    (batch,) = make_batches(
        rollouts, method.assigned, contexts=contexts, minibatches=1, mask_truncated=loss.mask_truncated
    )
    batch = batch.replace(old_logprobs=None)
    total = np.zeros(sum(leaf.size for leaf in jax.tree.leaves(lora.split(params)[1])), np.float32)
    for rows in micro_batches(batch, loss_weights(batch, objective), learning.parts):
        rows = processes.put(rows, experiment.scorer.sharding)
        begin = 0
        for leaf in jax.tree.leaves(
            _gradient(experiment.policy, objective, params, teacher, method.teacher_params, rows)
        ):
            total[begin : begin + leaf.size] += np.ravel(
                processes.fetch(leaf)
            )  # one at a time: together they are a model's size
            begin += leaf.size
    return total


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def _gradient(
    policy: Policy, objective: Objective, params: Params, teacher: Policy | Blend, teacher_params: Params, rows: PyTree
) -> Params:
    frozen, trainable = lora.split(params)
    return step.gradients(policy, trainable, frozen, rows, objective, (teacher, teacher_params))[0]
