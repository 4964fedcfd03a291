"""Writes and reads the rollouts of a step as a Parquet file: text, verdict, reflection, and the credit of every token."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amrsd_jax.files import atomic_write
from amrsd_jax.names import first_line
from amrsd_jax.policy.tokenizer import Tokenizer, token_texts
from amrsd_jax.processes import only_first
from amrsd_jax.records import StepRecord


@only_first
def write_rollouts(path: Path, step: int, group: int, tokenizer: Tokenizer, record: StepRecord) -> list[dict[str, Any]]:
    """Writes a row per rollout, and returns the rows; per-token columns are lists of the response's length.

    `null_gap` is there if it was measured, and `data_set`, the name of the problem's set, in a run on a mixture.
    student_logprobs is the sampler's where no teacher pass was made; teacher_logprobs, gap and student_entropy are null there.
    first_error_start and first_error_end are token indices, -1 where there is no wrong step or it is not known.
    """
    rollouts, contexts, logprobs, credit = record.rollouts, record.contexts, record.logprobs, record.credit
    rows = []
    for i, problem in enumerate(rollouts.problems):
        n = int(rollouts.mask[i].sum())
        tokens, scored = rollouts.response[i, :n].tolist(), bool(logprobs.scored[i])
        student = logprobs.student_logprobs if scored else rollouts.sampler_logprobs

        def if_scored(values, i=i, n=n, scored=scored):
            return values[i, :n].tolist() if scored else None

        rows.append(
            {
                "step": step, "row": i, "group": i // group,
                "problem_id": problem.id, "question": problem.question, "answer": problem.answer,
                "response": rollouts.text[i], "reward": float(rollouts.reward[i]),
                "verdict": rollouts.verdicts[i].message, "finish_reason": rollouts.finish_reason[i],
                "scores": list(rollouts.verdicts[i].scores.items()),
                "advantage": float(credit.advantage[i]),
                "reflection_kind": contexts.kind[i], "reflection_status": contexts.status[i],
                "reflection": contexts.text[i],
                "tokens": tokens, "token_text": token_texts(tokenizer, tokens),
                "student_logprobs": student[i, :n].tolist(),
                "teacher_logprobs": if_scored(logprobs.teacher_logprobs),
                "gap": if_scored(logprobs.gap),
                "token_advantage": np.asarray(credit.token_advantage)[i, :n].tolist(),
                "student_entropy": if_scored(logprobs.student_entropy),
                "first_error_start": int(rollouts.first_error[i, 0]), "first_error_end": int(rollouts.first_error[i, 1]),
            }
        )  # fmt: skip
        if record.null_gap is not None:
            rows[i]["null_gap"] = if_scored(record.null_gap)
        if problem.data_set:
            rows[i]["data_set"] = problem.data_set
    optional = (pa.field("null_gap", pa.list_(pa.float32())), pa.field("data_set", pa.string()))
    schema = pa.schema([*SCHEMA, *(field for field in optional if field.name in rows[0])])
    atomic_write(path, lambda draft: pq.write_table(pa.Table.from_pylist(rows, schema=schema), draft))
    return rows


_TEXT = (
    "problem_id", "question", "answer", "response", "verdict", "finish_reason",
    "reflection_kind", "reflection_status", "reflection",
)  # fmt: skip
_FLOATS = ("student_logprobs", "teacher_logprobs", "gap", "token_advantage", "student_entropy")
_NULL_WHERE_NOT_SCORED = ("teacher_logprobs", "gap", "student_entropy")
SCHEMA = pa.schema(
    [(name, pa.int32()) for name in ("step", "row", "group", "first_error_start", "first_error_end")]
    + [(name, pa.string()) for name in _TEXT]
    + [("scores", pa.map_(pa.string(), pa.float32()))]  # the verifier's further scores, by name
    + [("reward", pa.float32()), ("advantage", pa.float32())]
    + [("tokens", pa.list_(pa.int32())), ("token_text", pa.list_(pa.string()))]
    + [(name, pa.list_(pa.float32())) for name in _FLOATS]
)


def rollout_files(workdir: Path) -> dict[int, Path]:
    """Returns the files of a workdir's rollouts by their step, ascending."""
    files = {}
    for path in (workdir / "rollouts").glob("step_*.parquet"):
        if match := re.fullmatch(r"step_(\d+)", path.stem):
            files[int(match[1])] = path
    return dict(sorted(files.items()))


def unreadable(path: Path) -> str:
    """Returns why a file of rollouts cannot be opened, for example because it is half-written; "" for a whole one."""
    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        return f"{path}: not a Parquet file ({first_line(error)})"
    return ""


def read_rollouts(path: Path) -> pa.Table:
    """Returns the rows of a file of rollouts.

    Raises:
      ValueError: it is not a Parquet file, has no rows, or lacks a column or a value; the message names the file.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {first_line(error)}") from error
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise ValueError(f"{path}: no column {', '.join(missing)}")
    if not table.num_rows:
        raise ValueError(f"{path}: no rows")
    required = (name for name in SCHEMA.names if name not in _NULL_WHERE_NOT_SCORED)
    if null := [name for name in required if table[name].null_count]:
        raise ValueError(f"{path}: null in column {', '.join(null)}")
    return table
