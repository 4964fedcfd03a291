"""Judges a file of answers: `python -m amrsd_jax.tasks.grade --kind=math --input=cases.jsonl --output=verdicts.jsonl`.

Every line of the input is a JSON object with `gold` and with `response`, a whole reply, or `prediction`, an answer that was
read already; choice also reads `options` (their letters, or their texts) or `question`, and tool reads `prompt`, which documents
the tools. Every line of the output is that object with `reward`, `message`, `parsed`, `format_ok`, `seconds` (wall) and
`scores` added, in the same order. A line that cannot be judged gets reward 0 and a message that begins with "error".
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from absl import app, flags

from amrsd_jax.tasks import choice, mathematics, tools
from amrsd_jax.tasks.base import Verdict

FORMS = ("row", "any")
BATCH = 512  # lines in memory at one time, our choice


def math(row: dict, form: str) -> Verdict:
    gold = _text(row, "gold")
    if row.get("response") is not None:
        return mathematics.verify_mathematics(gold, _text(row, "response"), form=form)
    prediction = _text(row, "prediction")
    if "boxed" in prediction or "\n" in prediction.strip():
        return mathematics.verify_mathematics(gold, prediction, form=form)
    return mathematics.judge(gold, prediction.strip() or None)


def multiple_choice(row: dict, form: str) -> Verdict:
    gold, labels = _text(row, "gold").strip(" ().\n").upper(), _labels(row)
    if row.get("response") is not None:
        return choice.verify_choice(gold, _text(row, "response"), labels, form=form)
    prediction = _text(row, "prediction")
    bare = "<answer>" not in prediction and len(prediction) <= 3
    return choice.verify_choice(gold, choice.in_form(prediction) if bare else prediction, labels, form=form)


def tool(row: dict, form: str) -> Verdict:
    gold, reply = _text(row, "gold"), "response" if row.get("response") is not None else "prediction"
    documented = tools.documented(_text(row, "prompt" if "prompt" in row else "question", default=""))
    return tools.verify_tools(gold, _text(row, reply), documented, form=form)


KINDS: dict[str, Callable[[dict, str], Verdict]] = {"math": math, "choice": multiple_choice, "tool": tool}


def grade(lines: Iterable[bytes], kind: str, form: str = "any") -> Iterator[dict[str, Any]]:
    """Rows with their verdicts, in the order of the lines; blank lines are passed over."""
    lines = (line for line in lines if line.strip())
    with ThreadPoolExecutor(mathematics.workers().size + 1) as threads:
        while batch := list(islice(lines, BATCH)):
            yield from threads.map(lambda line: grade_line(line, kind, form), batch)


def grade_line(line: bytes, kind: str, form: str) -> dict[str, Any]:
    """One line's row and verdict; whatever is wrong with it is a message, never an exception."""
    begin, row = time.perf_counter(), {}
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            row, problem = {}, f"{type(row).__name__} where an object was expected"
            raise ValueError(problem)
        verdict = KINDS[kind](row, form)
    except (Exception, RecursionError) as error:
        verdict = Verdict(0.0, f"error: {type(error).__name__}: {str(error)[:200]}", None, False)
    seconds = round(time.perf_counter() - begin, 6)
    return row | {
        "reward": verdict.reward, "message": verdict.message, "parsed": verdict.parsed, "format_ok": verdict.format_ok,
        "seconds": seconds, "scores": dict(verdict.scores),
    }  # fmt: skip


def _text(row: dict, column: str, default: str | None = None) -> str:
    value = row.get(column, default)
    if value is None:
        raise ValueError(f"no column {column!r}")
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _labels(row: dict) -> tuple[str, ...]:
    """Letters of a row's options: as many as it lists, those in its question, or ten."""
    options = row.get("options")
    if isinstance(options, dict):
        options = list(options)
    if isinstance(options, list) and options:
        if all(isinstance(option, str) and option in choice.LETTERS for option in options):
            return tuple(options)
        return choice.LETTERS[: len(options)]
    question = row.get("question") or row.get("prompt")
    return choice.option_labels(question) if isinstance(question, str) else choice.LETTERS


_KIND = flags.DEFINE_enum("kind", None, sorted(KINDS), "What the answers are.")
_INPUT = flags.DEFINE_string("input", None, "JSON lines to judge.")
_OUTPUT = flags.DEFINE_string("output", None, "Where the verdicts go.")
_FORM = flags.DEFINE_enum("form", "any", FORMS, "Accept only the form that a row asks for, or every common one.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    begin, count, right = time.perf_counter(), 0, 0
    try:
        with Path(_INPUT.value).open("rb") as lines, Path(_OUTPUT.value).open("w", encoding="utf-8") as out:
            for row in grade(lines, _KIND.value, _FORM.value):
                out.write(json.dumps(row) + "\n")
                count, right = count + 1, right + row["reward"]
    except OSError as error:
        sys.exit(f"grade: {error}")
    print(f"{count} judged, {right:g} right, {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    flags.mark_flags_as_required(["kind", "input", "output"])
    app.run(main)
