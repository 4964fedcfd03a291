"""Measures one method on loaded rollouts: where its credit lies, its teacher's gap, and what its contexts give away."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, Num
from scipy import stats

from amrsd_jax.compare.apply import Applied
from amrsd_jax.credit import RULES
from amrsd_jax.policy.tokenizer import Tokenizer, token_texts
from amrsd_jax.records import Credit, Rollouts
from amrsd_jax.runtime.monitor import top_share
from amrsd_jax.tasks.verify import token_span

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
POSITIONS = 10  # the response is divided into tenths
TAU = RULES["amrsd"].defaults["tau"]  # nats: smaller gaps are mostly noise
_ROUNDING = 1e-6  # relative to the advantage: smaller differences are rounding errors


def describe(
    applied: Applied, rollouts: Rollouts, answers: Bool[np.ndarray, "N T"], digits: Bool[np.ndarray, "N T"]
) -> dict:
    """Computes all measures of one method, ready for JSON.

    Args:
      applied: the method, applied to the rollouts.
      rollouts: N rows.
      answers, digits: tokens that state the final answer, and that have a digit (`answer_tokens`, `digit_tokens`).
    """
    config = applied.experiment.config
    counted = trained(applied, rollouts)
    return {
        "rule": applied.experiment.rule.name,
        "context": config.credit.context,
        "teacher": config.teacher.kind,
        "teacher_parameters": applied.teacher,
        "args": config.credit.args,
        "concentration": {
            "credit": concentration(applied.credit.token_advantage, rollouts, answers),
            "added": concentration(added(applied.credit, counted), rollouts, answers),
        },
        "gap": gaps(applied, rollouts),
        "null_gap": gaps(applied, rollouts, applied.null_gap),
        "leak": leak(applied, rollouts),
        "ledger": ledger(applied, rollouts, digits),
        "gap_at_error": gap_at_error(applied.logprobs.gap, rollouts, applied.logprobs.scored),
        "null_gap_at_error": gap_at_error(applied.null_gap, rollouts, applied.logprobs.scored),
        "first_error": first_error(applied.credit.token_advantage, rollouts, counted.any(axis=1)),
        "first_error_by_gap": first_error(applied.logprobs.gap, rollouts, applied.logprobs.scored),
    }


# ---------------------------------------------------------------- credit


def trained(applied: Applied, rollouts: Rollouts) -> Float[np.ndarray, "N T"]:
    """Returns 1 on the tokens that the loss counts: without `loss.mask_truncated` those of all responses."""
    return rollouts.trained(applied.experiment.config.loss.mask_truncated)


def added(credit: Credit, counted: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "N T"]:
    """Returns each token's advantage minus its row's, which is what a method adds to GRPO; rounding errors are set to 0.

    Args:
      counted: see `trained`.
    """
    advantage = credit.advantage[:, None]
    difference = credit.token_advantage - advantage * counted
    return np.where(np.abs(difference) <= _ROUNDING * np.maximum(1, np.abs(advantage)), 0, difference)


def concentration(
    values: Float[np.ndarray, "N T"], rollouts: Rollouts, answers: Bool[np.ndarray, "N T"]
) -> dict[str, float | None]:
    """Returns the shares of the sum of |values| that the largest 1 % and 10 % of tokens, and the final answer, hold.

    All shares are None where every value is 0.
    """
    size = np.abs(np.asarray(values, np.float64)) * rollouts.mask
    total = size.sum()
    return {
        "top_1_percent": top_share(size, rollouts.mask, 0.01),
        "top_10_percent": top_share(size, rollouts.mask, 0.1),
        "answer": float(size[answers].sum() / total) if total else None,
    }


def answer_tokens(rollouts: Rollouts, tokenizer: Tokenizer) -> Bool[np.ndarray, "N T"]:
    """Marks the tokens of the last line, where verifiers look for the answer, of each response that was not cut off."""
    marked = np.zeros(rollouts.mask.shape, bool)
    for i, text in enumerate(rollouts.text):
        if rollouts.finish_reason[i] == "stop" and text.strip():
            end = len(text.rstrip())
            span = text.rfind("\n", 0, end) + 1, end
            tokens = rollouts.response[i, : int(rollouts.mask[i].sum())].tolist()
            marked[i, slice(*token_span(tokenizer, tokens, span))] = True
    return marked & (rollouts.mask > 0)


def digit_tokens(rollouts: Rollouts, tokenizer: Tokenizer) -> Bool[np.ndarray, "N T"]:
    """Marks the tokens that have a digit, which in a calculation are its substance and not its style."""
    ids = np.unique(rollouts.response[rollouts.mask > 0])
    texts = token_texts(tokenizer, ids.tolist())
    with_digit = ids[[any(character.isdecimal() for character in text) for text in texts]]
    return np.isin(rollouts.response, with_digit) & (rollouts.mask > 0)


def first_error(
    credit: Float[np.ndarray, "N T"], rollouts: Rollouts, rows: Bool[np.ndarray, " N"] | None = None
) -> dict[str, dict] | None:
    """Measures how well blame, which is -credit, finds the first wrong token (`token`) and its whole step (`step`).

    Values are means over the failed rows whose first error is known. `_non_uniform` restricts them to rows whose credit
    differs between tokens. `_error` is 1.96 standard errors; `random` is the expectation of a random guess. With the
    teacher's gap in place of credit, the result says how well the signal itself finds the error, before the rule.

    Args:
      credit: [N, T].
      rollouts: N rows.
      rows: the rows to include; None includes all.

    Returns:
      the measures of `token` and of `step`, or None if no first error is known.
    """
    known = np.flatnonzero((rollouts.first_error[:, 0] >= 0) & (True if rows is None else rows))
    if not len(known):
        return None
    start, end = rollouts.first_error.T
    spans = {"token": (start, start + 1), "step": (start, end)}
    return {name: _localisation(credit, rollouts.mask, known, np.stack(span, axis=1)) for name, span in spans.items()}


def _localisation(credit, mask, known, spans: Integer[np.ndarray, "N 2"]) -> dict:
    areas, precisions, chances, non_uniform = [], [], [], []
    for i in known:
        blame = -credit[i, : int(mask[i].sum())]
        wrong = np.zeros(len(blame), bool)
        wrong[slice(*spans[i])] = True
        if (area := auroc(blame, wrong)) is not None:
            areas.append(area)
            precisions.append(precision_at_1(blame, wrong))
            chances.append(wrong.mean())
            non_uniform.append(np.ptp(blame) > _ROUNDING)
    selected = np.array(non_uniform, bool)
    result = {"rows": len(areas), "rows_non_uniform": int(selected.sum())}
    for name, values in (("auroc", areas), ("precision_at_1", precisions)):
        result[name], result[f"{name}_error"] = mean_and_error(values)
        result[f"{name}_non_uniform"] = mean_and_error(np.array(values)[selected])[0]
    return result | {"random": {"auroc": 0.5, "precision_at_1": mean_and_error(chances)[0]}}


def auroc(score: Num[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float | None:
    """Returns the probability that a positive scores above a negative, ties counting half; None without both kinds.

    This is the Mann-Whitney statistic from ranks: `scipy.stats.mannwhitneyu` also computes a p-value, which takes ten
    times as long.
    """
    hits = int(positive.sum())
    misses = len(positive) - hits
    if not hits or not misses:
        return None
    return float((stats.rankdata(score)[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def precision_at_1(score: Num[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Returns the probability that the highest score is a positive's, ties being broken at random."""
    return float(positive[score == score.max()].mean())


