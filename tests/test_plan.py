"""The memory plan against the compiler's memory analysis, and the refusal of a run that does not fit."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

from amrsd_jax import plan
from amrsd_jax.compile.programs import programs
from amrsd_jax.experiment import make_experiment
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.state import abstract_state, state_shardings
from amrsd_jax.learning.step import LossWeights, accumulates, make_train_step
from amrsd_jax.plan import GIB, parts, sizes
from amrsd_jax.policy import Policy, preset
from amrsd_jax.records import Batch
from amrsd_jax.runtime.workdir import claim
from amrsd_jax.sampling import transitions
from amrsd_jax.scoring.logprobs import token_logprobs
from amrsd_jax.sections import ConfigError
from amrsd_jax.train import train
from amrsd_jax.validate import validate
from tests.tiny import tiny_config

FACTOR = 1.5  # accuracy that the module states
ROOT = Path(__file__).parents[1]


def small(**fields):
    """A config with buffers large enough to be measured, built in seconds."""
    fields = {"architecture__vocab_size": 2048, "learning__minibatches": 1} | fields
    config = tiny_config(rule="grpo", warmup__documents=0, **fields)
    config.rollout.update(prompts=8, prompt_length=32, response_length=224, slots=64)
    config.scoring.update(chunk=1024)
    config.architecture.update(width=128, layers=4, ffn=384)
    return config


def make(config, tmp_path):
    return plan.make_plan(validate(config), tmp_path)


def shapes(tree, where):
    """Abstract arrays with their shardings."""
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, where)


def rows(run):
    """Shapes of the run's widest micro-batch, and of its loss weights."""
    rollout, learning = run.config.rollout, run.config.learning
    n = run.config.rows // learning.minibatches // learning.micro_batches
    p, t = rollout.prompt_length, rollout.response_length

    def array(*shape, dtype=np.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=meshes.rows(run.mesh))

    batch = Batch(
        prompt=array(n, p, dtype=np.int32), prompt_length=array(n, dtype=np.int32), response=array(n, t, dtype=np.int32),
        mask=array(n, t), sampler_logprobs=array(n, t), old_logprobs=array(n, t), reference_logprobs=None,
        token_advantage=array(n, t),
    )  # fmt: skip
    if run.config.learning.share_prompts:
        u = rollout.prompts
        shared = dict(prompt=array(u, p, dtype=np.int32), prompt_length=array(u, dtype=np.int32))
        batch = batch.replace(**shared, prompt_index=array(n, dtype=np.int32))
    return batch, LossWeights(array(n, t), None)


def memory(program, *given):
    """The compiler's analysis of a jitted function of these arguments, or of a `Program`."""
    return program.lower(*given).compile().memory_analysis()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        dict(),
        dict(remat="none"),
        dict(remat="full", learning__micro_batches=4),
        dict(learning__micro_batches=4, architecture__vocab_size=32_768),
        dict(mesh__fsdp=8),
        dict(learning__share_prompts=True),
        dict(learning__share_prompts=True, remat="none"),
        dict(loss__old_logprobs="update", learning__minibatches=2),
    ],
)
def test_an_update_needs_what_the_plan_says(fields, tmp_path):
    config = small(**fields)
    run, planned = make_experiment(validate(config), tmp_path), make(config, tmp_path)
    step = make_train_step(run.policy, run.optimizer, run.schedule, run.objective, run.config.learning, run.mesh)
    parts = (run.policy, run.optimizer)
    state = shapes(abstract_state(*parts), state_shardings(*parts, run.mesh))
    if not accumulates(run.config.loss, run.config.learning):
        update = memory(step.single_update, state, None, rows(run))
        held, needed = update.argument_size_in_bytes, update.temp_size_in_bytes
    else:  # the sum of gradients is an argument of both programs
        sums = planned.always["parameters"]
        given = (state.params, state, None, rows(run))
        piece, end = (
            memory(step.accumulate, *given),
            memory(step.apply_update, state, state.params, jax.eval_shape(step.accumulate, *given)[1]),
        )
        held, needed = end.argument_size_in_bytes - sums, sums + max(piece.temp_size_in_bytes, end.temp_size_in_bytes)
    expected = planned.always["parameters"] + planned.always["optimiser"]
    assert expected == pytest.approx(held, rel=0.15)  # the batch is beside them
    added = sum(planned.phases["update"].values())
    assert added / FACTOR < needed < added * FACTOR


