"""A rung of comparisons: which of three numbers is the largest or the smallest."""

import re

import numpy as np

from amrsd_jax.problems import Problem
from amrsd_jax.tasks.ladder import numbers
from amrsd_jax.tasks.ladder.numbers import Number
from amrsd_jax.tasks.ladder.rung import Exercise, Fault, Review, Rung, choose

_WAYS = (
    "Which number is the {most}: {a}, {b} or {c}?",
    "Which is the {most} of {a}, {b} and {c}?",
    "What is the {most} number among {a}, {b} and {c}?",
)
_MOST = {
    "largest": r"(?:larg|bigg|great|high)est",
    "smallest": r"(?:small|low|little)(?:est)|least",
}
_JUDGES = re.compile(
    r"\b(?:is|are|answer|choose|pick|right|correct|take|largest|biggest|greatest|smallest|lowest|larger|bigger|greater|smaller|"
    r"more|less|than|must|should)\b|[=⇒:]",
    re.IGNORECASE,
)


class Comparison(Rung):
    """The largest or the smallest of three numbers from 10 to 99. The set of numbers decides the split."""

    instruction: str = "Answer with one number."

    def draw(self, generator: np.random.Generator) -> Exercise:
        values = [int(value) for value in generator.choice(np.arange(10, 100), size=3, replace=False)]
        most = choose(generator, _MOST)
        answer = max(values) if most == "largest" else min(values)
        a, b, c = values
        question = choose(generator, _WAYS).format(most=most, a=a, b=b, c=c)
        facts = {"numbers": values, "most": most}
        return Exercise(
            question, str(answer), f"The {most} number is {answer}.", " ".join(map(str, sorted(values))), facts
        )

    def review(self, problem: Problem, text: str) -> Review:
        text = numbers.in_one_notation(text)
        found = numbers.numbers(text)
        stated = _stated(text, found, problem.row["numbers"], _MOST[problem.row["most"]])
        fault = _fault(problem, text, found, stated)
        if stated is None:
            return Review(None, None, fault)
        return Review(text[stated.start : stated.end], (stated.start, stated.end), fault)

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        most, (a, b, c) = problem.row["most"], problem.row["numbers"]
        return (
            f"Compare the tens of {a}, {b} and {c} first.",
            f"The decisive step is to look at the first digit of {a}, {b} and {c}.",
            f"It is enough to name the {most} of {a}, {b} and {c}, without an explanation.",
            "The decisive step is to compare the first digits.",
        ), (r"\btens\b|first digits?", r"compar", r"explanation|one number")

    def states_answer(self, problem: Problem, text: str) -> bool:
        """Returns whether a sentence singles the answer out with a word that judges; one that names all numbers does not."""
        options, gold = {str(number) for number in problem.row["numbers"]}, problem.answer
        for sentence in re.split(r"[.!?;](?=\s)|\n", text):
            plain = numbers.in_one_notation(sentence)
            named = {str(number.value) for number in numbers.numbers(plain)} & options
            if gold in named and named != options and (_JUDGES.search(plain) or sentence.strip(" .*").isdigit()):
                return True
        return False


def _stated(text: str, found: list[Number], options: list[int], most: str) -> Number | None:
    """Returns the number that is called the most, or the only one of the question where one is given as the answer."""
    called = [number for number in found if _is_called(text, number, most)]
    if not called:
        named = [number for number in found if number.value in options]
        alone = len(text.split()) < 4 or (named and numbers.is_result(text, named[-1]))
        called = named if alone else []
    return called[-1] if len({number.value for number in called}) == 1 else None


def _is_called(text: str, number: Number, most: str) -> bool:
    """Returns whether a number is called the most, or the answer."""
    before, behind = text[max(0, number.start - 90) : number.start], text[number.end : number.end + 40]
    return (
        re.match(rf"[*\"' ]{{0,4}}(?:=|⇒|is|was) (?:the )?(?:\w+ )?(?:{most})", behind) is not None
        or re.search(
            rf"\b(?:{most}|answer)\b[^.!?\n]{{0,50}}(?:[=⇒:]|\b(?:is|be)\b)[^.!?\n0-9]{{0,25}}\Z", before, re.IGNORECASE
        )
        is not None
    )


