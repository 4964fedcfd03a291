"""A rung of sorting: three words in the order of the alphabet."""

import re

import numpy as np

from amrsd_jax.problems import Problem
from amrsd_jax.tasks.ladder.rung import Exercise, Fault, Review, Rung, choose
from amrsd_jax.tasks.ladder.vocabulary import WORDS

_DENIES = re.compile(
    r"\b(?:not|no|never|wait|actually|instead|sorry|or|maybe|reverse\w*|wrong|incorrect)\b|n['’]t\b|\?", re.IGNORECASE
)


class Sorting(Rung):
    """Three words with different first letters in the order of the alphabet. The set of words decides the split."""

    instruction: str = "Answer with the three words."

    def draw(self, generator: np.random.Generator) -> Exercise:
        while True:
            words = [str(word) for word in generator.choice(WORDS, size=3, replace=False)]
            if len({word[0] for word in words}) == 3 and words != sorted(words):
                break
        question = choose(
            generator, ("Sort these words alphabetically: {}.", "Put these words into alphabetical order: {}.")
        )
        answer = ", ".join(sorted(words))
        return Exercise(question.format(", ".join(words)), answer, answer, " ".join(sorted(words)), {"words": words})

    def review(self, problem: Problem, text: str) -> Review:
        words = problem.row["words"]
        pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])", re.IGNORECASE)
        found = [(match[0].lower(), match.span()) for match in pattern.finditer(text)]
        last = found[-3:]
        listed = [word for word, _ in last]
        if len(set(listed)) < 3:
            missing = [word for word in words if word not in {word for word, _ in found}]
            return Review(None, None, _incomplete(problem, text, found, missing))
        span, parsed = (last[0][1][0], last[-1][1][1]), ", ".join(listed)
        fault = None
        if parsed != problem.answer:
            wrong = next(number for number, word in enumerate(listed) if word != sorted(words)[number])
            fault = _misplaced(problem, listed, wrong, last[wrong][1])
        elif doubt := _DENIES.search(text, span[0]) or re.search(
            r"\b(?:not|reverse\w*|wrong|incorrect)\b", text, re.IGNORECASE
        ):
            fault = Fault(
                doubt.span(),
                ("it does not stand by its order",),
                ("The attempt leaves the order open; write the words once and stop.",) * 2,
                (r"\bopen\b|stop|once",),
            )
        return Review(parsed, span, fault)

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        a, b, c = problem.row["words"]
        return (
            f"Only the first letters of {a}, {b} and {c} decide.",
            f"The decisive step is to compare the first letters of {a}, {b} and {c}.",
            "The decisive step is to compare the first letters.",
        ), (r"first letters?", r"compar")

    def states_answer(self, problem: Problem, text: str) -> bool:
        words = sorted(problem.row["words"])
        return re.search(r"\b.{0,40}?\b".join(map(re.escape, words)), text, re.IGNORECASE | re.DOTALL) is not None


def _incomplete(problem: Problem, text: str, found: list, missing: list[str]) -> Fault:
    end = len(text)
    if not found:
        return Fault(
            (0, max(1, end)),
            ("it has none of the words",),
            (
                f"The attempt has none of the words; write {problem.row['words'][0]} and the others, sorted by first letters.",
                "The attempt has none of the three words; sort them by their first letters.",
            ),
            (r"\bnone of|no words?|(?:does|did) not (?:sort|list|write)",),
        )
    last = "The attempt does not write each of the three words once; sort them by their first letters."
    if not missing:
        return Fault(
            found[-1][1],
            ("a word is repeated",),
            ("The attempt writes a word twice; write each word once, sorted by first letters.", last),
            (r"twice|repeat|each of",),
        )
    name = missing[0]
    return Fault(
        (end, end + 1),
        (f"{name} is missing", "one of the three words is missing"),
        (
            f"The word {name} is missing; sort all three by their first letters.",
            f"The attempt leaves out {name}; write all three words once.",
            last,
        ),
        (
            rf"\b{name}\b[^.]*(?:missing|left out|forg)|(?:leaves? out|missing|forg)[^.]*\b{name}\b",
            r"each of|all three",
        ),
    )


def _misplaced(problem: Problem, listed: list[str], wrong: int, span: tuple[int, int]) -> Fault:
    word, right = listed[wrong], sorted(problem.row["words"])[wrong]
    place = ("first", "second", "third")[wrong]
    return Fault(
        span,
        (f"{word} is not the {place} word", "the order is wrong"),
        (
            f"{word} is not the {place} word, since {right[0].upper()} comes before {word[0].upper()} in the alphabet.",
            f"The attempt puts {word} too early; compare the first letters {right[0].upper()} and {word[0].upper()}.",
            "The order is wrong; compare the first letters of the words.",
        ),
        (rf"\b{word}\b[^.]*(?:not|too early|wrong|before|after)|\bputs? {word}\b", r"order is wrong|wrong order"),
        (rf"{word} (?:is )?too late",),
    )
