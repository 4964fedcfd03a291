"""Groups runs that differ only in their seed, names the fields that tell the groups apart, and lists final values."""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amrsd_jax.evaluate.estimators import t_interval
from amrsd_jax.fields import flatten
from amrsd_jax.report.charts import DASH, number, share
from amrsd_jax.report.read import RunFiles, read
from amrsd_jax.runtime.workdir import MAY_CHANGE

UNNAMED = rf"seed|{MAY_CHANGE}"  # fields that may differ within a group
# Fields that a choice fills in: where the choice tells groups apart, those that follow from it need not be named.
FILLED_IN = {"credit.rule": ("credit.", "teacher.", "distill."), "task.name": ("task.args.",), "model": ("tokenizer",)}


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
      fields: the fields of the config that tell groups apart, with this group's values as texts.
      more: the other fields in which groups differ.
      runs: at least one.
    """

    fields: dict[str, str]
    more: dict[str, str]
    runs: list[RunFiles]

    @property
    def name(self) -> str:
        """The values of `fields`; the seeds, where there is nothing to tell apart."""
        return ", ".join(self.fields.values()) or f"seeds {self.seeds}"

    @property
    def seeds(self) -> str:
        """The seeds of the runs."""
        return ", ".join(str(run.config.get("seed", DASH)) for run in self.runs)


def read_runs(workdirs: Sequence[Path | str]) -> tuple[list[RunFiles], list[str]]:
    """Returns the runs that have a step or an evaluation, and a sentence for everything that was left out or is unfinished.

    Raises:
      ValueError: there is none; the message has those sentences.
    """
    runs, notes = [], []
    for workdir in {Path(workdir).resolve(): workdir for workdir in workdirs}.values():  # each folder once
        try:
            run = read(workdir, skip_damaged=True)
            if not run.config:
                raise ValueError(f"{workdir} holds no run: it has no config.json")
            if not (run.train or run.evals):
                raise ValueError(f"{workdir} has no step yet")
        except (OSError, ValueError) as error:
            notes.append(f"Left out: {error}.")
            continue
        runs.append(run)
        notes += [f"{workdir}: {note}" for note in run.notes]
    if not runs:
        raise ValueError("no run to show. " + " ".join(notes))
    return runs, notes


def group(runs: Sequence[RunFiles]) -> list[Group]:
    """Returns the runs in groups, in the order of the first run of each."""
    flat = [
        {name: _text(value) for name, value in flatten(run.config).items() if not re.fullmatch(UNNAMED, name)}
        for run in runs
    ]
    names = sorted(set().union(*flat))
    values = {name: [one.get(name, DASH) for one in flat] for name in names}
    differing = [name for name in names if len(set(values[name])) > 1]
    followers = {name for choice in FILLED_IN if choice in differing for name in _following(choice, values, differing)}
    grouped: dict[tuple, Group] = {}
    for i, run in enumerate(runs):
        more = {name: values[name][i] for name in differing}
        fields = {name: more.pop(name) for name in differing if name not in followers}
        grouped.setdefault((*fields.items(), *more.items()), Group(fields, more, [])).runs.append(run)
    return list(grouped.values())


def _following(choice: str, values: dict[str, list[str]], differing: Sequence[str]) -> list[str]:
    """Returns the differing fields that a choice fills in and that have one value for each of its values."""
    chosen = values[choice]
    return [
        name
        for name in differing
        if name != choice
        and name.startswith(FILLED_IN[choice])
        and len(set(zip(chosen, values[name], strict=True))) == len(set(chosen))
    ]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number(value, digits=12)
    return value if isinstance(value, str) else json.dumps(value)


# ---------------------------------------------------------------- final values


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table of final values has a title, a function that returns a run's value or None, and a formatter."""

    title: str
    value: Callable[[RunFiles], float | None]
    text: Callable[[float], str]


def _evaluated(when: str, how: str) -> Callable[[RunFiles], float | None]:
    return lambda run: ((run.results.get("eval") or {}).get(when) or {}).get(how)


def _last(metric: str) -> Callable[[RunFiles], float | None]:
    return lambda run: run.train[-1].get(metric) if run.train else None


def _minutes(run: RunFiles) -> float | None:
    seconds = run.results.get("wall_seconds")
    return None if seconds is None else seconds / 60


AFTER = Column("accuracy after", _evaluated("final", "sampled"), share)
OUTCOME = (
    Column("accuracy before", _evaluated("initial", "sampled"), share),
    AFTER,
    Column("steps", lambda run: run.train[-1]["step"] if run.train else 0, lambda value: f"{value:,.0f}"),
    Column("minutes", _minutes, lambda value: f"{value:.1f}"),
)
LAST = (
    Column("greedy before", _evaluated("initial", "greedy"), share),
    Column("greedy after", _evaluated("final", "greedy"), share),
    *(
        Column(title, _last(metric), lambda value: number(value, digits=3))
        for title, metric in {
            "reward": "reward/mean", "response length": "response_length/mean", "entropy": "policy/entropy",
            "KL of old to new": "policy/kl_old_new", "KL to reference": "policy/kl_to_reference",
            "gradient norm": "grad_norm",
        }.items()
    ),
)  # fmt: skip


def table(groups: Sequence[Group], columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Returns the head and the rows of a table. A group's row has its fields, its seeds and the columns that have any value.

    The accuracy after training is followed by `minus_first`.
    """
    cells = {}
    for column in columns:
        cells[column.title] = [cell([column.value(run) for run in one.runs], column.text) for one in groups]
        if column is AFTER:
            cells["minus the first, points"] = [minus_first(one, groups[0]) for one in groups]
    cells = {title: texts for title, texts in cells.items() if set(texts) != {DASH}}
    head = [*groups[0].fields, "seeds", *cells]
    return head, [
        [*one.fields.values(), one.seeds, *(texts[i] for texts in cells.values())] for i, one in enumerate(groups)
    ]


def minus_first(group: Group, first: Group) -> str:
    """Formats a group's accuracy after training minus the first group's, in percentage points, paired by seed.

    The mean over the seeds that both have is followed by its 95 % interval by Student's t, from two seeds on.
    """
    own, other = (
        {
            run.config["seed"]: value
            for run in one.runs
            if (value := AFTER.value(run)) is not None and "seed" in run.config
        }
        for one in (group, first)
    )
    pairs = [100 * (own[seed] - other[seed]) for seed in own.keys() & other.keys()]
    if group is first or not pairs:
        return DASH
    mean, low, high = t_interval(pairs)
    counted = "1 seed" if len(pairs) == 1 else f"{low:+.1f} to {high:+.1f}, {len(pairs)} seeds"
    return f"{mean:+.1f} ({counted})"


def cell(values: Sequence[float | None], text: Callable[[float], str]) -> str:
    """Formats the mean over runs, the lowest and the highest, and how many runs have a value if not all do."""
    known = [value for value in values if value is not None]
    if not known:
        return DASH
    low, high = text(min(known)), text(max(known))
    extremes = f" ({low} to {high})" if low != high else ""
    counted = f", {len(known)} of {len(values)} runs" if len(known) < len(values) else ""
    return text(sum(known) / len(known)) + extremes + counted
