"""What equals what: the examples of docs/verifiers.md, and pairs that were once judged wrongly."""

import re
from pathlib import Path

import pytest

from amrsd_jax.tasks import symbolic
from amrsd_jax.tasks.mathematics import compare
from amrsd_jax.tasks.replies import any_answer, final_answer, gold_answer

PAGE = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text(encoding="utf-8")
CODE = r"`([^`]*)`"


def rows(pattern: str) -> list[tuple[str, ...]]:
    return [match.groups() for match in re.finditer(pattern, PAGE, re.MULTILINE)]


PAIRS = rows(rf"^\| {CODE} \| {CODE} \| (yes|no) \|$")
READ = rows(rf"^\| {CODE} \| (?:{CODE})? ?\| (?:{CODE})? ?\|$")


def test_the_page_has_examples():
    assert len(PAIRS) > 100 and len(READ) > 10


@pytest.mark.parametrize("gold, answer, equal", PAIRS)
def test_the_examples_of_the_page(gold, answer, equal):
    assert compare(gold, answer) == (symbolic.EQUAL if equal == "yes" else symbolic.DIFFERENT)


@pytest.mark.parametrize("reply, row, anywhere", READ)
def test_the_replies_of_the_page(reply, row, anywhere):
    assert (final_answer(reply)[0], any_answer(reply)[0]) == (row or None, anywhere or None)


@pytest.mark.parametrize(
    "gold, read",
    [
        ("72", "72"),
        (r"\frac{1}{2} \text{ of the cake}", r"\frac{1}{2} \text{ of the cake}"),
        ("She sold 48/2 = 24 clips.\n#### 72", "72"),
        (r"Adding both equations gives $2x = 6$, so that the answer is $\boxed{3}$.", "3"),
        (r"The answer is $x = 3$. I hope it is correct.", "x = 3"),
    ],
)
def test_a_gold_answer_may_be_a_solution_or_a_sentence(gold, read):
    assert gold_answer(gold) == read


@pytest.mark.parametrize(
    "gold, answer",
    [
        ("2500,7500", "2500,7510"),  # as decimal numbers they agree to six digits
        ("24853", "24853, 24853"),
        ("145.498", "145.497"),
        ("-213647", "-213647.5"),
        ("I(0)", "-(I(0))"),
        ("5", r"5\text{ (or 6)}"),
        ("2018", "2020-01-01"),
        (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"\frac{1}{3 \cdot 2^{2006}}"),
        (r"1, 2, \ldots, n", r"1, 3, 5, \ldots, 2n-1"),
        ("3x-y+13=0", "3x+4y+14=0"),
        ("x=1,y=2", "x=2,y=1"),
        ("7", "7+"),
        ("7", "7x"),
        ("7", "7!"),
        ("1000", "1.000"),
        ("67", r"6\text{ }7"),
        ("9", "9'"),
        ("9", "9 squared"),
        ("9", "9 tenths"),
        ("9", "anything but 9"),
        (r"\$15", r"15 \text{ cents}"),
        (r"15\text{ dollars}", "€15"),
        (r"7\%", r"7\text{ per mille}"),
        (r"20\% increase", r"20\% decrease"),
        ("(2,3)", "y=2, x=3"),
        (r"\emptyset", r"\{\emptyset\}"),
        ("noon", "12 am"),
        (r"20^\circ C", r"20^\circ F"),
        (r"\angle ABC", r"\angle ACB"),
        ("12", r"12\text{ dozens}"),
        (r"7\text{ boys and }8\text{ girls}", r"8\text{ boys and }7\text{ girls}"),
        (r"2\text{ dimes } 3\text{ cents}", r"3\text{ dimes } 2\text{ cents}"),
        ("2 hours and 30 minutes", "2 hours 20 minutes"),
        ("1 h 30 min", "1 h 3 min"),
        ("dog", "god"),
        ("act", "cat"),
        ("is", "si"),
        (r"5 \text{ m/s}", r"5\,\mathrm{m\,s^{-2}}"),
        (r"2000\text{ J/K}", r"2000\,\mathrm{J\,K}"),
        ("IV", "6"),
        (r"\text{no solution}", r"\text{infinitely many solutions}"),
        (r"\text{no solution}", "0"),
        (r"\mathbb{R}", r"\text{all real numbers except } 2"),
        (r"\mathbb{R}", r"\text{all positive real numbers}"),
        (r"\frac{1}{2}", "1,2"),
        ("(1,5)", r"\frac{3}{2}"),
        ("twenty ten", "30"),
        ("third", "3"),
        ("4", "twenty-fifth"),
        ("5", "5 eighths"),
        ("1", "1 fifth"),
        ("0.2", "two hundred-thousandths"),
        ("3", "3 fourths"),
        ("2", "2 hundredths"),
        ("P=(1,2)", "Q=(1,2)"),
        (r"k\pi, k\in\mathbb{Z}", r"2n\pi, n\in\mathbb{Z}"),
        (r"x\ge 0, x\in\mathbb{Z}", r"x\ge 0"),
        ("b+c", "b+k"),
        (r"x>2 \text{ and } x<3", "x>2"),
        (r"\{(1,2),(3,4)\}", "(1,2)"),
        (r"66.67\%", r"\frac{1}{3}"),
        ("A_1", "A"),
        ("CAB_{16}", "ACB_{16}"),
        ("300", "3e2 i"),
        ("A_{11}", "A"),
        ("F_{12}", "F"),
        (r"\pi abc", r"\pi"),
        (r"\frac{4}{3}\pi abc", r"\frac{4}{3}\pi"),
        (r"2\pi", r"2\pi\mathrm{i}."),
        (r"36\pi", r"36\pi\text{ thousand}"),
        (r"2\mathbf{V}", "2"),
        ("3", r"3\mathbf{V}"),
        ("a+b", r"(a+b)\mathrm{h}"),
        ("C_2", "C"),
        ("h(a+b)", "(a+b)g"),
        ("f(2x)", "2f(x)"),
        ("1/2", r"\mathbf{\frac{1}{3}}"),
        ("3", r"3\text{ m}+2"),
        (r"36\pi\text{ cm}^3", r"36\pi\text{ cm}^2"),
    ],
)
def test_different_pairs_that_are_easily_taken_for_equal(gold, answer):
    assert compare(gold, answer) == symbolic.DIFFERENT == compare(answer, gold)


