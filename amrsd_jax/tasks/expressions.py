"""Parses an expression in `notation`, and evaluates it at a point, to 50 digits.

Every operation is bounded: what is too large to evaluate is left to the caller, as is what the parser does not know (sums,
integrals, limits).
"""

import functools
import math
import operator
import re
import threading
from collections.abc import Callable, Container, Mapping
from fractions import Fraction
from typing import Any

import mpmath

LONGEST = 1_000  # characters of an expression, our choice
DIGITS = 50  # decimal digits of a value, our choice
EQUAL = 1e-25  # largest relative difference of equal values, our choice; above the error of cancellation
_LARGEST = 100_000  # decimal digits before the point that a power or factorial may have, our choice
_LARGEST_FACTORIALS = (
    1_000_000  # sum of the arguments of all factorials and binomials in one evaluation, our choice: a second
)
_LARGEST_ANGLE = 1e15  # argument of a trigonometric function, which is reduced to one period first, our choice

Values = Mapping[str, Any]  # variable -> number
Node = Callable[[Values], Any]


class Unsupported(Exception):
    """Says that an expression cannot be parsed or evaluated here."""


class _Local(threading.local):
    """The mpmath context of a thread: its precision changes inside functions, so threads must not share one.

    Attributes:
      context: the context.
      factorials: sum of the arguments of factorials and binomials in the present evaluation.
    """

    def __init__(self):
        self.factorials = 0
        self.context = mpmath.MPContext()
        self.context.dps = DIGITS


_local = _Local()

_TOKEN = re.compile(
    r"\d+(?:\.\d+)?(?:\.?\\overline\{\d+\})?|\.\d+(?:\\overline\{\d+\})?|\\[A-Za-z]+|\\.|[A-Za-z]|[^\sA-Za-z\d]"
)
_GREEK = frozenset(
    {
        "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "kappa", "lambda", "mu",
        "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi",
        "Sigma", "Phi", "Psi", "Omega", "ell", "hbar", "angle", "triangle",
    }
)  # fmt: skip
_FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "log": "log", "exp": "exp", "lg": "log10",
}  # fmt: skip
_INVERSE = {"sin": "asin", "cos": "acos", "tan": "atan", "sinh": "asinh", "cosh": "acosh", "tanh": "atanh"}
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_OPAQUE = set("fghFG")  # these letters before a bracket are functions, not factors
_FUNCTION_TOKENS = [[f"\\{name}"] for name in _FUNCTIONS]
_ENDS_ARGUMENT = {"*", "(", "[", *(f"\\{name}" for name in _FUNCTIONS)}


class Expression:
    """A parsed expression.

    Attributes:
      names: its variables and functions.
      functions: the letters that were read as functions, as h of h(x).
    """

    def __init__(self, node: Node, names: frozenset[str], functions: frozenset[str]):
        self._node, self.names, self.functions = node, names, functions

    def at(self, values: Values) -> Any:
        """Returns the value at a point; None where there is none, as at 1/0.

        Raises:
          Unsupported: a number on the way is too large.
        """
        _local.factorials = 0
        try:
            value = self._node(values)
        except (ArithmeticError, ValueError, TypeError, mpmath.libmp.NoConvergence):
            return None
        return value if mpmath.isfinite(value) else None


@functools.lru_cache(maxsize=4096)
def parse(text: str, factors: frozenset[str] = frozenset()) -> Expression | None:
    """Returns the expression that a text in `notation` writes; None for other text.

    Args:
      factors: letters that are never functions.
    """
    if len(text) > LONGEST or not text or not text.isascii():
        return None
    parser = _Parser(text, factors)
    try:
        node = parser.sum()
        return Expression(node, frozenset(parser.names), frozenset(parser.functions)) if not parser.next() else None
    except (Unsupported, IndexError, RecursionError):
        return None


