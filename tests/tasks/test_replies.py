"""Where the answer stands in a reply, and that reading takes time linear in its length."""

import time

import pytest

from amrsd_jax.tasks.mathematics import compare
from amrsd_jax.tasks.replies import any_answer, final_answer, gold_answer
from amrsd_jax.tasks.sentences import formulas

PIECES = [
    *(
        "a",
        " ",
        "\n",
        "$",
        "{",
        "}",
        "(",
        "\\",
        "#",
        ",",
        "9",
        "-",
        "\\(",
        "\\[",
        "$5 ",
        "\\frac{",
        "|",
        "'",
        "- ",
        " \n",
        "\\$",
        "is ",
    ),
    *(
        "the answer is 5. ",
        "the answer: $",
        "\\boxed{",
        "\\boxed{1} and ",
        "<answer>x",
        "</answer>",
        "<answer> </answer>",
        "1,000",
    ),
    *("x^2 ", "a(b)", "not 5 ", "答案是", "final answer is $5$ ", "\\text{", "\\begin{pmatrix}"),
]


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
def test_twice_the_length_is_read_in_the_same_generous_time(piece):
    for length in (10_000, 20_000):
        text = "The answer is 1 " + (piece * (length // len(piece) + 1))[:length] + "!"
        begin = time.process_time()
        any_answer(text), final_answer(text), gold_answer(text)
        assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    "answer",
    [
        "1 " + "a" * 900 + "!",
        "a(b)" * 240 + "=5",
        "ab " * 300 + "1",
        "(" * 400 + "1" + ")" * 400,
        "x=" * 400,
        "1" + ")" * 900,
        "}]" * 400,
        " " * 900 + "x",
    ],
)
def test_answers_on_which_patterns_once_backtracked_are_compared_at_once(answer):
    begin = time.process_time()
    assert compare("7", answer) == "different" == compare(answer, "7")
    assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    "text, contents",
    [
        ("$x=5$ and $y$", ["x=5", "y"]),
        (r"\(a\), \[b\] and $$c$$", ["a", "b", "c"]),
        ("She pays $5 + $7 = $12.", []),
        ("from $3 to $10, a rise of $7.", []),
        (r"\$120 - \$30 = \$90", []),
        ("the price $5$ of $n$", ["5", "n"]),
        ("how many $? just about 1$", []),
    ],
)
def test_dollar_signs_of_money_open_no_formula(text, contents):
    assert [content for content, _, _ in formulas(text)] == contents