@pytest.mark.parametrize(
    "gold, answer",
    [
        (r"11,\! 111,\! 111,\! 100", "11111111100"),
        (r"x_{1}=10^{\frac{-5+\sqrt{13}}{6}},\quad x_{2}=2", r"10^{\frac{\sqrt{13} - 5}{6}}, 2"),
        (r"(0;0;0),(0;-2;0)", "(0,-2,0), (0,0,0)"),
        (r"\begin{cases} a+b=\frac12 \\ a-b=3 \end{cases}", r"\begin{cases} a+b=0.5\\ a-b=3\end{cases}"),
        (
            r"\begin{pmatrix}6 & 8 \\ 10 & 12\end{pmatrix}",
            r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}+\begin{pmatrix}5 & 6 \\ 7 & 8\end{pmatrix}",
        ),
        (r"\frac{NO}{BO}=\frac{1}{\sqrt{6}}", r"\frac{1}{\sqrt{6}}"),
        (r"40\pi", "125.663"),
        (r"\sin(90^{\circ}-x)", r"\cos(x)"),
        ("0<f(x)<1", "(0,1)"),
        (r"\{x | x>2\}", "x>2"),
        (r"x\in\{1,2\}", "1,2"),
        (r"x=1\text{ or }x=2", "2, 1"),
        ("21,16 or 11", "21,16,11"),
        ("185", "185\\"),
        (r"\$18.90", "18.90"),
        (r"60\text{ miles per hour}", "60 mph"),
        (r"20\% decrease", r"20\%"),
        (r"20^\circ C", r"20^\circ"),
        ("noon", "12:00 pm"),
        ("2 hours and 30 minutes", "2 hours 30 minutes"),
        ("1234.56", "1.234,56"),
        ("3/2", "1,5"),
        ("1/3", "0.(3)"),
        ("4/33", "0.121212..."),
        ("(2,3)", "y=3, x=2"),
        ("7", "7=x"),
        (r"36\pi", r"36\pi \text{ cm}^2"),
        (r"36\pi", r"36\pi\text{ square units}"),
        (r"\pi a^2", r"\pi a^2\text{ cm}"),
        (r"36\pi\text{ cm}^3", r"36\pi\text{ cubic centimeters}"),
        ("1.04e-3", r"1.04 \times 10^{-3}~\mathrm{m}"),
        ("1/2", r"\frac{1}{2}~\mathrm{m}"),
        (r"2\sqrt{3}", r"2\sqrt{3}\,\mathrm{m}"),
        ("9.8", r"9.8\,\frac{\text{m}}{\text{s}^2}"),
        ("20", r"20\,\text{N}\cdot\text{m}"),
        ("80", r"80\ \text{km}\cdot\text{h}^{-1}"),
        (r"\frac{4}{3}\pi abc", r"\frac{4\pi abc}{3}"),
        ("5", r"\text{5m}"),
        ("2x+3", r"\mathbf{2x+3}"),
        ("1024", r"\mathbf{2^{10}}"),
        ("5+3i", r"\textbf{5+3i}"),
        ("2,3", r"\mathbf{2, 3}"),
        ("n-1", r"\mathbf{n-1}"),
        ("x<5", r"\mathbf{x<5}"),
        (r"36\pi", r"36\pi square units"),
        (r"8\pi", "8π meters"),
        (r"8\pi\text{ meters}", "8π meters"),
        ("1.6e-19", "1.6e-19 C"),
        ("5000000", "5e6 MPa"),
        ("5", r"5\,\mu\text{m}"),
        (r"1+\sqrt{2}", r"(1+\sqrt{2})\,\text{m}"),
        ("5", r"\text{5 A}"),
        ("12", r"\mathrm{12\,A}"),
        ("2m", r"2\mathrm{m}"),
        ("2s", r"2\mathrm{s}"),
        ("5 m", r"5\text{ m}"),
        (r"\frac{1}{2}(a+b)h", r"\frac{1}{2}(a+b)\mathrm{h}"),
        ("3/m", r"3/\mathrm{m}"),
        ("3", r"3\text{m}"),
        ("3A", r"3\text{A}"),
        ("3i", r"3\mathrm{i}"),
        (r"25^{\circ} \mathrm{C}", r"25^\circ\text{ C}"),
        (r"25^{\circ} \mathrm{C}", r"25^\circ\mathrm{C}."),
        (r"\ln 2\cdot e^{x}", r"\ln 2\cdot\mathrm{e}^{x}"),
        ("1/2", r"\mathbf{\frac{1}{2}}"),
        ("(1,2)", r"\mathbf{(1,2)}"),
        ("5", r"\mathbf{x=5}"),
        ("5", r"\text{$5$}"),
        ("12", r"\mathbf{\$12}"),
        ("h(a+b)", "(a+b)h"),
        ("mg(h+x)", "mgh+mgx"),
        (r"\frac{3}{5}", r"\sin A=\frac35"),
        (r"\frac{3}{5}", r"\cos \angle BAC=\frac35"),
        ("7", r"\gcd(a,b)=7"),
        ("1.04e-3", "1.04e-3."),
        ("1.04e-3", "1.04e-3 m"),
        ("3e8", "3e8 m/s"),
        ("1000000", "1e6 J"),
        (r"7\text{ boys and }8\text{ girls}", r"7\text{ boys, }8\text{ girls}"),
        (r"\log_2 8", "3"),
        (r"\sin 30^\circ", "1/2"),
        (r"\begin{cases}x=1\\y=2\end{cases}", "x=1, y=2"),
        ("1500", "1.5 x 10^3"),
        ("3", r"\text{three}"),
        ("no solution", "no solutions"),
        ("5", r"\textbf{Answer: 5}"),
        (r"\emptyset", r"\text{the empty set}"),
        (r"\emptyset", r"\text{There are no real solutions}"),
        (r"\text{no solution}", r"\{\}"),
        (r"\text{all real numbers}", r"(-\infty,\infty)"),
        (r"\mathbb{R}\setminus\{2\}", r"\text{all real numbers except } 2"),
        (r"[0,\infty)", "all nonnegative real numbers"),
        ("DNE", r"\text{does not exist}"),
        (r"9.8 \text{ m/s}^2", r"9.8\,\text{m}\,\text{s}^{-2}"),
        (r"8.31 \text{ J/(mol K)}", r"8.31\,\mathrm{J\,mol^{-1}\,K^{-1}}"),
        ("1 hour 30 minutes", "1 h 30 min"),
        ("III", "3"),
        ("0,5", "1/2"),
        (r"2\pi", "2*Pi"),
        ("abc", "cab"),
        ("21", "twenty-one"),
        ("205", "two hundred and five"),
        ("2/3", "two thirds"),
        ("2/7", "two sevenths"),
        ("5/8", "5 eighths"),
        ("5/8", r"5\text{ eighths}"),
        ("3/4", "three-fourth"),
        ("12", r"12\text{ seventh graders}"),
        ("24", "24 sixth graders"),
        ("12", "12 third graders"),
        ("7/2", "3 and a half"),
        ("5/2", "two and a half"),
        (r"\vec{v}=(1,2)", "(1,2)"),
        (r"\{(1,2)\}", "(1,2)"),
        (r"3, -3", r"\mp 3"),
        ("5", "about 5"),
        (r"\frac{2}{3}", r"66.67\%"),
        (r"\tan x", r"\sin x/\cos x"),
        (r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{4}+n\pi, n \in \mathbb{Z}"),
        ("x^2+C", "x^2 + c"),
        (r"x>2 \text{ and } x<3", "(2,3)"),
    ],
)
def test_equal_pairs_that_are_easily_refused(gold, answer):
    assert compare(gold, answer) == symbolic.EQUAL
