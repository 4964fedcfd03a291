"""Formats the results of the study: contrasts, and tables per rung and learning rate."""

import numpy as np
from scipy import stats

from amrsd_jax.evaluate.estimators import t_interval
from amrsd_jax.markdown import table as markdown
from experiments.common import Row, group_by
from experiments.curves import areas, arms_table, interval_cell
from experiments.real_model.arms import CONTRASTS, PARTS, TRY, part_of
from experiments.real_model.measure import QUANTILE

DECISIVE = {"core": CONTRASTS, "try": TRY}  # the contrasts of a part
LEVELS = (0.5, 0.7)
MEANWHILE = (
    "Second tables. Of the last step: length of responses in tokens, -log-prob of a sampled token and KL to the start in nats "
    "per token. Greedy accuracy before and after training; change of the sampled accuracy on rungs that are not trained, with "
    "95 % intervals over runs. Marked: of the failures of a step, the share in which a rule treats a beginning apart, mean over "
    "steps; spared: of all tokens of a step, the share in these beginnings, which the rule spares or rewards."
)
TEACHERS = (
    "Third tables. With context: share, over all steps, of the rows that need one. Amplified: tokens whose credit AMR-SD "
    "raises; Delta: the part of A that it adds, mean over all tokens. AUROC for the first error of failures: of -gap at "
    "the first step, where all arms of a seed have the same rollouts, and at the last; at both together, of the control "
    "(the teacher's prompt without a text), of the gap minus the control's, of the gap's magnitude, and of the surprise, "
    "-log-prob of the sampled token. Failures: those that the teacher scored, for prefix credit all, for AMR-SD those of "
    "groups with a success. The rest is of the first step and of the rows that the teacher scored, for prefix credit "
    f"failures only: the share of tokens at which AMR-SD would act by the gap, and by the control's; the {QUANTILE:.0%} "
    "quantile of the control's gap in the direction in which AMR-SD acts, in nats. Critiques: failures with a usable "
    "critique whose first error is a part of them; quoting: those whose text points at a number of the answer "
    "(`reflection.quotes`); right: those where this number lies in the first error. Shuffled reflections are counted as "
    "their rows got them, shuffled blame before it exchanges places; a verifier's message is no critique."
)


def table(rows: list[Row]) -> str:
    """Formats the contrasts; and per rung and learning rate how arms learn, what else changes, and what their teachers see."""
    rows = with_pairs(rows)
    parts = [
        contrasts(group, part, named)
        for _, group in sorted(group_by(rows, "lr").items(), reverse=True)
        for part, named in DECISIVE.items()
    ]
    order = [*PARTS, "more"]
    by_part = sorted(
        group_by(distinct(rows), "part", "rung", "lr").items(), key=lambda item: (order.index(item[0][0]), item[0][1:])
    )
    teachers = any(_teachers(group)[1] for _, group in by_part)
    parts += [*(_tables(group) for _, group in by_part), MEANWHILE, *([TEACHERS] if teachers else [])]
    return "\n\n".join(filter(None, parts))


def with_pairs(rows: list[Row]) -> list[Row]:
    """Returns rows with `pair`, the rung, start and learning rate within which arms of a seed are compared, and `part`.

    Raises:
      ValueError: an arm has two rows of a seed, or different configs, or the arms of a pair and seed do not begin alike.
    """
    rows = [row | {"pair": f"{row['rung']}, start {row['start']}, learning rate {row['lr']:g}"} for row in rows]
    rows = [row | {"part": part_of(row["seed"])} for row in rows]
    for (rung, arm, lr), runs in group_by(rows, "rung", "arm", "lr").items():
        if len({(row["seed"], row["start"]) for row in runs}) < len(runs):
            raise ValueError(f"{arm} on {rung} with learning rate {lr:g}: two rows have one seed")
        if len({row["config"] for row in runs}) > 1:
            raise ValueError(f"{arm} on {rung} with learning rate {lr:g}: its rows have different configs")
    for (pair, seed), runs in group_by(rows, "pair", "seed").items():
        if len({(row["sampled"][0], row["greedy"][0], row["series"]["reward/mean"][0]) for row in runs}) > 1:
            raise ValueError(f"{pair}, seed {seed}: {', '.join(row['arm'] for row in runs)} do not begin alike")
    return rows


