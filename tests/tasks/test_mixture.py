"""Mixtures: the order of their draws, and what each set keeps: verifier, prompts, record of rows, report, place in messages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.compare.load import find_problems
from amrsd_jax.tasks import data_report, registry
from amrsd_jax.tasks.digest import describe
from amrsd_jax.tasks.mixture import order
from amrsd_jax.tasks.stream import next_prompts

VERIFIERS = """
from amrsd_jax.problems import Verdict
SPANS, SCORES = ("place",), ("distance",)

def near(problem, response):
    distance = abs(float(response) - float(problem.answer))
    return Verdict(float(distance <= problem.row["tolerance"]), "", response, True, {"distance": distance})
"""


@pytest.fixture
def sections(tmp_path):
    """The sets of a mixture with different verifiers: six rows of mathematics, of which three are tested, and two estimates."""
    (tmp_path / "own.py").write_text(VERIFIERS)
    rows = [{"question": f"q{i}", "answer": str(i), "tolerance": i} for i in range(6)]
    for name, some in (("six", rows), ("three", rows[:3]), ("two", rows[4:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    estimates = dict(folder=str(tmp_path), train="two.jsonl", test="two.jsonl", verifier=f"{tmp_path}/own.py:near")
    return {
        "estimates": dict(name="rows", share=1, args=estimates),
        "sums": dict(
            name="mathematics", share=2, args=dict(folder=str(tmp_path), train="six.jsonl", test="three.jsonl")
        ),
    }


@pytest.fixture
def task(sections):
    return registry.make("mixture", sections, seed=0)


def drawn(*args):
    places, numbers = order(*args)
    return list(zip(places.tolist(), numbers.tolist(), strict=True))


# ---------------------------------------------------------------- the order


def test_draws_are_in_the_order_in_which_they_are_due():
    # due at 1/6, 3/6, 5/6, 7/6, ... and at 1/2, 3/2, ...; the tie at 1/2 is the first set's
    assert drawn((3, 1), (None, None), 8) == [(0, 0), (0, 1), (1, 0), (0, 2), (0, 3), (0, 4), (1, 1), (0, 5)]


def test_the_others_go_on_where_a_set_ends():
    assert drawn((1, 1, 2), (1, 0, 3), 100) == [(2, 0), (0, 0), (2, 1), (2, 2)]


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(1, 300), st.integers(0, 300))
def test_every_stretch_has_each_set_in_its_share(shares, length, more):
    whole = drawn(tuple(shares), (None,) * len(shares), length + more)
    assert whole[:length] == drawn(tuple(shares), (None,) * len(shares), length)
    for place, share in enumerate(shares):
        numbers = [number for other, number in whole if other == place]
        assert numbers == list(range(len(numbers)))
        wanted = length * share / sum(shares)
        assert abs(sum(other == place for other, _ in whole[:length]) - wanted) <= 1 + len(shares) / 2


# ---------------------------------------------------------------- the task


def test_a_stream_goes_on_from_a_position_exactly_and_each_set_has_its_own_epochs(task):
    def take(position, count):
        prompts, position, _ = next_prompts(task, "train", position, count, encode=lambda problem: [7], longest=1)
        return [problem.id for problem in prompts.problems], position

    whole, end = take(0, 2100)  # more than the draws that are ordered together
    first, middle = take(0, 7)
    assert (first + take(middle, 2093)[0], end) == (whole, 2100)
    for name, size, count in (("estimates", 2, 700), ("sums", 6, 1400)):
        own = [id for id in whole if id.startswith(f"{name}/")]
        assert len(own) == count
        assert all(len(set(own[start : start + size])) == size for start in range(0, count - size + 1, size))


def test_splits_that_end_have_every_row_once(task):
    assert task.size("test") == 5 and task.size("validation") == 0
    assert [task.problem("test", i).id for i in range(5)] == [
        "sums/three-1", "estimates/two-1", "sums/three-2", "sums/three-3", "estimates/two-2",
    ]  # fmt: skip


def test_generated_problems_are_mixed_with_rows(sections):
    mixed = registry.make("mixture", sections | {"ladder": dict(name="ladder", share=1, args={})}, seed=0)
    assert mixed.size("train") is mixed.size("test") is None and mixed.size("validation") == 0
    assert [mixed.problem("test", i).data_set for i in range(30, 33)] == ["ladder"] * 3


def test_each_set_has_its_own_verifier_with_the_row_at_hand(task, sections):
    problems = {problem.data_set: problem for problem in (task.problem("test", i) for i in range(5))}
    estimate = problems["estimates"]
    assert estimate.row["tolerance"] == 5 and task.verify(estimate, "9").correct
    assert task.verify(estimate, "11").scores == {"distance": 6} and not task.verify(estimate, "11").correct
    assert not task.verify(
        problems["sums"], "3"
    ).correct  # within the row's tolerance, which its verifier does not know
    assert task.verify(problems["sums"], rf"\boxed{{{problems['sums'].answer}}}").correct
    assert (task.spans, task.scores) == registry.extras("mixture", sections) == (("place",), ("distance",))


def test_saved_problems_are_found_again(task):
    ids = {"sums/six-2", "estimates/two-1", "six-2", "other/six-2"}
    found = find_problems(task, ids)
    assert set(found) == {"sums/six-2", "estimates/two-1"}
    assert (found["sums/six-2"].question, found["sums/six-2"].data_set) == ("q1", "sums")


# ---------------------------------------------------------------- what is written and said about each set


def test_a_change_of_one_set_s_rows_is_noticed(task, sections):
    before = describe(task)
    assert {name: set(record) for name, record in before.items()} == {
        "sums": {"train", "test"}, "estimates": {"train", "test", "verifier"},
    }  # fmt: skip
    sections["sums"]["args"]["train"] = "three.jsonl"
    after = describe(registry.make("mixture", sections, seed=0))
    assert after["estimates"] == before["estimates"] and after["sums"]["test"] == before["sums"]["test"]
    assert after["sums"]["train"]["rows"] == 3


def test_the_data_report_is_about_each_set(task):
    report = data_report.report(task, lambda problem: [7] * len(problem.data_set), longest=8)
    sums, estimates = (report["data_sets"][name]["splits"] for name in ("sums", "estimates"))
    assert sums["train"]["rows"] == 6 and sums["train"]["prompt_tokens"]["too_long"] == 0
    assert estimates["train"]["rows"] == estimates["train"]["prompt_tokens"]["too_long"] == 2
    assert any(line.startswith("estimates: data train: 2 rows") for line in data_report.lines(report))


def test_the_data_report_finds_test_questions_that_another_set_trains_on(sections):
    sections["estimates"]["args"]["test"] = "three.jsonl"  # of which none is among the two rows of its train
    report = data_report.report(registry.make("mixture", sections, seed=0), lambda problem: [7], longest=8)
    assert report["data_sets"]["estimates"]["overlap_with_train"]["test"]["questions"] == 3


@pytest.mark.parametrize(
    "row, message",
    [
        ({"question": "q"}, r"task\.args\.sums: .*bad\.jsonl line 2: no column 'answer'"),
        ({"question": 3.5, "answer": None}, r"task\.args\.sums: .*bad\.jsonl line 2: column 'answer' is None"),
    ],
)
def test_a_bad_row_is_named_with_its_set(sections, tmp_path, row, message):
    (tmp_path / "bad.jsonl").write_text('{"question": "1+1", "answer": 2}\n' + json.dumps(row))
    sections["sums"]["args"]["train"] = "bad.jsonl"
    with pytest.raises(ValueError, match=message):
        registry.make("mixture", sections, seed=0)


def test_a_missing_file_and_a_wrong_argument_are_named_with_their_set(sections):
    sections["sums"]["args"]["train"] = "absent.jsonl"
    with pytest.raises(OSError, match=r"task\.args\.sums: .*absent\.jsonl"):
        registry.make("mixture", sections, seed=0)
    sections["sums"]["args"]["validation"] = 1
    with pytest.raises(ValueError, match=r"task\.args\.sums\.args\.validation = 1: expected a share"):
        registry.make("mixture", sections, seed=0)
