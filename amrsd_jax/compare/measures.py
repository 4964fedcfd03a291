"""What is measured of one method on frozen rollouts: where its credit lies, how far its teacher is away, what that leaks."""

from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer

from amrsd_jax.compare.apply import Applied
from amrsd_jax.compare.statistics import auroc, mean_and_error, precision_at_1, top_share
from amrsd_jax.policy.tokenizer import Tokenizer
from amrsd_jax.records import Credit, Rollouts
from amrsd_jax.reflection.parse import states_answer
from amrsd_jax.tasks.verify import token_span

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
POSITIONS = 10  # deciles of the response
_ROUNDING = 1e-6  # of the advantage: less is no credit of a token's own


def describe(applied: Applied, rollouts: Rollouts, answers: Bool[np.ndarray, "N T"]) -> dict:
    """All measures of one method, ready for JSON.

    Args:
      applied: the method on the rollouts.
      rollouts: N rows.
      answers: tokens that state the final answer, from `answer_tokens`.
    """
    config = applied.run.config
    return {
        "rule": applied.run.rule.name,
        "context": config.credit.context,
        "teacher": config.teacher.kind,
        "teacher_parameters": applied.teacher,
        "args": config.credit.args.to_dict(),
        "concentration": {
            "credit": concentration(applied.credit.token_advantage, rollouts, answers),
            "added": concentration(added(applied.credit, rollouts), rollouts, answers),
        },
        "gap": gaps(applied, rollouts),
        "leak": leak(applied, rollouts),
        "ledger": ledger(applied, rollouts),
        "first_error": first_error(applied.credit.token_advantage, rollouts),
        "first_error_by_gap": first_error(
            applied.scores.logp_teacher - applied.scores.logp_student, rollouts, applied.scores.scored
        ),
    }


# ---------------------------------------------------------------- credit


def added(credit: Credit, rollouts: Rollouts) -> Float[np.ndarray, "N T"]:
    """What a method adds to GRPO: its token's advantage less its row's; differences of rounding are 0."""
    advantage = credit.advantage[:, None]
    difference = credit.token_advantage - advantage * rollouts.mask
    return np.where(np.abs(difference) <= _ROUNDING * np.maximum(1, np.abs(advantage)), 0, difference)


def concentration(
    values: Float[np.ndarray, "N T"], rollouts: Rollouts, answers: Bool[np.ndarray, "N T"]
) -> dict[str, float | None]:
    """Share of |values| in the largest 1 % and 10 % of all tokens, and on the final answer; None where all are 0."""
    size = np.abs(np.asarray(values, np.float64)) * rollouts.mask
    flat, total = size[rollouts.mask > 0], size.sum()
    return {
        "top_1_percent": top_share(flat, 0.01),
        "top_10_percent": top_share(flat, 0.1),
        "answer": float(size[answers].sum() / total) if total else None,
    }


def answer_tokens(rollouts: Rollouts, tokenizer: Tokenizer) -> Bool[np.ndarray, "N T"]:
    """Tokens of the last line of every response that ended by itself: where verifiers look for the answer."""
    found = np.zeros(rollouts.mask.shape, bool)
    for i, text in enumerate(rollouts.text):
        if rollouts.finish_reason[i] == "stop" and text.strip():
            end = len(text.rstrip())
            span = text.rfind("\n", 0, end) + 1, end
            tokens = rollouts.response[i, : int(rollouts.mask[i].sum())].tolist()
            found[i, slice(*token_span(tokenizer, tokens, span))] = True
    return found & (rollouts.mask > 0)


def first_error(
    credit: Float[np.ndarray, "N T"], rollouts: Rollouts, rows: Bool[np.ndarray, " N"] | None = None
) -> dict[str, dict] | None:
    """How well blame, -credit, finds the first wrong token (`token`) and its whole step (`step`); None if none is known.

    Means over failed rows whose first error is known, and `_told` over those of them in which credit tells tokens apart;
    `error` is 1.96 standard errors. `random` is what a guess would get. The teacher's gap in place of credit says how well
    the signal finds it, before the rule.

    Args:
      credit: [N, T].
      rollouts: N rows.
      rows: those that count; None counts all.
    """
    known = np.flatnonzero((rollouts.first_error[:, 0] >= 0) & (True if rows is None else rows))
    if not len(known):
        return None
    return {
        name: _localisation(credit, rollouts.mask, known, np.stack([start, stop(start, end)], axis=1))
        for start, end in [rollouts.first_error.T]
        for name, stop in (("token", lambda start, end: start + 1), ("step", lambda start, end: end))
    }