class _Parser:
    """A recursive-descent parser that makes closures from a point to a value."""

    def __init__(self, text: str, factors: frozenset[str]):
        self.tokens, self.place = _TOKEN.findall(text), 0
        self.names: set[str] = set()
        self.functions: set[str] = set()
        self.factors_only = factors
        self.angle = 0  # depth of arguments of trigonometric functions, in which a degree is pi/180
        self.bars = False  # whether a bar closes

    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def pop(self) -> str:
        """Consumes and returns the next token; raises IndexError at the end."""
        self.place += 1
        return self.tokens[self.place - 1]

    def take(self, *names: str) -> str:
        """Consumes and returns the next token if it is one of `names`, else returns ""."""
        return self.pop() if self.next() and self.next() in names else ""

    def ahead(self, *names: str) -> bool:
        """Consumes the next tokens if they are `names`, and returns whether they are."""
        if tuple(self.tokens[self.place : self.place + len(names)]) != names:
            return False
        self.place += len(names)
        return True

    def sum(self) -> Node:
        terms = [(1, self.product())]
        while sign := self.take("+", "-"):
            terms.append((1 if sign == "+" else -1, self.product()))
        return terms[0][1] if len(terms) == 1 else lambda at: sum(sign * term(at) for sign, term in terms)

    def product(self) -> Node:
        if sign := self.take("+", "-"):
            inside = self.product()
            return inside if sign == "+" else _applied(operator.neg, inside)
        return self.factors(())

    def factors(self, stops: Container[str]) -> Node:
        """Parses a product up to one of some tokens, or to a token that does not continue a product."""
        whole = self.next()
        result = self.power()
        if whole.isdigit() and re.fullmatch(r"\\frac\{\d+\}\{\d+\}", "".join(self.tokens[self.place : self.place + 7])):
            result = _applied(operator.add, result, self.power())  # a mixed number
        while self.next() and self.next() not in stops:
            if stops and self.next() == "/" and self.tokens[self.place + 1 : self.place + 2] in _FUNCTION_TOKENS:
                break  # \sin x/\cos x is a quotient
            if self.take("/"):
                result = _applied(operator.truediv, result, self.signed())
            elif self.take("*"):
                result = _applied(operator.mul, result, self.signed())
            elif self.starts_factor():
                result = _applied(operator.mul, result, self.power())
            else:
                break
        return result

    def starts_factor(self) -> bool:
        """Whether the next token begins a factor without a sign before it; numbers side by side are none, nor is `x2`."""
        token = self.next()
        if token[0].isdigit() or token[0] == ".":
            return self.tokens[self.place - 1] in ("}", ")")
        if token == "|":
            return not self.bars
        return (
            token in _CLOSING or token.isalpha() or (token[0] == "\\" and token[1:].isalpha() and token not in _STOPS)
        )

    def signed(self) -> Node:
        if self.take("-"):
            return _applied(operator.neg, self.signed())
        self.take("+")
        return self.power()

    def power(self) -> Node:
        base = self.postfix()
        if self.take("^"):
            exponent = self.signed() if self.next() == "-" else self.argument()
            return _applied(_power, base, exponent)
        return base

    def postfix(self) -> Node:
        node = self.atom()
        while True:
            if self.take("!"):
                node = _applied(_factorial, node)
            elif self.take("%"):
                node = _applied(lambda value: value / 100, node)
            elif self.ahead("^", r"\circ"):
                node = _applied(lambda value: value * (_local.context.pi / 180), node) if self.angle else node
            else:
                return node

    def argument(self) -> Node:
        """Parses the argument of a command or power: a group in braces, or one token."""
        token = self.next()
        if token.isdigit() and len(token) > 1:  # \frac12
            self.tokens[self.place : self.place + 1] = [token[0], token[1:]]
        return self.atom()

    def group(self) -> Node:
        opening = self.pop()
        outside, self.bars = self.bars, opening == "|"
        node = self.sum()
        self.bars = outside
        if not self.take(_CLOSING[opening]):
            raise Unsupported(opening)
        applied = {
            "|": abs,
            r"\lfloor": lambda x: _local.context.floor(_snapped(x)),
            r"\lceil": lambda x: _local.context.ceil(_snapped(x)),
        }
        return _applied(applied[opening], node) if opening in applied else node

    def atom(self) -> Node:
        if self.next() in _CLOSING and not (self.bars and self.next() == "|"):
            return self.group()
        token = self.pop()
        if token[0].isdigit() or token[0] == ".":
            if self.next() == "_":  # a number to a base
                raise Unsupported(token)
            return lambda at: _number(token)
        if token == r"\frac":
            return _applied(operator.truediv, self.argument(), self.argument())
        if token == r"\sqrt":
            degree = self.group() if self.next() == "[" else None
            inside = self.argument()
            if degree is None:
                return _applied(lambda value: _local.context.sqrt(value), inside)
            return _applied(_root, inside, degree)
        if token in (r"\binom", r"\dbinom", r"\tbinom"):
            return _applied(_binomial, self.argument(), self.argument())
        if token == r"\text":
            return self.variable("text " + self.raw())
        if token[0] == "\\" and token[1:] in _FUNCTIONS:
            return self.function(token[1:])
        if token == r"\pi":
            return lambda at: +_local.context.pi
        if token == "e" and self.next() != "_":
            return lambda at: +_local.context.e
        if token == "i" and self.next() != "_":
            return lambda at: _local.context.mpc(0, 1)
        if token.isalpha() or (token[0] == "\\" and token[1:] in _GREEK):
            return self.variable(token)
        raise Unsupported(token)

    def variable(self, name: str) -> Node:
        """Parses what belongs to a name: a subscript, primes, and the argument of f, g or h."""
        letter = name
        if self.take("_"):
            name += "_" + (self.raw() if self.next() == "{" else self.pop())
        while self.take("'"):
            name += "'"
        if argument := re.match(r"\(-?\d+\)", "".join(self.tokens[self.place : self.place + 4])):
            name += argument[0]  # T(10) is a value of a function, not a product
            self.place += argument[0].count("-") + 3
        self.names.add(name)
        if letter in _OPAQUE - self.factors_only and self.next() == "(":
            self.functions.add(letter)
            inside = self.group()
            # Any function will do that equals no other expression: only its name and its argument make values equal.
            return lambda at: _local.context.cos(inside(at) * at[name] + at[name]) + inside(at) ** 2 / 7
        return lambda at: at[name]

    def raw(self) -> str:
        """Consumes a group in braces and returns its text."""
        if not self.take("{"):
            raise Unsupported("{")
        content, depth = [], 1
        while depth:
            content.append(self.pop())
            depth += (content[-1] == "{") - (content[-1] == "}")
        return "".join(content[:-1])

    def function(self, name: str) -> Node:
        function, exponent, base = _FUNCTIONS[name], None, None
        for _ in range(2):  # a base and an exponent, in either order
            if name == "log" and self.take("_"):
                base = self.argument()
            elif name in _INVERSE and self.ahead("^", "{", "-", "1", "}"):
                function = _INVERSE[name]
            elif self.take("^"):
                exponent = self.argument()
        trigonometric = function in ("sin", "cos", "tan", "cot", "sec", "csc")
        self.angle += trigonometric
        # \sin 2x \cos x is a product
        inside = self.group() if self.next() in _CLOSING else self.factors(_ENDS_ARGUMENT)
        self.angle -= trigonometric

        def value(at: Values) -> Any:
            argument = inside(at)
            if function in ("exp", "sinh", "cosh", "tanh"):
                _moderate(argument)
            elif trigonometric and abs(argument) > _LARGEST_ANGLE:
                raise Unsupported("too large")
            result = getattr(_local.context, function)(argument)
            if base is not None:
                result /= _local.context.log(base(at))
            return result if exponent is None else _power(result, exponent(at))

        return value


