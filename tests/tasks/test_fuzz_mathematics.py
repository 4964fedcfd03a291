"""Right and wrong variants of answers, made by rule: no crash, no hang, no wrong one accepted, few right ones refused."""

import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amrsd_jax.tasks import symbolic
from amrsd_jax.tasks.mathematics import compare, verify_mathematics

EXAMPLES = 2_000
REFUSED = 0.005  # largest share of right variants that may be refused; measured 0.000
SECONDS = 30.0  # of wall time for one answer, above the deadline of a worker and its start

small, digit = st.integers(2, 60), st.integers(2, 9)
signed = st.integers(-99, 999).filter(lambda n: n not in (0, 1))


def boxed(text: str) -> str:
    return rf"So we have \boxed{{{text}}}."


# Each strategy draws (gold, right variants, wrong variants).


@st.composite
def integers(draw):
    n = draw(st.integers(-(10**7), 10**7))
    other = draw(st.integers(-(10**7), 10**7).filter(lambda k: k != n))
    right = [
        str(n),
        f"{n:,}",
        f"{n}.0",
        f"+{n}" if n >= 0 else str(n),
        f"${n}$",
        rf"\text{{{n}}}",
        f"{n:,}".replace(",", "{,}"),
        f"x={n}",
        f"{n}.",
    ]
    wrong = [
        str(other),
        f"{n}1",
        f"-{n}" if n > 0 else str(abs(n) + 1),
        f"{n}.5",
        f"{n}, {n}",
        f"{n} or {other}",
        rf"{n}\text{{ or more}}",
        f"{n}...",
        f"{n}!",
    ]
    return str(n), right, wrong if n not in (0, 1, 2) else wrong[:2]


@st.composite
def fractions(draw):
    q = Fraction(draw(signed), draw(small))
    p, d = q.numerator, q.denominator
    sign, a = ("-", -p) if p < 0 else ("", p)
    k = draw(digit)
    right = [
        f"{p}/{d}",
        rf"{sign}\frac{{{a}}}{{{d}}}",
        rf"\frac{{{p}}}{{{d}}}",
        rf"\dfrac{{{p * k}}}{{{d * k}}}",
        rf"{sign}{a}/{d}",
        f"{float(q):.9f}",
    ]
    if a > d > 1:
        right += [rf"{sign}{a // d}\frac{{{a % d}}}{{{d}}}", f"{sign}{a // d} {a % d}/{d}"]
    wrong = [
        f"{p + 1}/{d}",
        f"{p}/{d + 1}",
        rf"-{sign}\frac{{{a}}}{{{d}}}".replace("--", ""),
        f"{a}{d}",
        f"{p}, {d}",
        f"{float(q) * 1.002:.9f}",
    ]
    return rf"{sign}\frac{{{a}}}{{{d}}}", right, wrong + ([f"{d}/{p}"] if abs(p) != d else [])


@st.composite
def decimals(draw):
    n, places = draw(st.integers(1, 10**6).filter(lambda n: n % 10)), draw(st.integers(1, 4))
    whole, part = divmod(n, 10**places)
    gold = f"{whole}.{part:0{places}d}"
    other = n + draw(st.sampled_from([1, -1, 10, 100]))
    right = [
        gold,
        gold + "0",
        f"0{gold}",
        gold.removeprefix("0") if whole == 0 else gold,
        rf"\frac{{{n}}}{{{10**places}}}",
        rf"{n}\times 10^{{-{places}}}",
    ]
    if places < 3:
        right.append(gold.replace(".", ","))
    wrong = [
        f"{other // 10**places}.{other % 10**places:0{places}d}",
        gold.replace(".", ""),
        "-" + gold,
        f"{n / 10 ** (places + 1):.8f}",
    ]
    return gold, right, wrong


@st.composite
def roots(draw):
    a, b, c, d = draw(digit), draw(st.sampled_from([2, 3, 5, 6, 7, 10, 11])), draw(digit), draw(small)
    gold = rf"\frac{{{a}\sqrt{{{b}}}+{c}}}{{{d}}}"
    right = [
        gold,
        f"({c}+{a}*sqrt({b}))/{d}",
        rf"\frac{{{c}}}{{{d}}}+\frac{{{a}\sqrt{b if b < 10 else '{10}' if b == 10 else '{11}'}}}{{{d}}}",
        rf"\frac{{{c} + \sqrt{{{a * a * b}}}}}{{{d}}}",
    ]
    wrong = [
        gold.replace("+", "-"),
        rf"\frac{{{a}\sqrt{{{b + 2}}}+{c}}}{{{d}}}",
        rf"\frac{{{a + 1}\sqrt{{{b}}}+{c}}}{{{d}}}",
        rf"\frac{{{a}\sqrt{{{b}}}+{c}}}{{{d + 1}}}",
        rf"{a}\sqrt{{{b}}}+{c}",
    ]
    return gold, right, wrong


