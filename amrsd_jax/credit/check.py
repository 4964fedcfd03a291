"""Checks, on shapes alone, that a rule reads only the signals it gets and returns a TokenCredit of the right shapes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from amrsd_jax.config import Config
from amrsd_jax.credit.base import Hyper, Rule, group_right, no_rows
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
        missing = {name: reason for name, reason in own["missing"].items() if name not in changes}
        return _AvailableSignals.make(own["arrays"] | changes, missing, own["place"])


def _flatten(signals: _AvailableSignals) -> tuple[tuple, tuple]:
    own = object.__getattribute__(signals, "__dict__")
    return tuple(own["arrays"].values()), (tuple(own["arrays"]), tuple(own["missing"].items()), own["place"])


def _unflatten(static: tuple, values: Sequence[Any]) -> _AvailableSignals:
    names, missing, place = static
    return _AvailableSignals.make(dict(zip(names, values, strict=True)), dict(missing), place)


jax.tree_util.register_pytree_node(_AvailableSignals, _flatten, _unflatten)


def check_rule(rule: Rule, config: Config) -> None:
    """Traces a rule on shapes alone, and its `needs_teacher` on small arrays, so that a wrong input is found before any compute.

    Raises:
      ConfigError: the rule reads a signal that does not exist, that it has not declared or that the task does not know, fails
        on arrays of these shapes, or returns anything but a TokenCredit of the right shapes, and rows for `needs_teacher`.
    """
    place = f"credit.rule = {rule.name!r}"
    if config.teacher.kind != rule.teacher and (rule.context == "none" or not (rule.reads_gap or rule.distill)):
        raise ConfigError(
            f"teacher.kind = {config.teacher.kind!r}: rule {rule.name!r} has no teacher that scores; expected it to be left out"
        )
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
    for name, (kind, _) in registry.data_sets(config.task.name, config.task.args).items():
        if not registry.generated(kind):
            which = f"set {name!r}" if name else f"task {config.task.name!r}"
            missing.setdefault("first_error", f"{which} does not know where a response goes wrong")
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
    _check_needs_teacher(rule, config, shapes, place)


def _check_needs_teacher(rule: Rule, config: Config, shapes: dict[str, Any], place: str) -> None:
    """Applies `Rule.needs_teacher`, which runs on the host before the teacher does.

    Raises:
      ConfigError: see `check_rule`.
    """
    if rule.context == "none" or not config.credit.exact_savings:  # then no row has a teacher, or all have
        return
    if rule.needs_teacher is no_rows:
        raise ConfigError(f"{place} declares a context and no needs_teacher, so that its teacher would score no row")
    group, (n, t) = config.rollout.group, shapes["mask"].shape
    reward = (np.arange(n) % 2).astype(np.float32)
    arrays = dict(
        step=0, advantage=reward - np.float32(0.5), reward=reward, mask=np.ones((n, t), np.float32),
        group=group, group_right=group_right(reward, group),
    )  # fmt: skip
    reason = "needs_teacher is asked before the teacher's pass"
    missing = {name: reason for name in (*Signals.__dataclass_fields__, "gap") if name not in arrays}
    signals = _AvailableSignals.make(arrays, missing, f"needs_teacher of {place}")
    try:
        rows = rule.needs_teacher(signals, Hyper(**config.credit.args))
    except ConfigError:
        raise
    except Exception as error:  # whatever a researcher's own rule raises
        raise ConfigError(f"needs_teacher of {place} fails: {type(error).__name__}: {error}") from error
    found = getattr(rows, "dtype", None), getattr(rows, "shape", None)
    if found != (bool, (expected := shapes["advantage"].shape)):
        raise ConfigError(
            f"needs_teacher of {place} returns {found[0]} of shape {found[1]}; expected bool of shape {expected}"
        )


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
