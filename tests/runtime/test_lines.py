"""The lines of a run: what they tell, and what is not repeated."""

import numpy as np
import pytest

from amrsd_jax import credit
from amrsd_jax.records import Contexts
from amrsd_jax.runtime.lines import STREAK, StepLines, evaluation_line, one_line, unusable_reflections
from amrsd_jax.validate import validate
from tests.tiny import tiny_config

ROW = {
    "reward/mean": 0.3125, "reward/accuracy": 0.3125, "reward/format": 1.0, "response_length/mean": 35.4,
    "response_length/clip_ratio": 0.0, "groups/zero_advantage": 0.25, "policy/entropy": 0.1234, "grad_norm": 0.512,
    "tokens/s": 1234.5, "seconds/step": 2.04, "updates/skipped": 0.0, "reflection/needed": 0.625, "reflection/usable": 1.0,
}  # fmt: skip
NO_SIGNAL = {"grad_norm": 0.0, "groups/zero_advantage": 1.0, "reflection/needed": 0.0, "reflection/usable": None}
NONE = Contexts((), (), (), np.zeros(0, int), np.zeros((0, 1), int), np.zeros(0, int))


def step_lines(config):
    config = validate(config)
    return StepLines(config, credit.get(config.credit.rule))


def test_the_line_of_a_step():
    line = one_line(3, 36, ROW, "self_reflection", "01:10")
    assert line == (
        "step  3/36  reward 0.312  length 35  entropy 0.123  grad norm 0.51  1234 tokens/s  2.0 s  ETA 01:10  "
        "reflected on 62 % of rows, 100 % usable"
    )
    line = one_line(3, 4, ROW | {"policy/kl_to_reference": 0.00123, "mfu": 0.341})
    assert (
        "KL 0.0012" in line and "MFU 34 %" in line and not any(text in line for text in ("entropy", "ETA", "reflect"))
    )


@pytest.mark.parametrize(
    "context, changes, told",
    [
        ("none", {}, ""),
        ("self_reflection", NO_SIGNAL, "reflected on no row"),
        ("feedback", {"reflection/usable": 0.5}, "teacher on 62 % of rows, 50 % with its context"),
    ],
)
def test_reflections_are_told_where_the_rule_has_them(context, changes, told):
    line = one_line(1, 2, ROW | changes, context)
    assert told in line and (told or not any(text in line for text in ("reflected", "usable", "teacher")))


def test_a_step_without_a_signal_is_told_at_once_and_then_after_a_streak():
    lines, told = step_lines(tiny_config(steps=20)), []
    for step in range(1, 15):
        row = ROW | (NO_SIGNAL if step != 4 else {})
        first, *more = lines(step, row, NONE)
        assert ("no learning signal" in first) == (step != 4)
        told += [(step, line) for line in more]
    assert [step for step, _ in told] == [1, 4 + STREAK]
    assert "in this step" in told[0][1] and "in 5 steps in a row" in told[1][1]


@pytest.mark.parametrize(
    "changes, fields",
    [
        ({"reward/accuracy": 0.5}, ["rollout.group = 8", "rollout.rounds"]),
        ({"reward/accuracy": 1.0}, ["harder problems"]),
        ({"reward/accuracy": 0.0}, ["easier problems", "rollout.group = 8"]),
        ({"reward/accuracy": 0.0, "response_length/clip_ratio": 0.9}, ["90 %", "rollout.response_length = 32"]),
        ({"reward/accuracy": 0.0, "reward/format": 0.25}, ["25 % have an answer of the form"]),
        ({"groups/zero_advantage": 0.5}, ["credit.args"]),
        ({"updates/skipped": 1.0, "grad_norm": float("inf")}, ["optimizer.learning_rate"]),
    ],
)
def test_the_warning_names_what_to_change(changes, fields):
    _, warning = step_lines(tiny_config())(1, ROW | NO_SIGNAL | changes, NONE)
    assert all(field in warning for field in fields), warning


def test_a_signal_is_not_warned_of():
    assert len(step_lines(tiny_config())(1, ROW | {"updates/skipped": 0.5}, NONE)) == 1


def test_mostly_unusable_reflections_are_told_with_their_reason_and_a_text():
    def contexts(*status):
        texts = tuple(f"text {i}" for i in range(len(status)))
        return Contexts(texts, status, texts, np.zeros(0, int), np.zeros((0, 1), int), np.zeros(0, int))

    def line(*status):
        return unusable_reflections(3, contexts(*status))

    assert line("not_needed", "not_needed") is line("ok", "leak") is line("no_peer", "no_peer") is None
    told = line("not_needed", "no_tag", "leak", "no_tag", "ok")
    assert told.startswith("step 3: 3 of 4 texts") and "2 are 'no_tag', such as 'text 1'" in told
    assert "raise reflection.prompt_length" in line("no_room", "no_room", "ok")
    assert (
        len(step_lines(tiny_config("quoted_blame"))(1, ROW, contexts("no_room"))) == 1
    )  # no teacher's prompt needs room
    lines = step_lines(tiny_config())
    assert [len(lines(step, ROW, contexts("no_tag"))) for step in (1, 2)] == [2, 1]


def test_texts_that_were_cut_are_told_once():
    contexts = Contexts(
        ("hint", "critique"), ("ok", "ok"), ("a", "b"), np.arange(2), np.ones((2, 1), int), np.ones(2, int), (1,)
    )
    lines = step_lines(tiny_config())
    _, told = lines(1, ROW, contexts)
    assert "1 of 2 rows, among them row 1: raise reflection.context_length = 32" in told
    assert len(lines(2, ROW, contexts)) == 1
    assert len(step_lines(tiny_config("quoted_blame"))(1, ROW, contexts)) == 1  # which reads the words alone


def test_the_line_of_an_evaluation():
    metrics = dict(sampled=0.5, sampled_low=0.25, sampled_high=0.75, greedy=0.4375, n=16, samples=4, pass_at_4=0.8)
    assert evaluation_line(10, "test", metrics) == (
        "step 10, evaluation on 16 problems of test: sampled 0.500 (0.250 to 0.750), pass_at_4 0.800, greedy 0.438"
    )
