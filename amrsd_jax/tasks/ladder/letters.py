"""Rungs about the letters of a word: how many there are, and which one is at a place."""

import re
from fractions import Fraction

import numpy as np

from amrsd_jax.problems import Problem
from amrsd_jax.tasks.ladder import numbers
from amrsd_jax.tasks.ladder.arithmetic import states_number
from amrsd_jax.tasks.ladder.rung import Exercise, Fault, Review, Rung, choose
from amrsd_jax.tasks.ladder.vocabulary import WORDS

_LETTERS = re.compile(r"\W{0,3}letters?\b")
_PLACES = ("first", "second", "third", "fourth", "last")


class Count(Rung):
    """The number of letters of a word of three to eight letters. The word decides the split."""

    instruction: str = "Answer with one number."

    def draw(self, generator: np.random.Generator) -> Exercise:
        word = choose(generator, WORDS)
        question = choose(
            generator, ('How many letters are in "{word}"?', 'How many letters does the word "{word}" have?')
        )
        reference = f'"{word}" has {len(word)} letters.'
        return Exercise(question.format(word=word), str(len(word)), reference, word, {"word": word})

    def review(self, problem: Problem, text: str) -> Review:
        text, word = numbers.in_one_notation(text), problem.row["word"]
        found = numbers.numbers(text)
        said = {number.value for number in found if numbers.is_result(text, number) or _LETTERS.match(text, number.end)}
        stated = numbers.answer(text, {number.value for number in found} - said)
        number = stated.number
        if number is None:
            fault = Fault(
                (0, max(1, len(text))),
                ("there is no number",),
                (
                    f'The attempt gives no number; count the letters of "{word}" one by one.',
                    f'It talks about "{word}" and does not count its letters.',
                    "The attempt gives no number; count the letters one by one.",
                ),
                (r"\bno number|(?:does|did) not (?:count|answer|give)|never|\btalks?\b",),
            )
            return Review(None, None, fault)
        fault = None
        if number.value != Fraction(problem.answer):
            large = number.value is None or number.value > Fraction(problem.answer)
            size, wrong = "many" if large else "few", text[number.start : number.end]
            low, high = r"too (?:few|small|low)|more letters", r"too (?:many|large|high|big)|fewer letters|less"
            fault = Fault(
                (number.start, number.end),
                (f"{wrong} is not the number of letters", "the number is wrong"),
                (
                    f'{wrong} is too {size} for "{word}"; count each letter once.',
                    f'The attempt says {wrong}, which is too {size}: go through "{word}" letter by letter.',
                    f"The number is too {size}; count letter by letter.",
                ),
                (rf"\b{re.escape(wrong)}\b", high if large else low),
                (low if large else high,),
            )
        elif stated.doubt:
            fault = Fault(
                stated.doubt,
                ("the number is taken back or goes on",),
                (
                    f'The attempt leaves the number open; count the letters of "{word}" and stop.',
                    "It does not stop at one number; count once and stop.",
                    "The attempt leaves the number open; count once and stop.",
                ),
                (r"\bopen\b|stop|several|more than one",),
            )
        return Review(text[number.start : number.end], (number.start, number.end), fault)

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        word = problem.row["word"]
        return (
            f'Go through "{word}" letter by letter and count each one once.',
            f'The decisive step is to count the letters of "{word}" one by one.',
            "The decisive step is to count letter by letter.",
        ), (r"letter by letter|each (?:letter|one)|one by one", r"\bcount")

    def states_answer(self, problem: Problem, text: str) -> bool:
        return states_number(text, problem.answer, set())