@st.composite
def polynomials(draw):
    a, b, c = draw(digit), draw(digit), draw(digit)
    gold = f"{a}x^2+{b}x+{c}"
    right = [
        gold,
        f"{c}+{b}x+{a}x^2",
        f"{a}x^{{2}} + {b}x + {c}",
        f"{a}*x**2+{b}*x+{c}",
        f"x({a}x+{b})+{c}",
        rf"f(x)={gold}",
        f"y={a}x^2+{b}x+{c}",
    ]
    wrong = [
        f"{a}x^2+{b}x-{c}",
        f"{a}x^2+{b + 1}x+{c}",
        f"{a}x^3+{b}x+{c}",
        f"{a}y^2+{b}y+{c}",
        f"{a}x^2+{b}x+{c}=0",
        f"{a}x^2+{b}x",
    ]
    return gold, right, wrong


@st.composite
def lists(draw):
    values = draw(st.lists(st.integers(-50, 50), min_size=2, max_size=5, unique=True))
    text = ", ".join(map(str, values))
    turned = values[1:] + values[:1]
    right = [
        text,
        ", ".join(map(str, turned)),
        rf"\{{{text}\}}",
        text.replace(", ", r", \ "),
        "x = " + " or x = ".join(map(str, turned)),
        " and ".join(map(str, values)),
    ]
    changed = [values[0] + 101, *values[1:]]
    wrong = [
        ", ".join(map(str, changed)),
        ", ".join(map(str, values[1:])),
        f"{text}, 77",
        f"{text}, {values[0]}",
        "".join(map(str, values)),
        f"{values[0]}",
    ]
    return text, right, wrong


@st.composite
def points(draw):
    a, b = draw(st.integers(-20, 20)), draw(st.integers(21, 60))
    c, d = draw(st.integers(61, 80)), draw(digit)
    gold = f"({a}, {b})"
    if draw(st.booleans()):
        return gold, [f"({a},{b})", rf"\left({a}, {b}\right)", f"(x, y) = ({a}, {b})", f"x={a}, y={b}", f"({a}.0,{b})"], [
            f"({b}, {a})", f"({a}, {b + 1})", f"({a}, {b}, {c})", f"[{a}, {b}]", rf"\{{{a}, {b}\}}", f"({a}{b})", f"{b}, {a}"
        ]  # fmt: skip
    gold = f"({a}, {b}), ({c}, {d})"
    return gold, [f"({c}, {d}), ({a}, {b})", rf"\{{({a}, {b}), ({c},{d})\}}", f"({a},{b}) and ({c},{d})"], [
        f"({b}, {a}), ({c}, {d})", f"({a}, {b})", f"({a}, {b}), ({c}, {d + 1})", f"({a}, {d}), ({c}, {b})"
    ]  # fmt: skip


@st.composite
def regions(draw):
    a, b = draw(st.integers(-20, 20)), draw(st.integers(21, 60))
    left, right = draw(st.sampled_from("([")), draw(st.sampled_from(")]"))
    less = {"(": "<", "[": r"\le", ")": "<", "]": r"\le"}
    gold = rf"x \in {left}{a}, {b}{right}"
    same = [f"{left}{a},{b}{right}", rf"{a} {less[left]} x {less[right]} {b}", rf"\left{left}{a}, {b}\right{right}"]
    flipped = {"(": "[", "[": "(", ")": "]", "]": ")"}
    wrong = [
        f"{flipped[left]}{a},{b}{right}",
        f"{left}{a},{b}{flipped[right]}",
        f"{left}{a},{b + 1}{right}",
        f"x {less[left]} {b}",
        rf"{b} {less[left]} x",
        f"{left}{-b},{a}{right}",
    ]
    if draw(st.booleans()):
        return gold, same, wrong
    gold = rf"(-\infty, {a}{right} \cup {left}{b}, \infty)"
    more = ">" if left == "(" else ">="
    same = [rf"{left}{b}, +\infty) \cup (-\infty, {a}{right}", rf"x {less[right]} {a} \text{{ or }} x {more} {b}"]
    wrong = [
        rf"{left}{a}, {b}{right}",
        rf"(-\infty, {a}{right}",
        rf"(-\infty, {b}{right} \cup {left}{b + 5}, \infty)",
        rf"(-\infty, {a}{flipped[right]} \cup {left}{b}, \infty)",
    ]
    return gold, same, wrong


@st.composite
def quantities(draw):
    n = draw(st.integers(2, 5000))
    unit, others = draw(
        st.sampled_from(
            [
                ("cm", ("m", "kg")),
                ("km/h", ("m/s",)),
                ("dollars", ("euros", "cents")),
                ("m^2", ("m^3", "cm^2")),
                ("hours", ("minutes",)),
            ]
        )
    )
    base, _, power = unit.partition("^")
    gold = rf"{n}\text{{ {base}}}" + (f"^{power}" if power else "")
    right = [gold, str(n), f"{n} {unit}", rf"{n}\,\mathrm{{{base}}}" + (f"^{{{power}}}" if power else "")]
    wrong = [f"{n} {other}" for other in others] + [
        str(n + 1),
        f"{n + 1} {unit}",
        rf"{n}\text{{ {base} or more}}",
        f"-{n} {unit}",
    ]
    return gold, right, wrong


