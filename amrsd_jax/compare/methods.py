"""Methods by name: `rule`, or `rule@context`. A method is the run's parts with that rule, its context and its teacher."""

import dataclasses
from collections.abc import Iterable

from ml_collections import ConfigDict

from amrsd_jax import credit
from amrsd_jax.build import Run, distilled
from amrsd_jax.checks import validate
from amrsd_jax.config import base, resolve


def parse(names: str | Iterable[str]) -> list[str]:
    """Names of methods, each once: a list or a text with commas, in which `all` stands for every registered rule."""
    names = names.split(",") if isinstance(names, str) else names
    spread = (method for name in names for method in (credit.RULES if name.strip() == "all" else [name.strip()]))
    return list(dict.fromkeys(filter(None, spread)))


def configure(run: Run, name: str) -> Run:
    """The run with a method in place of its own: the rule's default arguments, its context or the one named, its teacher.

    Raises:
      ConfigError: there is no such rule or context, or they do not go together.
    """
    rule, _, context = name.partition("@")
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.credit.update(rule=rule, context=context, exact_savings=True)
        config.credit.args, config.teacher.kind, config.external.workdir = ConfigDict(), "", ""
        config.distill = base().distill
    validate(config)
    config = resolve(config)
    rule = credit.get(rule)
    contexts = dict(source=config.credit.context, negatives=rule.negatives, count=config.credit.args.get("k", 0))
    return dataclasses.replace(
        run,
        config=config,
        rule=rule,
        make_contexts=dataclasses.replace(run.make_contexts, **contexts),
        teacher=dataclasses.replace(run.teacher, kind=config.teacher.kind),
        objective=dataclasses.replace(run.objective, distil=distilled(config, rule)),
        external=None,
    )
