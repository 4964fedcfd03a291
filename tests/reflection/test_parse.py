"""Parsing of reflections, and detection of texts that state the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.reflection.parse import STATUSES, close_tag
from amrsd_jax.reflection.parse import parse as parse_text
from amrsd_jax.tasks.leaks import states_answer


def parse(text, kind, answer, *, finished):
    return parse_text(text, kind, finished=finished, states_answer=lambda text: states_answer(text, answer))


@pytest.mark.parametrize(
    "text, finished, expected",
    [
        ("<hint> Mind the carry. </hint>", True, ("Mind the carry.", "ok")),
        ("Well:\n<hint>two\nlines</hint> done", True, ("two\nlines", "ok")),
        ("<hint>early</hint> and on and", False, ("early", "ok")),  # complete, though cut later
        ("<hint>cut in the", False, ("<hint>cut in the", "truncated")),
        ("<hint>never closed", True, ("<hint>never closed", "no_tag")),
        (" no tag at all\n", True, ("no tag at all", "no_tag")),
        ("</hint>backwards<hint>", True, ("</hint>backwards<hint>", "no_tag")),
        ("<critique>the other kind</critique>", True, ("<critique>the other kind</critique>", "no_tag")),
        ("<hint> \n </hint>", True, ("", "empty")),
        ("<hint>It is 48,733.</hint>", True, ("It is 48,733.", "leak")),
        ("", True, ("", "no_tag")),
        # A policy may mention the tags before it uses them.
        ("I write between <hint> and </hint>.\n<hint>Mind it.</hint>", True, ("Mind it.", "ok")),
        ("I start with <hint>, so: <hint>Mind it.</hint>", True, ("Mind it.", "ok")),
        ("<hint>Mind it.</hint> or <hint>better", False, ("Mind it.", "ok")),
    ],
)
def test_parse_by_hand(text, finished, expected):
    assert parse(text, "hint", "48733", finished=finished) == expected


@pytest.mark.parametrize(
    "text, finished, cut, closed",
    [
        ("<hint>Mind it", True, False, "<hint>Mind it</hint>"),
        ("<hint>Mind it", False, False, "<hint>Mind it"),
        ("<hint>Add 1.5 first. Mind! Then th", False, True, "<hint>Add 1.5 first. Mind!</hint>"),
        ("<hint>Add 1.", False, True, "<hint>Add 1."),  # may go on with a digit
        ("<hint>Mind it.</hint> More. And", False, True, "<hint>Mind it.</hint> More. And"),
        ("No tag. At all", False, True, "No tag. At all"),
        ("<critique>Of another kind. Yes", False, True, "<critique>Of another kind. Yes"),
    ],
)
def test_an_opened_tag_is_closed_at_the_end_or_after_the_last_sentence(text, finished, cut, closed):
    assert close_tag(text, "hint", finished=finished, cut=cut) == closed


def test_parse_reads_the_tag_of_its_kind():
    assert parse("<critique>flaw</critique>", "critique", "1", finished=True) == ("flaw", "ok")


@given(st.text() | st.text().map("<hint>{}</hint>".format), st.text(max_size=5), st.booleans())
def test_a_usable_reflection_is_a_part_of_the_text_without_the_answer(text, answer, finished):
    body, status = parse(text, "hint", answer, finished=finished)
    assert status in STATUSES and body in text
    if status == "ok":
        assert body and not states_answer(body, answer)


@pytest.mark.parametrize(
    "text, answer, stated",
    [
        # numbers, whole and alone, in every spelling of their value
        ("the answer is 5", "5", True),
        ("so x=5.", "5", True),
        ("that is 5.0 in all", "5", True),
        ("that is 5", "5.0", True),
        ("you get $5", "5", True),
        ("55 apples", "5", False),
        ("15 and 51", "5", False),
        ("0.5 of them", "5", False),
        ("5.5 of them", "5", False),
        ("5.05 of them", "5", False),
        ("step5 is wrong", "5", False),
        ("a fifth, 1/5, of it", "5", False),
        ("half, 0.5, of it", "1/2", True),
        (r"half, \frac{1}{2}, of it", "0.5", True),
        ("1,234 in all", "1234", True),
        ("1234 in all", "1,234", True),
        ("12,345 in all", "345", False),
        ("12,345 in all", "12", False),
        ("1,234,567.00", "1234567", True),
        ("it falls by -3", "-3", True),
        ("it falls by 3", "-3", False),
        ("it falls to -3", "3", False),
        ("take 8-3 first", "3", True),
        ("take 8-3 first", "-3", False),
        # letters only where they are named as a choice
        ("choose (B)", "B", True),
        ("choose ( b )", "B", True),
        ("the answer is B", "B", True),
        ("the answer is **B**", "B", True),
        ("Answer: B", "B", True),
        ("option B is right", "B", True),
        (r"\boxed{B}", "B", True),
        ("B is a letter, and Bob too", "B", False),
        ("the answer is Bob", "B", False),
        ("the answer is C", "B", False),
        ("a hint: look at a vector", "A", False),
        # anything else as text, whatever its case and spacing
        (r"so \sqrt{2} it is", r"\sqrt{2}", True),
        (r"so \sqrt { 2 } it is", r"\sqrt{2}", True),
        (r"so 2\sqrt{2} it is", r"\sqrt{2}", False),
        ("x^2 + 1 again", "x^2+1", True),
        ("The capital is PARIS.", "Paris", True),
        ("Parisian", "Paris", False),
        ("the interval [0, 1)", "[0,1)", True),
        # nothing
        ("anything", "", False),
        ("anything", "  ", False),
        ("", "5", False),
    ],
)
def test_states_answer_by_hand(text, answer, stated):
    assert states_answer(text, answer) == stated


@given(st.integers(), st.text(alphabet="ab .:", max_size=8), st.text(alphabet="!?, ", max_size=8))
def test_an_integer_is_found_wherever_it_stands_alone(value, before, after):
    assert states_answer(f"{before} {value} {after}", str(value))
    assert states_answer(f"{before} {value:,}.0 {after}", str(value))
