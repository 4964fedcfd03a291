"""Whether a text states the answer: letters, values and calls, and what only looks like it."""

import json
import time

import pytest

from amrsd_jax.problems import Problem
from amrsd_jax.tasks.leaks import states_answer, states_calls, states_letter
from amrsd_jax.tasks.rows import RowTask

OPTIONS = {"A": "red", "B": "green", "C": "blue", "D": "grey"}


@pytest.mark.parametrize(
    "text",
    [
        "The correct letter is B.",
        "B is correct.",
        "It must be **B**.",
        "Go with B.",
        "It is not C but B.",
        "Switch from C to B.",
        "B, not C",
        "You chose C; the key is B.",
        "C -> B",
        "All but B are wrong.",
        "Choose B.",
        "The answer should be B.",
        r"\boxed{\text{B}}",
        "Not A, C or D.",
        "Look at **B** again: it is right.",
        "The right one is B.",
        "Your answer C should be B.",
        "Switch to B.",
        "You should have chosen B.",
        "Replace C with B.",
        "You ruled out option B too early.",
        "Reconsider (B).",
        "答案是B",
        "The answer is green.",
        "B. green",
        "Only B satisfies the law.",
        "You should have chosen B.",
        "Neither A nor C nor D is right.",
    ],
)
def test_a_letter_is_stated(text):
    assert states_letter(text, "B", OPTIONS)


@pytest.mark.parametrize(
    "text",
    [
        "The answer is C.",
        "C is correct.",
        "Compare B with C before you choose.",
        "A and C are wrong.",
        "The magnetic field B points right-handed around the wire.",
        "Bob is right.",
        "Which law is right here?",
        "The answer is not B.",
        "Check what each option says about the charge.",
        "Vitamin B helps, so is that right?",
        "Point A and point B are both on the line.",
    ],
)
def test_a_letter_is_not_stated(text):
    assert not states_letter(text, "B", OPTIONS)


@pytest.mark.parametrize(
    "text, answer, stated",
    [
        (r"so 2\sqrt5 it is", r"2\sqrt{5}", True),
        ("that gives −7", "-7", True),
        ("Evelyn ran most", r"\text{Evelyn}", True),
        ("a million, 1000000", "10^{6}", True),
        ("a million, 10^6", "1,000,000", True),
        (r"half, $\dfrac{1}{2}$", "0.5", True),
        ("Check step 2 again.", "2", False),
        ("See page 2, method 2 and #2.", "2", False),
        ("sqrt(2) it is", r"\sqrt{2}", True),
        ("1e6 of them", "1000000", True),
        ("Check steps 1, 2 and 3 again.", "2", False),
        ("Look at equation (2).", "2", False),
        ("1. Read it.\n2. Solve it.", "2", False),
        ("Complete the square in x^2 + x.", "2", False),
        ("The 2nd line is odd.", "2", False),
        ("In step 2 you should get 2.", "2", True),
        ("Then x = 2, as in step 3.", "2", True),
        ("Is 2 a root?", "2", True),
        ("Step 22 of them", "2", False),
        ("use pi/2", r"\frac{\pi}{2}", True),
        (r"use \sqrt{3}", r"2\sqrt{5}", False),
        ("Check:\n- 42 is the value to reach", "42", True),
        ("The correct value – 42 – was missed.", "42", True),
    ],
)
def test_values_by_hand(text, answer, stated):
    assert states_answer(text, answer) == stated


GOLD = json.dumps([{"Action": "find", "Action_Input": json.dumps({"city": "Oslo", "year": 1843})}])


@pytest.mark.parametrize(
    "text, stated",
    [
        ('Action: find\nAction Input: {"city": "Oslo", "year": 1843}', True),
        ('Call {"name": "find", "arguments": {"year": "1843", "city": "Oslo"}}.', True),
        (GOLD, True),
        ("Call find with city = Oslo and year 1843.", True),
        ('find(city="Oslo", year=1843)', True),
        ("Use find, and read the city in the request.", False),
        ("The user lives in Oslo and speaks of 1843.", False),
        ('Action: find\nAction Input: {"city": "Rome", "year": 1843}', False),
        ("Check call 1 again.", False),
    ],
)
def test_calls_by_hand(text, stated):
    assert states_calls(text, GOLD) == stated


@pytest.mark.parametrize(
    "text, stated",
    [
        ("Add 6 and 2 first.", False),
        ("Begin with 6, not with 2.", False),
        ("The sum of 6 and 2 is not 8.", False),
        ("The result is 6.", True),
        ("6 is the answer.", True),
        ("6", True),
        (r"so x = \boxed{6}", True),
        ("You get $6$", True),
    ],
)
def test_a_number_of_the_question_is_stated_as_a_result_only(text, stated):
    assert states_answer(text, "6", "What is 6 plus 2, minus 2?") == stated
    assert states_answer(text, "6", "How many sides has a hexagon?")
    row = Problem("a", "What is 6 plus 2, minus 2?", "6")
    assert RowTask("a.jsonl", "b.jsonl", family="mathematics").states_answer(row, text) == stated