@pytest.mark.slow
def test_sampling_needs_what_the_plan_says(tmp_path):
    run, planned = make_experiment(validate(small()), tmp_path), make(small(), tmp_path)
    sampler = run.samplers["rollout"]
    slots = transitions.empty_slots(run.policy, sampler)
    transitions.resize_cache(sampler, slots, sampler.length)
    weights = jax.eval_shape(run.policy.for_decoding, run.policy.abstract_params())
    until = jax.ShapeDtypeStruct((), np.int32)
    leaves, structure = jax.tree.flatten((weights, slots, until))  # what is lowered must be of the annotated types

    def decode(*leaves):
        return transitions.decode(run.policy, sampler, *jax.tree.unflatten(structure, leaves))

    analysis = jax.jit(decode).lower(*leaves).compile().memory_analysis()
    total = sum(planned.phases["decode"].values())
    measured = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    assert total / FACTOR < measured < total * FACTOR


@pytest.mark.slow
@pytest.mark.parametrize("rows, prompt, response", [(8, 32, 224), (4, 128, 896)])
def test_scoring_needs_what_the_plan_says(tmp_path, rows, prompt, response):
    """Short rows, where the inner layer is the largest, and long ones, where it is the attention's scores."""
    config = small(reflection__context_length=prompt)
    config.rollout.update(prompt_length=prompt, response_length=response)
    config.scoring.update(rows=rows, chunk=256)
    run = sizes.planned(validate(config), tmp_path)
    policy = run.policy

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, np.int32)

    def score(params, *row):
        return token_logprobs(policy, params, *row, temperature=1.0, chunk=256)

    given = (policy.abstract_params(), array(rows, prompt), array(rows), array(rows, response))
    needed = jax.jit(score).lower(*given).compile().memory_analysis().temp_size_in_bytes
    planned = sum(sizes.phases(run)["score"].values())
    assert planned / FACTOR < needed < planned * FACTOR


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["external", "trust_region"])
def test_scoring_by_another_teacher_needs_what_the_plan_says(tmp_path, kind):
    """The teacher is a larger model, or a blend of two policies; the policy itself needs less."""
    larger, fields = small(), dict(credit__rule="opd", credit__context="answer", teacher__kind=kind)
    larger.architecture.update(width=512, ffn=2048)
    claim(tmp_path / "other", validate(larger))
    if kind == "external":
        fields |= dict(external__workdir=str(tmp_path / "other"))
    run = sizes.planned(validate(small(**fields)), tmp_path)
    of_policy, of_teacher = (one for one in programs(run) if one.phase == "score")
    policy, teacher = (memory(one).temp_size_in_bytes for one in (of_policy, of_teacher))
    planned = sum(sizes.phases(run)["score"].values())
    assert planned / FACTOR < teacher < planned * FACTOR and policy < teacher


@pytest.mark.slow
def test_an_external_critic_has_programs_and_sizes_of_its_own(tmp_path):
    larger = small()
    larger.architecture.update(width=512, ffn=2048)
    claim(tmp_path / "other", validate(larger))
    fields = dict(credit__rule="feedback_alignment", credit__context="critic_feedback")
    own, run = (
        sizes.planned(validate(small(**fields, external__workdir=place)), tmp_path)
        for place in ("", str(tmp_path / "other"))
    )
    assert {one.name for one in programs(run)} - {one.name for one in programs(own)} == {
        "critic.admit",
        "critic.decode",
    }
    assert {one.policy for one in programs(run) if one.name.startswith("critic")} == {run.external}
    assert sizes.phases(run)["prefill"]["prefill"] > 2 * sizes.phases(own)["prefill"]["prefill"]


