"""Writes the files of an evaluation: answers as Parquet, metrics as JSON, and a Markdown table."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from amrsd_jax.evaluate.answers import Answer
from amrsd_jax.evaluate.benchmarks import Benchmark
from amrsd_jax.evaluate.estimators import ks
from amrsd_jax.evaluate.measure import by_set
from amrsd_jax.files import atomic_write, read_object
from amrsd_jax.markdown import table
from amrsd_jax.processes import broadcast, is_first, only_first
from amrsd_jax.tasks import registry

_FINISHED = "finished.json"  # of an evaluation in training

Record = dict[str, dict[str, Any]]  # benchmark -> {"settings": ..., "metrics": ...}


@only_first
def write_answers(path: Path, benchmark: Benchmark, answers: list[Answer]) -> None:
    """Writes one row per answer, on process 0.

    A question's id is unique in its benchmark; for rows of a data set it ends with the number of the row in `source`.
    `parsed` is null where no answer was found; `scores` maps names to the verdict's further scores.
    """
    split = "train" if benchmark.split == "validation" else "test"
    sources = registry.data_sets(benchmark.source["name"], benchmark.source["args"])
    rows = [
        {
            "benchmark": benchmark.name,
            "source": sources[answer.problem.data_set][1].get(split) or sources[answer.problem.data_set][0],
            "question_id": answer.problem.id, "question": answer.problem.question, "gold": answer.problem.answer,
            "mode": answer.mode, "sample": answer.sample, "text": answer.text, "parsed": answer.verdict.parsed,
            "reward": answer.verdict.reward, "scores": list(answer.verdict.scores.items()),
            "format_ok": answer.verdict.format_ok, "verdict": answer.verdict.message,
            "tokens": answer.tokens, "finish_reason": answer.finish_reason,
        }
        for answer in answers
    ]  # fmt: skip
    atomic_write(path, lambda draft: pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), draft))


_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("benchmark", "source", "question_id", "question", "gold", "mode")]
    + [("sample", pa.int32()), ("text", pa.string()), ("parsed", pa.string()), ("reward", pa.float32())]
    + [("scores", pa.map_(pa.string(), pa.float32())), ("format_ok", pa.bool_()), ("verdict", pa.string())]
    + [("tokens", pa.int32()), ("finish_reason", pa.string())]
)


def read_finished(folder: Path) -> dict[str, dict[str, float]]:
    """Returns, on all processes, the metrics by benchmark that `write_finished` wrote; {} if none can be read."""
    finished = {}
    if is_first():
        with contextlib.suppress(OSError, ValueError):
            finished = read_object(folder / _FINISHED)
    return broadcast(finished)


@only_first
def write_finished(folder: Path, metrics: dict[str, dict[str, float]]) -> None:
    """Writes the metrics of the benchmarks that an evaluation has finished, so that one that is interrupted can continue."""
    atomic_write(folder / _FINISHED, json.dumps(metrics, indent=2) + "\n")


@only_first
def forget_finished(folder: Path, but: int | None = None) -> None:
    """Removes the files that `write_finished` wrote, except that of step `but`."""
    for path in folder.glob(f"step_*/{_FINISHED}"):
        if but is None or path.parent.name != f"step_{but:05d}":
            path.unlink()


def read_record(folder: Path) -> Record:
    """Reads the record of a folder; {} if there is none.

    Raises:
      ValueError: evaluation.json is damaged; the message names it.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        return {}
    record = read_object(path)
    if not all(
        isinstance(result, dict)
        and isinstance(result.get("settings"), dict)
        and isinstance(result.get("metrics"), dict)
        for result in record.values()
    ):
        raise ValueError(f"{path}: damaged: expected the settings and metrics of each benchmark")
    return record


def write_record(folder: Path, record: Record) -> None:
    """Writes evaluation.json and evaluation.md."""
    atomic_write(folder / "evaluation.json", json.dumps(record, indent=2) + "\n")
    atomic_write(folder / "evaluation.md", markdown(record))


def markdown(record: Record) -> str:
    """Formats the record as a table with 95 % intervals, and lists the settings below it.

    It has a row for each benchmark, and after that of a mixture one for each of its sets.
    """
    rows = [_cells(*own) for name, result in record.items() for own in by_set(name, result["metrics"]).items()]
    columns = sorted({column for row in rows for column in row})
    lines = [[row.get(column, "") for column in columns] for row in rows]
    settings = "\n".join(_settings(name, result) for name, result in record.items())
    return f"{table([heading for *_, heading in columns], lines)}\n\n{settings}\n"


def _cells(name: str, metrics: dict[str, float]) -> dict[tuple[int, int, str], str]:
    """Returns one row of the table; keys are (place of the column, K of pass@K, heading)."""
    k = metrics["samples"]
    cells = {(0, 0, "benchmark"): name, (1, 0, "questions"): f"{metrics['n']}", (2, 0, "k"): f"{k}"}
    estimates = {(3, 0, "avg@k"): "sampled", (5, 0, "maj@k"): f"maj_at_{k}", (6, 0, "greedy"): "greedy"}
    estimates |= {(4, several, f"pass@{several}"): f"pass_at_{several}" for several in ks(k)}
    estimates |= {(9, 0, metric.removeprefix("score_")): metric for metric in metrics if metric.startswith("score_")}
    for column, metric in estimates.items():
        if f"{metric}_low" in metrics:
            cells[column] = f"{metrics[metric]:.3f} ({metrics[f'{metric}_low']:.3f} to {metrics[f'{metric}_high']:.3f})"
    cells[7, 0, "tokens"] = f"{metrics['length']:.0f}"
    return cells | {(8, 0, share): f"{metrics[share]:.1%}" for share in ("truncated", "format", "timeouts")}


def _settings(name: str, result: dict[str, Any]) -> str:
    settings, metrics = result["settings"], result["metrics"]
    left_out = (
        f"; {metrics['too_long']} questions left out because their prompts are too long" if metrics["too_long"] else ""
    )
    return (
        f"- {name}: {settings['checkpoint']}, {metrics['samples']} samples at temperature {settings['temperature']}, "
        f"top-p {settings['top_p']}, top-k {settings['top_k']}, at most {settings['response_length']} tokens, "
        f"seed {settings['seed']}{left_out}"
    )