_DENIES = re.compile(
    r"\b(?:not|no|never|cannot|wrong|incorrect|false|wait|actually|instead|sorry|rather|mistake|neither|nor|or|either|maybe|perhaps|"
    r"between|than)\b|n['’]t\b|!=|[≠?]",
    re.IGNORECASE,
)


def _fault(problem: Problem, text: str, found: list[Number], stated: Number | None) -> Fault | None:
    most, (a, b, c) = problem.row["most"], problem.row["numbers"]
    listed, named = f"{a}, {b} and {c}", [number for number in found if number.value in (a, b, c)]
    if not found:
        return Fault(
            (0, max(1, len(text))),
            ("it names no number",),
            (
                f"The attempt names no number; compare the tens of {listed}.",
                f"There are only words here: choose one of {listed}.",
                "The attempt names no number; compare the first digits and name one.",
            ),
            (r"\bno number\b|only words|name one|(?:does|did) not (?:name|answer|choose)|never",),
        )
    if stated not in (None, *named) or not named:
        strange = stated or found[0]
        wrong = numbers.shown(strange.value)
        return Fault(
            (strange.start, strange.end),
            (f"{wrong} is none of the three numbers", "it names none of the three numbers"),
            (
                f"{wrong} is none of the three numbers; choose one of {listed}.",
                f"The attempt names {wrong}, which was not asked about; compare the tens of {listed}.",
                "The attempt names none of the three numbers; choose one of them.",
            ),
            (rf"(?<!\d){re.escape(wrong)}(?!\d)", r"\bnone of"),
        )
    if stated is None:
        other = next((number for number in named if number.value != named[0].value), named[0])
        return Fault(
            (other.start, other.end),
            ("it does not choose one number",),
            (
                f"The attempt does not choose one of the numbers; compare the tens of {listed}.",
                f"It is not clear which number is meant; name only the {most} of {listed}.",
                "The attempt chooses no single number; compare the first digits and name one.",
            ),
            (r"several|not clear|unclear|(?:chooses?|names?) (?:none|no|more)|not choose|name only|single",),
        )
    wrong = str(stated.value)
    if wrong != problem.answer:
        sign, direction = ("larger", "small") if most == "largest" else ("smaller", "large")
        return Fault(
            (stated.start, stated.end),
            (f"{wrong} is not the {most}", "it is not the right number"),
            (
                f"{wrong} is not the {most}: another number has a {sign} first digit or second digit.",
                f"The attempt chooses {wrong}, but one of the others is {sign}; compare the tens.",
                f"{wrong} is too {direction}; compare the tens of {listed}.",
                f"Another of the three numbers is {sign}; compare the first digits.",
            ),
            (rf"(?<!\d){wrong}(?!\d)[^.]*\b(?:not|but|too|wrong)", rf"another|others|too {direction}"),
            (rf"too {'large' if direction == 'small' else 'small'}",),
        )
    others = [
        number for number in found if number.value not in problem.row["numbers"] and number.value not in (1, 2, 3, None)
    ]
    sentence = max((match.end() for match in re.finditer(r"[.!?](?=\s)|\n", text[: stated.start])), default=0)
    doubt = _DENIES.search(text, sentence) or numbers.changes(text, stated)
    span = doubt.span() if doubt else (others[0].start, others[0].end) if others else None
    if span is None:
        return None
    return Fault(
        span,
        ("it does not stand by its number",),
        (
            "The attempt does not stand by one number; name it and stop.",
            f"It leaves the answer open; name only the {most} number, then stop.",
            "It says more than one number and leaves the answer open.",
        ),
        (r"\bopen\b|stand by|more than|stop",),
    )
