"""Templates: fields are filled once, templates are replaced by name, and their words make a vocabulary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amrsd_jax.reflection.prompts import FAMILIES, fill, templates, vocabulary_words

braces = st.text(alphabet="{}questionpeer \\")


def test_fill_by_hand():
    assert fill("{question} and {question}: {peer}", question="Q", peer="P") == "Q and Q: P"
    assert fill(r"{question} \boxed{} {x} {peer}", question="Q") == r"Q \boxed{} {x} {peer}"


@given(braces | st.just("{peer}{question}"), braces)
def test_fill_expands_once(question, peer):
    assert fill("{question}|{peer}", question=question, peer=peer) == f"{question}|{peer}"


def test_prompts_of_the_embedded_tasks_by_hand():
    texts = templates("chain")
    assert texts.question_prompt("1+2") == [{"role": "user", "content": "1+2"}]
    assert texts.teacher_prompt("1+2", "1+2+0=3") == [{"role": "user", "content": "1+2\n1+2+0=3\n solve"}]
    (failed,) = texts.reflection_prompt("critique", "1+2", "1+2+0=4", "the answer is wrong", "1+2+0=3", None)
    assert failed["content"] == "1+2\n1+2+0=4\n wrong\n peer\n1+2+0=3\n critique"
    (solved,) = texts.reflection_prompt("hint", "1+2", "1+2+0=3", "correct", None, "1+2=3")
    assert solved["content"] == "1+2\n1+2+0=3\n right\n reference\n1+2=3\n hint"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["hint", "critique"])
def test_every_family_shows_what_it_is_given_and_leaves_no_field(family, kind):
    shown = dict(question="QUESTION", attempt="ATTEMPT", verdict="VERDICT", peer="PEER", reference="REFERENCE")
    text = templates(family).reflection_prompt(kind, **shown)[-1]["content"]
    assert all(value in text for name, value in shown.items() if name != "verdict" or family != "chain")
    alone = templates(family).reflection_prompt(kind, **(shown | dict(peer=None, reference=None)))[-1]["content"]
    assert "PEER" not in alone and "REFERENCE" not in alone
    for content in (text, alone, templates(family).teacher_prompt("Q", "R")[-1]["content"]):
        assert not any(f"{{{field}}}" in content for field in (*shown, "reflection"))


def test_mathematics_asks_for_tags_that_are_parsed():
    texts = templates("mathematics")
    for kind in ("hint", "critique"):
        assert f"<{kind}>" in getattr(texts, kind) and f"</{kind}>" in getattr(texts, kind)


@pytest.mark.parametrize("family", ["choice", "tools", "code"])
def test_other_families_ask_for_the_same_tags_and_show_a_critic_the_answer(family):
    texts = templates(family)
    for kind in ("hint", "critique"):
        text = getattr(texts, kind)
        assert f"<{kind}>" in text and f"</{kind}>" in text
    assert "ANSWER" in texts.repair_prompt("Q", "A", "ANSWER")[-1]["content"]


@pytest.mark.parametrize("family", ["mathematics", "choice", "tools", "code"])
def test_the_teacher_s_prompt_ends_as_the_student_s(family):
    """So that a text, and not an instruction that only the teacher has, makes the gap."""
    texts = templates(family)
    (*_, student), (*_, teacher) = texts.question_prompt("the question"), texts.teacher_prompt("the question", "a hint")
    student, teacher = student["content"], teacher["content"]
    assert teacher.endswith(student.removeprefix("the question") or "the question") and "a hint" in teacher
    assert "the question" in teacher and texts.question_prompt("")[:-1] == texts.teacher_prompt("", "")[:-1]


def test_a_system_message_comes_first_where_the_question_is_to_be_answered():
    texts = templates("chain", system="Be brief.")
    for messages in (texts.question_prompt("1+2"), texts.teacher_prompt("1+2", "R")):
        assert [message["role"] for message in messages] == ["system", "user"]
        assert messages[0]["content"] == "Be brief."
    for messages in (
        texts.reflection_prompt("hint", "1+2", "A", "V", None, None),
        texts.repair_prompt("1+2", "A", "3"),
    ):
        assert [message["role"] for message in messages] == ["user"]  # it may ask for a form that they must not have


def test_replacements_change_one_family_only():
    assert templates("chain", solve="{question}?").question_prompt("1+2")[0]["content"] == "1+2?"
    assert templates("chain").solve == "{question}"


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"reflection\.templates\.critic: did you mean 'critique'"):
        templates("chain", critic="x")
    with pytest.raises(ValueError, match="'chian': did you mean 'chain'"):
        templates("chian")


def test_words_are_those_of_the_prompts_and_the_tags():
    assert vocabulary_words(templates("chain")) == [
        "<hint>", "</hint>", "<critique>", "</critique>",
        "critique", "hint", "peer", "reference", "right", "solve", "wrong",
    ]  # fmt: skip
