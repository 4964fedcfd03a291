"""Importing the package imports nothing heavy that is not used yet."""

import subprocess
import sys

import pytest

HEAVY = {
    "torch", "tensorflow", "datasets", "transformers", "sympy", "math_verify", "pandas", "matplotlib", "tensorboardX",
    "altair", "scipy",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("modules, used", [("main, train", set()), ("compare, report", {"altair", "scipy"})])
def test_heavy_packages_are_not_imported(modules, used):
    program = f"import sys; from amrsd_jax import {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {f"amrsd_jax.{name}" for name in modules.split(", ")} <= imported and not imported & (HEAVY - used)
