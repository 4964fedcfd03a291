"""Eight fake devices, a compilation cache shared by all tests, shapes checked at run time."""

import os
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_cpu_collective_call_terminate_timeout_seconds=300"  # devices of a busy machine may be late; the default is 40
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # most of the time is compilation
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "amrsd_jax_test_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook finds it by name)

install_import_hook("amrsd_jax", "tests.typecheck.check")

import hypothesis
import jax
import pytest

from amrsd_jax import rng
from amrsd_jax.policy import Policy, preset
from amrsd_jax.policy.tokenizer import load_tokenizer
from tests.browser import browser  # noqa: F401  (a fixture)

hypothesis.settings.register_profile("shared machine", deadline=None)  # its speed is no property of the code
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Compiled programs are dropped after each file: Linux grants a process 65,530 memory maps, and XLA's abort at the last
    one leaves no message."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def forget_many_programs(request):
    """They are dropped within a file too, after a slow test that left many."""
    yield
    if request.node.get_closest_marker("slow") and MAPS.exists() and len(MAPS.read_bytes().splitlines()) > 25_000:
        jax.clear_caches()


MAPS = Path("/proc/self/maps")
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def policy():
    """A decoder small enough to compile at once: two layers, grouped heads, QK-norm, tied."""
    return Policy(preset("tiny", vocab_size=48, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=48))


@pytest.fixture(scope="session")
def params(policy):
    """Random parameters, scaled up so that distributions are far from uniform."""
    return jax.tree.map(lambda a: a * 3.0, jax.jit(policy.init)(rng.key(0, "init")))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The workdir of an uninterrupted AMR-SD run of four steps, each of them saved; other runs start from its warm-up."""
    from amrsd_jax.train import train
    from tests.runs import EVERY_STEP
    from tests.tiny import tiny_config

    workdir = tmp_path_factory.mktemp("finished")
    train(tiny_config(**EVERY_STEP), workdir)
    return workdir


@pytest.fixture
def shared_data():
    """The folder of real benchmark rows, where the checkout has one beside it."""
    if not DATA.exists():
        pytest.skip(f"no real benchmark rows at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def qwen3():
    """The tokenizer of Qwen3, where the checkout has it beside it."""
    folder = DATA / "tokenizer" / "qwen3"
    if not folder.exists():
        pytest.skip(f"no Qwen3 tokenizer at {folder}")
    return load_tokenizer(folder)
