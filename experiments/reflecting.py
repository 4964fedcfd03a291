"""Question: what makes a model of 135 M parameters write reflections that can be used, and are they about the attempt?

Command:  python -m experiments.reflecting run        (about half an hour; needs what docs/real_models.md installs)
          python -m experiments.reflecting table      (from experiments/results/reflecting.json)
Arms:     SmolLM2 asked as a large model is; then with the tag opened in its turn, whole sentences kept at the limit, the
          reflection warm-up, and a lower temperature, each on top of the ones before. One seed.
Measured: 128 reflections, one on each answer of the first step: shares that can be used, state the answer, or are cut; of the
          usable ones, shares that name something true of the attempt, or something untrue, by the ladder's own knowledge, share
          of three-word sequences copied from the prompt, and number of distinct texts.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from amrsd_jax.markdown import table as markdown
from experiments.common import Row, Study, add_rows, circumstances, has_row, main, train, where

COMMON = (
    "--config=configs/smollm2.py", "--config.steps=1", "--config.rollout.prompts=16", "--config.credit.exact_savings=False",
    "--config.evaluation.problems=8",
)  # fmt: skip
STEPS = {  # name of an arm: what it adds to the one before
    "as a large model is asked": {
        "open_tag": False, "keep_sentences": False, "warmup.attempts": 0, "temperature": 0.7, "tokens": 96,
    },
    "+ tag opened in its turn": {"open_tag": True},
    "+ whole sentences kept at the limit": {"keep_sentences": True, "tokens": 48},
    "+ reflection warm-up on 192 attempts": {"warmup.attempts": 192},
    "+ temperature 0.4": {"temperature": 0.4},
}  # fmt: skip


def arms() -> dict[str, list[str]]:
    """Returns the flags of every arm."""
    settings, result = {}, {}
    for name, changes in STEPS.items():
        settings |= changes
        result[name] = [*COMMON, *(f"--config.reflection.{field}={value}" for field, value in settings.items())]
    return result


def run(out: Path, results: Path) -> None:
    """Measures the arms that the results lack."""
    for number, (name, flags) in enumerate(arms().items()):
        if not has_row(results, arm=name):
            workdir = out / str(number)
            command = train(flags, workdir)
            add_rows(results, {"arm": name, "command": command} | measure(workdir) | circumstances())


def measure(workdir: Path) -> Row:
    """Returns what the reflections of a run's first step are."""
    from amrsd_jax.compare import load
    from amrsd_jax.reflection.reflections import reflection_request
    from amrsd_jax.runtime.rollouts import read_rollouts, rollout_files
    from amrsd_jax.tasks.ladder import judge

    loaded = load.load(workdir, step=1)
    rollouts, experiment = loaded.rollouts, loaded.experiment
    saved = read_rollouts(rollout_files(workdir)[1]).to_pylist()
    judged, texts = [], []
    for i, row in enumerate(saved):
        if row["reflection_status"] == "ok":
            request = reflection_request(experiment.context_settings, rollouts, i, i)
            prompt = experiment.tokenizer.decode(request.prompt, skip_special_tokens=True)
            judged.append(judge(rollouts.problems[i], rollouts.text[i], row["reflection"], prompt))
            texts.append(row["reflection"])
    return {
        "asked": len(saved),
        "correct": int(rollouts.correct.sum()),
        "status": dict(Counter(row["reflection_status"] for row in saved)),
        "true": sum(one.true for one in judged),
        "false": sum(one.false for one in judged),
        "copied": float(np.mean([one.copied for one in judged])) if judged else None,
        "distinct": len(set(texts)),
    }


def table(rows: list[Row]) -> str:
    """Formats one line per arm."""
    columns = ["setting", "usable", "leaks", "cut", "true of the attempt", "untrue", "copied", "distinct texts"]
    lines = []
    for row in rows:
        usable, asked = row["status"].get("ok", 0), row["asked"]
        shares = [row["status"].get(status, 0) / asked for status in ("ok", "leak", "truncated")]
        cells = [row["true"] / usable, row["false"] / usable, row["copied"]] if usable else [None] * 3
        lines.append(
            [
                row["arm"],
                *(f"{share:.0%}" for share in shares),
                *("–" if cell is None else f"{cell:.0%}" for cell in cells),
                f"{row['distinct']} of {usable}",
            ]
        )
    return f"{markdown(columns, lines)}\n\n{rows[0]['asked']} reflections a line; {where(rows[0])}."


STUDY = Study("reflecting", run, table, page="docs/real_models.md")

if __name__ == "__main__":
    main(STUDY, __doc__)
