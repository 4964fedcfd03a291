"""Every kind of published case is tested by some module."""

import importlib
from pathlib import Path

from tests.turn2 import all_cases


def test_every_kind_has_a_module():
    modules = [path.stem for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    tested = {kind for name in modules for kind in importlib.import_module(f"{__package__}.{name}").KINDS}
    assert {case["kind"] for case in all_cases()} <= tested
