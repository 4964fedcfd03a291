"""Compare gives every method the credit that a training step of its own would have given it."""

import dataclasses
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest

from amrsd_jax import credit
from amrsd_jax.compare import apply_all, compare, load, measures, write
from amrsd_jax.compare.apply import apply, score_student
from amrsd_jax.compare.gradient import policy_gradient
from amrsd_jax.compare.methods import configure, method_config, parse, possible
from amrsd_jax.compare.parameters import load as load_parameters
from amrsd_jax.sections import ConfigError
from amrsd_jax.validate import validate
from tests import runs
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow

VARIANTS = ("amrsd@shuffled_reflection", "amrsd@oracle_reflection", "hybrid@null")


@pytest.fixture(scope="module")
def by_name(comparison):
    return {one.name: one for one in comparison.applied}


# ---------------------------------------------------------------- methods


def test_gradients_that_have_no_room_are_refused_before_any_score(finished, monkeypatch):
    disk = SimpleNamespace(free=1 << 10)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: disk)
    with pytest.raises(OSError, match="0.0 GiB free, and the policy gradients of 2 methods .* TMPDIR"):
        compare(finished, "grpo,amrsd")


def test_names_of_methods(finished):
    assert parse("all") == list(credit.RULES)
    assert parse("grpo, amrsd,grpo") == ["grpo", "amrsd"] and parse(["a@b"]) == ["a@b"]
    experiment = load.load(finished, step=1).experiment
    method = configure(experiment, "amrsd@oracle_reflection")
    assert method.config.credit.context == "oracle_reflection"
    assert configure(experiment, "rlsd").teacher.config.kind == "snapshot" and experiment.rule.name == "amrsd"
    advantages = [configure(experiment, name).config.credit for name in ("rloo", "reinforce", "grpo")]
    assert [(one.baseline, one.normalize) for one in advantages] == [
        ("leave_one_out", False), ("batch", False), ("group", True),
    ]  # fmt: skip
    for name, message in (
        ("grbo", "did you mean 'grpo'"), ("amrsd@x", "credit.context"), ("grpo@answer", "reads no teacher"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            configure(experiment, name)
    with pytest.raises(ValueError, match="at least one"):
        compare(finished, " ,")


def test_the_runs_own_method_keeps_the_settings_of_the_run():
    config = validate(tiny_config(credit__args=dict(lam=0.5), teacher__kind="ema"))
    mine, other = method_config(config, "amrsd"), method_config(config, "amrsd@oracle_reflection")
    assert (mine.credit.args["lam"], mine.teacher.kind) == (0.5, "ema")
    assert (other.credit.args["lam"], other.teacher.kind) == (0.2, "policy")


def test_a_blended_teacher_scores_with_the_blend(finished):
    """With a rate of 0 the blend is the policy of step 0, and has the same gaps."""
    loaded = load.load(finished, step=2)
    parameters = load_parameters(loaded.experiment, finished, 1)
    rollouts, entropy = score_student(loaded, parameters)
    gaps = []
    for kind in ("initial", "trust_region"):
        teacher = loaded.experiment.config.teacher.model_copy(update=dict(kind=kind, rate=0.0))
        config = loaded.experiment.config.model_copy(update=dict(teacher=teacher))
        with_teacher = dataclasses.replace(loaded.experiment.teacher, config=teacher)
        experiment = dataclasses.replace(loaded.experiment, config=config, teacher=with_teacher)
        (applied,) = apply(experiment, 1, rollouts, entropy, parameters, ["amrsd"])
        gaps.append(applied.logprobs.gap)
    assert abs(gaps[0]).max() > 0
    np.testing.assert_allclose(*gaps, atol=1e-5)


@pytest.mark.parametrize("step", [1, 2])
def test_the_runs_own_method_has_the_credit_that_the_run_recorded(finished, step):
    """Parameters, contexts, log-probabilities and credit are made again from tokens alone."""
    params, rollouts, (amrsd,) = apply_all(load.load(finished, step=step), ["amrsd"])
    assert params.checkpoint == step - 1 and amrsd.logprobs.scored.any()
    for i, row in enumerate(runs.rollouts(finished, step)):
        n = len(row["tokens"])
        context = row["reflection_kind"], row["reflection_status"], row["reflection"]
        assert (amrsd.contexts.kind[i], amrsd.contexts.status[i], amrsd.contexts.text[i]) == context
        np.testing.assert_allclose(rollouts.sampler_logprobs[i, :n], row["student_logprobs"], atol=1e-4)
        assert amrsd.credit.advantage[i] == np.float32(row["advantage"])
        np.testing.assert_allclose(amrsd.credit.token_advantage[i, :n], row["token_advantage"], rtol=5e-5, atol=2e-6)
        assert amrsd.logprobs.scored[i] == (row["gap"] is not None)
        if row["gap"] is not None:
            np.testing.assert_allclose(amrsd.logprobs.gap[i, :n], row["gap"], atol=5e-5)


def test_every_method_has_the_contexts_that_it_needs(comparison, by_name):
    assert [one.name for one in comparison.applied] == [*credit.RULES, *VARIANTS]
    for one in comparison.applied:
        needed = np.array([status != "not_needed" for status in one.contexts.status])
        assert one.logprobs.scored.sum() == len(one.contexts.rows) <= needed.sum()
        assert not one.logprobs.gap[~one.logprobs.scored].any()
        assert needed.any() == (one.experiment.config.credit.context != "none")
    assert not measures.added(by_name["grpo"].credit, comparison.rollouts.mask).any()


def test_sharing_changes_nothing(finished, comparison, by_name):
    """A method alone has the contexts and the credit that it has among all others, a rule with a memory included."""
    for name in ("masked_blame", "hybrid", "rlsd", "antisd"):
        _, _, (alone,) = apply_all(load.load(finished, step=2), [name])
        among = by_name[name]
        assert alone.contexts.text == among.contexts.text and alone.assigned.memory == among.assigned.memory
        np.testing.assert_allclose(alone.credit.token_advantage, among.credit.token_advantage, atol=1e-5)


def test_a_rule_with_a_memory_has_settled(by_name):
    """Its memory is full, as after many steps on the same rollouts."""
    medians = by_name["antisd"].assigned.memory
    assert len(medians) == len(credit.RULES["antisd"].memory) and all(medians[:6])


# ---------------------------------------------------------------- what is measured


def test_gradients_are_linear_in_credit(finished, comparison, by_name):
    """At the loaded parameters the ratio is 1 and nothing is clipped: half the credit is half the gradient."""
    amrsd = by_name["amrsd"]
    half = dataclasses.replace(amrsd.assigned, token_advantage=amrsd.assigned.token_advantage / 2)
    whole, part = (
        policy_gradient(amrsd.teacher_params, comparison.rollouts, method)
        for method in (amrsd, dataclasses.replace(amrsd, assigned=half))
    )
    assert whole.shape == (sum(leaf.size for leaf in jax.tree.leaves(amrsd.teacher_params)),)
    assert np.linalg.norm(whole) > 0
    np.testing.assert_allclose(part, whole / 2, atol=1e-5 * np.abs(whole).max())


def test_the_answer_is_the_last_line(comparison):
    rollouts, tokenizer = comparison.rollouts, comparison.applied[0].experiment.tokenizer
    answers = measures.answer_tokens(rollouts, tokenizer)
    for i, text in enumerate(rollouts.text):
        if rollouts.finish_reason[i] == "stop":
            assert tokenizer.decode(rollouts.response[i, answers[i]].tolist()) == text.rstrip().rpartition("\n")[2]
        else:
            assert not answers[i].any()


def test_a_method_that_the_rows_do_not_allow_is_left_out_of_all_and_named_where_it_is_asked_for(monkeypatch):
    """As `opsd`, which reads a worked solution, on rows without one."""

    def configured(config, name):
        if name == "opsd":
            raise ConfigError("no worked solution")

    monkeypatch.setattr("amrsd_jax.compare.methods.method_config", configured)
    config = validate(tiny_config())
    names, left_out = possible(config, "all")
    assert set(names) == set(credit.RULES) - {"opsd"} and left_out == ["opsd is left out: no worked solution"]
    with pytest.raises(ConfigError, match="^opsd: no worked solution"):
        possible(config, "all,opsd")


def test_a_page_that_cannot_be_made_leaves_both_files(comparison, tmp_path, monkeypatch):
    write(comparison, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"compare.json", "compare.html"}
    monkeypatch.setattr("amrsd_jax.compare.render", mock.Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        write(dataclasses.replace(comparison, values=comparison.values | {"notes": ["other"]}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_compare_json(comparison, tmp_path):
    write(comparison, tmp_path)
    values = json.loads((tmp_path / "compare.json").read_text())
    names, methods, about = values["pairs"]["methods"], values["methods"], values["rollouts"]
    assert names == list(methods)
    assert values["parameters"] == {"checkpoint": 1, "recorded_gap": pytest.approx(0, abs=1e-5)}
    assert about["rows"] == about["correct"] + about["failed"] == 32 and about["step"] == 1
    for name, method in methods.items():
        ledger, gap = method["ledger"], method["gap"]
        assert sum(ledger["status"].values()) == ledger["rows"] == 32, name
        assert ledger["with_context"] == ledger["status"].get("ok", 0)
        assert ledger["changed_tokens"] <= ledger["tokens"] == about["tokens"]
        shares = method["concentration"]["credit"]
        assert 0 < shares["top_1_percent"] <= shares["top_10_percent"] <= 1
        assert (gap["correct"]["tokens"] + gap["failed"]["tokens"] > 0) == (ledger["with_context"] > 0)
    leak = {name: method["leak"] for name, method in methods.items()}
    assert leak["rlsd"]["states_answer"] == 1 and leak["amrsd"]["states_answer"] == 0
    assert leak["hybrid"]["states_answer"] == 1 and leak["hybrid"]["reference_trigrams"] > 0.9
    assert methods["grpo"]["first_error"]["token"]["auroc"] == 0.5
    for table in (values["pairs"]["gradient_cosine"], values["pairs"]["rank_correlation"]["credit"]):
        assert all(table[i][i] == 1 for i in range(len(names)))
    i, j = names.index("drop_failures"), names.index("scale_failures")
    assert values["pairs"]["rank_correlation"]["added"][i][j] == pytest.approx(1, abs=1e-3)


def test_notes_say_which_parameters_were_not_the_runs_own(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "2")
    policy, teacher = compare(run, "rlsd,grpo", step=3).values["notes"]
    assert "after 2 training steps" in policy and "of step 1." in policy and "snapshot" in teacher


def test_command_line(finished, tmp_path):
    flags = [f"--rollouts={finished}", f"--out={tmp_path}", "--methods=grpo"]
    done = subprocess.run([sys.executable, "-m", "amrsd_jax.compare", *flags], capture_output=True, text=True)
    assert done.stdout.splitlines()[1] == str(tmp_path / "compare.html"), done.stderr[-2000:]
