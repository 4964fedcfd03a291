"""The optimiser as one optax chain, from its config section.

Equal arguments give the same object, so that what was compiled for one run serves the next one in the same process.
"""

import functools

import jax
import optax


@functools.lru_cache
def make_schedule(*, learning_rate: float, schedule: str, warmup_updates: int, total_updates: int) -> optax.Schedule:
    """Learning rate by optimiser update: linear warm-up, then constant, linear to 0 or cosine to 0.

    Raises:
      ValueError: unknown schedule.
    """
    rest = max(total_updates - warmup_updates, 1)
    shapes = {
        "constant": optax.constant_schedule(learning_rate),
        "linear": optax.linear_schedule(learning_rate, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(learning_rate, rest),
    }
    if schedule not in shapes:
        raise ValueError(f"optimizer.schedule = {schedule!r}: expected one of {', '.join(shapes)}")
    if not warmup_updates:
        return shapes[schedule]
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_updates)
    return optax.join_schedules([warmup, shapes[schedule]], [warmup_updates])


@functools.lru_cache
def make_optimizer(
    schedule: optax.Schedule, *, b1: float, b2: float, eps: float, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
    """Clip by global norm (0 turns it off), then AdamW. Norm scales and biases do not decay."""
    adamw = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=_decays)
    return optax.chain(optax.clip_by_global_norm(clip_norm), adamw) if clip_norm else adamw


def _decays(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/").endswith(
            ("kernel", "embedding", "lora_a", "lora_b")
        ),
        params,
    )
