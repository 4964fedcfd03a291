"""A reflection points at a number of its answer: at which one, and at which tokens."""

import numpy as np
import pytest

from amrsd_jax.policy.tokenizer import embedded_tokenizer
from amrsd_jax.records import Contexts
from amrsd_jax.reflection.quotes import quoted, quoted_spans
from amrsd_jax.tasks.verify import pad
from tests.tiny import tiny_rollouts

QUESTION, ANSWER = "What is 8 + 6 + 4?", "8 + 6 = 14. 14 + 4 = 20."


@pytest.mark.parametrize(
    "text, pointed",
    [
        ("14 + 4 is not 20: that is too small.", "20"),
        ("8 + 6 is not 14.", "14"),  # where the answer first has it
        ("It should calculate 8 + 6 + 4 in two steps.", None),  # the question gives these
        ("18 is the result.", None),  # not in the answer
        ("The 1 is wrong.", None),  # 14 has a 1, but is another number
        ("", None),
    ],
)
def test_the_last_number_of_the_text_that_the_answer_calculated(text, pointed):
    span = quoted(QUESTION, ANSWER, text)
    assert (span and ANSWER[slice(*span)]) == pointed
    assert span is None or span[0] == ANSWER.index(pointed)


def test_of_several_places_the_one_after_the_same_numbers():
    question, answer = "What is 7 + 8 + 5?", "7 + 8 = 15. 15 + 5 = 15."
    assert quoted(question, answer, "15 + 5 is not 15") == (21, 23)
    assert quoted(question, answer, "7 + 8 is not 15") == (8, 10)
    assert quoted(question, answer, "15 is wrong") == (8, 10)  # the first of equals
    assert quoted("What is 8 + 3 - 4?", "8 = 13. 13 = 2.", "8 is not 13: it must be 13.") == (4, 6)


def test_a_number_of_the_question_is_meant_where_it_is_a_result():
    question = "What is 8 + 6 - 4?"
    assert quoted(question, "8 + 6 = 14. 14 - 4 = 8.", "14 - 4 is not 8") == (21, 22)
    assert quoted(question, "8 + 6 =4. 4 - 4 = 0.", "8 + 6 is not 4: it must be larger") == (7, 8)
    assert quoted(question, "8 + 6 = 14. 14 - 4 = 9.", "Nine is wrong: subtract 4 from 14, not 8.") == (8, 10)
    assert quoted(question, "8 + 6 - 4 is 12.", "Subtract 4 at the end.") is None


def test_decimals_and_thousands_are_one_number():
    assert quoted("How much is 1 + 1.5?", "It is 2.25", "2.25 is too small, 2 as well") == (6, 10)
    assert quoted("What is 1,000 + 300?", "It is 2,200", "2,200 is wrong") == (6, 11)


def test_spans_are_tokens_of_the_response():
    tokenizer = embedded_tokenizer([])
    answers = ["1+2=4", "1+2=4", "1+2=3"]
    tokens = [tokenizer.encode(answer) for answer in answers]
    rows = dict(
        text=tuple(answers), response=pad(tokens, 6, np.int32), mask=pad([[1] * len(t) for t in tokens], 6, np.float32)
    )
    rollouts = tiny_rollouts([False, False, True], length=6, **rows)
    texts = ("4 is too large", "4 is too large", "3 is right")
    usable = np.array([0])
    contexts = Contexts(
        ("critique",) * 3, ("ok", "leak", "no_room"), texts, usable, np.zeros((1, 1), np.int32), np.ones(1, np.int32)
    )  # a text that fits into no teacher's prompt is read all the same
    spans = quoted_spans(tokenizer, rollouts, contexts)
    at = answers[0].index("4")
    assert spans[1].tolist() == [-1, -1]
    assert [tokenizer.decode(tokens[row][slice(*spans[row])]) for row in (0, 2)] == ["4", "3"] and spans[0, 0] == at
