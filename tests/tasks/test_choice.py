"""Multiple choice by hand: the strict tag, the lenient reading, options of a question, the published exact match."""

import time

import pytest

from amrsd_jax.tasks.choice import (
    LETTERS,
    gold_letter,
    lenient,
    listed_options,
    question_options,
    read_options,
    stem,
    tagged,
    verify_choice,
)

LABELS = tuple("ABCD")


@pytest.mark.parametrize(
    "response, strict, loose, compat",
    [
        ("<answer>\nA\n</answer>", 1, 1, 1),
        ("A", 0, 1, 1),
        ("<answer>A", 0, 1, 1),
        ("<answer>(A)</answer>", 0, 1, 0),
        ("<answer>a</answer>", 0, 1, 0),
        ("<answer>A: 2270</answer>", 0, 1, 0),
        ("<answer>B</answer><answer>A</answer>", 1, 1, 1),
        ("<answer>A</answer><answer>B</answer>", 0, 0, 0),
        ("<answer>A, B</answer>", 0, 0, 0),
        ("The answer is (A).", 0, 1, 0),
    ],
)
def test_three_scores_by_hand(response, strict, loose, compat):
    verdict = verify_choice("A", response, LABELS)
    assert (verdict.reward, verdict.scores["lenient"], verdict.scores["compat"]) == (strict, loose, compat)
    assert verify_choice("A", response, LABELS, form="any").reward == loose


@pytest.mark.parametrize(
    "response, letter",
    [
        ("the answer is C", "C"),
        ("The answer is C because of x", "C"),
        ("**Answer: B**", "B"),
        ("Answer: **B**", "B"),
        ("Correct answer: C) 5 cm", "C"),
        ("The correct answer is option (D)", "D"),
        ("Option B is correct.", "B"),
        (r"\boxed{\text{(D)}}", "D"),
        (r"\boxed{D. foo}", "D"),
        (r"Final Answer: The final answer is $\boxed{B}$", "B"),
        ("so\nC", "C"),
        ("so\n(c)", "C"),
        ("so\n**C**", "C"),
        ("so\nC: 2270", "C"),
        ("The answer is A. Wait, the answer is B.", "B"),
        ("<think>the answer is A</think>\nD", "D"),
        ("so\nc", None),
        ("The answer is a mixture", None),
        ("The answer is A mixture", None),
        ("The answer is A or B", None),
        ("The answer is (A) and (B)", None),
        ("the answer is A/B", None),
        ("The answer is not C", None),
        ("The answer is C?", None),
        ("Option A is wrong", None),
        ("Answer: Banana", None),
        (r"\boxed{E}", None),
        ("the answer is " + "\n" * 50_000, None),
        ("", None),
    ],
)
def test_lenient_reading_by_hand(response, letter):
    assert lenient(response, LABELS) == letter


def test_up_to_twenty_six_options():
    assert lenient("Statement I is correct, and II is wrong.") is None and lenient("I is correct.") == "I"
    assert lenient("The answer is (K).") == "K" and lenient("The answer is (K).", LABELS) is None
    options = dict.fromkeys("ABCDEFGHIJKLMNOPQR", "")
    assert (
        verify_choice("Q", "<answer>Q</answer>", options).correct and lenient("So the answer is (R).", options) == "R"
    )


