"""Question: does a reflection tell SmolLM2, as a teacher, where an answer went wrong?

Command:  python -m experiments.information run         (about half an hour; needs what docs/real_models.md installs)
          python -m experiments.information table       (from experiments/results/information.json)
Arms:     the contexts that AMR-SD can have, all on the same 256 answers that SmolLM2 gave after its reflection warm-up: its own
          reflections, those on other answers, a correct peer, a reference solution, and the ladder's own reflections.
Control:  the teacher's prompt without any text, on the rows of its own reflections.
Measured: the gap l_T - l_S in nats in correct and failed answers, inside the first error of failures and elsewhere; AUROC of -gap
          for that error; the share of tokens whose credit AMR-SD changes, and the share of those that have a digit.
"""

from pathlib import Path

from amrsd_jax.compare.measures import mean_and_error
from amrsd_jax.markdown import table as markdown
from experiments.common import Row, Study, add_rows, circumstances, has_row, main, train, where

FLAGS = (
    "--config=configs/smollm2.py", "--config.steps=1", "--config.rollout.prompts=32", "--config.credit.exact_savings=False",
    "--config.evaluation.problems=8",
)  # fmt: skip
CONTEXTS = {
    "own reflection": "self_reflection", "reflection on another answer": "shuffled_reflection", "correct peer": "peer_solution",
    "reference solution": "reference_solution", "the ladder's reflection": "oracle_reflection",
}  # fmt: skip
NULL = "no text"


def run(out: Path, results: Path) -> None:
    """Samples the answers, and measures the contexts that the results lack."""
    from amrsd_jax.compare import apply_all, load, measures

    if all(has_row(results, context=name) for name in [*CONTEXTS, NULL]):
        return
    command = train(FLAGS, out / "run")
    loaded = load.load(out / "run", step=1)
    _, rollouts, applied = apply_all(loaded, [f"amrsd@{context}" for context in CONTEXTS.values()])
    digits = measures.digit_tokens(rollouts, loaded.experiment.tokenizer)

    def row(name, gap, scored, ledger):
        by_verdict = {}
        for verdict, rows in (("correct", rollouts.correct), ("failed", ~rollouts.correct)):
            means = [float(gap[i][rollouts.mask[i] > 0].mean()) for i in (scored & rows).nonzero()[0]]
            by_verdict[verdict] = dict(zip(("mean", "error"), mean_and_error(means), strict=True)) | {
                "rows": len(means)
            }
        return {
            "context": name, "command": command, "gap": by_verdict, "at_error": measures.gap_at_error(gap, rollouts, scored),
            "first_error": measures.first_error(gap, rollouts, scored), "ledger": ledger,
        } | circumstances()  # fmt: skip

    own = applied[0].logprobs.scored
    add_rows(
        results,
        row(NULL, applied[0].null_gap, own, None),
        *(
            row(name, one.logprobs.gap, one.logprobs.scored, measures.ledger(one, rollouts, digits))
            for name, one in zip(CONTEXTS, applied, strict=True)
        ),
    )


def table(rows: list[Row]) -> str:
    """Formats one line per context."""
    columns = [
        "context", "correct answers", "gap", "failures", "gap", "inside the error", "elsewhere",
        "AUROC, whole error", "failures", "AUROC, first token", "failures", "tokens changed", "of these with a digit",
    ]  # fmt: skip
    lines = []
    for row in rows:
        gap, inside, found, ledger = row["gap"], row["at_error"], row["first_error"], row["ledger"]
        cells = [row["context"]]
        for verdict in ("correct", "failed"):
            cells += [gap[verdict]["rows"], _cell(gap[verdict]["mean"], gap[verdict]["error"])]
        cells += [_cell(inside[name], inside[f"{name}_error"]) for name in ("wrong", "elsewhere")]
        for span in ("step", "token"):
            area = found[span] if found else {"auroc": None, "auroc_error": None, "rows": 0}
            cells += [_cell(area["auroc"], area["auroc_error"]).removeprefix("+"), area["rows"]]
        changed = ledger and ledger["changed_tokens"]
        cells.append(f"{changed / ledger['tokens']:.1%}" if ledger else "–")
        cells.append(f"{ledger['changed_digit_tokens'] / changed:.0%}" if changed else "–")
        lines.append(cells)
    shares = next(row["ledger"] for row in rows if row["ledger"])
    return (
        f"{markdown(columns, lines)}\n\nGaps are means over answers of the mean gap of a token, in nats, ± 1.96 standard errors; "
        f"AUROC of -gap for the tokens of the first error, where it is not the whole answer; a guess has 0.5; "
        f"{shares['digit_tokens'] / shares['tokens']:.0%} of all tokens have a digit; {where(rows[0])}."
    )


def _cell(value: float | None, error: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}" + (f" ± {error:.2f}" if error is not None else "")


STUDY = Study("information", run, table, page="docs/real_models.md")

if __name__ == "__main__":
    main(STUDY, __doc__)
