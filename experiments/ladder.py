"""Question: how often is SmolLM2-135M-Instruct right on each rung of the ladder before any training, and with which prompt?

Command:  python -m experiments.ladder run          (two CPU cores: about 15 minutes; needs what docs/real_models.md installs)
          python -m experiments.ladder table        (from experiments/results/ladder.json)
Measured: 32 held-out problems of a rung, four samples each of at most 24 tokens (40 for `steps`): shares of right answers,
          of those in which the verifier found none, of cut ones; problems whose four samples are neither all right nor all wrong.
"""

import json
import zlib
from pathlib import Path

import numpy as np

from amrsd_jax import config as configuration
from amrsd_jax import rng, start
from amrsd_jax.experiment import Experiment, make_experiment
from amrsd_jax.files import atomic_write
from amrsd_jax.markdown import table as markdown
from amrsd_jax.policy.tokenizer import chat_ids
from amrsd_jax.records import Problem, Request
from amrsd_jax.reflection.prompts import fill
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.sampling import SamplerParams, complete
from amrsd_jax.tasks.ladder import RUNGS, Ladder
from amrsd_jax.validate import validate
from experiments.common import Row, Study, add_rows, circumstances, group_by, has_row, main, where

MODEL = "smollm2-135m-instruct"
PROBLEMS, GROUP = 32, 4
TOKENS = {"steps": 40}  # of an answer; 24 on other rungs
EXAMPLE = "What is 1 + 3? 1 + 3 = 4.\n{question}"
CELLS = [  # rung, prompt, temperature; a rung's own instruction is the first prompt
    *((name, f"{{question}} {rung.instruction}", 0.8) for name, rung in RUNGS.items()),
    ("sums", EXAMPLE, 0.8),
    *((name, "{question}", 0.8) for name in RUNGS),
    *((name, f"{{question}} {rung.instruction}", 1.0) for name, rung in RUNGS.items()),
]


def run(out: Path, results: Path) -> None:
    """Adds the cells that the results lack. Samples are kept in `out` and not drawn again."""
    experiment = params = None
    for rung, prompt, temperature in CELLS:
        key = {"rung": rung, "prompt": prompt, "temperature": temperature}
        if has_row(results, **key):
            continue
        drawn = out / f"{rung}_{prompt_name(prompt)}_{temperature}.json"
        if not drawn.exists():
            if experiment is None:
                experiment, params = load(out)
            atomic_write(drawn, json.dumps(sample(experiment, params, **key)))
        add_rows(results, key | measure(rung, json.loads(drawn.read_text())) | circumstances())


def prompt_name(prompt: str) -> str:
    """Returns a prompt as part of a file's name."""
    return f"{zlib.crc32(prompt.encode()):08x}"


def load(out: Path) -> tuple[Experiment, SamplerParams]:
    """Returns the experiment and what its sampler reads."""
    config = configuration.base()
    config.model, config.task.name = MODEL, "ladder"
    config.rollout.update(group=GROUP, prompt_length=96, response_length=40, slots=32, admit=8, segment=8)
    experiment = make_experiment(validate(config), out)
    return experiment, experiment.sampler_params(start.initial_params(experiment, out, Clock()))


def sample(
    experiment: Experiment, params: SamplerParams, rung: str, prompt: str, temperature: float
) -> list[list[tuple[str, bool]]]:
    """Returns the answers to each problem of a rung, and whether the limit cut them."""
    requests, instruction = [], RUNGS[rung].instruction
    for number, problem in enumerate(problems(rung)):
        asked = fill(prompt, question=problem.question.removesuffix(f" {instruction}"))
        messages = [{"role": "system", "content": experiment.templates[""].system}, {"role": "user", "content": asked}]
        requests.append(
            Request(
                chat_ids(experiment.tokenizer, messages),
                row=number * GROUP,
                count=GROUP,
                temperature=temperature,
                new_tokens=TOKENS.get(rung, 24),
                tag=number,
            )
        )
    answers = [[None] * GROUP for _ in requests]
    key = rng.key(0, "experiments/ladder", 0)
    for completion in complete(experiment.policy, experiment.samplers["rollout"], params, requests, key):
        text = experiment.tokenizer.decode(completion.tokens, skip_special_tokens=True)
        answers[completion.request.tag][completion.index] = (text, completion.finish_reason == "length")
    return answers


def problems(rung: str) -> list[Problem]:
    """Returns the held-out problems of a rung."""
    return [Ladder(rung).problem("test", index) for index in range(PROBLEMS)]


def measure(rung: str, answers: list[list[tuple[str, bool]]]) -> Row:
    """Returns the counts of the answers to each problem, and the first answers to four of them."""
    task = Ladder(rung)
    verdicts = [
        [task.verify(problem, text) for text, _ in texts]
        for problem, texts in zip(problems(rung), answers, strict=True)
    ]
    right = np.array([[verdict.correct for verdict in group] for group in verdicts])
    return {
        "samples": right.size,
        "right": int(right.sum()),
        "unread": sum(verdict.parsed is None for group in verdicts for verdict in group),
        "cut": sum(cut for group in answers for _, cut in group),
        "mixed": int((right.any(axis=1) & ~right.all(axis=1)).sum()),
        "texts": [[answers[i][0][0], verdicts[i][0].message] for i in range(4)],
    }


def table(rows: list[Row]) -> str:
    """Formats a line per rung, prompt and temperature."""
    lines = []
    for (rung,), cells in group_by(rows, "rung").items():
        for row in cells:
            shares = [f"{row[name] / row['samples']:.3f}" for name in ("right", "unread", "cut")]
            asked = row["prompt"].replace("\n", " ⏎ ").replace("{question}", "…")
            lines.append([rung, asked, row["temperature"], *shares, f"{row['mixed']}/{PROBLEMS}"])
    columns = ["rung", "prompt", "temperature", "right", "no answer found", "cut", "problems with both"]
    return f"{markdown(columns, lines)}\n\n{rows[0]['samples']} samples a line; {where(rows[0])}."


STUDY = Study("ladder", run, table, page="docs/ladder.md")

if __name__ == "__main__":
    main(STUDY, __doc__)
