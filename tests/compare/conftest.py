"""The methods that compare's tests look at, applied once to the rollouts of a finished run."""

import pytest

from amrsd_jax.compare import compare


@pytest.fixture(scope="session")
def comparison(finished):
    return compare(finished, "all,amrsd@shuffled_reflection,amrsd@oracle_reflection,hybrid@null", step=2)
