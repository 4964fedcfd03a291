"""The page: gathers what a run says into one HTML text with everything it needs inside.

Texts of a run (questions, responses, reflections) are not trusted. Jinja escapes what it prints, the rollouts
travel as JSON in which no tag can end, the script only ever sets text, and the page's policy lets no other
script run and nothing be loaded.
"""

import base64
import hashlib
import json
from typing import Any

import jinja2
from markupsafe import Markup

from amrsd_jax.report import curves, rollouts, statistics, svg, theme, timeline
from amrsd_jax.report.axes import share
from amrsd_jax.report.read import Run, dig
from amrsd_jax.report.theme import PHASES

FILES_READ = 24  # the statistics of a long run rest on so many of its parquet files, evenly spaced


def render(run: Run) -> str:
    """The whole page of `run`, as HTML."""
    script = theme.asset("dom.js") + theme.asset("page.js")
    files = rollouts.spread(list(run.rollouts.values()), FILES_READ)
    columns = {*statistics.GAP_COLUMNS, *statistics.LEDGER_COLUMNS}
    tables, notes = rollouts.tables(files, sorted(columns))
    samples, sample_notes = heat_map(run)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(theme.asset("page.html.j2")).render(
        policy_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(theme.variables() + theme.asset("chart.css") + theme.asset("page.css")),
        script=Markup(script),
        run=run,
        names=names(run),
        tiles=tiles(run),
        notes=run.notes + sorted({*notes, *sample_notes}),
        groups={title: [figure(plot, run) for plot in plots] for title, plots in curves.GROUPS.items()},
        thinned=len(run.train) > curves.POINTS and curves.POINTS,
        samples=Markup(json_in_html(samples)),
        sampled=len(samples),
        gap_charts=gap_charts(gaps := statistics.gaps(tables)),
        scored=(len(gaps.value), len(set(gaps.row)), len(tables), len(run.rollouts)),
        ledger=(entries := statistics.ledger(tables)),
        ledger_rows=sum(entry.rows for entry in entries),
        phases=phases(run),
        phase_colour=theme.phase_colour,
        timelines=timelines(run),
        wall_seconds=run.results.get("wall_seconds"),
        config=json.dumps(run.config, indent=2, ensure_ascii=False),
        duration=duration,
        share=share,
    )


def json_in_html(value: Any) -> str:
    """JSON that may stand in a script element: no character of it can open or close a tag or an entity."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def names(run: Run) -> dict[str, str]:
    """Names of the run, its method and its task, as far as the config tells them."""
    method = dig(run.config, "credit.rule", "credit.name", "credit.method", "method.name", "method")
    task = dig(run.config, "task.name", "tasks.name", "task")
    return {
        "run": run.workdir.resolve().name,
        "method": method if isinstance(method, str) else "",
        "task": task if isinstance(task, str) else "",
    }


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """(label, value, detail) of the headline's numbers; those that are not known are left out."""
    found = []
    for key in ("sampled", "greedy"):
        found += accuracy(f"Held-out accuracy, {key}", key, *evaluations(run), dig(run.results, "eval", default={}))
    for name, four in dig(run.results, "eval.benchmarks", default={}).items():
        found += accuracy(f"{name}, sampled", "sampled", four["initial"], four["final"], four)
    steps = run.results.get("steps", len(run.train))
    if seconds := run.results.get("wall_seconds"):
        found.append(("Wall time", duration(seconds), f"{steps:,} steps" if steps else ""))
    elif steps:
        found.append(("Steps so far", f"{steps:,}", "no results.json yet"))
    saved = dig(run.results, "savings.rows", "savings.reflections")
    if saved is not None:
        found.append(("Saved exactly", share(saved), "of rows need no reflection or teacher pass"))
    return found


def accuracy(label: str, key: str, before: dict, after: dict, four: dict) -> list[tuple[str, str, str]]:
    """The tile of one accuracy, [] if it is not known: before and after, intervals, the best, and the mean of the last."""
    if key not in after:
        return []
    ends = [e for e in (before, after) if e.get(key) is not None]
    intervals = [
        f"{share(e[f'{key}_low'])} to {share(e[f'{key}_high'])}"
        for e in ends
        if e.get(f"{key}_low") is not None and e.get(f"{key}_high") is not None
    ]
    detail = ["interval " + ", then ".join(intervals)] if intervals else []
    detail += [f"n = {after['n']}"] if after.get("n") else []
    if four.get("best"):
        detail.append(f"{share(four['best'][key])} at the best step, {four['best']['step']}")
    if chosen := four.get("best_by_validation"):
        detail.append(f"{share(chosen[key])} at the best by validation, {chosen['step']}")
    if mean := four.get("mean_of_last"):
        detail.append(f"{share(mean[key])} mean of the last {len(mean['steps'])}")
    return [(label, " → ".join(share(e[key]) for e in ends), "; ".join(detail))]