STATED = """B is correct.|The correct option is \\text{B}.|The answer is “B”.|ANSWER: \\(B\\)|Answer: [B]|
{"answer": "B"}|b|**B**|[[B]]|Therefore, B.|I choose B.|Go with option (B).|It must be **B**.|
The answer to the question is B.|B (green).|b) green|Answer: <b>B</b>|
<answer>The answer is B</answer>|<answer>[B]</answer>|<ANSWER>B</ANSWER>|\\boxed{\\text{Option B}}|
\\boxed{\\textbf{(B) } green}|The answer is B, not C.|A is wrong. So the correct answer is B.|
The answer is green.|\\boxed{green}|green|The best choice here would be B.|答案：B|答案是 B。|
故选：B|B是正确的|選B|正确选项是B。|Die richtige Antwort lautet B.|B ist richtig.|
La bonne réponse est la B.|Réponse : B|La respuesta correcta es la opción B.|Respuesta: B|
L'opzione corretta è B.|Risposta: B|A resposta correta é a letra B.|Gabarito: B|
Правильный ответ — B.|Ответ: B|答えはBです。|正解：B|Bが正解です。|정답은 B입니다.|B가 정답입니다.|
Het antwoord is B.|Ans. B|Correct: B|Selected: B|The correct statement is B.|Svar: B|→ B|
We conclude that B is true.|B alone is correct.|B is my final answer.|not A but B|The answer is not A but B.|B, not C|B - green|
The answer is A? No, B.|The answer is A. Wait, it's B.|Let's pick B.|So choose B.|You should choose B.|الجواب: B|Răspuns: B|
A is false. B is true.|Let me choose B.|B is most likely correct.|Answer: B\n\nQuestion: And now?\nAnswer: C"""
UNSTATED = """A and B|A or B|not B|The answer is not B.|a mixture|A mixture|I think|The answer is I think unclear|
The answer is (B) and (C).|B/C|B, C|Both B and C are correct.|B isn't correct.|
The wrong answer is B.|The incorrect option is B.|The answer cannot be B.|B?|
If the answer is B, then it is green.|Is the answer B?|Neither B nor C is correct.|Don't choose B.|
We can eliminate option B.|Consider option B.|<answer>B or C</answer>|\\boxed{B, C}|
{"answer": ["B", "C"]}|答案是A或B|答案不是B|不选B|B不正确|Die Antwort ist nicht B.|
La réponse est A ou B.|La respuesta no es B.|La risposta non è B.|A resposta não é B.|Ответ: A или B|
答えはBではありません|정답은 B가 아닙니다|vitamin B|Bob|I don't think the answer is B.|The least likely answer is B.|
It would be a mistake to choose B.|You would be wrong to choose B.|B would be correct if it were red.|There is no answer B|
Answer: (B) or maybe (C)|Options: A. red B. green|
Only a fool would choose B.|Nobody would pick B.|Most students choose B.|Many people pick B, which is wrong.|He chose B.|
It is tempting to choose B.|I doubt that B is right.|It is unlikely that B is right.|Suppose B is correct.|Plan B is correct.|
Vitamin B is the best.|The worst option is B.|A is true, B is true.|B is true only if it rains.|It is not true that B is true.|
B looks correct, but D is better."""
OPTIONS = {"A": "red", "B": "green", "C": "a blue car", "D": "42"}


@pytest.mark.parametrize("response", [text.strip() for text in STATED.split("|")])
def test_plain_statements_of_a_letter_are_read(response):
    assert lenient(response, OPTIONS) == "B"
    assert verify_choice("B", response, OPTIONS).reward == 0  # form row stays strict


@pytest.mark.parametrize("response", [text.strip() for text in UNSTATED.split("|")])
def test_what_names_several_letters_or_none_names_none(response):
    assert lenient(response, OPTIONS) is None


@pytest.mark.parametrize(
    "response, letter",
    [
        ("The answer is B. No wait, it's A.", "A"),
        ("The answer is B. Oh, sorry, A.", "A"),
        ("The answer is B. No wait, B is right.", "B"),
        ("You might think the answer is B, but it's A.", "A"),
        ("The answer is A. One might think the answer is B.", "A"),
        ("Some might say the answer is B.", None),
        ("You might think that B is correct.", None),
        ("I doubt the answer is B.", None),
        ("It is unlikely that the answer is B.", None),
        ("A common mistake is that the answer is B.", None),
        ("Without a doubt the answer is B.", "B"),
        ("I would say the answer is B.", "B"),
        ("Therefore, a blue car is the correct answer.", "C"),
        ("A blue car is the right choice because it is blue.", "C"),
        ("It is false that green is the correct answer.", None),
        ("Is green the correct answer?", None),
        ("Green is not the correct answer.", None),
        ("Red and green are the correct answer.", None),
        ("So the answer is 42, option (D).", "D"),
        (r"\boxed{42 (D)}", "D"),
        (r"\boxed{41 (D)}", None),
        (r"\boxed{42 (C)}", None),
        (r"\boxed{P(D)}", None),
        ("This corresponds to option B.", "B"),
        ("It is 7, which matches option B.", "B"),
        ("This doesn't match option B.", None),
        ("This corresponds to option B or C.", None),
        ("This corresponds to option A.\nSo B is correct.", "B"),
        ("So option B is the right one.", "B"),
        ("(b) red", None),
        ("I cannot decide between\n(a) red\n(b) green", None),
        ("You might think it is A but the answer is B.", "B"),
        ("A seems unlikely so the answer is B.", "B"),
        ("One would conclude that the answer is B.", "B"),
        ("Beyond reasonable doubt the answer is B.", "B"),
        ("There is little doubt that the answer is B.", "B"),
        ("Red is the correct answer, but green is the best choice.", None),
    ],
)
def test_corrections_opinions_and_usual_endings(response, letter):
    assert lenient(response, OPTIONS) == letter
    assert verify_choice("B", response, OPTIONS).reward == 0  # form row stays strict


