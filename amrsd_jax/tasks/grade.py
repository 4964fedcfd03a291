"""Grades a file of answers: `python -m amrsd_jax.tasks.grade --kind=math --input=cases.jsonl --output=verdicts.jsonl`.

Each input line is a JSON object with `gold` and either `response`, a whole reply, or `prediction`, an extracted answer. Kind
choice also reads `options` (see `choice.read_options`) or `question`; kind tool reads `prompt`, which documents the tools. Kind
code needs no `gold` but tests in a form of `code_tests`, and bubblewrap. The output has the same objects in the same order, with
`reward`, `message`, `parsed`, `format_ok`, `seconds` (wall time) and `scores` added. A line that cannot be graded gets reward 0
and a message that begins with "error".
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

from amrsd_jax.flags import parser
from amrsd_jax.problems import Verdict
from amrsd_jax.tasks import choice, code, mathematics, sandbox, tools

FORMS = ("row", "any")
BATCH = 512  # lines in memory at a time, our choice


def math(row: dict, form: str) -> Verdict:
    """Grades an answer in mathematics."""
    gold = _text(row, "gold")
    if row.get("response") is not None:
        return mathematics.verify_mathematics(gold, _text(row, "response"), form=form)
    prediction = _text(row, "prediction")
    if "boxed" in prediction or "\n" in prediction.strip():
        return mathematics.verify_mathematics(gold, prediction, form=form)
    return mathematics.judge(gold, prediction.strip() or None)


def multiple_choice(row: dict, form: str) -> Verdict:
    """Grades a choice; a prediction of at most three characters counts as the content of an answer tag."""
    whole = row.get("response") is not None
    _text(row, "gold")  # raises where there is none
    reply, options = _text(row, "response" if whole else "prediction"), _options(row)
    gold = choice.gold_letter(row["gold"], options)
    if not set(options) <= set(choice.LETTERS):  # labels such as 1, 2, 3
        gold, options = choice.LETTERS[list(options).index(gold)], choice.lettered(options)
    if not whole and "<answer>" not in reply and len(reply) <= 3:
        reply = choice.in_form(reply)
    return choice.verify_choice(gold, reply, options, form=form)


def tool(row: dict, form: str) -> Verdict:
    """Grades the tool calls of a reply."""
    gold, reply = _text(row, "gold"), "response" if row.get("response") is not None else "prediction"
    documented = tools.documented(_text(row, "prompt" if "prompt" in row else "question", default=""))
    return tools.verify_tools(gold, _text(row, reply), documented, form=form)


def program(row: dict, form: str) -> Verdict:
    """Grades a program by the row's tests: the reward is 1 if all pass."""
    columns = (*code.COLUMNS[:3], "starter_code|prompt")
    reply = _text(row, "response" if row.get("response") is not None else "prediction")
    return code.verify_code(row, code.suite(row, columns), reply, columns, sandbox.Limits(partial=False))


KINDS: dict[str, Callable[[dict, str], Verdict]] = {
    "math": math,
    "choice": multiple_choice,
    "tool": tool,
    "code": program,
}


def grade(lines: Iterable[bytes], kind: str, form: str = "any") -> Iterator[dict[str, Any]]:
    """Yields rows with their verdicts, in the order of the lines; blank lines are skipped."""
    lines = (line for line in lines if line.strip())
    with ThreadPoolExecutor(mathematics.workers().size + 1) as threads:
        while batch := list(islice(lines, BATCH)):
            yield from threads.map(lambda line: grade_line(line, kind, form), batch)


def grade_line(line: bytes, kind: str, form: str) -> dict[str, Any]:
    """Returns a line's row with its verdict. Never raises: an error becomes the verdict's message."""
    begin, row = time.perf_counter(), {}
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            row, kind_of_row = {}, type(row).__name__
            raise ValueError(f"{kind_of_row}; expected a JSON object")
        verdict = KINDS[kind](row, form)
    except Exception as error:
        verdict = Verdict(0.0, f"error: {type(error).__name__}: {str(error)[:200]}", None, False)
    seconds = round(time.perf_counter() - begin, 6)
    return row | {
        "reward": verdict.reward, "message": verdict.message, "parsed": verdict.parsed, "format_ok": verdict.format_ok,
        "seconds": seconds, "scores": dict(verdict.scores),
    }  # fmt: skip


def _text(row: dict, column: str, default: str | None = None) -> str:
    """Returns a column as text: lists of texts and numbers joined by commas, other lists and objects as JSON."""
    value = row.get(column, default)
    if value is None:
        raise ValueError(f"no column {column!r}; the row has {', '.join(row)}")
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _options(row: dict) -> dict[str, str]:
    """Returns a row's options: those of `options`, else those that its question lists, else every letter without a text."""
    if row.get("options"):
        return choice.read_options(row["options"])
    question = row.get("question") or row.get("prompt")
    return choice.question_options(question if isinstance(question, str) else "")


_KIND = flags.DEFINE_enum("kind", None, sorted(KINDS), "Kind of the answers.")
_INPUT = flags.DEFINE_string("input", None, "JSON lines to grade.")
_OUTPUT = flags.DEFINE_string("output", None, "File of JSON lines to write.")
_FORM = flags.DEFINE_enum("form", "any", FORMS, "row: only the form that the prompts ask for; any: every common form.")


def main(_: list[str]) -> None:
    begin, count, right = time.perf_counter(), 0, 0
    if Path(_INPUT.value).resolve() == Path(_OUTPUT.value).resolve():  # which opening the output would empty
        sys.exit(f"grade: --output={_OUTPUT.value} is the input; expected another file")
    try:
        with Path(_INPUT.value).open("rb") as lines, Path(_OUTPUT.value).open("w", encoding="utf-8") as out:
            for row in grade(lines, _KIND.value, _FORM.value):
                out.write(json.dumps(row) + "\n")
                count, right = count + 1, right + row["reward"]
    except OSError as error:
        sys.exit(f"grade: {error}")
    print(f"{count} graded, {right:g} right, {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    flags.mark_flags_as_required(["kind", "input", "output"])
    app.run(main, flags_parser=parser(__doc__))