@pytest.mark.slow
def test_a_warm_up_with_rehearsal_runs_two_models(tmp_path):
    two, one = (
        make(small(credit__rule="amrsd", reflection__warmup__attempts=8, reflection__warmup__rehearsal=share), tmp_path)
        for share in (1.0, 0.0)
    )
    two, one = two.phases["warm up"], one.phases["warm up"]
    assert two["activations"] > one["activations"] and two["gradients"] == 2 * one["gradients"]
    assert two["activations"] + two["logits"] > one["activations"] + 2 * one["logits"]


# ---------------------------------------------------------------- parts, by hand


@pytest.mark.slow
def test_what_is_kept_for_the_backward_pass():
    """With everything recomputed a layer keeps its input; with dots, also what its products and attention give."""
    architecture = preset("tiny", dtype="bfloat16")
    width, length = architecture.width, 64
    assert parts.kept(Policy(architecture, "full"), length)[0] == length * width * 2
    products = 2 * architecture.heads * 32 + 2 * architecture.kv_heads * 32 + 2 * architecture.ffn + width
    dots = parts.kept(Policy(architecture, "dots"), length)[0]
    assert length * (width + products) * 2 == dots < parts.kept(Policy(architecture), length)[0]


@pytest.mark.slow
def test_devices_share_what_is_split(tmp_path):
    one, eight = (make(small(mesh__data=1, mesh__fsdp=ways), tmp_path) for ways in (1, 8))
    for name in ("parameters", "optimiser"):
        assert one.always[name] / 8 <= eight.always[name] < one.always[name] / 7  # norms are whole everywhere
    assert one.phases["decode"]["decoding weights"] == eight.phases["decode"]["decoding weights"]
    assert one.phases["decode"]["keys and values"] == 8 * eight.phases["decode"]["keys and values"]


@pytest.mark.parametrize(
    "fields, most",
    [
        (dict(), 8),  # 8 groups of 8 rows
        (dict(learning__micro_batches=4), 8),  # rows are sorted by width, so any of 16 rows may have any prompt
        (dict(learning__micro_batches=16), 4),
        (dict(learning__minibatches=4), 2),
        (dict(mesh__data=8), 0),
        (dict(learning__share_prompts=False), 0),
    ],
)
def test_a_micro_batch_has_the_prompts_of_its_update(fields, most, tmp_path):
    run = sizes.planned(validate(small(**{"learning__share_prompts": True} | fields)), tmp_path)
    assert (run.config.rows, run.shared_prompts) == (64, most)


def test_keys_and_values_and_moments(tmp_path):
    planned, run = make(small(), tmp_path), sizes.planned(validate(small()), tmp_path)
    assert planned.phases["decode"]["keys and values"] == 64 * (32 + 224) * 2 * 4 * 1 * 32 * 4
    assert planned.always["parameters"] == 4 * run.policy.architecture.parameters()
    assert planned.always["optimiser"] == pytest.approx(2 * planned.always["parameters"], rel=1e-4)
    assert planned.always["reference policy"] == planned.always["teacher"] == planned.always["critic"] == 0


@pytest.mark.parametrize(
    ("fields", "streams"),
    [
        (dict(credit__rule="grpo"), {"rollout"}),
        (dict(credit__rule="amrsd"), {"rollout", "reflection"}),
        (dict(credit__rule="feedback_alignment", credit__context="critic_feedback"), {"rollout", "critic"}),
    ],
)
def test_the_samplers_that_a_run_does_not_use_need_no_memory(fields, streams, tmp_path):
    assert set(sizes.planned(validate(small(**fields)), tmp_path).streams) == streams


@pytest.mark.slow
def test_copies_are_counted_where_the_config_asks_for_them(tmp_path):
    planned = make(small(loss__kl=0.1, credit__rule="amrsd", teacher__kind="ema"), tmp_path)
    copy = planned.always["parameters"]
    assert planned.always["reference policy"] == planned.always["teacher"] == copy
    config = small(credit__rule="feedback_alignment", credit__context="critic_feedback")
    planned = make(config, tmp_path).always
    assert planned["critic"] == planned["critic's decoding weights"] == copy  # these in float32 too