@pytest.mark.parametrize(
    "response, letter",
    [
        ("**Answer: D**\n\nwith \\boxed{\\langle E\\rangle}", "D"),  # a box that names no option
        ("The answer is B.\n\nA: too small.\nC: too large.\nD. wrong", "B"),  # remarks on the others
        ("B\n\nThe others are too small.", "B"),
        ("Option (B): 1 < 2 is right, so B is fine. So the answer is (A).", "A"),
        ("A is correct. C is correct. The answer is B, the false one.", "B"),
        ("A is correct. B is correct.", None),
        ("Answer choice (A) is too small, and answer choice (C) is too large", None),
        ("(A) is too small.", None),
        ("Which?\nA. x\nB. y\nAnswer: A. x\nB. y", None),  # a repeated question
    ],
)
def test_the_final_statement_decides(response, letter):
    assert lenient(response, LABELS) == letter


@pytest.mark.parametrize(
    "response",
    [
        "<think>Try <answer>B</answer>, but",
        "<think>It is <answer>B</answer>?</think>\nI cannot tell.",
        "<think>B</think>",
    ],
)
def test_what_stands_in_a_thought_does_not_count(response):
    assert tagged(response) is None and lenient(response, LABELS) is None
    assert tagged("<think>A</think><answer>B</answer>") == "B"


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<answer>" + " " * 400 + "x</answer>",
            " ",
            "answer ",
            "答案",
            "选",
            "{",
            "\\boxed{",
            "A or ",
            "is (",
            "B. x\n",
        ),
        *("A: correct\n", "red is the correct answer ", "this corresponds to option ", "answer: a, , , ", "no wait, "),
    ],
)
def test_time_is_linear(piece):
    text = (piece * 100_000)[:100_000]
    begin = time.process_time()
    lenient(text, LABELS), lenient(text, OPTIONS), tagged(text)
    assert time.process_time() - begin < 10  # what grows with the square of the length takes minutes


def test_verdicts_say_what_is_wrong_and_not_what_is_right():
    right, wrong = verify_choice("C", "<answer>C</answer>", LABELS), verify_choice("C", "<answer>B</answer>", LABELS)
    assert (right.message, right.parsed, right.format_ok) == ("correct", "C", True)
    assert (wrong.message, wrong.parsed, wrong.format_ok) == ("the answer is wrong", "B", True)
    odd = verify_choice("C", "<answer>C and D</answer>", LABELS)
    assert odd.message == "the answer tag holds something else than one of A, B, C, D" and not odd.format_ok
    assert verify_choice("C", "I pass", LABELS).message == "no <answer>...</answer> was found"
    assert verify_choice("E", "<answer>E</answer>", LABELS).reward == 0  # not one of the row's options


def test_options_of_a_question():
    assert listed_options("Which?\n\nA: 1\nB: 2\nC: 3\nPlease reason.") == {"A": "1", "B": "2", "C": "3"}
    assert listed_options("Let\nA: set.\n\n(A) 1\n(B) 2") == {"A": "1", "B": "2"}
    assert len(question_options("Which?")) == 26
    assert len(listed_options("\n".join(f"({letter}) x" for letter in "ABCDEFGHIJKLMNOP"))) == 16
    assert stem("Which?\n\nA: 1\nB: 2") == "Which?\n\n"


@pytest.mark.parametrize(
    "value",
    [
        ["one", "two"],
        {"A": "one", "B": "two"},
        {"label": ["A", "B"], "text": ["one", "two"]},
        {"label": ["(a)", "(b)"], "text": ["one", "two"]},
        [{"label": "A", "text": "one"}, {"label": "B", "text": "two"}],
    ],
)
def test_options_in_every_form(value):
    assert read_options(value) == {"A": "one", "B": "two"}


@pytest.mark.parametrize(
    "value", [None, "one, two", ["one"], {"A": "one"}, ["one", None], [["one"], ["two"]], ["x"] * 27]
)
def test_options_that_are_none(value):
    with pytest.raises(ValueError, match="expected a list of 2 to 26 options"):
        read_options(value)


@pytest.mark.parametrize(
    "gold", ["C", "c", "(C)", "[c]", "C.", "C)", " C ", "C. three", "three", "Three ", 2, 2.0, "2", ["C"]]
)
def test_gold_answers_in_every_form(gold):
    assert gold_letter(gold, dict(zip("ABCD", ["one", "two", "three", "4"], strict=True))) == "C"


def test_a_gold_answer_that_is_text_is_looked_up_before_it_is_an_index():
    options = dict(zip("ABC", ["1", "2", "3"], strict=True))
    assert gold_letter(1, options) == "B" and gold_letter("1", options) == "A"
    assert gold_letter("2", {"1": "x", "2": "y"}) == gold_letter(2, {"1": "x", "2": "y"}) == "2"  # a label
    for wrong in ("D", 3, -1, "four", "", "A or B", True, None, "C. two", 1.5):
        with pytest.raises(ValueError, match="expected one of the row's options A, B, C"):
            gold_letter(wrong, options)
    with pytest.raises(ValueError, match="answer '20'"):  # nothing tells which option of an unlisted row it is
        gold_letter(20, dict.fromkeys(LETTERS, ""))
