"""Measures how fast mathematics is graded, and compares the verdicts with those of math-verify alone.

    python -m benchmarks.grading --data=../shared/data/math [--cases=2000]

Cases are made from benchmarks' gold answers: the answer itself or another notation of it (right), another row's answer or a
near miss (wrong), in a box at the end of a sentence. For `amrsd_jax.tasks.grade` and for math-verify in this process it prints
cases per second; processor time per case, which does not depend on other load; agreement with the label; wrong answers that
were accepted and right ones that were rejected.
"""

import json
import logging
import os
import random
import re
import time
from pathlib import Path

from absl import app, flags

from amrsd_jax.tasks import mathematics
from amrsd_jax.tasks.grade import grade
from amrsd_jax.tasks.mathematics import compare
from amrsd_jax.tasks.symbolic import EQUAL

DATA = flags.DEFINE_string("data", None, "Folder with math500/test.jsonl and gsm8k/test.jsonl.", required=True)
CASES = flags.DEFINE_integer("cases", 2000, "Number of cases.")

HARD = [  # (gold, answer, whether they are equal): pairs that some library gets wrong
    (r"3\sqrt{2}", r"3\sqrt{5}", False), (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False), ("(1,2)", r"\{1,2\}", False),
    (r"\frac{R}{r}", "1", False), (r"\frac{R}{r}", r"\frac{r}{R}", False), ("0.0000012", "0.0000008", False),
    (r"5\text{ cm}", r"5\text{ m}", False),
    ("2", "2,2", False), ("(3,5)", "5,3", False), ("4343_6", "4343_7", False),
    ("100000", "1e5", True), ("4.5e33", r"4.5\times 10^{33}", True), (r"3\sqrt{2}", "3*sqrt(2)", True),
    ("18", "$18 per day", True),
    (r"\frac{-1+\sqrt{17}}{2}, \frac{-1-\sqrt{17}}{2}", r"\frac{-1\pm\sqrt{17}}{2}", True), (r"(-\infty, 0]", r"x \le 0", True),
    (r"\frac{288-154 \sqrt{3}}{3} \text{ OR } 96-\frac{154}{\sqrt{3}}", r"96-\frac{154\sqrt3}{3}", True),
]  # fmt: skip


def gold_answers(folder: Path) -> list[str]:
    """Reads the gold answers of GSM8K (the first 500) and MATH-500."""

    def rows(path):
        return map(json.loads, (folder / path).read_text(encoding="utf-8").splitlines())

    plain = [row["answer"].rpartition("####")[2].strip() for row in rows("gsm8k/test.jsonl")]
    return plain[:500] + [row["answer"] for row in rows("math500/test.jsonl")]


def rewrite(gold: str) -> str:
    """Returns the same answer in another common notation."""
    if re.fullmatch(r"-?\d+", gold):
        return random.choice([gold, f"{int(gold):,}", f"{gold}.0", f"${gold}$", rf"\text{{{gold}}}"])
    return random.choice([gold, gold.replace(r"\frac", r"\dfrac"), gold.replace(" ", "")])


def near_miss(gold: str) -> str:
    """Returns the answer with one digit changed, or negated if it has no digit."""
    digits = [m.start() for m in re.finditer(r"\d", gold)]
    if not digits:
        return f"-({gold})"
    place = random.choice(digits)
    return gold[:place] + str((int(gold[place]) + random.randint(1, 8)) % 10) + gold[place + 1 :]


def cases(folder: Path, count: int) -> list[tuple[str, str, bool]]:
    """Returns (gold, answer, right) in a fixed random order."""
    random.seed(0)
    pool = gold_answers(folder)
    result = []
    while len(result) < count:
        gold = random.choice(pool)
        other = random.choice(pool)
        result.append((gold, rewrite(gold), True))
        if other != gold:
            result.append((gold, other, False))
        if (miss := near_miss(gold)) not in (gold, f"0{gold}"):
            result.append((gold, miss, False))
    return result[:count]


def math_verify_alone(gold: str, answer: str) -> bool:
    """Returns the verdict of math-verify as its documentation shows it, both sides boxed."""
    from math_verify import parse, verify

    return verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}"))


def processor_seconds() -> float:
    """Returns the processor seconds of this process and of the children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def print_agreement(name: str, verdicts: list[bool], labelled: list[tuple[str, str, bool]]) -> None:
    """Prints how often verdicts agree with the labels, and examples of those that do not."""
    right = [label for _, _, label in labelled]
    agree = sum(map(bool.__eq__, verdicts, right)) / len(labelled)
    false = [case[:2] for verdict, case in zip(verdicts, labelled, strict=True) if verdict and not case[2]]
    lost = [case[:2] for verdict, case in zip(verdicts, labelled, strict=True) if case[2] and not verdict]
    print(f"{name}: agreement {agree:.4f}, {len(false)} false accepts, {len(lost)} rejected of {len(labelled)}")
    print(f"  accepted: {false[:8]}\n  rejected: {lost[:8]}", flush=True)


def timed(judge, labelled: list[tuple[str, str, bool]]) -> list[bool]:
    """Returns the verdicts, and prints the time they took."""
    begin, cpu = time.perf_counter(), processor_seconds()
    verdicts = judge(labelled)
    seconds = time.perf_counter() - begin
    mathematics.workers().stop()  # the time of a child counts once it has ended
    cpu = processor_seconds() - cpu
    print(
        f"{len(labelled) / seconds:.0f} cases/s; {1e3 * cpu / len(labelled):.2f} ms of processor time per case, start included"
    )
    return verdicts


def graded(labelled: list[tuple[str, str, bool]]) -> list[bool]:
    """Returns the verdicts of `amrsd_jax.tasks.grade`."""
    lines = [
        json.dumps({"gold": g, "response": rf"Thus the answer is \boxed{{{a}}}."}).encode() for g, a, _ in labelled
    ]
    return [row["reward"] == 1 for row in grade(lines, "math")]


def main(argv: list[str]) -> None:
    del argv
    logging.disable(logging.CRITICAL)
    labelled = cases(Path(DATA.value), CASES.value)
    print_agreement("amrsd_jax", timed(graded, labelled), labelled)
    print_agreement(
        "math-verify alone", timed(lambda rows: [math_verify_alone(g, a) for g, a, _ in rows], labelled), labelled
    )
    print_agreement("hard pairs, amrsd_jax", [compare(g, a) == EQUAL for g, a, _ in HARD], HARD)
    print_agreement("hard pairs, math-verify alone", [math_verify_alone(g, a) for g, a, _ in HARD], HARD)


if __name__ == "__main__":
    app.run(main)
