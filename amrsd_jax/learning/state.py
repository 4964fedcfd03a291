"""Makes the train state, its shapes and its shardings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Key

from amrsd_jax import processes
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Params, Policy, lora
from amrsd_jax.records import TrainState


def policy_params(state: TrainState) -> Params:
    """Returns all parameters of the policy, trainable and frozen."""
    return lora.combine(state.frozen, state.params)


def abstract_state(
    policy: Policy, optimizer: optax.GradientTransformation, *, teacher: Policy | None = None
) -> TrainState:
    """Returns the shapes of the state without its frozen parameters, and allocates nothing.

    Args:
      teacher: the model whose parameters are stored for the teacher, if any.
    """
    params = lora.trainable(policy.abstract_params())
    teacher_params = lora.trainable(teacher.abstract_params()) if teacher else None
    return TrainState(
        params, jax.eval_shape(optimizer.init, params), jax.ShapeDtypeStruct((), jnp.int32), teacher_params
    )


def state_shardings(
    policy: Policy, optimizer: optax.GradientTransformation, mesh: Mesh, *, teacher: Policy | None = None
) -> TrainState:
    """Returns the sharding of each part of `abstract_state`: optimiser moments and teacher like their parameters."""
    return meshes.shardings(abstract_state(policy, optimizer, teacher=teacher), mesh)


def init_params(policy: Policy, key: Key[Array, ""], mesh: Mesh) -> Params:
    """Returns random parameters, made in their sharding, so that no device holds all of them."""
    return jax.jit(policy.init, out_shardings=meshes.shardings(policy.abstract_params(), mesh))(key)


def add_adapters(policy: Policy, base: Params, key: Key[Array, ""], mesh: Mesh) -> Params:
    """Returns the parameters of a policy with adapters, from those of its base, which are donated."""
    where = meshes.shardings(policy.abstract_params(), mesh)
    return jax.jit(policy.adapt, donate_argnums=0, out_shardings=where)(base, key)


def init_state(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    params: Params,
    mesh: Mesh,
    *,
    teacher: Params | None = None,
) -> TrainState:
    """Returns the state before the first update. It holds the given arrays, of which updates donate the trainable ones.

    Args:
      params: all parameters of the policy.
      teacher: parameters stored for the teacher, if any.
    """
    where = state_shardings(policy, optimizer, mesh)
    frozen, trainable = lora.split(params)
    opt_state = jax.jit(optimizer.init, out_shardings=where.opt_state)(trainable)
    teacher = None if teacher is None else lora.trainable(teacher)
    return TrainState(trainable, opt_state, processes.put(np.int32(0), where.updates), teacher, frozen)
