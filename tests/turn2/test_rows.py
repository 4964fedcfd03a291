"""Published cases of rows: files, chat messages, golds and options of choices."""

import json

import pytest

from amrsd_jax.tasks import registry
from tests.turn2 import cases

KINDS = ("rows: chat messages", "rows: files", "rows: golds and options of choices")
QUESTION = "Which?\nA. one\nB. two\nC. three\nD. four"
MESSAGES = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "What is 2+3?"}]


def read(folder, data, kind, **args):
    """The rows of a file of these bytes."""
    (folder / "rows.jsonl").write_bytes(data)
    args = dict(train="rows.jsonl", test="rows.jsonl", folder=str(folder), **args)
    return registry.make(kind, args, 0).rows("train")


@pytest.mark.parametrize("case", cases(KINDS))
def test_rows(case, tmp_path):
    kind, given, expected = case["kind"], case["input"], case["expected"]
    if kind == "rows: chat messages":
        row = dict(prompt=MESSAGES, answer=given["row"]["answer"])
        (problem,) = read(tmp_path, json.dumps(row).encode(), "mathematics", question="prompt")
        assert problem.question == "What is 2+3?"
        assert problem.messages == tuple((message["role"], message["content"]) for message in MESSAGES)
    elif kind == "rows: files":
        data = b"\xef\xbb\xbf" + json.dumps(dict(question="1+1?", answer="2")).encode()
        assert f"{len(read(tmp_path, data, 'mathematics'))} row" == expected
    else:
        column = next((name for name in ("options", "choices") if name in given), "")
        row = dict(question="Which?" if column else QUESTION) | given
        (problem,) = read(tmp_path, json.dumps(row).encode(), "choice", options=column)
        assert problem.answer == expected