@pytest.mark.slow
def test_adapters_are_all_that_is_held_twice(tmp_path):
    fields = dict(lora__rank=4, loss__kl=0.1, credit__rule="amrsd", teacher__kind="ema", architecture__dtype="bfloat16")
    planned = make(small(**fields), tmp_path)
    adapters = planned.always["teacher"]
    per_layer = (128 + 64) + 2 * (128 + 32) + (64 + 128) + 3 * (128 + 384)
    assert adapters == 4 * 4 * per_layer * 4  # layers, rank, float32
    assert planned.always["reference policy"] == planned.phases["update"]["gradients"] == adapters
    assert planned.always["optimiser"] == 2 * adapters + 4  # and a counter
    critic = dict(fields, credit__rule="feedback_alignment", credit__context="critic_feedback")
    planned = make(small(**critic), tmp_path)
    assert planned.always["critic"] == adapters
    assert planned.always["critic's decoding weights"] == planned.phases["prepare"]["decoding weights"]


# ---------------------------------------------------------------- the refusal


def eight_billion(**fields):
    """A model on the hub, which tests cannot reach, so that neither weights nor tokenizer can be fetched."""
    config = tiny_config(model="Qwen/Qwen3-8B", warmup__documents=0, **fields)
    config.architecture = {}
    return config


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_refused_before_anything_is_fetched_or_made(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_host_memory", lambda: 23 * GIB)
    with pytest.raises(ConfigError) as refusal:
        train(eight_billion(), tmp_path / "run")
    message = str(refusal.value)
    assert "'Qwen/Qwen3-8B', 8,190,735,360 parameters" in message and "23.00 GiB" in message
    assert "lora.rank" in message and "plan.refuse = False" in message
    assert f"{8_190_735_360 * 8 / GIB:10.3f} GiB" in message  # two moments in float32
    assert not (tmp_path / "run").exists()


def test_the_refusal_can_be_switched_off_and_needs_a_known_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_host_memory", lambda: None)
    plan.require(validate(eight_billion()), tmp_path)
    monkeypatch.setattr(plan, "_host_memory", lambda: GIB)
    plan.require(validate(eight_billion(plan__refuse=False)), tmp_path)


def device(platform, stats):
    return mock.Mock(spec=jax.Device, platform=platform, memory_stats=lambda: stats)


def test_a_step_beside_a_checkpoint_that_is_being_written(tmp_path):
    """The copy has the trained parameters and their moments: with adapters it is small."""
    whole, adapted = make(small(), tmp_path), make(small(lora__rank=4), tmp_path)
    copy = whole.phases["update"]["copy of the state"]
    assert copy == pytest.approx(3 * whole.always["parameters"], rel=0.01)
    assert adapted.phases["update"]["copy of the state"] < 0.2 * copy
    assert (
        "copy of the state"
        not in plan.plan_of(sizes.planned(validate(small()), tmp_path), None, "a TPU").phases["update"]
    )


def test_an_accelerator_says_its_memory_and_a_cpu_shares_the_machines(monkeypatch):
    assert plan.available_memory(device("gpu", {"bytes_limit": 60 * GIB}), 8) == 60 * GIB
    assert plan.available_memory(device("tpu", None), 8) is plan.available_memory(device("gpu", {}), 1) is None
    monkeypatch.setattr(plan, "_host_memory", lambda: 24 * GIB)
    assert plan.available_memory(device("cpu", None), 8) == 3 * GIB


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_the_machine_says_its_memory():
    assert 1 << 20 < plan._host_memory() < 1 << 50


def test_sizes_of_a_model_that_brings_its_weights_are_its_own():
    config = eight_billion(architecture__dtype="float32", architecture__width=4096)
    validate(config)
    config.architecture.layers = 2
    with pytest.raises(ConfigError, match="architecture.layers = 2: model = 'Qwen/Qwen3-8B' .* layers = 36"):
        validate(config)


@pytest.mark.slow
def test_lora_fits_eight_billion_parameters_on_one_accelerator(tmp_path):
    """The device of 80 GB that adapters are for; without them the moments alone are 61 GiB."""
    config = eight_billion(lora__rank=16, remat="full", learning__micro_batches=16)
    config.rollout.update(prompt_length=512, response_length=1024)
    assert make(config, tmp_path).peak < 80e9 < make(eight_billion(), tmp_path).peak


def test_reflections_beside_responses_are_admitted_one_to_a_device_however_long(tmp_path):
    """A device admits three prompts of responses, of 32 tokens, together, and one of a reflection, of up to 120, to one cache."""
    config = small(mesh__data=8, credit__rule="amrsd")
    config.rollout.admit = 24
    config.reflection.update(prompt_length=120, tokens=16, slots=16)
    run = sizes.planned(validate(config), tmp_path)
    assert run.prompts("rollout") == [32, 120] and run.prompts("reflection") == [120]
    c, sampler = run.policy.architecture, run.samplers["rollout"]
    keys = 2 * c.kv_heads * c.head_dim * 4
    for longest, rows, width in ((32, 3, 32), (120, 1, 128)):
        whole = parts.forward(run.policy, rows, width) + rows * (c.layers + 8) * keys * width
        assert parts.prefill(run.policy, sampler, longest) == whole
    config.reward.permute = True  # then no group's advantage is known before the batch is complete
    assert sizes.planned(validate(config), tmp_path).prompts("rollout") == [32]


def test_an_axis_that_tensor_does_not_divide_is_whole_on_every_device(tmp_path):
    """A vocabulary of 98 over four devices; of two heads of keys a half each over two, none over four."""
    for tensor, vocabulary, heads in ((2, 49, 1), (4, 98, 2)):
        config = small(mesh__data=1, mesh__tensor=tensor, architecture__heads=4, architecture__kv_heads=2)
        policy = sizes.planned(validate(config), tmp_path).policy
        policy = dataclasses.replace(policy, architecture=dataclasses.replace(policy.architecture, vocab_size=98))
        assert parts.row_of_logits(policy) == 4 * vocabulary
        assert parts._split(policy, 2) == heads


def test_the_table_says_what_and_how_much():
    always, phases = {"parameters": GIB}, {"decode": {"logits": GIB // 2}, "update": {"gradients": GIB}}
    fitting = plan.Plan("a model", always, phases, 3 * GIB, "cpu")
    assert fitting.table().splitlines()[1].split() == ["parameters", "1.000", "GiB"]
    assert fitting.table().splitlines()[-1].split() == ["peak", "2.000", "GiB"]
    assert "2.00 GiB" in fitting.summary() and "3.00 GiB" in fitting.summary()
    assert fitting.fits and not dataclasses.replace(fitting, available=GIB).fits
    assert dataclasses.replace(fitting, available=None).fits


def test_every_item_of_a_plan_has_its_advice(tmp_path):
    planned = make(small(), tmp_path)
    items = planned.always.keys() | set().union(*planned.phases.values())
    assert items == plan.ADVICE.keys()


@pytest.mark.slow
def test_the_command_assumes_devices():
    command = [sys.executable, "-m", "amrsd_jax.plan", "--config=configs/quickstart.py", "--config.warmup.documents=0"]
    command += ["--config.model=Qwen/Qwen3-8B", "--config.mesh.fsdp=8", "--devices=8"]

    def run(*more):
        return subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)

    done = run("--memory_gib=80")
    assert done.returncode == 0, done.stderr
    assert "fsdp 8" in done.stdout and "80.00 GiB" in done.stdout
    assert "process" not in done.stdout and "copy of the state" not in done.stdout  # they are in the memory of the host
    done = run("--memory_gib=8")
    assert done.returncode == 1 and "8.00 GiB" in done.stdout and "mesh.tensor" in done.stdout
