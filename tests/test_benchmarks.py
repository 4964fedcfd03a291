"""The benchmarks: floors against published arithmetic, forced lengths, and the runner's rows; never a wall time."""

import json
import shutil

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from amrsd_jax import rng
from amrsd_jax.config import LearningConfig, LossConfig, OptimizerConfig
from amrsd_jax.learning.mesh import make_mesh
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import init_state, policy_params
from amrsd_jax.learning.step import Objective, make_train_step
from amrsd_jax.policy import Policy, preset
from amrsd_jax.records import Request
from amrsd_jax.sampling import SamplerConfig, SamplerParams, complete
from amrsd_jax.sections import ConfigError
from benchmarks import cases, floors, measure, run, tunix
from benchmarks.lengths import LogNormalLengths, stop_odds
from benchmarks.step import training_steps

H100 = floors.Ceilings(copy=2877e9, matmul=794e12)
SMALL = preset("qwen3-0.6b", dtype="bfloat16")
LARGE = preset("qwen3-1.7b", dtype="bfloat16")


@pytest.mark.parametrize(
    "work, seconds",
    [  # worked out by others for these sizes on one H100
        (floors.sampling(SMALL, 64, 256, 512), 0.906),
        (floors.sampling(SMALL, 256, 256, 512), 2.986),
        (floors.scoring(SMALL, 1, [1023] * 64), 0.108),
        (floors.learning(SMALL, 1, [1023] * 16), 0.081),
        (floors.learning(LARGE, 1, [1023] * 16), 0.220),
    ],
)
def test_floors_are_those_that_others_worked_out(work, seconds):
    assert work.floor(H100) == pytest.approx(seconds, rel=0.01)


def test_a_floor_takes_the_slower_of_reading_and_multiplying_in_each_phase():
    work = floors.Work(bytes=np.array([10.0, 10.0]), flops=np.array([300.0, 600.0]))
    assert work.floor(floors.Ceilings(copy=2.0, matmul=100.0)) == 5 + 6


def test_long_tail_is_the_fixed_length_when_all_rows_are_as_long():
    """Nine tokens of each of 4 rows in 4 slots: 8 steps; their mean context is that of the fixed case but half a token."""
    tail, fixed = floors.long_tail(SMALL, 4, 4, 16, 36), floors.sampling(SMALL, 4, 16, 9)
    assert len(tail.bytes) == len(fixed.bytes) == 9
    assert tail.flops.sum() == pytest.approx(fixed.flops.sum(), rel=1e-3)


def test_a_shared_prompt_is_run_once_and_has_no_logits():
    """Without attention: 33 + 8 x 24 tokens through the layers, 8 x 24 through the output projection."""
    c = SMALL
    head = 2 * c.vocab_size * c.width
    layers = c.forward_flops(1, 0.0) - head
    alone, shared = (floors.scoring(c, 33, [24] * 8, group).flops[0] for group in (1, 8))
    assert alone - shared == pytest.approx(7 * c.forward_flops(33, 33 / 2) - 7 * 33 * head)
    attention = c.forward_flops(33, 33 / 2) - c.forward_flops(33, 0.0)
    attention += 8 * (c.forward_flops(24, 33 + 12.0) - c.forward_flops(24, 0.0))
    assert shared == pytest.approx((33 + 8 * 24) * layers + 8 * 24 * head + attention)


def test_stop_odds_leave_half_the_rows_at_the_median():
    """Survivors after t tokens: the product of 1 - p = 1 / (1 + odds). Log-normal: 15.9 % are beyond median * e^spread."""
    alive = np.cumprod(1 / (1 + stop_odds(32, 1.0, 256).astype(float)))
    assert alive[31] == pytest.approx(0.5, abs=0.01)
    assert alive[86] == pytest.approx(0.159, abs=0.005)


@pytest.mark.slow
def test_lengths_without_spread_are_the_median(policy, params):
    forced = LogNormalLengths(policy.architecture, prompt=3, median=5, spread=1e-3, longest=12)
    config = SamplerConfig(2, 1, 3, 12, admit=1, segment=4, stop_tokens=(forced.stop,))
    requests = [Request([7, 8, 9], row=row) for row in range(3)]
    sampler_params = SamplerParams(params, forced.for_decoding(params))
    done = list(complete(forced, config, sampler_params, requests, rng.key(0, "test")))
    assert [len(c.tokens) for c in done] == [5, 5, 5]
    assert all(c.finish_reason == "stop" and 0 not in c.tokens[:-1] for c in done)