_STOPS = {
    r"\le", r"\ge", r"\ne", r"\in", r"\cup", r"\cap", r"\approx", r"\rfloor", r"\rceil", r"\pm", r"\mp", r"\circ", r"\to",
    r"\setminus", r"\begin", r"\end", r"\infty", r"\emptyset", r"\mathbb",
}  # fmt: skip


def _applied(function: Callable, a: Node, b: Node | None = None) -> Node:
    """Returns the node whose value is a function of the values of one or two others.

    It calls them without a frame of Python in between, since long products are nested as deep as they have factors.
    """
    if b is None:
        return lambda at: function(a(at))
    return lambda at: function(a(at), b(at))


def _number(token: str) -> Any:
    """Returns the value of a decimal number, whose last digits may be overlined since they repeat."""
    digits, _, repeated = token.partition(r"\overline{")
    context = _local.context
    value = context.mpf(digits.rstrip(".") or 0)
    if repeated := repeated.rstrip("}"):
        places = len(digits.partition(".")[2])
        value += context.mpf(int(repeated)) / (10 ** len(repeated) - 1) / context.mpf(10) ** places
    return value


def _moderate(value: Any) -> Any:
    """Returns a value; raises Unsupported if its exponential has too many digits."""
    if abs(value) > _LARGEST * math.log(10):
        raise Unsupported("too large")
    return value


