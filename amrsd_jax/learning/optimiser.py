"""Makes the optimiser from its config section.

Equal arguments give the same object, so that programs compiled for one run are reused by the next in the same process.
"""

import functools

import jax
import optax

from amrsd_jax.config import OptimizerConfig


@functools.lru_cache
def make_schedule(config: OptimizerConfig, total_updates: int) -> optax.Schedule:
    """Returns the learning rate by the number of a run's update: linear warm-up, then constant, linear to 0 or cosine to 0."""
    learning_rate, warmup_updates = config.learning_rate, config.warmup_updates
    rest = max(total_updates - warmup_updates, 1)
    shapes = {
        "constant": optax.constant_schedule(learning_rate),
        "linear": optax.linear_schedule(learning_rate, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(learning_rate, rest),
    }
    schedule = shapes[config.schedule]
    if not warmup_updates:
        return schedule
    step = learning_rate / warmup_updates
    warmup = optax.linear_schedule(step, learning_rate + step, warmup_updates)
    return optax.join_schedules([warmup, schedule], [warmup_updates])


@functools.lru_cache
def make_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns AdamW after clipping by the global norm (0 turns it off). Weight decay leaves out norm scales and biases.

    Its `update` takes the number of the run's update as `number`, 0 by default: the rate goes on where one is not applied.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=_decays),
        _scale_by_rate(schedule),
    )


def _scale_by_rate(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    def update(updates, state, params=None, *, number=0, **_):
        rate = schedule(number)
        return jax.tree.map(lambda u: -rate * u, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _decays(params):
    """Returns which parameters weight decay applies to."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/").endswith(
            ("kernel", "embedding", "lora_a", "lora_b")
        ),
        params,
    )
