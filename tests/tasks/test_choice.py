"""Multiple choice by hand: the strict tag, the lenient reading, options of a question, the published exact match."""

import pytest

from amrsd_jax.tasks.choice import lenient, option_labels, stem, verify_choice

LABELS = tuple("ABCD")


@pytest.mark.parametrize(
    "response, strict, loose, compat",
    [
        ("<answer>\nA\n</answer>", 1, 1, 1),
        ("A", 0, 1, 1),
        ("<answer>A", 0, 1, 1),
        ("<answer>(A)</answer>", 0, 1, 0),
        ("<answer>a</answer>", 0, 1, 0),
        ("<answer>A: 2270</answer>", 0, 1, 0),
        ("<answer>B</answer><answer>A</answer>", 1, 1, 1),
        ("<answer>A</answer><answer>B</answer>", 0, 0, 0),
        ("<answer>A, B</answer>", 0, 0, 0),
        ("The answer is (A).", 0, 1, 0),
    ],
)
def test_three_scores_by_hand(response, strict, loose, compat):
    verdict = verify_choice("A", response, LABELS)
    assert (verdict.reward, verdict.scores["lenient"], verdict.scores["compat"]) == (strict, loose, compat)
    assert verify_choice("A", response, LABELS, form="any").reward == loose


@pytest.mark.parametrize(
    "response, letter",
    [
        ("the answer is C", "C"),
        ("The answer is C because of x", "C"),
        ("**Answer: B**", "B"),
        ("Answer: **B**", "B"),
        ("Correct answer: C) 5 cm", "C"),
        ("The correct answer is option (D)", "D"),
        ("Option B is correct.", "B"),
        (r"\boxed{\text{(D)}}", "D"),
        (r"\boxed{D. foo}", "D"),
        (r"Final Answer: The final answer is $\boxed{B}$", "B"),
        ("so\nC", "C"),
        ("so\n(c)", "C"),
        ("so\n**C**", "C"),
        ("so\nC: 2270", "C"),
        ("The answer is A. Wait, the answer is B.", "B"),
        ("<think>the answer is A</think>\nD", "D"),
        ("so\nc", None),
        ("The answer is a mixture", None),
        ("The answer is A mixture", None),
        ("The answer is A or B", None),
        ("The answer is (A) and (B)", None),
        ("the answer is A/B", None),
        ("The answer is not C", None),
        ("The answer is C?", None),
        ("Option A is wrong", None),
        ("Answer: Banana", None),
        (r"\boxed{E}", None),
        ("the answer is " + "\n" * 50_000, None),
        ("", None),
    ],
)
def test_lenient_reading_by_hand(response, letter):
    assert lenient(response, LABELS) == letter


def test_ten_options():
    assert lenient("The answer is (J).") == "J" and lenient("The answer is (K).") is None


def test_verdicts_say_what_is_wrong_and_not_what_is_right():
    right, wrong = verify_choice("C", "<answer>C</answer>", LABELS), verify_choice("C", "<answer>B</answer>", LABELS)
    assert (right.message, right.parsed, right.format_ok) == ("correct", "C", True)
    assert (wrong.message, wrong.parsed, wrong.format_ok) == ("the answer is wrong", "B", True)
    odd = verify_choice("C", "<answer>C and D</answer>", LABELS)
    assert odd.message == "the answer tag holds something else than one of A, B, C, D" and not odd.format_ok
    assert verify_choice("C", "I pass", LABELS).message == "no <answer>...</answer> was found"
    assert verify_choice("E", "<answer>E</answer>", LABELS).reward == 0  # not one of the row's options


def test_options_of_a_question():
    assert option_labels("Which?\n\nA: 1\nB: 2\nC: 3\nPlease reason.") == ("A", "B", "C")
    assert option_labels("Let\nA: set.\n\n(A) 1\n(B) 2") == ("A", "B")
    assert len(option_labels("Which?")) == 10
    assert stem("Which?\n\nA: 1\nB: 2") == "Which?\n\n"
