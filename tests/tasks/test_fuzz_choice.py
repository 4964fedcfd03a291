"""2,000 replies built by rule: right and wrong statements of a letter, and text of any kind around them.

Nothing raises or hangs, no wrong letter is accepted, and at most 2 % of the right statements are refused.
"""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.tasks.choice import lenient, verify_choice

OPTIONS = {
    letter: f"the {word} one"
    for letter, word in zip("ABCDEF", ["red", "green", "blue", "grey", "pink", "teal"], strict=True)
}
letters = st.sampled_from(sorted(OPTIONS))
dress = st.sampled_from(
    ["{}", "({})", "**{}**", "`{}`", "$ {} $", r"\text{{{}}}", "“{}”", "[{}]", "**({})**", r"\(\mathrm{{{}}}\)"]
)
SAYS = (
    "The answer is {}.", "Answer: {}", "So the correct option is {}", "The right choice must be {}.", "**Final answer:** {}",
    r"\boxed{{{}}}", "<answer>{}</answer>", "Therefore, the answer is: {}", "{} is correct.", "I choose {}.",
    "答案是{}。", "故选{}",
    "Die Antwort lautet {}.", "La bonne réponse est {}.", "La respuesta correcta es {}.", "La risposta è {}.",
    "A resposta é {}.", "Ответ: {}", "正解は{}です。", "정답은 {}입니다.", '{{"answer": "{}"}}',
)  # fmt: skip
DENIES = (
    "The answer is not {}.", "{} is wrong.", "{} is incorrect.", "The incorrect option is {}.", "It cannot be {}.",
    "答案不是{}。",
    "Don't choose {}.", "{} isn't the answer.", "Die Antwort ist nicht {}.", "La respuesta no es {}.", "If the answer is {}, we",
)  # fmt: skip
SEVERAL = (
    "The answer is {} or {}.", "{} and {}", "Answer: {}, {}", "<answer>{} or {}</answer>", "Both {} and {} are correct.",
    "答案是{}或{}", "The answer is either {} or {}.",
)  # fmt: skip
filler = st.sampled_from(
    [
        "",
        "Let us see.\n",
        "First, the mass doubles.\n\n",
        "A and B differ in sign.\n",
        "In (C), the sign is lost.\n",
        "1. Read.\n2. Solve.\n",
    ]
)
remark = st.sampled_from(["", "\n", "\n\nHope this helps!", "\n\nThe others are too small."])


def fast(response, options=OPTIONS):
    begin = time.process_time()
    letter = lenient(response, options)
    assert time.process_time() - begin < 5
    return letter


@pytest.mark.slow
def test_right_statements_are_read_and_never_as_another_letter():
    read = []

    @settings(max_examples=800, deadline=None)
    @given(filler, st.sampled_from(SAYS), dress, letters, remark)
    def check(before, says, wear, letter, after):
        named = fast(before + says.format(wear.format(letter)) + after)
        assert named in (letter, None)
        read.append(named is not None)

    check()
    assert sum(read) >= 0.98 * len(read)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(filler, st.sampled_from(DENIES), st.sampled_from(["{}", "({})", "**{}**"]), letters)
def test_a_denied_letter_is_not_accepted(before, denies, wear, letter):
    assert fast(before + denies.format(wear.format(letter))) != letter


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    filler,
    st.sampled_from(SEVERAL),
    st.lists(letters, min_size=2, max_size=2, unique=True),
    st.sampled_from(["{}", "({})"]),
)
def test_several_letters_are_none(before, several, pair, wear):
    assert fast(before + several.format(*map(wear.format, pair))) is None


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SAYS), letters, st.booleans(), st.text(max_size=20))
def test_what_is_thought_does_not_count(says, letter, closed, after):
    response = "<think>" + says.format(letter) + ("</think>" if closed else "")
    assert fast(response) is None
    assert not verify_choice(letter, response, OPTIONS).reward


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *SAYS,
                *DENIES,
                "<answer>",
                "</answer>",
                r"\boxed{",
                "}",
                "(",
                "\n",
                "answer ",
                "is ",
                "<think>",
                "选",
                "A",
            ]
        )
        | st.text(max_size=10),
        max_size=30,
    ).map("".join)
)
def test_any_text_gets_a_verdict(text):
    for form in ("row", "any"):
        verdict = verify_choice("B", text, OPTIONS, form=form)
        assert verdict.reward in (0.0, 1.0) and (verdict.reward == 0 or "B" in text or "b" in text or "green" in text)
