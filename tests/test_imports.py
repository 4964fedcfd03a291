"""What importing the package may cost: nothing heavy is imported before it is used."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "tensorflow", "tensorflow_datasets", "datasets", "transformers", "sympy", "math_verify", "pandas",
         "matplotlib", "tensorboardX"}  # fmt: skip


@pytest.mark.parametrize("module", ["amrsd_jax.main", "amrsd_jax.train", "amrsd_jax.compare", "amrsd_jax.report"])
def test_nothing_heavy_is_imported_before_it_is_used(module):
    program = f"import sys, {module}; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert module in imported and not HEAVY & set(imported)