def distinct(rows: list[Row]) -> list[Row]:
    """Returns rows without those that repeat another's accuracies, which are no further evidence about an arm.

    The starts of two kinds of processors may differ by rounding alone, and runs of a seed then often sample the same tokens.
    """
    found = {}
    for row in rows:
        found.setdefault((*(row[name] for name in ("rung", "arm", "lr", "seed")), *row["sampled"], *row["greedy"]), row)
    return list(found.values())


def contrasts(rows: list[Row], part: str, named: tuple[tuple[str, str], ...]) -> str:
    """Formats the named contrasts of a part over all rungs and seeds of one learning rate; returns "" if none has two pairs."""
    rows, (_, rungs, seeds) = of_part(rows, part), PARTS[part]
    values = {name: list(by_pair.values()) for name, by_pair in differences(areas(rows, "pair")[0], named).items()}
    if not values:
        return ""
    last = {}
    for row in rows:
        last.setdefault(row["arm"], {})[row["pair"], row["seed"]] = row["greedy"][1]
    curves = [row | {"sampled": row["greedy_curve"]} for row in rows if "greedy_curve" in row]
    others = [differences(values, named) for values in (areas(curves, "pair")[0], last)]
    complete = len(values) == len(named) and min(map(len, values.values())) == len(rungs) * len(seeds)
    p = holm([float(stats.ttest_1samp(each, 0).pvalue) for each in values.values()], len(named))
    cells = []
    for (name, each), corrected in zip(values.items(), p, strict=True):
        greedy = [list(other.get(name, {}).values()) for other in others]
        more = (interval_cell(t_interval(pairs)) if len(pairs) == len(each) else "" for pairs in greedy)
        cells.append(
            [
                name,
                len(each),
                interval_cell(t_interval(each)),
                interval_cell(t_interval(each, 1 - 0.05 / len(named))),
                f"{corrected:.3f}" if complete else "",
                " ".join(f"{value:.3f}" for value in each),
                *more,
            ]
        )
    columns = ["contrast", "pairs", "area at equal rollouts", "corrected", "p (Holm)", "by pair"]
    columns += ["area, greedy", "last greedy accuracy"]
    return (
        f"**Contrasts ({part}), learning rate {rows[0]['lr']:g}**\n\n{markdown(columns, cells)}\n\n"
        "Differences: means over pairs of equal rung, start and seed, with 95 % intervals by Student's t. Corrected: the "
        f"interval of the area by Bonferroni for the {len(named)} contrasts. p, that of no difference of the areas, corrected "
        "for the same, is given when all their seeds are there. By pair: the areas' differences, by rung and seed."
    )


def of_part(rows: list[Row], part: str) -> list[Row]:
    """Returns the rows of a part that are on its rungs."""
    return [row for row in rows if row["part"] == part and row["rung"] in PARTS[part][1]]


def differences(by_arm: dict[str, dict], named: tuple[tuple[str, str], ...]) -> dict[str, dict]:
    """Returns {contrast: {key: difference}} for contrasts with two pairs or more.

    Args:
      by_arm: {arm: {key: value}}; runs with equal keys are a pair.
      named: the contrasts, each as (arm, control).
    """
    result = {}
    for arm, control in named:
        a, b = by_arm.get(arm, {}), by_arm.get(control, {})
        if len(shared := sorted(a.keys() & b.keys())) > 1:
            result[f"{arm} minus {control}"] = {key: a[key] - b[key] for key in shared}
    return result


def holm(p: list[float], m: int) -> list[float]:
    """Returns p-values corrected for m tests (Holm 1979): the k-th smallest times m - k + 1, made monotonic.

    Tests that have no value yet count as well.
    """
    corrected, highest = [0.0] * len(p), 0.0
    for k, i in enumerate(np.argsort(p)):
        highest = max(highest, min(1.0, (m - k) * p[i]))
        corrected[i] = highest
    return corrected


