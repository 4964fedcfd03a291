"""A run with adapters, end to end: they alone are kept and change, it resumes exactly, and both exports compute the same."""

import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amrsd_jax.build import build
from amrsd_jax.config import resolve
from amrsd_jax.evaluate.saved import evaluate_saved
from amrsd_jax.export import export
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Policy, huggingface, lora
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.runtime.metrics import Metrics, read_metrics
from amrsd_jax.start import initial_params, restore
from amrsd_jax.train import train
from tests.test_train import assert_same_run
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow


def config():
    return tiny_config(
        lora__rank=4, lora__alpha=8.0, lora__targets="query,value,up", loss__kl=0.01, teacher__kind="snapshot", teacher__every=3,
        optimizer__learning_rate=1e-3,
    )  # fmt: skip


def fresh(finished, folder):
    """A workdir that already holds the warm-up."""
    for part in ("warmup", "tokenizer"):
        shutil.copytree(finished / part, folder / part)
    return folder


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    workdir = fresh(finished, tmp_path_factory.mktemp("adapters") / "run")
    train(config(), workdir)
    return workdir


@pytest.fixture(scope="module")
def whole(run):
    """The run's parts, its first and its last parameters, the base included."""
    parts = build(resolve(config()), run)
    first = initial_params(parts, run, Clock())
    state = restore(parts, Checkpoints(run / "checkpoints", keep=None), 4)[0]
    return parts, first, state


def test_a_checkpoint_holds_adapters_alone_and_they_have_moved(whole):
    _, first, state = whole
    adapters = lora.learns(first)
    assert jax.tree.structure(state.params) == jax.tree.structure(adapters) == jax.tree.structure(state.teacher)
    for name in ("query", "value", "up"):
        assert jnp.any(state.params["layers"][name]["lora_b"])
        assert jnp.any(state.params["layers"][name]["lora_b"] != state.teacher["layers"][name]["lora_b"])
    held = sum(a.size for a in jax.tree.leaves(state))
    assert held < 6 * sum(a.size for a in jax.tree.leaves(adapters))


def test_a_stopped_run_continues_to_the_same_end(finished, run, tmp_path, monkeypatch):
    original, workdir = Metrics.write, fresh(finished, tmp_path / "run")

    def write(self, kind, step, values):
        original(self, kind, step, values)
        if (kind, step) == ("train", 3):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Metrics, "write", write)
    assert train(config(), workdir)["steps"] == 3
    monkeypatch.undo()
    assert train(config(), workdir)["steps"] == 4
    assert_same_run(run, workdir)


def test_the_command_evaluates_them_on_their_base(run, tmp_path):
    metrics = evaluate_saved(config(), str(run), tmp_path)["test"]["metrics"]
    final = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "eval"][-1]
    assert {f"eval/{name}": value for name, value in metrics.items()} == {
        name: value for name, value in final.items() if name not in ("kind", "step")
    }


def test_a_merged_export_computes_the_same(run, whole, tmp_path):
    parts, first, state = whole
    export(run, tmp_path / "merged")
    policy = Policy(huggingface.read_architecture(tmp_path / "merged"))
    assert policy.architecture == parts.policy.base.architecture
    where = meshes.shardings(policy.abstract_params(), meshes.make_mesh(1, 1, 1))
    merged = huggingface.load_params(tmp_path / "merged", policy, where)
    last, tokens = lora.join(lora.split(first)[0], state.params), jnp.arange(20)[None]
    ours = parts.policy.logits(last, parts.policy.forward(last, tokens))
    np.testing.assert_allclose(policy.logits(merged, policy.forward(merged, tokens)), ours, atol=1e-4)
    export(run, tmp_path / "alone", adapters=True)
    assert (tmp_path / "alone" / "adapter_model.safetensors").exists()