def mean_and_error(values: Sequence[float] | Num[np.ndarray, " n"]) -> tuple[float | None, float | None]:
    """Returns the mean and 1.96 standard errors; the mean of no values and the error of fewer than two are None."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(1.96 * stats.sem(values)) if len(values) > 1 else None


# ---------------------------------------------------------------- the teacher


def gaps(applied: Applied, rollouts: Rollouts, values: Float[np.ndarray, "N T"] | None = None) -> dict[str, Any]:
    """Summarises the gap in nats over the tokens of correct and of failed rows with a context.

    Args:
      values: a gap in place of the method's own, such as that of the null control [N, T].

    Returns:
      `quantiles`, the levels; and for `correct` and `failed` the number of `tokens`, the summary of `all` of them and that
      of each tenth of the response (`by_position`). A summary holds `mean_absolute`, the mean of |gap| over rows with its
      `mean_absolute_error` (1.96 standard errors; the tokens of a row are not independent), `above_tau`, the share of
      tokens with |gap| > TAU, and the gap's `quantiles`; it is None where there are no tokens.
    """
    values = applied.logprobs.gap if values is None else values
    length = np.maximum(rollouts.mask.sum(axis=1, keepdims=True), 1)
    tenth = np.minimum(np.arange(values.shape[1]) * POSITIONS // length, POSITIONS - 1).astype(int)
    result = {"quantiles": list(QUANTILES)}
    for name, rows in (("correct", rollouts.correct), ("failed", ~rollouts.correct)):
        selected = (rollouts.mask > 0) & (applied.logprobs.scored & rows)[:, None]
        result[name] = {
            "tokens": int(selected.sum()),
            "all": _summary(values, selected),
            "by_position": [_summary(values, selected & (tenth == position)) for position in range(POSITIONS)],
        }
    return result


def _summary(values: Float[np.ndarray, "N T"], selected: Bool[np.ndarray, "N T"]) -> dict[str, Any] | None:
    if not selected.any():
        return None
    sizes, counts = np.abs(values, dtype=np.float64), selected.sum(axis=1)
    row_means = (sizes * selected).sum(axis=1)[counts > 0] / counts[counts > 0]
    mean, error = mean_and_error(row_means)
    return {
        "mean_absolute": mean,
        "mean_absolute_error": error,
        "above_tau": float((sizes[selected] > TAU).mean()),
        "quantiles": np.quantile(values[selected], QUANTILES).astype(float).tolist(),
    }


def gap_at_error(
    gap: Float[np.ndarray, "N T"], rollouts: Rollouts, scored: Bool[np.ndarray, " N"]
) -> dict[str, float | int | None]:
    """Compares the gap inside the first error of failed rows with that of their other tokens.

    Args:
      gap: in nats [N, T].
      rollouts: N rows.
      scored: rows with a context.

    Returns:
      `rows`, their number; `wrong` and `elsewhere`, the means over rows of a row's mean gap in nats, each with `_error`, 1.96
      standard errors. A row whose tokens are all wrong is left out.
    """
    wrong, elsewhere = [], []
    for i in np.flatnonzero(scored & (rollouts.first_error[:, 0] >= 0)):
        inside = np.zeros(gap.shape[1], bool)
        inside[slice(*rollouts.first_error[i])] = True
        real = rollouts.mask[i] > 0
        if (inside & real).any() and (real & ~inside).any():
            wrong.append(float(gap[i][inside & real].mean()))
            elsewhere.append(float(gap[i][real & ~inside].mean()))
    result = {"rows": len(wrong)}
    for name, means in (("wrong", wrong), ("elsewhere", elsewhere)):
        result[name], result[f"{name}_error"] = mean_and_error(means)
    return result


def leak(applied: Applied, rollouts: Rollouts) -> dict[str, float | None]:
    """Measures how much of the reference solution the teacher's contexts contain, as means over rows with a context.

    `states_answer`: the share of contexts that state the final answer. `reference_tokens`, `reference_trigrams`: the share
    of the reference solution's tokens, or runs of three tokens, that occur in the context, each counted as often as it
    occurs there (ROUGE recall; the two lengths are our choice). None without a context or a reference.
    """
    tokenizer, states, recall = applied.experiment.tokenizer, [], {1: [], 3: []}
    for i in applied.contexts.rows.tolist():
        problem, text = rollouts.problems[i], applied.contexts.text[i]
        states.append(applied.experiment.task.states_answer(problem, text))
        if problem.reference:
            ids = [tokenizer.encode(part, add_special_tokens=False) for part in (text, problem.reference)]
            for n, shares in recall.items():
                context, reference = (Counter(zip(*(part[k:] for k in range(n)), strict=False)) for part in ids)
                if reference:
                    shares.append((context & reference).total() / reference.total())
    return {
        "states_answer": mean_and_error(states)[0],
        "reference_tokens": mean_and_error(recall[1])[0],
        "reference_trigrams": mean_and_error(recall[3])[0],
    }


# ---------------------------------------------------------------- rows and tokens that receive a signal


def ledger(applied: Applied, rollouts: Rollouts, digits: Bool[np.ndarray, "N T"]) -> dict:
    """Counts rows and tokens. The entries of `status` add up to the number of rows; most say why a row has no context.

    `truncated`: responses cut off at the length limit. `zero_advantage`: rows whose advantage is 0.
    `changed`, `changed_tokens`: rows and tokens whose credit differs from the row's advantage. `silent`: rows whose credit
    is 0 at every token. `digit_tokens`, `changed_digit_tokens`: those of all tokens and of the changed ones that have a digit.
    """
    credit, changed = applied.credit, added(applied.credit, trained(applied, rollouts)) != 0
    return {
        "rows": len(rollouts.text),
        "status": dict(Counter(applied.contexts.status).most_common()),
        "with_context": len(applied.contexts.rows),
        "truncated": rollouts.finish_reason.count("length"),
        "zero_advantage": int((credit.advantage == 0).sum()),
        "changed": int(changed.any(axis=1).sum()),
        "silent": int((~(credit.token_advantage != 0).any(axis=1)).sum()),
        "tokens": int(rollouts.mask.sum()),
        "changed_tokens": int(changed.sum()),
        "digit_tokens": int(digits.sum()),
        "changed_digit_tokens": int((changed & digits).sum()),
    }
