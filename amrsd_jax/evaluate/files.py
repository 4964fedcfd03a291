"""What an evaluation leaves: every answer as Parquet, the metrics as JSON, a table for a person."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from amrsd_jax.evaluate.answers import Answer
from amrsd_jax.evaluate.benchmarks import Benchmark
from amrsd_jax.evaluate.statistics import ks
from amrsd_jax.processes import only_first

Record = dict[str, dict[str, Any]]  # benchmark to {"settings": ..., "metrics": ...}


@only_first
def write_answers(path: Path, benchmark: Benchmark, answers: list[Answer]) -> None:
    """Writes a row for every answer, on process 0.

    A question's id is unique in its benchmark and for rows of a data set ends with the number of the row in `source`.
    `parsed` is null where nothing could be read; `scores` holds the verdict's further scores by name.
    """
    source = benchmark.source["args"].get("train" if benchmark.split == "validation" else "test")
    rows = [
        {
            "benchmark": benchmark.name, "source": source or benchmark.source["name"],
            "question_id": answer.problem.id, "question": answer.problem.question, "gold": answer.problem.answer,
            "mode": answer.mode, "sample": answer.sample, "text": answer.text, "parsed": answer.verdict.parsed,
            "reward": answer.verdict.reward, "scores": list(answer.verdict.scores.items()),
            "format_ok": answer.verdict.format_ok, "verdict": answer.verdict.message,
            "tokens": answer.tokens, "finish_reason": answer.finish_reason,
        }
        for answer in answers
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), draft)
    draft.replace(path)


_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("benchmark", "source", "question_id", "question", "gold", "mode")]
    + [("sample", pa.int32()), ("text", pa.string()), ("parsed", pa.string()), ("reward", pa.float32())]
    + [("scores", pa.map_(pa.string(), pa.float32())), ("format_ok", pa.bool_()), ("verdict", pa.string())]
    + [("tokens", pa.int32()), ("finish_reason", pa.string())]
)


def read_record(folder: Path) -> Record:
    """The benchmarks that a folder holds, {} for a new one.

    Raises:
      ValueError: its evaluation.json cannot be read.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def write_record(folder: Path, record: Record) -> None:
    """Writes evaluation.json, and evaluation.md beside it."""
    for name, text in (("evaluation.json", json.dumps(record, indent=2) + "\n"), ("evaluation.md", markdown(record))):
        draft = folder / f"{name}.tmp"
        draft.write_text(text)
        draft.replace(folder / name)


def markdown(record: Record) -> str:
    """The record as a table, a row a benchmark, with 95 % intervals; and below it what was asked of whom."""
    rows = [_cells(name, done["metrics"]) for name, done in record.items()]
    columns = sorted({column for row in rows for column in row})
    lines = [[heading for *_, heading in columns], ["---"] * len(columns)]
    lines += [[row.get(column, "") for column in columns] for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n".join(_told(name, done) for name, done in record.items()) + "\n"


def _cells(name: str, metrics: dict[str, float]) -> dict[tuple[int, int, str], str]:
    """One row by column: its place, the K of pass@K, its heading."""
    k = metrics["samples"]
    cells = {(0, 0, "benchmark"): name, (1, 0, "questions"): f"{metrics['n']}", (2, 0, "k"): f"{k}"}
    shown = {(3, 0, "avg@k"): "sampled", (5, 0, "maj@k"): f"maj_at_{k}", (6, 0, "greedy"): "greedy"}
    shown |= {(4, several, f"pass@{several}"): f"pass_at_{several}" for several in ks(k)}
    shown |= {(9, 0, metric.removeprefix("score_")): metric for metric in metrics if metric.startswith("score_")}
    for column, metric in shown.items():
        if f"{metric}_low" in metrics:
            cells[column] = f"{metrics[metric]:.3f} ({metrics[f'{metric}_low']:.3f} to {metrics[f'{metric}_high']:.3f})"
    cells[7, 0, "tokens"] = f"{metrics['length']:.0f}"
    return cells | {(8, 0, share): f"{metrics[share]:.1%}" for share in ("truncated", "format", "timeouts")}


def _told(name: str, done: dict[str, Any]) -> str:
    asked, metrics = done["settings"], done["metrics"]
    left_out = f"; {metrics['too_long']} questions left out, their prompts are too long" if metrics["too_long"] else ""
    return (
        f"- {name}: {asked['checkpoint']}, {metrics['samples']} samples at temperature {asked['temperature']}, top-p "
        f"{asked['top_p']}, top-k {asked['top_k']}, at most {asked['response_length']} tokens, seed {asked['seed']}{left_out}"
    )
