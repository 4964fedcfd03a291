"""Makes the comparison page: methods side by side on the same tokens, as one HTML file in the style of the report."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from amrsd_jax.compare import measures
from amrsd_jax.compare.apply import Applied
from amrsd_jax.policy.tokenizer import token_texts
from amrsd_jax.records import Rollouts
from amrsd_jax.report import charts, document

FAILED, CORRECT = 16, 8  # rollouts on the page: methods differ most on failures
TOKENS = 800  # most tokens of a response on the page, which bounds its size
GAPS = (  # name in a chart, measure, outcome and colour
    ("correct", "gap", "correct", charts.CREDIT), ("failed", "gap", "failed", charts.BLAME),
    ("correct, null control", "null_gap", "correct", "sky"), ("failed, null control", "null_gap", "failed", "peach"),
)  # fmt: skip
FULL_COLOUR = 0.98  # quantile of the non-zero values that gets the full colour


def render(rollouts: Rollouts, applied: Sequence[Applied], values: dict[str, Any]) -> str:
    """Returns the page as HTML.

    Args:
      rollouts, applied: the rollouts, and the methods applied to them.
      values: the content of `compare.json`.
    """
    methods = values["methods"]
    return document.render(
        "compare",
        __package__,
        about=values["rollouts"],
        notes=values["notes"],
        tiles=tiles(values),
        tokens=token_data(rollouts, applied),
        methods=methods,
        about_methods={one.name: _about(one) for one in applied},
        localised=any(m["first_error"] for m in methods.values()),
        matrices=matrices(values["pairs"]),
        gap_charts=gap_charts(applied, methods),
        statuses=sorted({status for m in methods.values() for status in m["ledger"]["status"]}),
        tau=measures.TAU,
    )


def tiles(values: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the headline numbers as (label, value, detail)."""
    about, parameters = values["rollouts"], values["parameters"]
    behind = about["step"] - parameters["checkpoint"]
    difference = f"{charts.number(parameters['recorded_gap'], digits=2)} nats per token"
    return [
        ("Methods", f"{len(values['methods'])}", f"compared in {charts.duration(values['seconds'])}"),
        ("Rollouts", f"{about['rows']:,}", f"{about['failed']:,} failed, {about['tokens']:,} tokens; {about['file']}"),
        (
            "Policy",
            f"step {parameters['checkpoint']}",
            f"{behind} steps before the rollouts; " * (behind > 0)
            + f"log-probabilities differ from the recorded ones by {difference} on average",
        ),
    ]


# ---------------------------------------------------------------- tokens


def representative(rollouts: Rollouts, applied: Sequence[Applied]) -> list[int]:
    """Returns the rows to show: failures, then successes, each ordered by how strongly methods change their credit.

    The strength is the sum over methods of the largest share of the full colour that a token of the row gets. Of equal
    rows, those with a known first error come first, then those of lower index.
    """
    strength = np.zeros(len(rollouts.text))
    for one in applied:
        added = measures.added(one.credit, measures.trained(one, rollouts))
        strength += np.minimum(1, np.abs(added).max(axis=1) / _reach(added))
    order = np.lexsort((rollouts.first_error[:, 0] < 0, -strength)).tolist()
    failed, correct = ([i for i in order if rollouts.correct[i] == wanted] for wanted in (False, True))
    return failed[:FAILED] + correct[:CORRECT]


def token_data(rollouts: Rollouts, applied: Sequence[Applied]) -> dict[str, Any]:
    """Returns what the page's script draws: `methods`, each with the values that get the full colours, and `rows`.

    For credit each method has a value of its own; for gaps all methods share one, so that they can be compared.
    """
    parts = [(one, measures.added(one.credit, measures.trained(one, rollouts)), one.logprobs.gap) for one in applied]
    gap_reach = _reach(np.concatenate([gap.ravel() for _, _, gap in parts]))
    rows = []
    for i in representative(rollouts, applied):
        length = int(rollouts.mask[i].sum())
        problem, verdict, count = rollouts.problems[i], rollouts.verdicts[i], min(length, TOKENS)
        panels = [
            {
                "kind": one.contexts.kind[i],
                "status": one.contexts.status[i],
                "text": one.contexts.text[i],
                "advantage": _brief(one.credit.advantage[i : i + 1])[0],
                "added": _brief(added[i, :count]),
                "gap": _brief(gap[i, :count]) if one.logprobs.scored[i] else None,
            }
            for one, added, gap in parts
        ]
        rows.append(
            {
                "row": i, "question": problem.question, "answer": problem.answer, "correct": verdict.correct,
                "verdict": verdict.message, "finished": rollouts.finish_reason[i], "length": length,
                "advantage": _brief(applied[0].credit.advantage[i : i + 1])[0], "wrong": rollouts.first_error[i].tolist(),
                "tokens": token_texts(applied[0].experiment.tokenizer, rollouts.response[i, :count].tolist()), "panels": panels,
            }
        )  # fmt: skip
    methods = [
        {
            "name": one.name,
            "about": _about(one),
            "reach": {"credit": _reach(one.credit.token_advantage), "added": _reach(added), "gap": gap_reach},
        }
        for one, added, _ in parts
    ]
    return {"methods": methods, "rows": rows}


