"""A small synthetic run with the files of a real one, in numbers that the tests can work out again."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq

from amrsd_jax.runtime.rollouts import SCHEMA

PHASES = {"warmup": 6.0, "sample": 40.0, "reflect": 22.0, "score": 8.0, "credit": 1.0, "update": 18.0, "evaluate": 5.0}
RESULTS = {
    "eval": {
        "initial": {"sampled": 0.204, "sampled_low": 0.17, "sampled_high": 0.243, "greedy": 0.25, "n": 500},
        "final": {"sampled": 0.618, "sampled_low": 0.574, "sampled_high": 0.66, "greedy": 0.654, "n": 500},
    },
    "steps": 40, "wall_seconds": 100.0, "seconds_by_phase": PHASES, "reflections_skipped": 0.375,
}  # fmt: skip
CONFIG = {"format": 2, "task": {"name": "arithmetic"}, "credit": {"rule": "amrsd", "args": {"tau": 0.3}}}
ENVIRONMENT = {"devices": "2 x cpu", "jax": "0.10.2", "commit": "0123456789ab+", "started": "2026-01-02T03:04:05"}


def train_record(step: int) -> dict:
    """Metrics of one step of a run that learns; its reflections end at step 30."""
    reflects, accuracy = step < 30, 0.2 + 0.01 * step
    return {
        "kind": "train", "step": step, "reward/mean": accuracy, "reward/std": 0.4, "reward/accuracy": accuracy,
        "reward/accuracy_low": accuracy - 0.04, "reward/accuracy_high": accuracy + 0.04,
        "response_length/mean": 42.0, "response_length/min": 30, "response_length/max": 60, "response_length/clip_ratio": 0.1,
        "groups/zero_advantage": 0.2, "policy/entropy": 0.9 - 0.01 * step, "policy/kl_old_new": 5e-4,
        "policy/sampler_mismatch": 3e-6, "reflection/needed": 0.7 * reflects, "reflection/usable": 0.8 if reflects else None,
        "reflection/unusable_no_tag": 0.1 * reflects, "reflection/unusable_leak": 0.02 * reflects,
        "reflection/unusable_empty": 0.0, "credit/gap_correct": 0.15 if reflects else None,
        "credit/gap_failed": -0.4 if reflects else None, "credit/delta": 0.06, "credit/lam": 0.2, "credit/gamma": 0.1,
        "credit/amplified": 0.2, "loss/total": -0.02, "grad_norm": 0.5, "learning_rate": 3e-6, "updates/skipped": 0,
        "seconds/step": 1.5, "seconds/sample": 0.7, "seconds/update": 0.3, "tokens/sampled_per_s": 9e3, "tokens/s": 4e3,
    }  # fmt: skip


def eval_record(step: int, accuracy: float) -> dict:
    record = {
        "kind": "eval",
        "step": step,
        "eval/length": 40.0,
        "eval/sampled": accuracy,
        "eval/greedy": accuracy + 0.03,
    }
    return record | {"eval/sampled_low": accuracy - 0.04, "eval/sampled_high": accuracy + 0.04}


def timeline_record(step: int) -> dict:
    """A step of ten seconds in stretches of 0.05: for 3 s all 32 slots have rollouts, then half; reflections from 4 s to 6 s."""
    return {
        "step": step, "seconds": 10.0, "slots": 32,
        "phases": [["sample", 0.01, 6.0], ["credit", 6.0, 6.02], ["reflect", 6.02, 6.5], ["credit", 7.7, 7.75],
                   ["update", 7.75, 9.8]],
        "beside": [["verify", 3.0, 3.25], ["reflect", 3.25, 3.5], ["verify", 4.0, 4.5]],
        "busy": {"rollouts": [32.0] * 60 + [16.0] * 60 + [0.0] * 80, "reflections": [0.0] * 80 + [12.0] * 40 + [0.0] * 80},
    }  # fmt: skip


def rollout(step: int, row: int, rng: random.Random) -> dict:
    """One row of 16 tokens: even rows are correct, odd ones have tokens 6 to 11 as their first wrong step."""
    correct, status = row % 2 == 0, ("ok", "ok", "no_tag", "not_needed")[row // 2 % 4]
    usable, number = status == "ok", str(rng.randint(11, 99))
    tokens = [
        number,
        " +",
        " 7",
        " =",
        " 50",
        "\n",
        "50",
        " *",
        " 3",
        " =",
        " 150",
        "\n",
        "Answer",
        ":",
        " 150",
        "<|end|>",
    ]
    advantage = 0.0 if status == "not_needed" else 0.9 if correct else -1.1
    gap = [-rng.uniform(1, 4) if t == 10 and not correct else rng.gauss(0.1, 0.4) for t in range(16)]
    student = [-rng.expovariate(3) for _ in tokens]
    return {
        "step": step, "row": row, "group": row // 4, "problem_id": f"sum-{row // 4}", "question": f"What is {number} + 7?",
        "answer": "150", "response": "".join(tokens), "reward": float(correct), "verdict": "right" if correct else "wrong",
        "finish_reason": "length" if row == 1 else "stop", "advantage": advantage, "scores": [],
        "reflection_kind": "hint" if correct else "critique", "reflection_status": status,
        "reflection": "The product is off." if usable else "", "tokens": list(range(16)), "token_text": tokens,
        "student_logprobs": student, "teacher_logprobs": [s + g for s, g in zip(student, gap, strict=True)] if usable else None,
        "gap": gap if usable else None, "token_advantage": [advantage * (1 + 0.2 * max(0, -g)) for g in gap],
        "student_entropy": [0.5 * abs(s) for s in student] if usable else None,
        "first_error_start": -1 if correct else 6, "first_error_end": -1 if correct else 12,
    }  # fmt: skip


def write_rollouts(workdir, step: int, rows: list[dict]) -> None:
    (workdir / "rollouts").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), workdir / "rollouts" / f"step_{step:05}.parquet")


def write_lines(path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
