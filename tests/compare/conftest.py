"""Fixtures of compare's tests: a tiny finished run, and all its methods compared once."""

import pytest

from amrsd_jax.compare import compare
from amrsd_jax.train import train
from tests.tiny import tiny_config


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """AMR-SD for three steps; every step is dumped, every checkpoint kept."""
    workdir = tmp_path_factory.mktemp("compare") / "run"
    train(tiny_config(steps=3, checkpoint__every=1, checkpoint__keep=3, report__rollouts_every=1), workdir)
    return workdir


@pytest.fixture(scope="session")
def comparison(finished):
    return compare(finished, "all,amrsd@shuffled_reflection,amrsd@oracle_reflection", step=2)