def _about(one: Applied) -> str:
    context, teacher = one.experiment.config.credit.context, one.experiment.config.teacher.kind
    if context == "none":
        return "no teacher"
    return f"{context.replace('_', ' ').replace(',', ' or ').replace('+', ' + ')}, {teacher} teacher"


def _reach(values: np.ndarray) -> float:
    """Returns the value that gets the full colour; never less than TAU, so that noise stays pale."""
    sizes = np.abs(values[values != 0])
    return max(measures.TAU, float(f"{np.quantile(sizes, FULL_COLOUR):.2g}")) if len(sizes) else measures.TAU


def _brief(values: Float[np.ndarray, " n"]) -> list[float | None]:
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values.tolist()]


# ---------------------------------------------------------------- charts


def gap_charts(applied: Sequence[Applied], methods: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns charts of the mean |gap| along the response, and of the null control's, per source of contexts and kind of teacher.

    Methods with the same source and teacher differ only in which rows need a context; the one with most rows is drawn.
    """
    widest: dict[str, Applied] = {}
    for one in sorted(applied, key=lambda one: -len(one.contexts.rows)):
        if len(one.contexts.rows):
            widest.setdefault(_about(one), one)
    centres = ((np.arange(measures.POSITIONS) + 0.5) / measures.POSITIONS).tolist()
    result = []
    for title, one in sorted(widest.items()):
        series = []
        for name, gap, outcome, colour in GAPS:
            summaries = methods[one.name][gap][outcome]["by_position"]
            mean = [s and s["mean_absolute"] for s in summaries]
            error = [s and s["mean_absolute_error"] for s in summaries]
            low, high = (
                [None if e is None else max(0.0, m + sign * e) for m, e in zip(mean, error, strict=True)]
                for sign in (-1, 1)
            )
            if any(value is not None for value in mean):
                series.append(charts.Series(name, centres, mean, low, high, colour))
        outcomes = {line.name.split(",")[0] for line in series}
        count = f"{len(one.contexts.rows):,} rollouts" + (f", all {min(outcomes)}" if len(outcomes) == 1 else "")
        drawn = charts.lines(series, y_title="mean |gap|, nats", x_title="share of the response", x_percent=True)
        result.append({"title": title, "count": count, "drawn": drawn})
    return result


def matrices(pairs: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the heat maps over pairs of methods, each with a title and a sentence about its values."""
    names = pairs["methods"]
    cell = max(30, min(60, 920 // len(names)))  # a page of 1,280 pixels has room for about thirty methods
    same_sign = "share of equal signs among the tokens that both change; 0.5 is chance"
    tables = [
        ("Policy gradients: cosine", "of the gradients over all parameters", pairs["gradient_cosine"], 0.0),
        ("Added credit: rank correlation", "Spearman, over tokens", pairs["rank_correlation"]["added"], 0.0),
        ("Added credit: sign agreement", same_sign, pairs["sign_agreement"]["added"], 0.5),
        (
            "Added credit: overlap (Jaccard)",
            "tokens changed by both, of those by either",
            pairs["overlap"]["added"],
            0.0,
        ),
        ("Whole credit: rank correlation", "Spearman, over tokens", pairs["rank_correlation"]["credit"], 0.0),
        ("Whole credit: sign agreement", same_sign, pairs["sign_agreement"]["credit"], 0.5),
    ]
    return [
        {
            "title": title,
            "about": about,
            "drawn": charts.matrix(names, names, values, centre=centre, reach=1 - centre, cell=cell),
        }
        for title, about, values, centre in tables
    ]