@pytest.mark.parametrize(
    "response, row, anywhere",
    [
        ("So\n\\[\n\\frac{1}{2}\n\\]", r"\frac{1}{2}", r"\frac{1}{2}"),
        ("It costs $18 per hour and $36 in total.", "36", "36"),
        ("The answer is not 7.", "not 7", "not 7"),
        ("So <answer>5</answer>", "5", "5"),
        ("So <FINAL>5</FINAL>", "5", "5"),
        ("The answer is <B>5</B>.", "5", "5"),
        ("The answer is 5<|END_OF_TURN_TOKEN|>", "5", "5"),
        ("<s>The answer is <s>5</s>", "5", "5"),
        ("So <answer>4</answer><answer>2</answer>", "2", "2"),
        ("<output>3</output><output>4</output>", "4", "4"),
        (r"\boxed{A\\\{1\}}", *[r"A\\\{1\}"] * 2),
        (r"\boxed{7\}", *["7\\"] * 2),
        ("**Final Answer**: 5 </answer>", "5", "5"),
        ("The answer is 72.<|im_end|>", "72", "72"),
        (
            r"\boxed{\left\{\begin{array}{l}x=1\\\\y=2\end{array}\right.}",
            *[r"\left\{\begin{array}{l}x=1\\\\y=2\end{array}\right."] * 2,
        ),
        ("It is half of 2\\pi", "2\\pi", "2\\pi"),
        ("It takes 1 1/2 hours.", "1 1/2", "1 1/2"),
        ("A share of 25%.", "25%", "25%"),
        ("#### **5**", "**5**", "**5**"),
        ("The answer is 5.\n\nQuestion: and 7?\nThe answer is 8.", "8", "5"),
        ("The answer is 72.<|im_end|>\n<|im_start|>user\nNow 9", "9", "72"),
        (r"\boxed{200} after one. Final Answer: The final answer is $10,455$. I hope it is correct.", "200", "10,455"),
        ("因此，乔有 **13** 只鸟。", "13", "13"),
        ("They spent $20 and $10, so $30 altogether.", "30", "30"),
        ("Rent: $1,200/month", "1200", "1200"),
        ("The answer is 8, not 9.", "8", "8"),
        ("The answer is not 9 but 8.", "8", "8"),
        ("The answer is 8 because 5 + 3 = 8.", "8", "8"),
        ("La respuesta no es 8.", "8", "not 8"),
        ("Die Antwort ist nicht 8.", "not 8", "not 8"),
        ("It is wrong to say that the answer is 8.", "8", "not 8"),
        ("The answer is 8.\n\n**Question:** and 5?\nThe answer is 5.", "5", "8"),
        ("The answer is 8.[INST] and 5? [/INST] The answer is 5.", "5", "8"),
        ("答案是8。\n\n问题：另一个\n答案是5。", "5", "8"),
        ("Đáp án: 8", "8", "8"),
        (r"The answer is $34\text{ sq. units}$.", r"34\text{ sq. units}", r"34\text{ sq. units}"),
        ("Réponse: elle aura encore 220 $ à payer en 12 mois.", "12", "220"),
        ("It's 6 rather than 7.", "6", "6"),
        ("The answer is 6, although some people think it is 7.", "6", "6"),
        ("It's 6. You might think it's 7.", "6", "6"),
        ("I think the answer could be 5, but it's actually 6.", "6", "6"),
        ("Thus $x = 12$ and we are done. $\\blacksquare$", "x = 12", "x = 12"),
        ("Thus $x = 12$, where $x$ is the number of $y$.", "x = 12", "x = 12"),
        ("The roots are $2$ and $3$.", "2, 3", "2, 3"),
        ("Therefore $x=2$ or $x=3$.", "x=2, x=3", "x=2, x=3"),
        ("We get $x=2$ and $y=3$.", "y=3", "y=3"),
        ("x=2-3", "2-3", "2-3"),
        ("The probability is 0.5 (50%).", "0.5", "0.5"),
        ("The length is sqrt(2).", "sqrt(2)", "sqrt(2)"),
        ("f(x) = x² + 1", "x² + 1", "x² + 1"),
        ("A: 3", "A: 3", "3"),
        ("5\n\nExplanation: 2+3=5, using 2 numbers.", "2", "5"),
        (r"\boxed{3} is wrong.", "3", "not 3"),
        ("12 is wrong.", "not 12", "not 12"),
        ("The answer is 6, but that is wrong.", "not 6", "not 6"),
        ("The answer is 6. That is incorrect.", "not 6", "not 6"),
        ("The answer is 6, but that is wrong. It is 7.", "7", "7"),
        ("The answer is 6. This is not right now obvious.", "6", "6"),
        ("So x is at least 2.", "at least 2", "at least 2"),
        ("So he needs at least 2.", "2", "2"),
        ("It is 6 or 7.", "6, 7", "6, 7"),
        ("12 is not the answer.", "not 12", "not 12"),
        ("So x ≥ 3.", "x ≥ 3", "x ≥ 3"),
        ("So x ≠ 3.", "x ≠ 3", "x ≠ 3"),
        ("The domain is (-∞, 3).", "(-∞, 3)", "(-∞, 3)"),
        ("x = ±2", "±2", "±2"),
        ("x = 2 or x = -2.", "2, -2", "2, -2"),
        ("So he needs 12 more days (he works 5 days a week).", "12", "12"),
        ("So he needs 12 more days, since he works 5 days a week.", "12", "12"),
        ("The total is 12 (see step 3).", "12", "12"),
        ("The area is 50 cm².", *[r"50\text{ cm²}"] * 2),
        ("The density is 50 kg/m³.", *[r"50\text{ kg/m³}"] * 2),
        ("5 cm x 3 cm = 15 units^2", *[r"15\text{ units^2}"] * 2),
        ("The volume is 36π ≈ 113.1 cm³.", *[r"36π ≈ 113.1\text{ cm³}"] * 2),
        ("The area is 2.5 km2", *[r"2.5\text{ km^2}"] * 2),
        ("It costs $5 per ft².", "5", "5"),
        ("In step 3 we get ab².", "²", "²"),  # a product, not 3 with a unit
        ("It is 5 arctan²(x)", "²(x)", "²(x)"),
        ("So the answer is 12!", "12", "12"),
        ("The answer is **12**!", "12", "12"),
        ("**12!**", "12", "12"),
        ("The answer is 12! I hope this helps!", "12", "12"),
        ("The answer is $12!$", "12!", "12!"),
        ("The answer is 5!.", "5!", "5!"),
        ("<answer>12!</answer>", "12!", "12!"),
        ("The number of ways is 5!", "5!", "5!"),
        ("The answer is 2 * 5!", "2 * 5!", "2 * 5!"),
        ("5!/3! = 20!", "20!", "20!"),
        ("She has **20** apples in 3 bags.", "20", "20"),
        ("She has **20 apples** after 3 days.", "20", "20"),
        ("**She has 20 apples** in 3 bags", "20", "20"),
        (r"It is **$\frac{1}{2}$** of 3.", *[r"\frac{1}{2}"] * 2),
        ("**Step 3:** She has 20 apples", "20", "20"),
        ("In **3** days she makes 20 dollars.", "20", "20"),
        ("The **2** bags weigh 20 kg.", "20", "20"),
        ("**2** bags weigh 20 kg.", "20", "20"),
        ("**5** + 3 = 8.", "8", "8"),
        ("Each of **3** bags has 5 apples: 15.", "15", "15"),
        ("She has **20** apples, or **2** bags of 10.", "10", "10"),
        ("Here is the solution:\n\n1. Add: 4+6 = 10.\n2. Double: 10*2 = 20.\n\nShe has 20 apples.", "20", "20"),
        ("The result of 3*5 is 15. Adding 5, we get 20.", "20", "20"),
        ("**Solution:** First we compute 2+3 = 5.\nThen 5*2 = 10.", "10", "10"),
        ("The solution is x = 5. To verify, 5+3 = 8.", "8", "x = 5"),
        ("The final result is 15. Step 1 was 4+5.", "4+5", "15"),
        ("Result: 15\n\nThank you!", None, "15"),
        ("#### Step 2: Multiply\n9*2=18\n\nShe makes $18 per day.", "18", "18"),
        ("#### Conclusion\n\nThe total is 10.", "10", "10"),
        ("#### Step 3: Conclusion\nThe answer is 10.", "10", "10"),
        ("#### Final Answer:\n18", "18", "18"),
        ("#### 结论\n答案是 5。", "5", "5"),
        ("#### 18\n\n#### Explanation\nWe had 9*3 = 27.", "18", "18"),
        ("#### 5 apples\nfor 3 days", "5 apples", "5 apples"),
        ("#### Monday\nsince 3 days later", "Monday", "Monday"),
        ("#### No\nsince 3 < 4", "No", "No"),
        ("\\boxed{10}\nThe final answer is rounded to 2 decimal places.", "10", "10"),
        ("\\boxed{10}\nThe final answer is obtained in step 3.", "10", "10"),
        ("\\boxed{10}\nThe final answer is an integer between 0 and 999.", "10", "10"),
        ("\\boxed{10}\nThe final answer is the 4th term.", "10", "10"),
        ("\\boxed{10}\nThe final answer is in dollars.", "10", "10"),
        ("\\boxed{10}\nThe final answer is found to be 12.", "10", "12"),
        ("\\boxed{10}\nThe final answer is 12.", "10", "12"),
        ("The answer is in fact 12, in 3 steps.", "3", "12"),
        ("The answer is 1 million.", "1000000", "1000000"),
        ("He has 2 million dollars.", "2000000", "2000000"),
        ("The answer is 1.5 million people.", "1500000", "1500000"),
        ("The answer is one thousand.", None, "one thousand"),
        ("one thousand", None, "one thousand"),
        ("So three and a half.", None, "three and a half"),
        ("x = 2½", "2½", "2½"),
        ("Step 1\nReasoning: 5 and 7 are added. The answer is 12.", "12", "12"),
        (r"5 + 7\nReasoning: they are added, \boxed{12}".replace(r"\n", "\n"), "12", "12"),
        ("Many students say the answer is 6. I get 7.", "7", "7"),
        ("Some people think the answer is 6.", None, None),
        ("The answer is <b>5</b>.", "5", "5"),
        ("The answer is '5'", "5", "5"),
        ("The answer is e².", "e²", "e²"),
        ("Sam memorized 4+6=10 digits of pi.", "10", "10"),
        ("Of 250 people one would expect 250*20% = 50.", "50", "50"),
        ("He gets $10,000 because that is for 30 or more.", "10000", "10000"),
        ("The limit is ∞.", "∞", "∞"),
        ("The limit does not exist.", None, "does not exist"),
        ("There is no solution.", None, "no solution"),
        ("So the day is **Tuesday**.", None, "Tuesday"),
        ("3 * 4 = 12\nNo.", None, "No"),
        ("I cannot tell you what all of this comes to.", None, None),
    ],
)
def test_where_the_answer_is_read(response, row, anywhere):
    assert (final_answer(response)[0], any_answer(response)[0]) == (row, anywhere)
