"""A small synthetic run: every file of a workdir, with numbers that the tests can work out again."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq

PHASES = {
    "warmup": 6.0, "sample": 40.0, "verify": 2.0, "reflect": 20.0, "score": 8.0,
    "credit": 1.0, "learn": 18.0, "evaluate": 4.0, "checkpoint": 1.0,
}  # fmt: skip
RESULTS = {
    "eval": {
        "initial": {"sampled": 0.204, "sampled_low": 0.17, "sampled_high": 0.243, "greedy": 0.25, "n": 500},
        "final": {"sampled": 0.618, "sampled_low": 0.574, "sampled_high": 0.66, "greedy": 0.654, "n": 500},
    },
    "steps": 60,
    "wall_seconds": 100.0,
    "seconds_by_phase": PHASES,
    "savings": {"rows": 0.375},
}
CONFIG = {"seed": 0, "method": "amrsd", "task": {"name": "arithmetic", "digits": 3}, "credit": {"tau": 0.2}}


def train_record(step: int, rng: random.Random, steps: int = 60) -> dict:
    """Metrics of one step of a run that learns, with a little noise."""
    share = step / max(steps - 1, 1)
    accuracy = 0.2 + 0.4 * share**0.7 + rng.uniform(-0.03, 0.03)
    decay = max(0.0, 1 - step / 50)
    needed = 0.7 if decay else 0.0
    return {
        "kind": "train", "step": step,
        "rollout/reward": accuracy, "rollout/reward_sem": 0.02, "rollout/accuracy": accuracy,
        "rollout/accuracy_low": accuracy - 0.04, "rollout/accuracy_high": accuracy + 0.04,
        "rollout/length": 42 - 8 * share + rng.uniform(-1, 1), "rollout/truncated": 0.1 * (1 - share) ** 2,
        "rollout/flat_groups": 0.2 + 0.2 * share + rng.uniform(-0.04, 0.04),
        "policy/entropy": 0.9 - 0.5 * share + rng.uniform(-0.02, 0.02), "policy/kl": rng.uniform(1e-4, 9e-4),
        "policy/clip_low": rng.uniform(0, 0.01), "policy/clip_high": rng.uniform(0, 0.012),
        "policy/sampler_gap": rng.uniform(2e-6, 4e-6), "reflection/needed": needed,
        "reflection/usable": needed * 0.8, "reflection/fallback_no_tag": needed * 0.1,
        "reflection/fallback_leak": needed * 0.06, "reflection/fallback_empty": needed * 0.01,
        "reflection/fallback_truncated": needed * 0.03,
        "credit/gap_correct": 0.15 + rng.uniform(-0.05, 0.05) if decay else None,
        "credit/gap_failed": -0.4 + rng.uniform(-0.1, 0.1) if decay else None,
        "credit/delta": 0.06 * decay, "credit/lam": 0.2 * decay, "credit/gamma": 0.1 * decay,
        "credit/amplified": 0.2 * bool(decay), "loss/total": rng.uniform(-0.02, 0.02),
        "optimizer/grad_norm": rng.uniform(0.2, 1.1),
        "optimizer/learning_rate": 3e-6 * min(1, (step + 1) / 10),
        "optimizer/skipped": 0, "seconds/step": rng.uniform(1.4, 1.8), "seconds/sample": 0.7,
        "seconds/learn": 0.3, "throughput/sampled_tokens_per_second": rng.uniform(9e3, 12e3),
    }  # fmt: skip


def timeline_record(step: int) -> dict:
    """A step of ten seconds in stretches of 0.05: for 3 s all 32 slots have rollouts, then half; reflections from 4 s on."""
    return {
        "step": step, "seconds": 10.0, "slots": 32,
        "phases": [["sample", 0.01, 6.0], ["credit", 6.0, 6.02], ["reflect", 6.02, 6.5], ["score", 6.5, 7.7],
                   ["credit", 7.7, 7.75], ["learn", 7.75, 9.8], ["report", 9.8, 10.0]],
        "beside": [["verify", 3.0, 3.25], ["reflect", 3.25, 3.5], ["verify", 4.0, 4.5]],
        "busy": {"rollouts": [32.0] * 60 + [16.0] * 60 + [0.0] * 80, "reflections": [0.0] * 80 + [12.0] * 40 + [0.0] * 80},
    }  # fmt: skip


def eval_record(step: int, accuracy: float) -> dict:
    return {
        "kind": "eval", "step": step, "eval/sampled": accuracy, "eval/sampled_low": accuracy - 0.04,
        "eval/sampled_high": accuracy + 0.04, "eval/greedy": accuracy + 0.03,
        "eval/greedy_low": accuracy - 0.01,
        "eval/greedy_high": accuracy + 0.07, "eval/length": 40.0,
    }  # fmt: skip


def rollout(step: int, row: int, rng: random.Random) -> dict:
    """One row: a sum worked out in two steps; failed rows go wrong in the first or the second."""
    a, b, c = rng.randint(11, 99), rng.randint(11, 99), rng.randint(2, 9)
    correct, kind = row % 2 == 0, ("ok", "ok", "ok", "no_tag", "leak", "not_needed")[row // 2 % 6]
    first = a + b + (0 if correct or row % 4 == 1 else 10)
    second = first * c + (0 if correct or row % 4 == 3 else 7)
    tokens = [str(a), " +", f" {b}", " =", f" {first}", "\n", str(first), " *", f" {c}", " =", f" {second}"]
    tokens += ["\n", "Answer", ":", f" {second}", "<|end|>"]
    start = -1 if correct else (0 if row % 4 == 3 else 6)
    advantage = 0.0 if kind == "not_needed" else (0.9 if correct else -1.1)
    student = [-rng.expovariate(3) for _ in tokens]
    scored = advantage != 0
    wrong = {start + 4} if start >= 0 else set()
    gap = [-rng.uniform(1, 4) if t in wrong else rng.gauss(0.1, 0.4) for t in range(len(tokens))]
    sign = 1 if advantage > 0 else -1
    rate = 0.2 if advantage > 0 else 0.1
    usable = kind == "ok"
    delta = [rate * max(0, sign * max(-5, min(5, g)) - 0.2) if usable else 0.0 for g in gap]
    flaw = "The first addition is off: check the carry of the tens." if start == 0 else "The product is off."
    return {
        "step": step, "row": row, "group": row // 4, "problem_id": f"sum-{a}-{b}-{c}",
        "question": f"What is ({a} + {b}) * {c}? Work in steps.", "answer": str((a + b) * c),
        "response": "".join(tokens), "reward": float(correct),
        "verdict": "right" if correct else f"{second} is wrong",
        "finish_reason": "length" if row == 1 else "stop", "advantage": advantage,
        "reflection_kind": ("hint" if correct else "critique") if scored else "", "reflection_status": kind,
        "reflection": ("What made the sum easy to check?" if correct else flaw) if usable else "",
        "tokens": list(range(len(tokens))), "token_text": tokens, "logp_student": student,
        "logp_teacher": [s + g for s, g in zip(student, gap, strict=True)] if usable else None,
        "gap": gap if usable else None, "token_advantage": [advantage * (1 + d) for d in delta],
        "entropy": [abs(s) * 0.7 for s in student], "first_error_start": start,
        "first_error_end": -1 if start < 0 else start + 6,
    }  # fmt: skip


INTEGERS = ["step", "row", "group", "first_error_start", "first_error_end"]
FLOATS = ["reward", "advantage"]
LISTS = {"tokens": pa.int64(), "token_text": pa.string()}
LISTS |= dict.fromkeys(["logp_student", "logp_teacher", "gap", "token_advantage", "entropy"], pa.float32())


def schema(names) -> pa.Schema:
    """The types of the contract; what is neither a number nor a list is a text."""
    types = dict.fromkeys(INTEGERS, pa.int64()) | dict.fromkeys(FLOATS, pa.float64())
    types |= {name: pa.list_(value) for name, value in LISTS.items()}
    return pa.schema([(name, types.get(name, pa.string())) for name in names])


def write_rollouts(workdir, step: int, rows: list[dict]) -> None:
    (workdir / "rollouts").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema(rows[0])), workdir / "rollouts" / f"step_{step:05}.parquet")


def write_timelines(workdir, records: list[dict]) -> None:
    (workdir / "timeline.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def write_metrics(workdir, records: list[dict]) -> None:
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
