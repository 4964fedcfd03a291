"""Rollouts of a step as a Parquet file: text, verdict, reflection, and what every token was credited with."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amrsd_jax.policy.tokenizer import Tokenizer, token_texts
from amrsd_jax.processes import only_first
from amrsd_jax.records import Made


@only_first
def write_rollouts(path: Path, step: int, group: int, tokenizer: Tokenizer, made: Made) -> None:
    """Writes a row per rollout, on process 0; per-token columns are lists of the response's length.

    logp_student is the sampler's where no teacher pass was made; logp_teacher, gap and entropy are null there.
    first_error_start and _end are token indices of the first wrong step, -1 where there is none or it is not known.
    """
    rollouts, contexts, scores, credit = made.rollouts, made.contexts, made.scores, made.credit
    rows = []
    for i, problem in enumerate(rollouts.problems):
        n = int(rollouts.mask[i].sum())
        tokens = rollouts.response[i, :n].tolist()
        pieces = token_texts(tokenizer, tokens)
        scored = bool(scores.scored[i])
        student = scores.logp_student[i, :n] if scored else rollouts.logp[i, :n]
        teacher = scores.logp_teacher[i, :n]
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
                "tokens": tokens, "token_text": pieces,
                "logp_student": student.tolist(),
                "logp_teacher": teacher.tolist() if scored else None,
                "gap": (teacher - student).tolist() if scored else None,
                "token_advantage": np.asarray(credit.token_advantage)[i, :n].tolist(),
                "entropy": scores.entropy[i, :n].tolist() if scored else None,
                "first_error_start": int(rollouts.first_error[i, 0]), "first_error_end": int(rollouts.first_error[i, 1]),
            }
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), draft)
    draft.replace(path)


_TEXT = (
    "problem_id", "question", "answer", "response", "verdict", "finish_reason",
    "reflection_kind", "reflection_status", "reflection",
)  # fmt: skip
_FLOATS = ("logp_student", "logp_teacher", "gap", "token_advantage", "entropy")
_SCHEMA = pa.schema(
    [(name, pa.int32()) for name in ("step", "row", "group", "first_error_start", "first_error_end")]
    + [(name, pa.string()) for name in _TEXT]
    + [("scores", pa.map_(pa.string(), pa.float32()))]  # the verifier's further scores, by name
    + [("reward", pa.float32()), ("advantage", pa.float32())]
    + [("tokens", pa.list_(pa.int32())), ("token_text", pa.list_(pa.string()))]
    + [(name, pa.list_(pa.float32())) for name in _FLOATS]
)
