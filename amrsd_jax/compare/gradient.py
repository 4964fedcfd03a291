"""The policy gradient that a method's credit gives at the frozen parameters."""

import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Float, PyTree

from amrsd_jax import processes
from amrsd_jax.compare.apply import Applied
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.batch import make_batches, micro_batches
from amrsd_jax.learning.step import Objective, gradients, make_weights
from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.records import Rollouts


def policy_gradient(params: Params, rollouts: Rollouts, method: Applied) -> Float[np.ndarray, " P"]:
    """The gradient of a method's loss over all rows in one update, by all that learns, flat, on the host.

    Clipped surrogate on its credit, and its divergence where it distils. The ratio starts at 1: the old log-probabilities
    are these parameters' own. KL penalty, entropy bonus and importance weight are left out: they are not a credit rule's,
    and would add the same to each (our choice).
    """
    run = method.run
    objective = dataclasses.replace(run.objective, kl=0.0, entropy=0.0, importance_cap=None)
    pieces = run.config.learning.minibatches * run.objective.micro_batches
    shown = method.contexts if objective.distil else None
    (batch,) = make_batches(rollouts, method.assigned, None, None, shown, **run.batching | {"minibatches": 1})
    total = np.float32(0)
    for rows in micro_batches(batch, make_weights(batch, objective), pieces):
        rows = processes.put(rows, meshes.rows(run.mesh))
        grads = processes.fetch(_gradient(run.policy, objective, params, method.teacher_params, rows))
        total += np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])
    return total


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradient(policy: Policy, objective: Objective, params: Params, teacher: Params, rows: PyTree) -> Params:
    base, learned = lora.split(params)
    return gradients(policy, learned, base, rows, objective, (policy, teacher))[0]
