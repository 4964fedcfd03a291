"""Checks, on shapes alone, that a rule reads only the signals it gets and returns a TokenCredit of the right shapes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from amrsd_jax.config import Config
from amrsd_jax.credit.base import Rule
from amrsd_jax.names import nearest
from amrsd_jax.records import Signals, TokenCredit
from amrsd_jax.sections import ConfigError
from amrsd_jax.tasks import registry


class _AvailableSignals(Signals):
    """Signals that raise a ConfigError where a rule reads one that does not exist or is missing.

    They are made by `make` from the arrays by name; `missing` maps the name of a signal that the rule does not get to the
    reason, and `place` is the rule's field and value in the config, for messages.
    """

    @classmethod
    def make(cls, arrays: dict[str, Any], missing: dict[str, str], place: str) -> "_AvailableSignals":
        signals = object.__new__(cls)
        object.__getattribute__(signals, "__dict__").update(arrays=arrays, missing=missing, place=place)
        return signals

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        if name in own["missing"]:
            raise ConfigError(f"{own['place']} reads {name}: {own['missing'][name]}")
        if name in own["arrays"]:
            return own["arrays"][name]
        try:
            return object.__getattribute__(self, name)
        except AttributeError:
            known = [*Signals.__dataclass_fields__, "gap", "sequence_advantage"]
            raise ConfigError(f"{own['place']} reads {name}: no such signal; {nearest(name, known)}") from None

    def replace(self, **changes: Any) -> "_AvailableSignals":  # unlike a dataclass's own, this reads no field
        own = object.__getattribute__(self, "__dict__")
        return _AvailableSignals.make(own["arrays"] | changes, own["missing"], own["place"])


def _flatten(signals: _AvailableSignals) -> tuple[tuple, tuple]:
    own = object.__getattribute__(signals, "__dict__")
    return tuple(own["arrays"].values()), (tuple(own["arrays"]), tuple(own["missing"].items()), own["place"])


def _unflatten(static: tuple, values: Sequence[Any]) -> _AvailableSignals:
    names, missing, place = static
    return _AvailableSignals.make(dict(zip(names, values, strict=True)), dict(missing), place)


jax.tree_util.register_pytree_node(_AvailableSignals, _flatten, _unflatten)


def check_rule(rule: Rule, config: Config) -> None:
    """Traces a rule on shapes alone, so that a misspelt or missing input is found before any compute.

    Raises:
      ConfigError: the rule reads a signal that does not exist or that it has not declared, fails on arrays of these shapes, or
        returns anything but a TokenCredit of the right shapes.
    """
    place = f"credit.rule = {rule.name!r}"
    missing = {}
    if rule.context == "none":
        no_teacher = "the rule declares no context, so there is no teacher"
        missing |= dict.fromkeys(("teacher_logprobs", "teacher_entropy", "gap"), no_teacher)
    elif not rule.reads_gap:
        missing |= dict.fromkeys(("teacher_logprobs", "teacher_entropy", "gap"), "the rule declares reads_gap=False")
    if not rule.student:
        missing |= {"student_entropy": "a rule that reads it declares student=True"}
        if rule.context == "none" or not rule.reads_gap:
            missing |= {"student_logprobs": "a rule without a teacher's pass that reads it declares student=True"}
    if rule.context == "none" or not rule.quotes:
        missing |= {"quoted": "a rule that reads it declares a context and quotes=True"}
    if not rule.negatives:
        declares = "a rule that reads it declares negatives"
        missing |= dict.fromkeys(("negative_logprobs", "has_negative"), declares)
    shapes = signal_shapes(rule, config)

    def trace(arrays: dict[str, Any]):
        result = rule(_AvailableSignals.make(arrays, missing, place), **config.credit.args)
        if not isinstance(result, TokenCredit):
            raise ConfigError(f"{place} returns a {type(result).__name__}; expected a TokenCredit")
        return vars(result)

    try:
        result = jax.eval_shape(trace, shapes)
    except ConfigError:
        raise
    except KeyError as error:
        known = ", ".join(sorted(shapes["extras"])) or "none"
        raise ConfigError(
            f"{place} reads extras[{error.args[0]!r}]: task {config.task.name!r} declares the extras: {known}"
        ) from error
    except Exception as error:  # whatever a researcher's own rule raises
        raise ConfigError(f"{place} fails on arrays of the right shapes: {type(error).__name__}: {error}") from error
    parts = [("token_advantage", result["token_advantage"], shapes["mask"].shape)]
    parts += [(f"metrics[{name!r}]", value, ()) for name, value in result["metrics"].items()]
    if result["memory"] is not None:
        parts.append(("memory", result["memory"], shapes["memory"].shape))
    for name, value, expected in parts:
        returned = getattr(value, "shape", None)
        if returned != expected:
            raise ConfigError(f"{place} returns {name} of shape {returned}; expected {expected}")


def signal_shapes(rule: Rule, config: Config) -> dict[str, Any]:
    """Returns the shapes of the fields of `Signals` for a small batch."""
    n, t, k = 2 * config.rollout.group, 5, max(config.credit.negatives, 1)

    def floats(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32)

    spans, scores = registry.extras(config.task.name, config.task.args)
    extras = {name: jax.ShapeDtypeStruct((n, 2), np.int32) for name in spans} | {name: floats(n) for name in scores}
    return dict(
        step=floats(),
        advantage=floats(n),
        reward=floats(n),
        mask=floats(n, t),
        group=floats(),
        group_right=floats(n),
        student_logprobs=floats(n, t),
        teacher_logprobs=floats(n, t),
        student_entropy=floats(n, t),
        teacher_entropy=floats(n, t),
        scored=jax.ShapeDtypeStruct((n,), bool),
        negative_logprobs=floats(k, n, t),
        has_negative=jax.ShapeDtypeStruct((k, n), bool),
        first_error=jax.ShapeDtypeStruct((n, 2), np.int32),
        quoted=jax.ShapeDtypeStruct((n, 2), np.int32),
        noise=floats(n),
        memory=floats(len(rule.memory)),
        extras=extras,
    )
