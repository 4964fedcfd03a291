"""Tests of the published cases in ../shared/cases/turn2.jsonl; they are skipped where the file is not there.

Each module tests the kinds that it names in `KINDS`; `test_all_kinds.py` asserts that every kind has a module.
"""

import json
from collections.abc import Collection
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "shared" / "cases" / "turn2.jsonl"


def all_cases() -> list[dict]:
    """Returns every case; [] where the file is not there."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.exists() else []


def cases(kinds: Collection[str]) -> list:
    """Returns the cases of some kinds as pytest parameters; one that is skipped where the file is not there."""
    if not FILE.exists():
        return [pytest.param(None, marks=pytest.mark.skip(f"no cases at {FILE}"))]
    return [pytest.param(case, id=case["id"]) for case in all_cases() if case["kind"] in kinds]
