"""Makes the report: one page with curves, token credit, the teacher's gap, and where the time went."""

import json
from typing import Any

import altair as alt
import pyarrow as pa

from amrsd_jax.credit import RULES
from amrsd_jax.report import charts, curves, document, signal, timeline, tokens
from amrsd_jax.report.charts import duration, share
from amrsd_jax.report.read import Record, RunFiles
from amrsd_jax.runtime.results import evaluated
from amrsd_jax.runtime.rollouts import read_rollouts

FILES_READ = 24  # most rollout files that the statistics use, evenly spaced
TIMELINES = 3  # most steps whose timeline is drawn
TAU = RULES["amrsd"].defaults["tau"]  # nats; replaces the threshold of a credit rule that has none


def render(run: RunFiles) -> str:
    """Returns the whole page of `run`, as HTML."""
    credit, task = (run.config.get(section, {}) for section in ("credit", "task"))
    tau = credit.get("args", {}).get("tau", TAU)
    heat_map, notes = tokens.heat_map(run.rollouts, tau)
    tables = []
    for path in tokens.spread(list(run.rollouts.values()), FILES_READ):
        try:
            table = read_rollouts(path)
            tables.append(table.select([*signal.COLUMNS, *{signal.NULL}.intersection(table.column_names)]))
        except ValueError as error:
            notes.append(f"{path.name} was left out: {error}")
    scored, uses = signal.scored_rollouts(tables), signal.uses(tables)
    return document.render(
        "page",
        __package__,
        run=run,
        run_name=run.workdir.resolve().name,
        rule=credit.get("rule", ""),
        task=task.get("name", ""),
        tiles=tiles(run),
        notes=run.notes + sorted(set(notes)),
        environment=environment(run.environment),
        groups={
            title: [(plot.title, curves.draw(plot, run)) for plot in plots]
            for title, plots in curves.groups(run).items()
        },
        without_curves=curves.without_curves(run),
        thinned=len(run.train) / curves.POINTS if len(run.train) > curves.POINTS else 0,
        heat_map=heat_map,
        gap_charts=gap_charts(scored),
        scored=measured(scored, tables, run),
        beyond=signal.beyond(scored, tau),
        tau=tau,
        uses=uses,
        rollouts=sum(use.rollouts for use in uses),
        phases=phase_chart(run),
        wall_seconds=run.results.get("wall_seconds"),
        timelines=[
            timeline.draw(f"Step {step}", run.timelines[step]) for step in tokens.spread(list(run.timelines), TIMELINES)
        ],
        config=json.dumps(run.config, indent=2, ensure_ascii=False),
    )


def measured(scored: list[signal.ScoredRollout], tables: list[pa.Table], run: RunFiles) -> tuple[int, int, int, int]:
    """Returns the numbers of tokens and of rollouts whose gap is shown, of steps that were read, and of logged steps."""
    lengths = [len(r.gap) for r in scored if r.outcome != signal.CONTROL]
    return sum(lengths), len(lengths), len(tables), len(run.rollouts)


def environment(record: Record) -> list[str]:
    """Returns the devices, versions, commit and date of a run, as far as they are known."""
    texts = [record[key] for key in ("devices", "processor") if record.get(key)]
    texts += [f"{key} {record[key]}" for key in ("python", "jax", "jaxlib", "amrsd_jax", "commit") if record.get(key)]
    return texts + ([f"started {record['started'][:16].replace('T', ' ')}"] if record.get("started") else [])


def tiles(run: RunFiles) -> list[tuple[str, str, str]]:
    """Returns (label, value, detail) of the numbers in the head of the page that are known."""
    result = []
    evals = _evaluations(run)
    for key in ("sampled", "greedy"):
        result += _accuracy(f"Held-out accuracy, {key}", key, evals)
    for name, results in evals.get("benchmarks", {}).items():
        result += _accuracy(f"{name}, sampled", "sampled", results)
    steps = run.results.get("steps", len(run.train))
    if seconds := run.results.get("wall_seconds"):
        result.append(("Wall time", duration(seconds), f"{steps:,} steps"))
    elif steps:
        result.append(("Steps so far", f"{steps:,}", "unfinished"))
    skipped = run.results.get("reflections_skipped")
    if skipped is not None and run.config.get("credit", {}).get("context") != "none":
        result.append(
            ("Reflections skipped", share(skipped), "of rollouts; a reflection could not change their credit")
        )
    return result


def _accuracy(label: str, key: str, results: Record) -> list[tuple[str, str, str]]:
    """Returns the tile of one accuracy, [] if unknown: first and last, the best, and the mean of the last evaluations."""
    ends = [e for e in (results.get("initial"), results.get("final")) if e and e.get(key) is not None]
    if not ends:
        return []
    intervals = [
        f"{share(e[f'{key}_low'])} to {share(e[f'{key}_high'])}" for e in ends if e.get(f"{key}_low") is not None
    ]
    detail = ["95 % interval " + ", then ".join(intervals)] if intervals else []
    detail += [f"n = {ends[-1]['n']}"] if ends[-1].get("n") else []
    if best := results.get("best"):
        detail.append(f"{share(best[key])} at the best step, {best['step']}")
    if chosen := results.get("best_by_validation"):
        detail.append(f"{share(chosen[key])} at the best step by validation, {chosen['step']}")
    if mean := results.get("mean_of_last"):
        detail.append(f"{share(mean[key])} mean of the last {len(mean['steps'])}")
    return [(label, " → ".join(share(e[key]) for e in ends), "; ".join(detail))]


def _evaluations(run: RunFiles) -> Record:
    """Returns the evaluations of results.json; of an unfinished run those so far, each benchmark's latest as its final one."""
    saved = run.results.get("eval") or {}
    if saved.get("final") or not run.evals:
        return saved
    return evaluated(run.evals, run.config.get("evaluation", {}).get("last", 1), None, latest=True)


def gap_charts(scored: list[signal.ScoredRollout]) -> list[tuple[str, alt.LayerChart | None]]:
    """Returns titles and charts of the gap's distribution; None where no rollout has the numbers."""
    if not scored:
        return []
    places = ("before", "inside", "after")
    drawn = (
        ("Distribution", signal.histogram, dict(x_title="gap, nats", y_title="share of tokens", percent=True, log=True)),
        ("Along the response", signal.by_position, dict(x_title="share of the response passed", x_percent=True)),
        ("Around the true first wrong step", signal.around_first_error, dict(x_title="tokens of failed ones", x_names=places)),
    )  # fmt: skip
    measured = [(title, measure(scored), {"y_title": "mean gap, nats"} | options) for title, measure, options in drawn]
    return [(title, charts.lines(series, **options) if series else None) for title, series, options in measured]


def phase_chart(run: RunFiles) -> alt.LayerChart | None:
    """Returns bars of the wall time by phase, and of the time outside all phases (`other`); None where no time is known."""
    seconds: dict[str, Any] = run.results.get("seconds_by_phase") or {
        phase: sum(line.get(f"seconds/{phase}") or 0 for line in run.train) for phase in timeline.PHASES
    }
    seconds = {name: seconds[name] for name in (*timeline.PHASES, *seconds) if seconds.get(name)}
    if not seconds:
        return None
    total = max(run.results.get("wall_seconds") or 0, sum(seconds.values()))
    if (other := total - sum(seconds.values())) > 0.005 * total:
        seconds["other"] = other
    texts = [f"{duration(value)}, {share(value / total)}" for value in seconds.values()]
    return charts.bars(seconds, texts, x_title="seconds")