def evaluations(run: Run) -> tuple[dict, dict]:
    """The first and the last evaluation; from results.json, else from the metrics of the unfinished run."""
    ends = [dig(run.results, f"eval.{name}", default={}) for name in ("initial", "final")]
    if not any(ends) and run.evals:
        first, last = run.evals[0], run.evals[-1]
        ends = [{key.removeprefix("eval/"): v for key, v in end.items()} for end in (first, last)]
        ends = [{}, ends[1]] if first is last else ends
    return ends[0], {key: value for key, value in ends[1].items() if value is not None}


def duration(seconds: float) -> str:
    """1 h 02 min, 3 min 20 s or 12.5 s."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def figure(plot: curves.Plot, run: Run) -> dict[str, Any]:
    """One chart for the template: its picture, or in `missing` the metrics that the run did not record."""
    drawn = curves.draw(plot, run)
    missing = "" if drawn else f"The run recorded no {', '.join(line.key for line in plot.lines)}."
    return {"title": plot.title, "svg": drawn and Markup(drawn), "missing": missing}


def gap_charts(gaps: statistics.Gaps) -> list[dict[str, Any]]:
    """The three pictures of the gap's distribution."""
    scored = len(gaps.value) > 0
    places = ("before", "inside", "after")
    nothing = "No logged rollout was scored by a teacher."
    drawings = (
        (
            "Distribution",
            statistics.histogram,
            dict(x_label="gap, nats", y_label="share of tokens", percent=True, log=True),
        ),
        (
            "Along the response",
            statistics.by_position,
            dict(x_label="share of the response passed", y_label="mean gap, nats", x_percent=True),
        ),
        (
            "Around the true first wrong step",
            statistics.around_first_error,
            dict(x_label="tokens of failed rollouts", y_label="mean gap, nats", x_names=places),
        ),
    )
    charts = []
    for title, measure, options in drawings:
        series = measure(gaps) if scored else []
        drawn = Markup(svg.chart(series, title=f"Gap, {title}", **options)) if series else None
        missing = nothing if not scored else "No scored rollout says where its first wrong step is."
        charts.append({"title": title, "svg": drawn, "missing": missing})
    return charts


def phases(run: Run) -> list[tuple[str, float, float]]:
    """(phase, seconds, share) of the wall time in the loop's order; `other` is time outside all phases."""
    seconds = run.results.get("seconds_by_phase") or {
        phase: sum(line.get(f"seconds/{phase}") or 0 for line in run.train) for phase in PHASES
    }
    seconds = {name: value for name, value in seconds.items() if value}
    order = sorted(seconds, key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES))
    total = max(run.results.get("wall_seconds") or 0, sum(seconds.values()))
    other = total - sum(seconds.values())
    rest = [("other", other, other / total)] if seconds and other > 0.005 * total else []
    return [(name, seconds[name], seconds[name] / total) for name in order] + rest


def timelines(run: Run) -> list[Markup]:
    """The first, a middle and the last step laid out in time."""
    shown = rollouts.spread(list(run.timelines), rollouts.STEPS_SHOWN)
    return [Markup(timeline.draw(f"Step {step}", run.timelines[step])) for step in shown]


def heat_map(run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """Sample rows of the first, a middle and the last logged step, and notes about files left out."""
    samples, notes = [], []
    columns = [*rollouts.LIGHT, *rollouts.TOKENS]
    for step in rollouts.spread(list(run.rollouts), rollouts.STEPS_SHOWN):
        for_step, unreadable = rollouts.tables([run.rollouts[step]], columns)
        notes += unreadable
        for table in for_step:
            rows = [rollouts.for_heat_map(row) for row in rollouts.sample_rows(table)]
            samples.append({"step": step, "of": table.num_rows, "rows": rows})
    return samples, notes
