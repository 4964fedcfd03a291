"""What equals what, by hand: forms of one value, and the pairs that math-verify alone would take for equal."""

import pytest

from amrsd_jax.tasks import mathematics, symbolic
from amrsd_jax.tasks.mathematics import any_answer, compare, final_answer, verify_mathematics

EQUAL = [
    (r"3\sqrt{2}", "3*sqrt(2)"),
    (r"\frac{3}{56}", "3/56"),
    (r"11 \sqrt{5} + 11", r"11(1+\sqrt5)"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"14\frac{6}{7}", r"\frac{104}{7}"),
    (r"\frac{65}{2}", "32.5"),
    ("4.5e33", r"4.5\times 10^{33}"),
    ("100000", "1e5"),
    ("1/3", "0.333333"),
    ("50%", "0.5"),
    (r"14.29\%", "14.29"),
    ("30^\\circ", "30"),
    (r"5\text{ cm}", "5"),
    (r"5\text{ cm}", r"5\,\mathrm{cm}"),
    ("18", "$18 per day"),
    (r"\$28.00", "28"),
    ("5", "x=5"),
    ("x=5", "5"),
    ("1,2", "2,1"),
    ("1,2", r"\{1,2\}"),
    ("1,2", "1 and 2"),
    (r"$10^{100}$,$10^{1 / 100}$", r"10^{1/100}, 10^{100}"),
    (r"\pm 2", "-2, 2"),
    (r"\frac{-1+\sqrt{17}}{2}, \frac{-1-\sqrt{17}}{2}", r"\frac{-1\pm\sqrt{17}}{2}"),
    (r"(-\infty, 0]", r"x \le 0"),
    (r"(0,5)", "0<x<5"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
    (r"\begin{pmatrix} -7 \\ 16 \end{pmatrix}", r"\begin{bmatrix} -7 \\ 16 \end{bmatrix}"),
    (r"\frac{R}{r}", "R/r"),
    ("4343_6", "4343_{6}"),
    (r"\frac{288-154 \sqrt{3}}{3} \text{ OR } 96-\frac{154}{\sqrt{3}}", r"96-\frac{154\sqrt3}{3}"),
    (r"\text{even}", "even"),
    ("27", r"\text{27}"),
]
DIFFERENT = [
    (r"3\sqrt{2}", r"3\sqrt{5}"),
    (r"3\sqrt{2}", "3*sqrt(5)"),
    (r"\frac{3\pi}{4}", r"\frac{3}{4}"),
    (r"2\pi", "2e"),
    ("5+3i", "5-3i"),
    ("1-1/e", "1+1/e"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    ("0.0000012", "0.0000008"),
    (r"\frac{1000000}{1000001}", r"\frac{999999}{1000000}"),
    (r"\sqrt{2}", r"\sqrt{2}+10^{-9}"),
    ("1/3", "0.333"),
    ("0.5", "50"),
    ("(1,2)", r"\{1,2\}"),
    ("[1,2]", r"\{1,2\}"),
    ("(1,2)", "[1,2]"),
    ("(3,5)", "5,3"),
    ("2", "2,2"),
    ("3,5,7", "3,5"),
    ("3", "3 or 4"),
    (r"\pm 2", "2"),
    (r"5\text{ cm}", r"5\text{ m}"),
    ("5 feet", "5 miles"),
    ("5", "at least 5"),
    ("5", r"\text{not }5"),
    ("5", r"5 \text{ is wrong}"),
    ("5", r"x \ne 5"),
    ("5", "x>5"),
    ("x<5", "x>5"),
    (r"x\le 5", "x<5"),
    (r"(-\infty, 0]", r"x < 0"),
    (r"(0,5)", r"0\le x<5"),
    ("x", "X"),
    (r"\frac{R}{r}", "1"),
    (r"\frac{R}{r}", r"\frac{r}{R}"),
    ("4343_6", "4343_7"),
    ("2^{4181}", "2^{4182}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    (r"\sqrt{x^2}", "x"),
]


@pytest.mark.parametrize("gold, answer", EQUAL)
def test_equal_by_hand(gold, answer):
    assert compare(gold, answer) == symbolic.EQUAL


@pytest.mark.parametrize("gold, answer", DIFFERENT)
def test_different_by_hand(gold, answer):
    assert compare(gold, answer) == symbolic.DIFFERENT


@pytest.mark.slow
def test_what_takes_for_ever_times_out_and_the_next_question_is_answered():
    verdict = verify_mathematics("9^{9^{9^{9}}}", r"\boxed{9^{9^{9^{10}}}}")
    assert verdict.reward == 0 and "timed out" in verdict.message
    assert compare(r"\sqrt{8}", r"2\sqrt{2}") == symbolic.EQUAL


def test_very_long_answers_are_compared_as_text_only():
    long = "+".join(["x"] * mathematics.LONGEST)
    assert compare(long, long) == symbolic.EQUAL
    assert compare(long, f"{mathematics.LONGEST}x") == symbolic.DIFFERENT


@pytest.mark.parametrize(
    "response, row, anywhere",
    [
        (r"\boxed{1} and \boxed{2}", "1, 2", "1, 2"),
        (r"the roots are \boxed{3} or $\boxed{4}$.", "3, 4", "3, 4"),
        (r"\boxed{3}, so once more \boxed{4}", "4", "4"),
        (r"\boxed{7} which is \boxed{7}", "7", "7"),
        (r"<think>\boxed{3}</think> the answer is 4", "4", "4"),
        (r"\fbox{3}", "3", "3"),
        ("The area is 5 m^2", "5 m^2", "5 m^2"),
        (r"Thus $x=\frac{1}{2}$", r"x=\frac{1}{2}", r"x=\frac{1}{2}"),
        ("**Answer:** 18 dollars\n\nGlad to help!", None, "18"),
        ("The final answer is therefore 5.\nI hope so.", None, "5"),
        ("So the answer is $x^2$.\nDone.", None, "x^2"),
        ("Final answer: 2^10\nDone.", None, "2^10"),
        ("<answer>7</answer>\nDone.", None, "7"),
    ],
)
def test_where_the_answer_is_read_in_each_form(response, row, anywhere):
    assert final_answer(response)[0] == row
    assert any_answer(response)[0] == anywhere