def _localisation(credit, mask, known, spans: Integer[np.ndarray, "N 2"]) -> dict:
    areas, hits, chances, told = [], [], [], []
    for i in known:
        blame = -credit[i, : int(mask[i].sum())]
        wrong = np.zeros(len(blame), bool)
        wrong[slice(*spans[i])] = True
        if (area := auroc(blame, wrong)) is not None:
            areas.append(area)
            hits.append(precision_at_1(blame, wrong))
            chances.append(wrong.mean())
            told.append(np.ptp(blame) > _ROUNDING)
    areas, hits, told = np.array(areas, float), np.array(hits, float), np.array(told, bool)
    result = {"rows": len(areas), "rows_told": int(told.sum())}
    for name, values in (("auroc", areas), ("precision_at_1", hits)):
        result[name], result[f"{name}_error"] = mean_and_error(values)
        result[f"{name}_told"] = mean_and_error(values[told])[0]
    return result | {"random": {"auroc": 0.5, "precision_at_1": mean_and_error(np.array(chances, float))[0]}}


# ---------------------------------------------------------------- the teacher


def gaps(applied: Applied, rollouts: Rollouts) -> dict[str, Any]:
    """Quantiles of l_T - l_S in nats over tokens, for correct and failed rows with a context: in all, and by position.

    A position is a tenth of the response; one without a token has no quantiles.
    """
    gap = applied.scores.logp_teacher - applied.scores.logp_student
    length = np.maximum(rollouts.mask.sum(axis=1, keepdims=True), 1)
    decile = np.minimum(np.arange(gap.shape[1]) * POSITIONS // length, POSITIONS - 1).astype(int)
    correct = np.array([verdict.correct for verdict in rollouts.verdicts])
    result = {"quantiles": list(QUANTILES)}
    for name, rows in (("correct", correct), ("failed", ~correct)):
        of = (rollouts.mask > 0) & (applied.scores.scored & rows)[:, None]
        result[name] = {
            "tokens": int(of.sum()),
            "all": _quantiles(gap[of]),
            "by_position": [_quantiles(gap[of & (decile == d)]) for d in range(POSITIONS)],
        }
    return result


def _quantiles(values) -> list[float] | None:
    return np.quantile(values, QUANTILES).astype(float).tolist() if len(values) else None


def leak(applied: Applied, rollouts: Rollouts) -> dict[str, float | None]:
    """How much of the gold solution the teacher's contexts hold, as means over rows with a context.

    `states_answer`: they state the final answer. `reference_tokens`, `reference_trigrams`: share of the reference
    solution's tokens, or runs of three, that occur in the context, each as often as it does there (ROUGE recall; which
    lengths is our choice). None without a context or a reference.
    """
    tokenizer, stated, overlap = applied.run.tokenizer, [], {1: [], 3: []}
    for i in applied.contexts.rows.tolist():
        problem, text = rollouts.problems[i], applied.contexts.text[i]
        stated.append(states_answer(text, problem.answer))
        if problem.reference:
            ids = [tokenizer.encode(part, add_special_tokens=False) for part in (text, problem.reference)]
            for n, shares in overlap.items():
                context, reference = (Counter(zip(*(part[k:] for k in range(n)), strict=False)) for part in ids)
                if reference:
                    shares.append((context & reference).total() / reference.total())
    return {
        "states_answer": mean_and_error(np.array(stated, float))[0],
        "reference_tokens": mean_and_error(np.array(overlap[1], float))[0],
        "reference_trigrams": mean_and_error(np.array(overlap[3], float))[0],
    }


# ---------------------------------------------------------------- where the signal went


def ledger(applied: Applied, rollouts: Rollouts) -> dict:
    """Counts of rows and tokens. The entries of `status` add up to the rows, and say why a row has no context.

    `truncated`: responses cut by the length limit. `zero_advantage`: rows of groups with equal rewards. `changed`: rows,
    and tokens, whose credit is not the row's advantage. `silent`: rows that teach nothing.
    """
    credit, own = applied.credit, added(applied.credit, rollouts) != 0
    return {
        "rows": len(rollouts.text),
        "status": dict(Counter(applied.contexts.status).most_common()),
        "with_context": len(applied.contexts.rows),
        "truncated": rollouts.finish_reason.count("length"),
        "zero_advantage": int((credit.advantage == 0).sum()),
        "changed": int(own.any(axis=1).sum()),
        "silent": int((~(credit.token_advantage != 0).any(axis=1)).sum()),
        "tokens": int(rollouts.mask.sum()),
        "changed_tokens": int(own.sum()),
    }
