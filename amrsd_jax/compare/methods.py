"""Configures methods by name, `rule` or `rule@context`: the run's experiment with that rule, its context and its teacher."""

import dataclasses
from collections.abc import Iterable

from amrsd_jax import credit
from amrsd_jax.config import Config, base
from amrsd_jax.experiment import Experiment, rule_divergence
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate


def parse(names: str | Iterable[str]) -> list[str]:
    """Returns the names in a list or a comma-separated text, each once; `all` stands for every rule."""
    names = names.split(",") if isinstance(names, str) else names
    expanded = (method for name in names for method in (credit.RULES if name.strip() == "all" else [name.strip()]))
    return list(dict.fromkeys(filter(None, expanded)))


def possible(config: Config, names: str | Iterable[str]) -> tuple[list[str], list[str]]:
    """Returns the methods that a run's config allows, and a line about each other method that `all` stands for.

    Raises:
      ConfigError: the config does not allow a method that is asked for by its own name; the message names it.
    """
    names = names.split(",") if isinstance(names, str) else list(names)
    chosen, left_out, named = [], [], {name.strip() for name in names}
    if "all" in named and config.credit.rule not in credit.RULES:  # a rule of the user's own
        names = [config.credit.rule, *names]
    for name in parse(names):
        try:
            method_config(config, name)
        except ConfigError as error:
            if name in named:
                raise ConfigError(f"{name}: {error}") from error
            left_out.append(f"{name} is left out: {error}")
        else:
            chosen.append(name)
    return chosen, left_out


def configure(experiment: Experiment, name: str) -> Experiment:
    """Returns the experiment with a method in place of its own.

    The run's own rule keeps the run's settings, unless there is an external model. Another rule, or one with a context in its
    name, has its default arguments and teacher, and its default context or that one.

    Raises:
      ConfigError: there is no such rule or context, or they do not go together.
    """
    config = method_config(experiment.config, name)
    return dataclasses.replace(
        experiment,
        config=config,
        rule=credit.get(config.credit.rule),
        teacher=dataclasses.replace(experiment.teacher, config=config.teacher),
        objective=dataclasses.replace(experiment.objective, distill=rule_divergence(config)),
        external=None,
    )


def method_config(config: Config, name: str) -> Config:
    """Returns the config of a run with a method in place of its own; a rule with another baseline has that rule's advantages."""
    if name == config.credit.rule and not config.external.workdir:
        return config.model_copy(update=dict(credit=config.credit.model_copy(update=dict(exact_savings=True))))
    file, colon, method = name.rpartition(":")  # a path may have an @ too
    rule, _, context = method.partition("@")
    rule = file + colon + rule
    values = config.model_dump()
    values["credit"] |= dict(rule=rule, context=context, args={}, negatives=None, exact_savings=True)
    if (rule in credit.RULES or ":" in rule) and credit.get(rule).baseline != config.credit.baseline:
        values["credit"] |= dict(baseline="", normalize=None, sample_std=False)
    values["teacher"]["kind"], values["external"]["workdir"], values["distill"] = "", "", {}
    editable = base()
    with editable.unlocked():
        editable.update(values)
    return validate(editable)
