"""The ladder: verifiers that refuse what is wrong, reflections that are true and give nothing away, disjoint splits."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax import config as configuration
from amrsd_jax.config import ReflectionConfig
from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.records import Problem
from amrsd_jax.reflection.prompts import templates, vocabulary_words
from amrsd_jax.reflection.reflections import Reflections
from amrsd_jax.reflection.settings import ContextSettings
from amrsd_jax.reflection.sources import SOURCES, Generators
from amrsd_jax.sections import ConfigError
from amrsd_jax.tasks import registry
from amrsd_jax.tasks.ladder import RUNGS, Ladder, judge
from amrsd_jax.tasks.ladder.judge import copied
from amrsd_jax.validate import validate
from tests.tiny import tiny_rollouts

TASKS = {name: Ladder(name, seed=3) for name in RUNGS}
names, splits, indices, seeds = (
    st.sampled_from(list(RUNGS)),
    st.sampled_from(["train", "test"]),
    st.integers(0, 10_000),
    st.integers(0, 2**32 - 1),
)
quick = settings(max_examples=60)
WORDS = [
    "The",
    "answer",
    "is",
    "not",
    "=",
    "+",
    "-",
    "*",
    ".",
    ",",
    "\n",
    "first",
    "letter",
    '"',
    "so",
    "or",
    "?",
    "because",
    "a",
    "3",
]


@st.composite
def attempts(draw):
    """A problem and a response that is made of its own words, of numbers near its own, or of anything."""
    name = draw(names)
    problem = TASKS[name].problem(draw(splits), draw(indices))
    parts = [*problem.question.split(), *problem.reference.split(), problem.answer, *WORDS]
    mixed = st.lists(st.sampled_from(parts) | st.integers(-30, 200).map(str), max_size=14).map(" ".join)
    changed = st.sampled_from(range(len(problem.reference))).flatmap(
        lambda i: st.sampled_from("0123456789abcxyz+-* ").map(
            lambda c: problem.reference[:i] + c + problem.reference[i + 1 :]
        )
    )
    tail = st.sampled_from(["", ".", " or 3", " No, wait.", " Then 5 + 4 = 9.", " I add"])
    return name, problem, draw(mixed | changed | st.text(max_size=60)) + draw(tail)


def calculation(rung, *terms):
    """Returns a problem of a rung about these terms."""
    tasks = (TASKS[rung].problem(split, index) for index in range(9000) for split in ("train", "test"))
    return next(problem for problem in tasks if list(map(tuple, problem.row["terms"])) == list(terms))


SUM = calculation("sums", ("+", 7), ("+", 5))
STEPS = calculation("steps", ("+", 7), ("+", 8), ("-", 4))


# ---------------------------------------------------------------- the verifiers


@quick
@given(names, splits, indices)
def test_the_reference_solution_is_right(name, split, index):
    task = TASKS[name]
    problem = task.problem(split, index)
    verdict = task.verify(problem, problem.reference)
    assert verdict.correct and verdict.format_ok and task.first_error(problem, problem.reference) is None
    start, end = verdict.spans["answer"]
    assert problem.reference[start:end].lower() == verdict.parsed
    assert task.verify(problem, problem.question).reward == 0  # an echo of the question is no answer


@pytest.mark.parametrize(
    "response",
    [
        "7 + 5 = 12", "7+5=12.", "The answer is 12.", "12", "twelve", "**12**", r"\(7 + 5 = 12\)", "$12$", "12!", "5 + 7 = 12",
        "7 plus 5 is 12.", "7 + 5 equals 12", "12 = 7 + 5", "7 + 5 = 7 + 3 + 2 = 12", "It is 12, because 7 and 5 are added.",
        "To add them: 7 + 5 = 12", "x = 12", "1. 7 + 5 = 12", "12.0", "Step 1: 7 + 5 = 12", "12\n- 5 and 7 are added",
    ],
)  # fmt: skip
def test_right_sums(response):
    assert TASKS["sums"].verify(SUM, response).correct


@pytest.mark.parametrize(
    "response, message",
    [
        ("7 + 8 = 15. [7] - 4 = 3.", "7 was used before"),  # the equation is true, but takes up the wrong number
        ("7 + 8 = 15. [8] - 4 = 5.", "8 was used before"),
        ("7 + 8 = 15. 15 - 4 = [12].", "15 - 4 is not 12"),
        ("7 + 8 = 15. 7 + 8 = 15. 15 - [15] = 0.", "15 was used before"),  # the first equation may be written again
        ("7 + [7] = 14. 14 - 4 = 10.", "7 was used before"),
        ("7 [- 7] = 0. 0 + 4 = 4.", "it subtracts, which is the wrong operation"),
        ("Seven + 8 = 15. 15 - 4 = [12]", "15 - 4 is not 12"),  # a number in words is not read; its result is there
        ("15 = 7 + 8. 15 - 4 = [12].", "15 - 4 is not 12"),
        ("7 + 8. 7 + 8 = 15. 15 - 4 = [12]", "15 - 4 is not 12"),  # an expression uses nothing up
        ("We have 7 + 8 - 4. 7 + 8 = 15. 15 - 4 = [12].", "15 - 4 is not 12"),
        ("To find 7 + 8 - 4, first 7 + 8 =[]", "before a result"),
        ("7 + 8 = 15. 8 + 7 = 15. 15 - 4 = [12].", "15 - 4 is not 12"),
        ("7 + 8 = 15. 7 + 8 - 4 = [12].", "7 + 8 - 4 is not 12"),  # begins anew
        ("7 + 8 - 4 = 15 - 4 = [12].", "15 - 4 is not 12"),
        ("7 + 8 = 15. 15 [+ 4] = 19.", "it adds, which is the wrong operation"),
        ("8 - 4 = 4. 4 + 7 = [12].", "4 + 7 is not 12"),  # another order of the steps, which uses 4 as a result
        ("8 - 4 = 4. 7 + 4 = [12].", "7 + 4 is not 12"),
        ("7 + 8 = 15.[]", "before a result"),
        ("15 = 7 + 8[]", "before a result"),
        ("(7 + 8 = [16])", "16 is not the result"),  # its truth is not read
        ("15 = 7 + 8. [7] - 4 = 3.", "7 was used before"),
        ("7 + 8 = 15. 15 - 4 =[]", "before a result"),
        ("7 + 8 = 15. The answer is [15].", "15 is not the result"),  # this claims a result
        ("7 + 8 = 15. 15 - 4 = 11. It is [15].", "15 is not the result"),
    ],
)
def test_where_two_steps_go_wrong(response, message):
    text = response.replace("[", "").replace("]", "")
    verdict = TASKS["steps"].verify(STEPS, text)
    assert not verdict.correct and message in verdict.message
    start, end = TASKS["steps"].first_error(STEPS, text)
    assert start == response.index("[") and text[start:end] == response[start + 1 : response.index("]")]


def test_a_result_may_be_added_and_not_subtracted_where_the_question_has_its_number():
    problem = calculation("steps", ("+", 9), ("+", 4), ("-", 5))
    assert "it subtracts" in TASKS["steps"].verify(problem, "9 - 5 = 4. 4 - 4 = 0.").message
    assert TASKS["steps"].first_error(problem, "9 - 5 = 4. 4 - 4 = 0.") == (13, 16)


@pytest.mark.parametrize(
    "response, span, message",
    [
        ("7 + 5 = 13", "13", "is not 13"),
        ("17 + 5 = 22.", "17", "17"),
        ("7 * 5 = 35", "* 5", "multiplies"),
        ("7 - 5 = 2", "- 5", "subtracts"),
        ("7 + 5 = 12. 12 + 7 = 19", "12 + 7 = 19", "goes on"),
        ("14 = 7 + 7", "7", "7 was used before"),
        ("7 + 5 = 12. 7 + 5 = 13", "13", "is not 13"),
        ("The answer is 18.", "18", "18"),
        ("The answer is 7.", "7", "question"),
        ("7 + 5", "", "before a result"),
        ("7 + 5 =", "", "before a result"),
        ("", "", "no number"),
        ("To find 7 + 5, we use the sum of 7 and 5", "", "before a result"),
        ("Let us take two numbers, 7 and 5", "Let us take two numbers, 7 and 5", "no result"),
        ("The sum of 7 and 5 is 14.", "14", "14"),
        ("7 + 5 = 13 = 12", "13", "7 + 5 is not 13"),
        ("1. First add.\n2. Then stop.", "1. First add.\n2. Then stop.", "no result"),
        ("5 and 7 make", "5 and 7 make", "no result"),
        ("To solve this, we add.", "To solve this, we add.", "no number"),
        ("8 + 5 = 12", "8", "8"),
        ("7 + 5 is not 12", "not", None),
        ("I don't think it is 12", "n't", None),
        ("7 + 5 = 12 is wrong", "wrong", None),
        ("It is 12 or 13", "13", "13"),
        ("13 or 12", "or ", None),
        ("12? No, 7.", "No", None),
        ("12 thousand", "12 thousand", None),
        ("12%", "12%", None),
        ("12/13", "12", "wrong number"),
        ("1 + 12", "1", "1"),
        ("about 12", "about ", None),
        ("-12", "-12", None),
        ("= - 12", "= - ", None),
        ("12.5", "12.5", "not the result"),
        ("12 1/2", "1/2", None),
        ("twelve and a half", "twelve and a ", None),
        ("12e5", "12e", None),
        ("12x", "12x", None),
        ("12th", "12th", None),
        ("1 2", "2", None),
        ("12 times 2", "12", "wrong number"),
        ("7 + 5 < 12", "<", None),
        ("112", "112", None),
        ("1" * 5000, None, None),
    ],
)
def test_wrong_sums(response, span, message):
    task = TASKS["sums"]
    verdict, (start, end) = task.verify(SUM, response), task.first_error(SUM, response)
    assert not verdict.correct and (message is None or message in verdict.message)
    if span is not None:
        assert response[start:end] == span or (not span and start == len(response))


@pytest.mark.parametrize(
    "rung, right, wrong",
    [
        ("largest", ["{answer}", "The {most} number is {answer}.", "{answer} is the {most}.", "**{answer}**"],
         ["not {answer}", "{answer} or {other}", "{other}", "{other} is the {most}, then {answer}", "1{answer}",
          "{answer} is less than {other}"]),
        ("stories", ["{answer} {unit}", "{answer}", "There are {answer} {unit} now."],
         ["{answer} cups or 3", "{answer} {bad}"]),
        ("units", ["{answer} {unit}", "{answer}", "That is {answer} {unit}."],
         ["{answer} {bad}", "0.{answer}", "about {answer}"]),
        ("count", ["{answer}", "It has {answer} letters."], ["{answer} or 9", "at least {answer}"]),
        ("letter", ["{answer}", '"{answer}"', "The letter is {answer}."],
         ['not "{answer}"', '"{answer}" or "q"', "{answer}{answer}"]),
        ("sorting", ["{answer}", "Sorted: {answer}."], ["{question}", "not {answer}", "{answer}s"]),
        ("steps", ["{answer}", "The result is {answer}."], ["{answer} - 1", "{answer}1"]),
        ("two_digits", ["{answer}", "= {answer}"], ["{answer} - 1", "-{answer}", "{answer}0"]),
    ],
)  # fmt: skip
def test_other_rungs_by_form(rung, right, wrong):
    task = TASKS[rung]
    for index in range(40):
        problem = task.problem("train", index)
        row = problem.row
        other = next((number for number in row.get("numbers", ()) if str(number) != problem.answer), "")
        bad = (row.get("other_units") or [""])[0]
        fields = dict(
            answer=problem.answer,
            most=row.get("most"),
            other=other,
            unit=row.get("unit"),
            bad=bad,
            question=problem.question,
        )
        for form in right:
            response = form.format(**fields)
            assert task.verify(problem, response).correct, (problem, response, task.verify(problem, response))
        for form in wrong:
            response = form.format(**fields)
            assert not task.verify(problem, response).correct, (problem, response)


@settings(max_examples=150)
@given(attempts(), seeds)
def test_messages_and_reflections_are_true_and_give_nothing_away(attempt, seed):
    name, problem, response = attempt
    task = TASKS[name]
    verdict, span = task.verify(problem, response), task.first_error(problem, response)
    assert verdict.correct == (span is None)
    assert not task.states_answer(problem, verdict.message)
    for start, end in [*verdict.spans.values(), *([span] if span else [])]:
        assert 0 <= start < end <= max(1, len(response) + 1)
    reflection = task.write_reflection(problem, response, np.random.default_rng(seed))
    assert reflection and not task.states_answer(problem, reflection)
    judged = judge(problem, response, reflection, "")
    assert judged.true and not judged.false, (response, reflection)


def test_thoughts_are_not_judged():
    task = TASKS["sums"]
    assert task.verify(SUM, "<think>7 + 5 = 13? No.</think>7 + 5 = 12.").correct
    closed = "<think>7 + 5 = 12.</think>7 + 5 = 13."
    assert closed[slice(*task.first_error(SUM, closed))] == "13"
    for thought in ("<think>7 + 5 = 12.", "<think>" + "so " * 500 + "7 + 5 = 12."):
        verdict = task.verify(SUM, thought)
        assert not verdict.correct and verdict.parsed is None


def test_a_minus_in_words_is_a_sign():
    task = TASKS["sums"]
    assert task.verify(SUM, "The answer is 12.").correct
    assert not task.verify(SUM, "7 apples minus 5 = 12 apples.").correct  # a difference
    for response in ("The answer is minus 12.", "The answer is negative 12.", "7 + 5 is minus 12."):
        assert not task.verify(SUM, response).correct


@pytest.mark.parametrize(
    "text", ["7 + " * 9_000, "7 = " * 9_000, "1," * 9_000, "\n" * 50_000, '"a" ' * 9_000, "twenty " * 9_000]
)
def test_long_texts_are_read(text):
    for task in TASKS.values():
        problem = task.problem("train", 0)
        assert not task.verify(problem, text).correct and task.write_reflection(problem, text, np.random.default_rng(0))
        start, end = task.first_error(problem, text)
        assert 0 <= start < end <= len(text) + 1


def test_the_examples_of_the_page_are_true():
    page = (Path(__file__).parents[2] / "docs" / "ladder.md").read_text()
    rows = [re.findall(r"`([^`]*)`", line) for line in page.splitlines() if line.startswith("| `")]
    examples = {row[0]: row[1:] for row in rows if len(row) == 4}
    assert set(examples) == set(RUNGS)
    for name, (question, response, message) in examples.items():
        problem = Ladder(name).problem("train", 0)
        assert (problem.question, Ladder(name).verify(problem, response).message) == (question, message)


# ---------------------------------------------------------------- problems


@pytest.mark.parametrize("name", RUNGS)
def test_train_and_test_share_no_content(name):
    contents = {
        split: {Ladder(name, seed).problem(split, index).row["content"] for index in range(60) for seed in (0, 1)}
        for split in ("train", "test")
    }
    assert not contents["train"] & contents["test"] and min(map(len, contents.values())) >= 8


def test_the_pair_of_a_sum_decides_its_split():
    pairs = {split: set() for split in ("train", "test")}
    for split, found in pairs.items():
        for index in range(400):
            found.add(frozenset(number for _, number in TASKS["sums"].problem(split, index).row["terms"]))
    assert not pairs["train"] & pairs["test"] and len(pairs["train"] | pairs["test"]) == 36


@quick
@given(names, splits, indices)
def test_a_problem_is_a_pure_function_of_its_index(name, split, index):
    problem = TASKS[name].problem(split, index)
    assert Ladder(name, seed=3).problem(split, index) == problem and problem.id == f"{name}-{split}-{index}"
    assert problem.question.endswith(RUNGS[name].instruction)
    assert TASKS[name].states_answer(problem, f"The answer is {problem.answer}.")


def test_several_rungs_take_turns():
    task = registry.make("ladder", {"rung": "sums, largest"}, seed=0)
    assert [task.problem("train", i).row["rung"] for i in range(4)] == ["sums", "largest"] * 2
    assert task.size("test") is None and registry.extras("ladder", {}) == (("answer",), ())


# ---------------------------------------------------------------- in a run


@pytest.mark.parametrize("context", ["self_reflection", "oracle_reflection", "reference_solution"])
def test_the_ladder_has_every_context_and_no_warm_up_of_its_own(context):
    config = configuration.base()
    config.task.name, config.tokenizer, config.credit.context = "ladder", "folder", context
    assert validate(config).task.args == {"rung": "sums"}
    config.warmup.documents = 10
    with pytest.raises(ConfigError, match=r"warmup\.documents"):
        validate(config)


def test_the_oracle_shows_the_reflection_that_the_task_writes():
    texts = templates("ladder")
    settings = ContextSettings(
        ReflectionConfig(), TASKS["sums"], embedded_tokenizer(vocabulary_words(texts)), {"": texts}, {}, {}, 2
    )
    record = tiny_rollouts((False, True), problems=(SUM, SUM), text=("7 + 5 = 13", "7 + 5 = 12"))
    shown = SOURCES["oracle_reflection"](
        settings, record, [0, 1], Generators(Reflections(settings, lambda _: iter(())))
    )
    assert shown.status == ["ok", "ok"]
    for response, text in zip(record.text, shown.text, strict=True):
        assert judge(SUM, response, text, "").true and not TASKS["sums"].states_answer(SUM, text)


# ---------------------------------------------------------------- leaks, and the judge of reflections


@pytest.mark.parametrize(
    "rung, facts, answer, texts, leaks",
    [
        ("sums", {"terms": [["+", 3], ["+", 6]]}, "9", ["add 3 and 6", "step 9", "the 9th", "more than 8"],
         ["the sum is 9", "9", "nine", "3 + 6 = 9", "9."]),
        ("sums", {"terms": [["+", 3], ["+", 3]]}, "3", ["add 3 and 3"],
         ["it is 3", "= 3", "the answer: 3", "3 is the answer"]),
        ("largest", {"numbers": [34, 81, 57], "most": "largest"}, "81", ["compare 34, 81 and 57", "57 is not the largest"],
         ["81", "81 is the largest", "choose 81", "81 is larger than 57"]),
        ("sorting", {"words": ["dog", "ant", "cat"]}, "ant, cat, dog", ["dog, ant, cat", "compare dog and ant"],
         ["ant, cat and then dog"]),
        ("letter", {"word": "planet", "place": "third"}, "a", ["spell a word", 'it is not "p"'],
         ['"a"', "the letter is a.", "letter A"]),
    ],
)  # fmt: skip
def test_leaks_by_hand(rung, facts, answer, texts, leaks):
    problem = Problem("one", "?", answer, None, {"rung": rung} | facts)
    assert [text for text in texts if TASKS[rung].states_answer(problem, text)] == []
    assert [text for text in leaks if not TASKS[rung].states_answer(problem, text)] == []


@pytest.mark.parametrize(
    "response, reflection, true, false",
    [
        ("7 + 5 = 13", "13 is wrong.", True, False),
        ("7 + 5 = 13", "The result is too large.", True, False),
        ("7 + 5 = 13", "13 is too small.", False, True),
        ("7 + 5 = 13", "You should think about it.", False, False),
        ("7 + 5 = 13", "The answer is correct.", False, True),
        ("7 * 5 = 35", "You multiply.", True, False),
        ("7 * 5 = 35", "Add 7 and 5.", False, False),
        ("I will solve this.", "There is no number.", True, False),
        ("7 + 5 = 12", "Add 7 and 5.", True, False),
        ("7 + 5 = 12", "The answer is wrong.", False, True),
    ],
)
def test_judgements_by_hand(response, reflection, true, false):
    judged = judge(SUM, response, reflection, "")
    assert (judged.true, judged.false) == (true, false)


def test_copied_words_are_counted():
    assert copied("What is 7 + 5?", "Question: What is 7 + 5? Student: 13") == 1
    assert copied("one two three four", "one two three five") == 0.5
    assert copied("", "anything") == 0 and copied("no", "say no") == 1


@pytest.mark.parametrize("rung", ["", "sum", "sums,", "sums,letters"])
def test_unknown_rungs_are_named(rung):
    with pytest.raises(ValueError, match=r"task\.args\.rung = .*expected one of"):
        registry.check("ladder", {"rung": rung})
