"""The record of a run's rows notices every change that the run would."""

import itertools
import json

import pytest

from amrsd_jax.tasks import registry
from amrsd_jax.tasks.digest import describe

VERIFIER = "def verify(problem, response):\n    return 1.0\n"
ROWS = [{"question": f"q{i}", "answer": str(i), "hint": "h"} for i in range(6)]


@pytest.fixture
def record(tmp_path):
    """Describes a task of some rows and a verifier, written to a new folder."""
    number = itertools.count()

    def make(train=ROWS, test=ROWS[:2], verifier=VERIFIER, end="\n", **args):
        folder = tmp_path / str(next(number))
        folder.mkdir()
        for name, rows in (("train", train), ("test", test)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + end for row in rows))
        (folder / "mine.py").write_text(verifier)
        args |= dict(train="train.jsonl", test="test.jsonl", folder=str(folder), verifier=f"{folder}/mine.py:verify")
        return describe(registry.make("rows", args, seed=0))

    return make


def test_it_has_the_number_of_rows_of_each_split(record):
    first = record(validation=0.5)
    assert first["train"]["rows"] + first["validation"]["rows"] == 6 and first["test"]["rows"] == 2
    assert describe(registry.make("addition", {}, seed=0)) == {}


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({}, set()),
        ({"end": " \n"}, set()),  # the same rows, written otherwise
        ({"end": "\n\n"}, set()),
        ({"train": ROWS[:5]}, {"train"}),
        ({"train": ROWS[::-1]}, {"train"}),
        ({"train": [*ROWS[:5], ROWS[5] | {"answer": "6"}]}, {"train"}),
        ({"test": [ROWS[0], ROWS[1] | {"hint": "other"}]}, {"test"}),  # a verifier may read it
        ({"verifier": VERIFIER.replace("1.0", "0.5")}, {"verifier"}),
    ],
)
def test_a_change_of_rows_or_verifier_is_noticed(record, changes, parts):
    first, other = record(), record(**changes)
    assert {name for name in first | other if first.get(name) != other.get(name)} == parts
