"""The policy gradient that a method's credit gives at the frozen parameters."""

import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Float

from amrsd_jax.compare.apply import Applied
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.batch import make_batches
from amrsd_jax.learning.step import Objective, accumulate, make_weights, objective_loss
from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.records import Batch, Rollouts


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
    batch = jax.device_put(batch, meshes.rows(run.mesh))
    grads = jax.device_get(_gradient(run.policy, objective, pieces, params, method.teacher_params, batch))
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _gradient(
    policy: Policy, objective: Objective, pieces: int, params: Params, teacher: Params, batch: Batch
) -> Params:
    base, learned = lora.split(params)

    def loss(learned, rows):
        return objective_loss(policy, lora.join(base, learned), *rows, objective, (policy, teacher))

    return accumulate(loss, learned, (batch, make_weights(batch, objective)), pieces)[0]
