"""A run with adapters, a teacher of its own and a rule with a memory: it resumes exactly, and both exports compute the same."""

import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from amrsd_jax.evaluate.saved import evaluate_saved
from amrsd_jax.experiment import make_experiment
from amrsd_jax.export import export
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.policy import Policy, huggingface, lora
from amrsd_jax.runtime.checkpoints import Checkpoints
from amrsd_jax.runtime.clock import Clock
from amrsd_jax.start import initial_params, start_or_resume
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from tests import runs
from tests.tiny import set_fields, tiny_config

pytestmark = pytest.mark.slow


def config():
    return tiny_config(
        "antisd", lora__rank=4, lora__alpha=8.0, lora__targets="query,value,up", loss__kl=0.01, teacher__kind="snapshot",
        teacher__every=3, optimizer__learning_rate=1e-3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    workdir = runs.fresh(finished, tmp_path_factory.mktemp("adapters") / "run")
    train(config(), workdir)
    return workdir


@pytest.fixture(scope="module")
def whole(run):
    """The run's experiment, its first parameters, base included, and its last state and progress."""
    experiment = make_experiment(validate(config()), run)
    first = initial_params(experiment, run, Clock())
    state, _, progress = start_or_resume(experiment, run, Checkpoints(run / "checkpoints", keep=None), Clock())
    return experiment, first, state, progress


def test_a_checkpoint_holds_adapters_alone_and_they_have_moved(run, whole):
    _, first, state, progress = whole
    adapters = lora.trainable(first)
    assert jax.tree.structure(state.params) == jax.tree.structure(adapters) == jax.tree.structure(state.teacher)
    for name in ("query", "value", "up"):
        assert jnp.any(state.params["layers"][name]["lora_b"])
        assert jnp.any(state.params["layers"][name]["lora_b"] != state.teacher["layers"][name]["lora_b"])
    assert sum(a.size for a in runs.leaves(run, 4)) < 6 * sum(a.size for a in jax.tree.leaves(adapters))
    assert progress.step == 4 and any(progress.memory)


def test_a_stopped_run_continues_to_the_same_end(finished, run, tmp_path, monkeypatch):
    """After its teacher was refreshed."""
    workdir = runs.fresh(finished, tmp_path / "run")
    with monkeypatch.context() as patch:
        runs.after_metrics(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train(config(), workdir)["steps"] == 3
    assert train(config(), workdir)["steps"] == 4
    runs.assert_same_run(run, workdir)


def test_an_export_needs_neither_rows_nor_devices_of_the_run(run, tmp_path):
    """The run could not be trained on these eight devices: a micro-batch has two rows."""
    other = shutil.copytree(run, tmp_path / "run")
    config = json.loads((other / "config.json").read_text())
    config["learning"] |= dict(minibatches=1, micro_batches=16)
    (other / "config.json").write_text(json.dumps(config))
    for workdir in (run, other):
        export(workdir, tmp_path / workdir.parent.name)
    one, two = (load_file(tmp_path / workdir.parent.name / "model.safetensors") for workdir in (run, other))
    assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)


def test_the_command_evaluates_them_on_their_base(run, tmp_path):
    """By the code that the run evaluates itself with; the rule, here one in a file that is gone, is not looked for."""
    evaluated = set_fields(config(), credit__rule="gone.py:RULE")
    values = evaluate_saved(evaluated, str(run), tmp_path)["test"]["metrics"]
    final = runs.metrics(run, "eval")[-1]
    assert {"kind": "eval", "step": 4} | {f"eval/{name}": value for name, value in values.items()} == final


def test_a_merged_export_computes_the_same(run, whole, tmp_path):
    experiment, first, state, _ = whole
    export(run, tmp_path / "merged")
    policy = Policy(huggingface.read_architecture(tmp_path / "merged"))
    assert policy.architecture == experiment.policy.base.architecture
    where = meshes.shardings(policy.abstract_params(), meshes.make_mesh(1, 1, 1))
    merged = huggingface.load_params(tmp_path / "merged", policy, where)
    last, tokens = lora.combine(lora.split(first)[0], state.params), jnp.arange(20)[None]
    ours = experiment.policy.logits(last, experiment.policy.forward(last, tokens))
    np.testing.assert_allclose(policy.logits(merged, policy.forward(merged, tokens)), ours, atol=1e-4)


def test_adapters_name_their_base_where_transformers_loads_it(run, tmp_path):
    """A preset has no weights there, and one rotary field more is another model."""
    export(run, model := tmp_path / "model")
    config = json.loads((run / "config.json").read_text())
    folder = dict(model=str(model), architecture={}, warmup=config["warmup"] | dict(documents=0))
    for name, changes, base in (
        ("preset", {}, None),
        ("folder", folder, str(model)),
        ("changed", folder | dict(architecture=dict(rope_theta=5e5)), None),
    ):
        other = shutil.copytree(run, tmp_path / name)
        (other / "config.json").write_text(json.dumps(config | changes))
        export(other, tmp_path / f"{name} alone", adapters=True)
        assert (tmp_path / f"{name} alone" / "adapter_model.safetensors").exists()
        adapter = json.loads((tmp_path / f"{name} alone" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == base
