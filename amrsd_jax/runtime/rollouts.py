"""Rollouts of a step as a Parquet file: text, verdict, reflection, and what every token was credited with."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from amrsd_jax.policy.tokenizer import token_texts
from amrsd_jax.records import Made
from amrsd_jax.tasks.base import Task


def write_rollouts(
    path: Path, step: int, group: int, task: Task, tokenizer: PreTrainedTokenizerBase, made: Made
) -> None:
    """Writes a row per rollout; per-token columns are lists of the response's length.

    logp_student is the sampler's where no teacher pass was made; logp_teacher, gap and entropy are null there.
    first_error_start and _end are token indices of the first wrong step, -1 where there is none or it is not known.
    """
    rollouts, reflections, scores, credit = made.rollouts, made.reflections, made.scores, made.credit
    rows = []
    for i, problem in enumerate(rollouts.problems):
        n = int(rollouts.mask[i].sum())
        tokens = rollouts.response[i, :n].tolist()
        pieces = token_texts(tokenizer, tokens)
        error = None if rollouts.verdicts[i].correct else task.first_error(problem, rollouts.text[i])
        start, end = token_span(pieces, error)
        scored = bool(scores.scored[i])
        student = scores.logp_student[i, :n] if scored else rollouts.logp[i, :n]
        teacher = scores.logp_teacher[i, :n]
        rows.append(
            {
                "step": step, "row": i, "group": i // group,
                "problem_id": problem.id, "question": problem.question, "answer": problem.answer,
                "response": rollouts.text[i], "reward": float(rollouts.reward[i]),
                "verdict": rollouts.verdicts[i].message, "finish_reason": rollouts.finish_reason[i],
                "advantage": float(credit.advantage[i]),
                "reflection_kind": reflections.kind[i], "reflection_status": reflections.status[i],
                "reflection": reflections.text[i],
                "tokens": tokens, "token_text": pieces,
                "logp_student": student.tolist(),
                "logp_teacher": teacher.tolist() if scored else None,
                "gap": (teacher - student).tolist() if scored else None,
                "token_advantage": np.asarray(credit.token_advantage)[i, :n].tolist(),
                "entropy": scores.entropy[i, :n].tolist() if scored else None,
                "first_error_start": start, "first_error_end": end,
            }
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), draft)
    draft.replace(path)


def token_span(pieces: list[str], span: tuple[int, int] | None) -> tuple[int, int]:
    """Token indices [start, end) of a span of characters; (-1, -1) if there is no span or it lies beyond the last token."""
    if span is None:
        return -1, -1
    ends = np.cumsum([len(piece) for piece in pieces])
    start, end = (
        int(np.searchsorted(ends, span[0], side="right")),
        int(np.searchsorted(ends, span[1], side="left")) + 1,
    )
    return (start, min(end, len(pieces))) if start < len(pieces) else (-1, -1)


_TEXT = (
    "problem_id", "question", "answer", "response", "verdict", "finish_reason",
    "reflection_kind", "reflection_status", "reflection",
)  # fmt: skip
_FLOATS = ("logp_student", "logp_teacher", "gap", "token_advantage", "entropy")
_SCHEMA = pa.schema(
    [(name, pa.int32()) for name in ("step", "row", "group", "first_error_start", "first_error_end")]
    + [(name, pa.string()) for name in _TEXT]
    + [("reward", pa.float32()), ("advantage", pa.float32())]
    + [("tokens", pa.list_(pa.int32())), ("token_text", pa.list_(pa.string()))]
    + [(name, pa.list_(pa.float32())) for name in _FLOATS]
)