def fake(name, calls, tokens=7):
    def work():
        calls.append(name)
        return tokens

    return measure.Arm(name, work)


def case(*arms):
    work = floors.Work(np.array([1.0]), np.array([0.0]))
    return measure.Case("suite", "case", {}, lambda tokens: work, arms)


def test_arms_take_turns():
    calls = []
    rows = measure.measure(case(fake("a", calls), fake("b", calls)), floors.Ceilings(1.0, 1.0), repeats=2)
    assert calls == ["a", "b"] * 3
    assert rows[0]["times_first"] == 1 and len(rows[1]["all_seconds"]) == 2
    assert rows[1]["times_first"] == pytest.approx(rows[1]["seconds"] / rows[0]["seconds"])
    assert rows[1]["floor_share"] == pytest.approx(1 / rows[1]["seconds"])


def test_arms_that_did_not_do_the_same_are_refused():
    arms = fake("a", []), fake("b", [], tokens=8)
    with pytest.raises(RuntimeError, match=r"different numbers of tokens: \{'a': 7, 'b': 8\}"):
        measure.measure(case(*arms), floors.Ceilings(1.0, 1.0), repeats=1)


@pytest.fixture
def unchecked():
    """Asking for a compiled program's memory puts descriptions of arrays where the records' types want arrays."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_the_runner_measures_every_suite():
    sizes = dict(sampling="2x4x8", long_tail="6x2x4x16", scoring="4x8x2", learning="2x8")
    sizes |= dict(scoring_tail="4x4x16x2", learning_tail="4x4x16x2", learning_groups="2x2x4x4x2")
    result = run.run(["sampling", "scoring", "learning", "groups"], model="tiny", repeats=1, peer=False, **sizes)
    assert set(result) == {"machine", "ceilings", "repeats", "model", "rows", "skipped"}
    assert {"platform", "device", "cores", "load", "versions", "date"} <= set(result["machine"])
    assert result["machine"]["versions"]["jax"] == jax.__version__
    arms = [(row["suite"], row["case"], row["arm"]) for row in result["rows"]]
    assert arms == [
        ("sampling", "fixed length", "amrsd_jax"), ("sampling", "long tail", "continuous"),
        ("sampling", "long tail", "lockstep"), ("scoring", "forward", "amrsd_jax"), ("scoring", "long tail", "amrsd_jax"),
        ("scoring", "long tail", "padded"), ("learning", "update", "amrsd_jax"), ("learning", "long tail", "amrsd_jax"),
        ("learning", "long tail", "padded"), ("learning", "groups", "amrsd_jax"), ("learning", "groups", "shared"),
    ]  # fmt: skip
    tokens = [row["tokens"] for row in result["rows"]]
    assert tokens[0] == 16 and 6 <= tokens[1] == tokens[2] <= 96 and (tokens[3], tokens[6]) == (32, 16)
    parameters = 4 * result["model"]["parameters"]
    assert (
        result["rows"][-1]["peak_bytes"] > 3 * parameters
    )  # the weights, the sum of gradients and one micro-batch's; moments are in `apply_update`
    assert all(row["peak_bytes"] > parameters for row in result["rows"])


@pytest.mark.slow
def test_steps_are_taken_on_equal_rollouts(finished, tmp_path):
    """Both arms sample equally many tokens, or `measure` refuses. Only AMR-SD reflects, and the run has a reference policy."""
    shutil.copytree(finished, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["loss"]["kl"] = 0.1
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    request = dict(model="tiny", repeats=1, peer=False, workdir=tmp_path / "run")
    with pytest.raises(ValueError, match="feedback_alignment@critic_feedback reads the texts of a critic"):
        run.run(["step"], methods=["feedback_alignment@critic_feedback"], **request)
    result = run.run(["step"], **request)
    grpo, amrsd = result["rows"]
    assert (grpo["arm"], amrsd["arm"]) == ("grpo", "amrsd") and grpo["tokens"] == amrsd["tokens"] > 0
    assert {"sample", "reflect", "score", "credit", "update"} == set(grpo["phases"]) == set(amrsd["phases"])
    for row in (grpo, amrsd):
        laid_out = {name: 0.0 for name in row["phases"]}
        for name, begin, end in row["timeline"]["phases"]:
            laid_out[name] += end - begin
        assert laid_out == pytest.approx(row["phases"], abs=1e-3)  # of the same turn
    assert "reflections" not in grpo["timeline"]["busy"] and max(amrsd["timeline"]["busy"]["reflections"]) > 0
    drawn = run.timelines(result)
    assert drawn.startswith("<svg") and ">grpo" in drawn and ">amrsd" in drawn


@pytest.mark.slow
def test_a_critic_of_another_run_is_refused(finished, tmp_path):
    """The benchmark would sample its texts from this run's own policy."""
    workdir = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["credit"] |= dict(rule="feedback_alignment", context="critic_feedback", args={})
    config["external"]["workdir"] = str(finished)  # teacher.kind stays "policy", as in the checkpoint
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="feedback_alignment reads the texts of a critic"):
        training_steps(workdir, ["feedback_alignment"], 1)