@st.composite
def shares(draw):
    n = draw(st.integers(2, 99))
    gold = rf"{n}\%"
    right = [f"{n}%", f"{n} percent", str(n), f"{n / 100}", rf"\frac{{{n}}}{{100}}"]
    return gold, right, [f"{n * 100}", f"{n / 100}%", f"{n * 100}%", f"{n + 1}%", f"{n / 10}%", f"{n / 10000}"]


@st.composite
def times(draw):
    h, m, half = draw(st.integers(1, 11)), draw(st.integers(10, 59)), draw(st.sampled_from(["am", "pm"]))
    other = "pm" if half == "am" else "am"
    gold = f"{h}:{m} {half}"
    right = [
        f"{h}:{m}",
        rf"{h}:{m}\text{{ {half[0]}.m.}}",
        f"{h}:{m} {half.upper()}",
        f"{h if half == 'am' else h + 12}:{m}",
    ]
    return (
        gold,
        right,
        [
            f"{h}:{m} {other}",
            f"{h + 1}:{m} {half}",
            f"{h}:{69 - m} {half}" if m != 69 - m else f"{h + 1}:{m}",
            f"{h}{m}",
        ],
    )


@st.composite
def matrices(draw):
    a, b, c, d = (draw(st.integers(-9, 9)) for _ in range(4))
    gold = rf"\begin{{pmatrix}} {a} & {b} \\ {c} & {d} \end{{pmatrix}}"
    right = [
        gold,
        gold.replace("pmatrix", "bmatrix"),
        rf"\left[\begin{{array}}{{cc}}{a}&{b}\\{c}&{d}\end{{array}}\right]",
        f"[[{a}, {b}], [{c}, {d}]]",
    ]
    wrong = [
        gold.replace(f"{a} &", f"{a + 10} &", 1),
        gold.replace(r"\\", "&"),
        rf"\begin{{pmatrix}} {a} & {b} \\ {c} & {d + 1} \end{{pmatrix}}",
    ]
    return gold, right, wrong


@st.composite
def words(draw):
    word = draw(st.sampled_from(["even", "odd", "Monday", "infinitely many", "parabola", "HTH", "WLW"]))
    upper = word.isupper()
    right = [word, rf"\text{{{word}}}", rf"\textbf{{{word}}}", word + "."] + ([] if upper else [word.capitalize()])
    return (
        rf"\text{{{word}}}",
        right,
        [
            word[::-1] if word[::-1] != word else word + word[0],
            word[1:],
            f"not {word}",
            "7",
            word + "s" if upper else word + "x",
        ],
    )


KINDS = (
    integers,
    fractions,
    decimals,
    roots,
    polynomials,
    lists,
    points,
    regions,
    quantities,
    shares,
    times,
    matrices,
    words,
)
ANSWERS = st.one_of(*(kind() for kind in KINDS))


@pytest.mark.slow
def test_no_wrong_variant_is_accepted_and_few_right_ones_are_refused():
    refused, count = [], 0

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(ANSWERS, st.data())
    def run(answer, data):
        nonlocal count
        gold, right, wrong = answer
        begin = time.monotonic()
        assert not verify_mathematics(gold, boxed(variant := data.draw(st.sampled_from(wrong)))).correct, (
            gold,
            variant,
        )
        variant, count = data.draw(st.sampled_from(right)), count + 1
        if not verify_mathematics(gold, boxed(variant)).correct:
            refused.append((gold, variant))
        assert time.monotonic() - begin < SECONDS

    run()
    assert count >= EXAMPLES
    assert len(refused) <= REFUSED * count, refused[:20]


@settings(max_examples=60, deadline=None)
@given(ANSWERS, st.data())
def test_every_variant_equals_itself(answer, data):
    gold, right, wrong = answer
    variant = data.draw(st.sampled_from([gold, *right, *wrong]))
    assert compare(variant, variant.replace("(", r"\left(").replace(")", r"\right)")) == symbolic.EQUAL


MARKS = st.sampled_from(
    [
        *(
            r"\frac{",
            "}",
            "{",
            "(",
            ")",
            "[",
            "]",
            r"\{",
            r"\}",
            ",",
            ";",
            "=",
            "<",
            r"\le",
            r"\cup",
            r"\pm",
            "^",
            "_",
            "1",
            "x",
            "|",
        ),
        *(
            r"\text{",
            "!",
            "%",
            ":",
            r"\begin{pmatrix}",
            r"\end{pmatrix}",
            "&",
            r"\\",
            r"\sqrt",
            r"\sin",
            r"\sum",
            "...",
            "am",
            " or ",
        ),
        *("$", ".", "-", "/", r"\infty", r"\in", r"\approx"),
    ]
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(MARKS | st.text(max_size=2), max_size=14).map("".join), st.lists(MARKS, max_size=14).map("".join))
def test_any_pair_of_texts_gets_a_verdict(a, b):
    for gold, answer in ((a, b), (a, a), (b, a), ("7", a)):
        assert compare(gold, answer) in (symbolic.EQUAL, symbolic.DIFFERENT, symbolic.TIMED_OUT)
