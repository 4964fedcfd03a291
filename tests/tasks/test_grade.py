"""The grading command: columns, order, errors as rows, and a start without JAX."""

import json
import subprocess
import sys

import pytest

from amrsd_jax.tasks.grade import grade, grade_line


def judged(kind, *rows, form="any"):
    return list(grade([row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows], kind, form))


def test_a_file_of_answers(tmp_path):
    cases, verdicts = tmp_path / "cases.jsonl", tmp_path / "verdicts.jsonl"
    rows = [{"gold": i, "response": rf"\boxed{{{i + i % 2}}}", "id": i} for i in range(1200)]
    cases.write_text("\n\n".join(map(json.dumps, rows)) + "\n{bad\n")
    command = [sys.executable, "-X", "importtime", "-m", "amrsd_jax.tasks.grade", "--kind=math"]
    done = subprocess.run(
        [*command, f"--input={cases}", f"--output={verdicts}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("1201 graded, 600 right")
    assert " jax" not in done.stderr and " numpy" not in done.stderr  # what was imported
    written = [json.loads(line) for line in verdicts.read_text().splitlines()]
    assert [row.get("id") for row in written] == [*range(1200), None]
    assert [row["reward"] for row in written[:4]] == [1, 0, 1, 0]
    added = {"reward", "message", "parsed", "format_ok", "seconds", "scores"}
    assert set(written[0]) == set(rows[0]) | added
    assert written[-1]["message"].startswith("error: JSONDecodeError")


def test_a_wrong_file_is_one_line_and_the_input_stays(tmp_path):
    cases = tmp_path / "cases.jsonl"
    cases.write_text("{}\n")
    command = [sys.executable, "-m", "amrsd_jax.tasks.grade", "--kind=math", f"--output={cases}"]
    for name, message in {"none": "[Errno 2]", str(cases): f"--output={cases} is the input"}.items():
        done = subprocess.run([*command, f"--input={name}"], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stderr.startswith(f"grade: {message}")
        assert cases.read_text() == "{}\n"


@pytest.mark.parametrize(
    "line, message",
    [
        (b"{", "error: JSONDecodeError"),
        (b"[1]", "error: ValueError: list; expected"),
        (b"null", "error: ValueError: NoneType; expected"),
        (b"\xff", "error: UnicodeDecodeError"),
        (b"[" * 100_000, "error: RecursionError"),
        (b'{"gold": "1"}', "error: ValueError: no column 'prediction'"),
        (b'{"response": "1"}', "error: ValueError: no column 'gold'"),
        (b'{"gold": null, "response": "1"}', "error: ValueError: no column 'gold'"),
    ],
)
def test_what_cannot_be_judged_is_a_row_with_a_message(line, message):
    for kind in ("math", "choice", "tool"):
        row = grade_line(line, kind, "any")
        assert row["reward"] == 0 and row["message"].startswith(message)


def test_mathematics_by_columns():
    rows = judged(
        "math",
        {"gold": 27.0, "prediction": 27},
        {"gold": ["3", "4"], "response": r"\boxed{4}, \boxed{3}"},
        {"gold": r"\frac12", "prediction": r"so \boxed{0.5}"},
        {"gold": "5", "response": "The answer is 5.\nBye"},
        {"gold": "5", "prediction": ""},
    )
    assert [row["reward"] for row in rows] == [1, 1, 1, 1, 0]
    assert judged("math", {"gold": "5", "response": "The answer is 5.\nBye"}, form="row")[0]["reward"] == 0


def test_choice_by_columns():
    question = "Which?\nA: 1\nB: 2"
    rows = judged(
        "choice",
        {"gold": "B", "response": "The answer is B.", "question": question},
        {"gold": "b", "prediction": "B"},
        {"gold": "B", "prediction": "(b)"},
        {"gold": "C", "response": "<answer>C</answer>", "question": question},
        {"gold": "C", "response": "<answer>C</answer>", "options": ["x", "y"]},
        {"gold": "C", "response": "<answer>C</answer>", "options": {"A": "x", "B": "y", "C": "z"}},
    )
    assert [row["reward"] for row in rows] == [1, 1, 1, 0, 0, 1]
    assert rows[0]["scores"] == {"lenient": 1, "compat": 0}
    assert judged("choice", {"gold": "B", "response": "B"}, form="row")[0]["reward"] == 0


def test_tools_by_columns():
    gold = [{"Action": "find", "Action_Input": {"a": 1}}]
    rows = judged(
        "tool",
        {"gold": gold, "prediction": gold},
        {
            "gold": json.dumps(gold),
            "response": 'Action: find\nAction Input: {"a": 1}',
            "prompt": "find: F.\nParameters: {}",
        },
        {"gold": gold, "response": 'Action: fly\nAction Input: {"a": 1}', "prompt": "find: F.\nParameters: {}"},
        {"gold": "calls", "response": "x"},
    )
    assert [row["reward"] for row in rows] == [1, 1, 0, 0]
    assert rows[2]["message"].startswith("call 1 (fly): no such tool")
    assert rows[3]["message"].startswith("error: ValueError: gold answer")