@pytest.mark.parametrize(
    "asked, message",
    [
        (dict(suites=["sampilng"]), "suite = 'sampilng'.*sampling"),
        (dict(suites=["step"]), "suite = 'step': expected --run"),
        (dict(suites=["scoring"], model="qwen3-0.6"), "model = 'qwen3-0.6'.*qwen3-0.6b"),
        (dict(suites=["scoring"], scoring="16x512"), "scoring = '16x512': expected rows x tokens x rows together"),
    ],
)
def test_wrong_requests_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        run.run(**asked)


def test_tunix_is_given_the_same_model():
    """Its scoring of our weights gives our log-probabilities."""
    pytest.importorskip("tunix")
    from amrsd_jax.scoring.logprobs import token_logprobs

    c = preset("tiny", vocab_size=48, width=32, layers=2, head_dim=8, ffn=48, rope_theta=1e6)
    params = jax.tree.map(lambda a: 3 * a, Policy(c).init(rng.key(0, "init")))
    tokens = rng.host(0, "test").integers(2, 48, (3, 9), np.int32)
    rows = tokens[:, :1], np.ones(3, np.int32), tokens[:, 1:]
    ours, _ = token_logprobs(Policy(c), params, *map(jnp.asarray, rows), temperature=1.0, chunk=64)
    graph, state = tunix.split(c, params)
    np.testing.assert_allclose(tunix.logprobs(graph, state, rows[0], rows[2], together=2), ours, atol=1e-4)


def test_tunix_learns_what_we_learn():
    """The mean of the gradients of two pieces, clipped, by AdamW: its parameters move as ours do."""
    pytest.importorskip("tunix")
    from flax import nnx

    c = preset("tiny", vocab_size=48, width=32, layers=2, head_dim=8, ffn=48, rope_theta=1e6)
    policy, params, mesh = Policy(c), Policy(c).init(rng.key(0, "init")), make_mesh(1, 1, 1)
    given = cases.random_batch(c, 1, np.full(4, 8), 8)
    config = OptimizerConfig(learning_rate=1e-2, eps=1e-4)
    schedule = make_schedule(config, total_updates=1)
    optimizer = make_optimizer(config, schedule)
    objective = Objective(LossConfig(), distill=None, temperature=1.0, chunk=64)
    model, learn = tunix.updating(c, params, optimizer, 2, 0.2)
    for rows in np.split(np.arange(4), 2):
        learn(given, rows)
    theirs = nnx.to_pure_dict(nnx.state(model))
    step = make_train_step(policy, optimizer, schedule, objective, LearningConfig(micro_batches=2), mesh)
    state, _ = step(init_state(policy, optimizer, params, mesh), given)
    ours, before = tunix.renamed(c, policy_params(state)), tunix.renamed(c, policy.init(rng.key(0, "init")))
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (ours, before)), strict=True)]
    assert min(moved) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), theirs, ours)


def test_tunix_is_left_out_where_it_cannot_run():
    assert "QK-norm" in tunix.missing(preset("llama-3.2-1b"))
