"""How fast mathematics is graded, and how the verdicts compare with math-verify alone.

    python -m benchmarks.grading --data=../shared/data/math [--cases=2000]

Cases are made from benchmarks' gold answers: an answer as it is or written otherwise (right), another row's or a near miss
(wrong), in a box at the end of some text. Reported, for `amrsd_jax.tasks.grade` and for math-verify in this process: cases a
second; processor time a case, which a busy machine does not change; agreement with the label; wrong ones accepted, right
ones lost.
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
CASES = flags.DEFINE_integer("cases", 2000, "How many.")

HARD = [  # (gold, answer, right): pairs that one library or another has been seen to get wrong
    (r"3\sqrt{2}", r"3\sqrt{5}", False), (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False), ("(1,2)", r"\{1,2\}", False),
    (r"\frac{R}{r}", "1", False), (r"\frac{R}{r}", r"\frac{r}{R}", False), ("0.0000012", "0.0000008", False),
    (r"5\text{ cm}", r"5\text{ m}", False),
    ("2", "2,2", False), ("(3,5)", "5,3", False), ("4343_6", "4343_7", False),
    ("100000", "1e5", True), ("4.5e33", r"4.5\times 10^{33}", True), (r"3\sqrt{2}", "3*sqrt(2)", True),
    ("18", "$18 per day", True),
    (r"\frac{-1+\sqrt{17}}{2}, \frac{-1-\sqrt{17}}{2}", r"\frac{-1\pm\sqrt{17}}{2}", True), (r"(-\infty, 0]", r"x \le 0", True),
    (r"\frac{288-154 \sqrt{3}}{3} \text{ OR } 96-\frac{154}{\sqrt{3}}", r"96-\frac{154\sqrt3}{3}", True),
]  # fmt: skip


def golds(folder: Path) -> list[str]:
    def rows(path):
        return map(json.loads, (folder / path).read_text(encoding="utf-8").splitlines())

    plain = [row["answer"].rpartition("####")[2].strip() for row in rows("gsm8k/test.jsonl")]
    return plain[:500] + [row["answer"] for row in rows("math500/test.jsonl")]


def otherwise(gold: str) -> str:
    """The same answer in another common way of writing."""
    if re.fullmatch(r"-?\d+", gold):
        return random.choice([gold, f"{int(gold):,}", f"{gold}.0", f"${gold}$", rf"\text{{{gold}}}"])
    return random.choice([gold, gold.replace(r"\frac", r"\dfrac"), gold.replace(" ", "")])


def near_miss(gold: str) -> str:
    """One digit changed; what has none gets another sign."""
    digits = [m.start() for m in re.finditer(r"\d", gold)]
    if not digits:
        return f"-({gold})"
    place = random.choice(digits)
    return gold[:place] + str((int(gold[place]) + random.randint(1, 8)) % 10) + gold[place + 1 :]


def cases(folder: Path, count: int) -> list[tuple[str, str, bool]]:
    """(gold, answer, right) in a fixed random order."""
    random.seed(0)
    pool = golds(folder)
    found = []
    while len(found) < count:
        gold = random.choice(pool)
        other = random.choice(pool)
        found.append((gold, otherwise(gold), True))
        if other != gold:
            found.append((gold, other, False))
        if (miss := near_miss(gold)) not in (gold, f"0{gold}"):
            found.append((gold, miss, False))
    return found[:count]


def alone(gold: str, answer: str) -> bool:
    """math-verify as its documentation has it, both sides boxed."""
    from math_verify import parse, verify

    return verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}"))


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def tell(name: str, verdicts: list[bool], made: list[tuple[str, str, bool]]) -> None:
    right = [label for _, _, label in made]
    agree = sum(map(bool.__eq__, verdicts, right)) / len(made)
    false = [case[:2] for verdict, case in zip(verdicts, made, strict=True) if verdict and not case[2]]
    lost = [case[:2] for verdict, case in zip(verdicts, made, strict=True) if case[2] and not verdict]
    print(f"{name}: agreement {agree:.4f}, {len(false)} false accepts, {len(lost)} lost of {len(made)}")
    print(f"  accepted: {false[:8]}\n  lost: {lost[:8]}", flush=True)


def timed(judge, made: list[tuple[str, str, bool]]) -> list[bool]:
    """The verdicts, after telling what they took."""
    begin, cpu = time.perf_counter(), processor_seconds()
    verdicts = judge(made)
    seconds = time.perf_counter() - begin
    mathematics.workers().stop()  # whose time counts once they have ended
    cpu = processor_seconds() - cpu
    print(f"{len(made) / seconds:.0f} cases/s; {1e3 * cpu / len(made):.2f} ms of processor time a case, start included")
    return verdicts


def graded(made: list[tuple[str, str, bool]]) -> list[bool]:
    lines = [json.dumps({"gold": g, "response": rf"Thus the answer is \boxed{{{a}}}."}).encode() for g, a, _ in made]
    return [row["reward"] == 1 for row in grade(lines, "math")]


def main(argv: list[str]) -> None:
    del argv
    logging.disable(logging.CRITICAL)
    made = cases(Path(DATA.value), CASES.value)
    tell("amrsd_jax", timed(graded, made), made)
    tell("math-verify alone", timed(lambda made: [alone(g, a) for g, a, _ in made], made), made)
    tell("hard pairs, amrsd_jax", [compare(g, a) == EQUAL for g, a, _ in HARD], HARD)
    tell("hard pairs, math-verify alone", [alone(g, a) for g, a, _ in HARD], HARD)


if __name__ == "__main__":
    app.run(main)