def _power(base: Any, exponent: Any) -> Any:
    if base != 0 and abs(exponent) > 1:
        _moderate(exponent * _local.context.log(abs(base)))
        if _local.context.im(base) != 0 and abs(exponent) > _LARGEST:
            raise Unsupported("too large")
    if base == 0 and exponent == 0:
        raise ValueError("0^0")
    context = _local.context
    if context.im(base) == 0 and context.re(base) < 0 and (odd := _odd_root(exponent)):
        return (-1 if odd % 2 else 1) * context.power(-context.re(base), exponent)  # the real root, as of x^{2/3}
    return context.power(base, exponent)


def _odd_root(exponent: Any) -> int:
    """Returns the numerator of an exponent p/q with a small odd q > 1; 0 for other exponents."""
    if mpmath.im(exponent) == 0:
        for q in (3, 5, 7, 9):
            if (p := round(float(exponent * q))) % q and abs(exponent * q - p) < EQUAL:
                return p if p % 2 else 2
    return 0


def _root(inside: Any, degree: Any) -> Any:
    if degree == 0 or abs(degree) > 1000:
        raise Unsupported("degree of a root")
    return _power(inside, 1 / degree)


def _snapped(value: Any) -> Any:
    """Returns the nearest integer for a value that differs from it by rounding alone, and any other value as it is."""
    nearest = _local.context.nint(mpmath.re(value))
    return nearest if abs(value - nearest) <= _local.context.mpf(10) ** (DIGITS // 2 - _local.context.dps) else value


def _factorial(value: Any) -> Any:
    if abs(value) > 20_000:
        raise Unsupported("too large")
    if _whole(value):
        return _rounded(_whole_factorial(int(_counted(value))))
    _only_coarse()
    return _local.context.factorial(value)


def _binomial(n: Any, k: Any) -> Any:
    if abs(n) > 20_000 or abs(k) > 20_000:
        raise Unsupported("too large")
    if _whole(n) and _whole(k):
        return _rounded(_whole_binomial(int(_counted(n)), int(k)))
    _only_coarse()
    return _local.context.binomial(n, k)


# Twelve points are evaluated, and some to more digits: each large integer is made once.
_whole_factorial = functools.lru_cache(maxsize=256)(math.factorial)
_whole_binomial = functools.lru_cache(maxsize=256)(math.comb)


def _counted(value: Any) -> Any:
    """Returns the argument of a factorial; raises Unsupported if those of this evaluation are too large together."""
    _local.factorials += value
    if _local.factorials > _LARGEST_FACTORIALS:
        raise Unsupported("too many factorials")
    return value


def _rounded(value: int) -> Any:
    """Returns an integer as a number of the context's precision, without its exact digits, which take long to handle."""
    context = _local.context
    return context.make_mpf(mpmath.libmp.from_int(value, context.prec, "n"))


def _whole(value: Any) -> bool:
    return value >= 0 and value == int(value) if mpmath.im(value) == 0 else False


def _only_coarse() -> None:
    """Refuses to evaluate a gamma function to many digits, which takes seconds."""
    if _local.context.dps > 2 * DIGITS:
        raise Unsupported("gamma function")


def to_digits(a: Expression, b: Expression, point: Values, digits: int) -> tuple[Any, Any]:
    """Returns the values of two expressions at a point to so many digits."""
    context = _local.context
    context.dps = digits
    try:
        return a.at(point), b.at(point)
    finally:
        context.dps = DIGITS


def exact(value: float) -> Any:
    """Returns a number of Python as one of this thread's context."""
    return _local.context.mpf(value)


def fraction(value: Any) -> Fraction:
    """Returns a real value as an exact fraction."""
    sign, mantissa, exponent, _ = mpmath.re(value)._mpf_
    return Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent


def is_real(value: Any) -> bool:
    """Returns whether a value's imaginary part is no more than rounding."""
    return bool(abs(mpmath.im(value)) <= 10.0 ** (-DIGITS // 2) * abs(value))