class Letter(Rung):
    """The letter at a place of a word. The word decides the split."""

    instruction: str = "Answer with one letter."

    def draw(self, generator: np.random.Generator) -> Exercise:
        word = choose(generator, [word for word in WORDS if len(word) > 3])
        place = choose(generator, _PLACES)
        question = choose(
            generator, ('What is the {place} letter of "{word}"?', 'Which letter of "{word}" is the {place} one?')
        )
        answer = word[-1 if place == "last" else _PLACES.index(place)]
        reference = f'The {place} letter of "{word}" is "{answer}".'
        return Exercise(
            question.format(place=place, word=word), answer, reference, word, {"word": word, "place": place}
        )

    def review(self, problem: Problem, text: str) -> Review:
        word, place = problem.row["word"], problem.row["place"]
        stated = list(_LETTER.finditer(text))
        if not stated:
            fault = Fault(
                (0, max(1, len(text))),
                ("it names no single letter",),
                (
                    f'The attempt names no single letter; spell "{word}" and count to the {place} one.',
                    f'It does not say which letter; go to the {place} place of "{word}".',
                    f"The attempt names no single letter; spell the word and count to the {place} one.",
                ),
                (r"\bno (?:single )?letter|(?:does|did) not (?:say|name|answer)|single letter",),
            )
            return Review(None, None, fault)
        last = stated[-1]
        letter, span = last[last.lastgroup].lower(), last.span(last.lastgroup)
        before = max((match.end() for match in re.finditer(r"[.!?](?=\s)|\n", text[: span[0]])), default=0)
        doubt = _DENIES.search(text, before, span[0]) or _DENIES.search(text, span[1])
        fault = None
        if letter != problem.answer:
            where = "is in another place of" if letter in word else "is not in"
            fault = Fault(
                span,
                (f'"{letter}" is not the {place} letter', "it is another letter"),
                (
                    f'"{letter}" {where} "{word}"; spell the word and stop at the {place} letter.',
                    f'The attempt says "{letter}", but that {where} "{word}": count to the {place} one.',
                    f"It is another letter; spell the word and count to the {place} one.",
                ),
                (
                    rf"[\"'“‘]{letter}[\"'”’]",
                    r"another (?:letter|place)" if letter in word else r"not (?:in|part of)|another letter",
                ),
            )
        elif doubt:
            fault = Fault(
                doubt.span(),
                ("it does not stand by its letter",),
                (
                    f'The attempt leaves the letter open; name the {place} letter of "{word}" and stop.',
                    "The attempt leaves the letter open; name one letter and stop.",
                ),
                (r"\bopen\b|stop|stand by",),
            )
        return Review(letter, span, fault)

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        word, place = problem.row["word"], problem.row["place"]
        return (
            f'Spell "{word}" and count to the {place} letter.',
            f'The decisive step is to spell "{word}" letter by letter and to stop at the {place} one.',
            f"The decisive step is to spell the word and to stop at the {place} letter.",
        ), (r"\bspell", r"letter by letter|count to|stop at")

    def states_answer(self, problem: Problem, text: str) -> bool:
        return any(match[match.lastgroup].lower() == problem.answer for match in _LETTER.finditer(text)) or (
            re.search(rf"[\"'“‘(*]{problem.answer}[\"'”’)*]|\bletter {problem.answer}\b", text, re.IGNORECASE)
            is not None
        )


# A letter in quotes, behind "is", "letter" or a colon, or alone; the article and the pronoun count in quotes only, or at the end.
_LETTER = re.compile(
    r"[\"'“‘*(](?P<quoted>[A-Za-z])[.,]?[\"'”’*)]|\b(?:is|letter|be)\s?:?\s(?P<said>[A-Za-z])(?=\s*(?:[.,!\n]|\Z))"
    r"|\A\s*(?P<alone>[A-Za-z])(?=\s*(?:[.!\n]|\Z))|:\s(?P<listed>[A-Za-z])(?=\s*(?:[.,!\n]|\Z))",
    re.IGNORECASE,
)
_DENIES = re.compile(
    r"\b(?:not|no|never|cannot|wrong|incorrect|false|wait|actually|instead|sorry|rather|mistake|nor|or|either|maybe|perhaps)\b"
    r"|n['’]t\b|\?",
    re.IGNORECASE,
)
