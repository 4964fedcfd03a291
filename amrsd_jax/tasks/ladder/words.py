"""Rungs about words: how many letters a word has, which letter is at a place, and three words in the order of the alphabet."""

import dataclasses
import re
from fractions import Fraction

import numpy as np

from amrsd_jax.problems import Problem
from amrsd_jax.tasks.ladder import numbers
from amrsd_jax.tasks.ladder.arithmetic import states_number
from amrsd_jax.tasks.ladder.rung import Exercise, Fault, Review, Rung, choose

_TEXT = (
    "air ant arm art bag bed bee bird boat bone book box bread bus cake camel candle car card cat chair cheese child city "
    "clock cloud coat coin corn cow cup desk dog door dream duck dust ear earth egg eye face farm fire fish flag floor "
    "flower forest fox frog fruit game garden gate glass goat gold grass hair hand hat head hill honey horse house ice "
    "island jacket juice key king kite knife lake lamp leaf lemon letter lion market milk mirror money moon mouse music "
    "nail neck nest night nose ocean onion orange oven owl paper park pencil piano pig plane planet plant plate pocket "
    "potato queen rain ring river road rock roof room rose salt sand school sea seed sheep ship shirt shoe silver sister "
    "snow song spoon star stone storm street sugar summer sun table tail tent tiger time tooth town train tree truck uncle "
    "valley violin voice wall water wheel wind window winter wolf wood zebra"
)
WORDS = tuple(_TEXT.split())
_PLACES = ("first", "second", "third", "fourth", "last")


@dataclasses.dataclass(frozen=True)
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

    def review(self, problem: Problem, response: str) -> Review:
        offset = max(0, len(response) - numbers.TAIL)
        text, word = numbers.in_one_notation(response[offset:]), problem.row["word"]
        stated = numbers.answer(text, ())
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
            return Review(None, None, _moved(fault, offset))
        fault = None
        if stated.doubt:
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
        elif number.value != Fraction(problem.answer):
            large = number.value is None or number.value > Fraction(problem.answer)
            size, wrong = ("many", "few")[:: 1 if large else -1][0], text[number.start : number.end]
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
        span = (number.start + offset, number.end + offset)
        return Review(text[number.start : number.end], span, fault and _moved(fault, offset))

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        word = problem.row["word"]
        return (
            f'Go through "{word}" letter by letter and count each one once.',
            f'The decisive step is to count the letters of "{word}" one by one.',
            "The decisive step is to count letter by letter.",
        ), (r"letter by letter|each (?:letter|one)|one by one", r"\bcount")

    def states_answer(self, problem: Problem, text: str) -> bool:
        return states_number(text, problem.answer, set())


@dataclasses.dataclass(frozen=True)
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

    def review(self, problem: Problem, response: str) -> Review:
        offset = max(0, len(response) - numbers.TAIL)
        text, word, place = response[offset:], problem.row["word"], problem.row["place"]
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
            return Review(None, None, _moved(fault, offset))
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
        return Review(letter, (span[0] + offset, span[1] + offset), fault and _moved(fault, offset))

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        word, place = problem.row["word"], problem.row["place"]
        return (
            f'Spell "{word}" and count to the {place} letter.',
            f'The decisive step is to spell "{word}" letter by letter and to stop at the {place} one.',
            f"The decisive step is to spell the word and to stop at the {place} letter.",
        ), (r"\bspell", r"letter by letter|count to|stop at")

    def states_answer(self, problem: Problem, text: str) -> bool:
        return any(
            match[match.lastgroup].lower() == problem.answer for match in _LETTER.finditer(text[-numbers.TAIL :])
        ) or (
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


@dataclasses.dataclass(frozen=True)
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

    def review(self, problem: Problem, response: str) -> Review:
        offset = max(0, len(response) - numbers.TAIL)
        text, words = response[offset:], problem.row["words"]
        pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])", re.IGNORECASE)
        found = [(match[0].lower(), match.span()) for match in pattern.finditer(text)]
        last = found[-3:]
        listed = [word for word, _ in last]
        if len(set(listed)) < 3:
            missing = [word for word in words if word not in {word for word, _ in found}]
            return Review(None, None, _moved(_incomplete(problem, text, found, missing), offset))
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
        return Review(parsed, (span[0] + offset, span[1] + offset), fault and _moved(fault, offset))

    def hints(self, problem: Problem, response: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        a, b, c = problem.row["words"]
        return (
            f"Only the first letters of {a}, {b} and {c} decide.",
            f"The decisive step is to compare the first letters of {a}, {b} and {c}.",
            "The decisive step is to compare the first letters.",
        ), (r"first letters?", r"compar")

    def states_answer(self, problem: Problem, text: str) -> bool:
        words = sorted(problem.row["words"])
        return (
            re.search(r"\b.{0,40}?\b".join(map(re.escape, words)), text[-numbers.TAIL :], re.IGNORECASE | re.DOTALL)
            is not None
        )


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
    name = missing[0] if missing else "one word"
    return Fault(
        (end, end + 1) if missing else found[-1][1],
        (f"{name} is missing" if missing else "a word is repeated", "the last three words are not the three that were asked for"),
        (
            f"The word {name} is missing; sort all three by their first letters.",
            f"The attempt leaves out {name}; write all three words once.",
            "The attempt does not write each of the three words once; sort them by their first letters.",
        ) if missing else (
            "The attempt writes a word twice; write each word once, sorted by first letters.",
            "The attempt does not write each of the three words once; sort them by their first letters.",
        ),
        (rf"\b{name}\b[^.]*(?:missing|left out|forgot)|(?:leaves? out|missing|forg[eo]t\w*)[^.]*\b{name}\b" if missing else "twice|repeat",
         r"each of|all three"),
    )  # fmt: skip


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


def _moved(fault: Fault, offset: int) -> Fault:
    """Returns a fault that was found in the end of a response, with its place in the whole."""
    return dataclasses.replace(fault, span=(fault.span[0] + offset, fault.span[1] + offset))