def test_each_family_has_its_reader():
    letter = Problem("1", "Which?\nA: red\nB: green", "B")
    for family, problem, text in (
        ("choice", letter, "It is green, so the answer is green."),
        ("tools", Problem("1", "q", GOLD), "find: city Oslo, year 1843"),
        ("mathematics", Problem("1", "q", r"\frac12"), "that is 0.5"),
    ):
        task = RowTask(family=family)
        assert task.states_answer(problem, text) and not task.states_answer(problem, "Read it again.")


@pytest.mark.parametrize(
    "piece", ["B ", "answer is ", "1 and ", "step 1, ", "\\sqrt{", "{", "a" * 30, " ", "x^", "find city ", "("]
)
def test_time_is_linear(piece):
    text, begin = (piece * 20_000)[:20_000], time.process_time()
    for answer in ("B", "2", r"2\sqrt{5}", "Paris"):
        states_answer(text, answer)
    states_calls(text, GOLD)
    assert time.process_time() - begin < 10


@pytest.mark.parametrize(
    "answer, text, stated",
    [
        ("42", "You should get the number 42 here.", True),
        ("42", "Look at problem number 42.", False),
        ("12", "It should be twelve.", True),
        ("123", "It equals one hundred and twenty-three.", True),
        ("12", "There are twelve months in a year.", False),
        ("1", "There is one mistake.", False),
        ("1", "The key is one of the terms.", False),
        ("-7", "It should be minus 7.", True),
        ("-7", "Calculate 5 minus 7 with care.", False),
        ("3/2", "It should be 1 1/2.", True),
        ("0.5", "It is 50%.", True),
        ("0.5", "It is 5%.", False),
        (r"35\%", "It is 0.35.", True),
        (r"35\%", "It is 35 percent.", True),
        ("1000000", "It is 1 million.", True),
        (r"5\text{ cm}", "The length should be 5.", True),
        (r"12\text{ square units}", "The area is 12.", True),
        ("x=5", "So x must be 5.", True),
        ("1,2", "The roots are 1 and 2.", True),
        ("1,2", "One root is 1.", False),
        (r"36\pi", "The area is 36*pi.", True),
        (r"2\sqrt{3}", "It is 2*sqrt(3).", True),
        ("1", "You are 100% correct up to the second step.", False),
        (r"100\%", "There is 1 mistake in equation (1).", False),
        (r"50\%", "The factor 1/2 in the area is missing.", False),
        ("-3", "Calculate x minus 3 first.", False),
        ("7", "The correct value is x minus 7.", True),
        ("0", "Set the derivative equal to zero.", False),
        ("0", "The correct answer is zero.", True),
        ("1", "The answer is one, not two.", True),
        ("-5", "The expression simplifies to negative 5.", True),
        ("-5", "It results in minus 5.", True),
        ("-5", "The correct answer is therefore minus 5.", True),
        ("-5", "The answer should be **negative 5**.", True),
        ("5", "Your result of negative 5 is wrong.", False),
        ("-3", "Take the total minus 3.", False),
        (r"x=\pi", "x should be pi", True),
        ("y=-x", "The answer should be -x.", True),
        (r"x=\sqrt{a}", r"It should be \sqrt{a}.", True),
        ("1", "Check that there is only one.", False),
        ("y=x", "Check how x was isolated.", False),
        ("x=n", "Check n again.", False),
        (r"\frac{270}{7}\text{ degrees}", r"\boxed{\frac{270}{7}\text{ degrees}}", True),
    ],
)
def test_a_value_is_stated_in_every_spelling_that_the_verifier_accepts(answer, text, stated):
    assert states_answer(text, answer) == stated


@pytest.mark.parametrize(
    "answer, question, text, stated",
    [
        ("1,2", "Solve n^2-3n+2=0.", r"The final answer is \boxed{1,2}.", True),
        ("0.2", "It rises by 20%.", "The price rose by 20%, so multiply.", False),
        (r"35\%", "A share of 0.35 is given.", "Multiply by 0.35.", False),
        ("3/2", "Take 1 1/2 cups.", "You need 1 1/2 cups.", False),
    ],
)
def test_a_value_of_the_question_in_another_form(answer, question, text, stated):
    assert states_answer(text, answer, question) == stated


def test_a_long_list_is_looked_for_as_it_is_written():
    answer, begin = ",".join(map(str, range(1, 100))), time.process_time()
    assert states_answer(f"It is {answer}.", answer) and not states_answer("1 2 3 " * 16_000, answer)
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("piece", ["}]", "1)", "minus ", "twenty-", "1 1/", "50% ", "2*pi"])
def test_any_reflection_is_searched_in_bounded_time(piece):
    begin = time.process_time()
    for answer in (r"\frac{1}{2}", "12", r"36\pi", "1,2"):
        states_answer(piece * (20_000 // len(piece)), answer)
    assert time.process_time() - begin < 20
