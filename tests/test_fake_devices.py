"""Programs with collectives finish on more fake devices than cores."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import amrsd_jax
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from amrsd_jax.learning.mesh import make_mesh

split = NamedSharding(make_mesh(2, 2, 2), P(("data", "fsdp"), "tensor"))
x = jax.device_put(np.ones((64, 64), np.float32), split)
square = jax.jit(lambda x: jax.lax.with_sharding_constraint(x @ x.T / 64, split))
for _ in range(1000):
    y = square(square(x))
assert (np.asarray(y) == 1).all()
"""


@pytest.mark.slow
def test_collectives_of_eight_fake_devices_end():
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=30"
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"} | {"XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=environment, timeout=300)