def _tables(rows: list[Row]) -> str:
    one = rows[0]
    dates, commits, starts, machines = (
        ", ".join(sorted({row[name] for row in rows})) for name in ("date", "commit", "start", "hardware")
    )
    learning = (
        f"{one['rollouts_per_step']} rollouts a step, {one['steps'][-1]} steps, three answers to each of {one['problems']} "
        f"held-out problems at temperature 0.8. Steps to a level: lower median and how many runs reached it. Final: mean of the "
        f"last two evaluations; best: the highest. In brackets: 95 % by Student's t over seeds; differences are paired. Starts "
        f"{starts}; {machines}; {dates}; commit {commits}."
    )
    parts = [
        f"**{one['rung']}, learning rate {one['lr']:g} ({one['part']})**",
        markdown(*arms_table(rows, "pair", LEVELS, t_interval)),
        learning,
    ]
    columns, lines = _teachers(rows)
    return "\n\n".join([*parts, markdown(*_meanwhile(rows)), *([markdown(columns, lines)] if lines else [])])


def _meanwhile(rows: list[Row]) -> tuple[list[str], list[list]]:
    others = list(rows[0]["others"])
    lines = []
    for (arm,), runs in group_by(rows, "arm").items():
        changes = {name: [run["others"][name][1] - run["others"][name][0] for run in runs] for name in others}
        lines.append(
            [
                arm,
                _mean([run["series"]["response_length/mean"][-1] for run in runs], ".1f"),
                _mean([run["rollouts"][-1]["nll"] for run in runs]),
                _mean([run["kl_to_start"] for run in runs], ".3f"),
                *(_mean([run["greedy"][end] for run in runs]) for end in (0, 1)),
                *(interval_cell(t_interval(changes[name])) for name in others),
                *(_mean(_series(runs, name), ".0%") for name in ("credit/marked", "credit/paid")),
            ]
        )
    return ["arm", "length", "-log-prob", "KL", "greedy before", "after", *others, "marked", "spared"], lines


def _teachers(rows: list[Row]) -> tuple[list[str], list[list]]:
    columns = [
        "arm",
        "with context",
        "amplified",
        "mean Delta",
        "AUROC first",
        "failures",
        "last",
        "failures",
        "control",
        "minus control",
        "magnitude",
        "surprise",
    ]
    columns += ["AMR-SD would act", "by the control", "control's quantile", "critiques", "quoting", "right"]
    lines = []
    for (arm,), runs in group_by(rows, "arm").items():
        first, last = ([run["rollouts"][end] for run in runs] for end in (0, -1))
        if not any(each["failures"] or each["critiques"] for each in first):
            continue
        cells = [arm, *(_mean(_series(runs, name), ".0%") for name in ("reflection/usable", "credit/amplified"))]
        cells.append(_mean(_series(runs, "credit/delta"), ".3f"))
        for end in (first, last):
            cells += [_pooled(end, "gap"), sum(each["failures"] for each in end)]
        cells += [_pooled([*first, *last], name) for name in ("null", "contrast", "magnitude", "surprise")]
        cells += [_mean([each["above_tau"][name] for each in first], ".0%") for name in ("gap", "null")]
        cells.append(_mean([each["null_quantile"] for each in first]))
        lines.append([*cells, *(sum(each[name] for each in first) for name in ("critiques", "quoting", "right"))])
    return columns, lines


def _series(runs: list[Row], name: str) -> list[float | None]:
    """Returns a metric's values at all steps of several runs. A row that is older than the metric adds none."""
    return [value for run in runs for value in run["series"].get(name, [])]


def _pooled(saved: list[dict], name: str) -> str:
    """Formats the mean AUROC over all failures of several runs."""
    known = [(each["auroc"][name], each["failures"]) for each in saved if each["auroc"][name] is not None]
    return f"{np.average([area for area, _ in known], weights=[n for _, n in known]):.2f}" if known else ""


def _mean(values: list[float | None], form: str = ".2f") -> str:
    """Formats the mean of the values that are known; "" if none is."""
    values = [value for value in values if value is not None]
    return format(np.mean(values), form) if values else ""
