"""Rows from JSON lines: reading, order, splits, and errors that name file and line."""

import json

import pytest

from amrsd_jax.reflection.prompts import templates
from amrsd_jax.tasks.rows import RowTask, read_rows


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def task_of(folder, count, **more):
    """`count` rows in train, three in test."""
    rows = [{"question": f"{i}+{i}", "answer": 2 * i} for i in range(count)]
    train, test = write(folder / "train.jsonl", *rows), write(folder / "test.jsonl", *rows[:3])
    return RowTask(train, test, **more)


def test_columns_by_name_blank_lines_and_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"problem": "é?", "gold": 5, "other": null}\r\n\n{"problem": "b", "gold": " x "}\n', "utf-8")
    (first, second), _ = read_rows(str(path), "problem", "gold", "")
    assert (first.id, first.question, first.answer, first.reference) == ("a-1", "é?", "5", None)
    assert (second.id, second.answer) == ("a-3", "x")  # the line's number


def test_answer_after_a_mark_leaves_the_reference(tmp_path):
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": "1+1=2 #### no\n#### 1,002"})
    (row,), _ = read_rows(path, "question", "answer", "####")
    assert (row.answer, row.reference) == ("1,002", "1+1=2 #### no")


def test_the_first_of_several_columns_that_is_not_null_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q", "answer": null, "final": 4}\n{"question": "q", "answer": 5, "final": 4}\n')
    rows, _ = read_rows(str(path), "question", "answer|final", "")
    assert [row.answer for row in rows] == ["4", "5"]


def test_the_line_of_a_fault_in_a_list_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"question": "q",\n "answer": 1},\n {"question": "q", "answer": }]')
    with pytest.raises(ValueError, match="at line 3, character 30"):
        read_rows(str(path), "question", "answer", "")


@pytest.mark.parametrize(
    "line, message",
    [
        ("{'question': 1}", r"not JSON \(Expecting property name enclosed in double quotes at character 2\)"),
        ("[1, 2]", "list; expected one JSON object"),
        ('{"question": "q"}', "no column 'answer'; .*question"),
        ('{"question": "q", "answer": ""}', "column 'answer' is ''; expected text or a number"),
        ('{"question": " ", "answer": 1}', "column 'question' is ' '; expected text or a number"),
        ('{"question": "q", "answer": true}', "column 'answer' is True"),
        ('{"question": "q", "answer": null}', "column 'answer' is None"),
        ('{"question": "q", "answer": ["1", null]}', r"column 'answer' is \['1', None\]"),
        ('{"question": "q", "answer": "no mark"}', "column 'answer' ends with 'no mark'; expected .* '####'"),
        ('{"question": "q", "answer": "2 #### "}', "column 'answer' ends with '2 #### '; expected .* '####'"),
    ],
)
def test_errors_name_file_line_and_column(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q", "answer": "#### 1"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=f"rows.jsonl line 3: {message}"):
        read_rows(str(path), "question", "answer", "####")


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "q", "answer": 1}\n{"question": "\xff", "answer": 1}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl line 2: not UTF-8"):
        read_rows(str(path), "question", "answer", "")


def test_a_file_without_rows_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl: no rows"):
        read_rows(str(tmp_path / "rows.jsonl"), "question", "answer", "")


def test_every_epoch_of_train_is_its_own_order_of_all_rows(tmp_path):
    task = task_of(tmp_path, 10, seed=5)
    epochs = [[task.problem("train", 10 * epoch + i).id for i in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 10 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert task.problem("train", 13) == task_of(tmp_path, 10, seed=5).problem("train", 13)
    assert epochs[0] != [task_of(tmp_path, 10, seed=6).problem("train", i).id for i in range(10)]


def test_rows_of_test_come_in_file_order(tmp_path):
    task = task_of(tmp_path, 10)
    assert [task.problem("test", i).question for i in range(3)] == ["0+0", "1+1", "2+2"]
    assert (task.size("train"), task.size("test")) == (10, 3)


def test_rows_are_judged_by_the_mathematics_verifier_and_know_no_first_error(tmp_path):
    task = task_of(tmp_path, 3)
    problem = task.problem("test", 2)
    assert task.verify(problem, r"\boxed{4.0}").correct and not task.verify(problem, "#### 5").correct
    assert task.first_error(problem, "#### 5") is None


def test_lists_references_options_and_places_inside_columns(tmp_path):
    row = {"prompt": [{"content": "Which?"}], "gold": {"answers": ["1", 2]}, "why": "because", "choices": ["x", "y"]}
    path = write(tmp_path / "a.jsonl", row, row | {"gold": {"answers": None}})
    columns = ("prompt.0.content", "gold.answers", "", "why", "choices")
    (problem,), skipped = read_rows(path, *columns, skip_unanswered=True)
    assert (problem.question, problem.answer, problem.reference) == ("Which?\n\nA: x\nB: y", "1, 2", "because")
    assert skipped == ("a-2",)
    with pytest.raises(ValueError, match=r"a\.jsonl line 1: no column 'gold\.answer'; .*choices, gold, prompt, why"):
        read_rows(path, "why", "gold.answer", "")
    with pytest.raises(ValueError, match=r"line 1: column 'why' is 'because'; expected a list of 2 to 26 options"):
        read_rows(path, "why", "gold.answers", "", "", "why")


def test_a_column_may_have_two_names(tmp_path):
    path = write(tmp_path / "a.jsonl", {"q": "x", "gold": {"a": 1}}, {"question": "y", "q": "z", "answer": 2})
    problems, _ = read_rows(path, "question|q", "gold.a|answer", "")
    assert [(problem.question, problem.answer) for problem in problems] == [("x", "1"), ("y", "2")]
    with pytest.raises(ValueError, match=r"line 1: no column 'question\|text'; .*gold, q"):
        read_rows(path, "question|text", "gold.a", "")


def test_validation_is_a_fixed_part_of_train(tmp_path):
    task = task_of(tmp_path, 200, validation=0.25)
    parts = [{problem.id for problem in task.rows(split)} for split in ("train", "validation")]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 200 and 30 <= len(parts[1]) <= 70
    assert {problem.id for problem in task_of(tmp_path, 200, validation=0.25, seed=3).rows("validation")} == parts[1]
    wider = {problem.id for problem in task_of(tmp_path, 200, validation=0.5).rows("validation")}
    assert parts[1] < wider  # a larger share only adds
    few = {problem.question for problem in task_of(tmp_path, 100, validation=0.25).rows("validation")}
    assert few <= {problem.question for problem in task.rows("validation")}  # other rows do not matter
    assert task.problem("validation", 0) == task.rows("validation")[0]
    assert sorted(task.problem("train", i).id for i in range(task.size("train"))) == sorted(parts[0])
    assert not task_of(tmp_path, 10).rows("validation")


def test_test_rows_of_the_hub_name_their_split():
    """Without a split both would read train."""
    uri = "hub:somebody/rows"
    with pytest.raises(ValueError, match=r"task.args.test = 'hub:somebody/rows': names no split"):
        RowTask(uri, uri)
    RowTask(uri, uri + "?revision=1&split=test#year=2020:")


def test_a_folder_is_one_argument(tmp_path):
    task_of(tmp_path, 4)
    assert RowTask("train.jsonl", "test.jsonl", str(tmp_path)).size("train") == 4


def test_gold_answers_that_nothing_matches_are_refused_or_skipped(tmp_path):
    call = json.dumps([{"Action": "a", "Action_Input": "{}"}])
    write(tmp_path / "a.jsonl", {"question": "q1", "answer": "a({})"}, {"question": "q2", "answer": call})
    write(tmp_path / "b.jsonl", {"question": "q3", "answer": call})
    task = RowTask("a.jsonl", "b.jsonl", str(tmp_path), family="tools")
    with pytest.raises(ValueError, match=r"a\.jsonl, a-1: "):
        task.check()
    lenient = RowTask("a.jsonl", "b.jsonl", str(tmp_path), family="tools", unanswered="skip")
    lenient.check()
    assert [p.id for p in lenient.rows("train")] == ["a-2"] and lenient.skipped("train") == ("a-1",)
    with pytest.raises(ValueError, match=r"b.jsonl: no row has an answer"):
        RowTask("a.jsonl", "b.jsonl", str(tmp_path), family="choice", unanswered="skip").rows("test")


CHAT = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "What is 2+3?"}]


def test_a_question_of_chat_messages_is_the_prompt_as_it_is(tmp_path):
    parts = [{"role": "user", "content": [{"type": "text", "text": "Which"}, {"type": "text", "text": "?"}]}]
    earlier = [*CHAT, {"role": "assistant", "content": "5", "tool_calls": None}, {"role": "user", "content": "Sure?"}]
    path = write(
        tmp_path / "a.jsonl", *(dict(prompt=p, answer="5", options=["x", "y"]) for p in (CHAT, parts, earlier))
    )
    (plain, joined, longer), _ = read_rows(path, "prompt", "answer", "")
    assert (plain.question, plain.messages) == ("What is 2+3?", (("system", "Be terse."), ("user", "What is 2+3?")))
    assert joined.question == "Which?" and longer.question == "Sure?" and len(longer.messages) == 4
    assert longer.prompt_text == "Be terse.\nWhat is 2+3?\n5\nSure?"
    (listed, *_), _ = read_rows(path, "prompt", "answer", "", "", "options")
    assert listed.question == "What is 2+3?\n\nA: x\nB: y" and listed.messages[-1] == ("user", listed.question)
    texts = templates("choice")  # whose template has a system message
    assert texts.question_prompt(plain.question, plain.messages) == CHAT
    assert texts.teacher_prompt(longer.question, "HINT", longer.messages)[:3] == [
        dict(role=role, content=content) for role, content in longer.messages[:3]
    ]
    assert (
        "Sure?" in (last := texts.teacher_prompt(longer.question, "HINT", longer.messages)[3]["content"])
        and "HINT" in last
    )


@pytest.mark.parametrize(
    "messages, message",
    [
        ([{"role": "user"}], "column 'q.0' is .*expected a message with role and content"),
        ([{"from": "human", "value": "x"}], "column 'q.0' is .*expected a message with role and content"),
        ([*CHAT, {"role": "assistant", "content": "5"}], "column 'q' ends with .*expected a message of the user"),
        ([{"role": "user", "content": "x", "tool_calls": [1]}], "column 'q.0' has 'tool_calls'"),
        ([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "column 'q.0' is .*expected a message"),
        ([{"role": "user", "content": "\ud800"}], "column 'q.0.content' has half of a surrogate pair"),
    ],
)
def test_messages_that_are_none_are_told(tmp_path, messages, message):
    path = write(tmp_path / "a.jsonl", dict(q="x", answer=1), dict(q=messages, answer=1))
    with pytest.raises(ValueError, match=rf"a\.jsonl line 2: {message}"):
        read_rows(path, "q", "answer", "")


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"question": "q", "answer": NaN}', "column 'answer' is nan; expected text or a number"),
        ('{"question": "q", "answer": 1e999}', "column 'answer' is inf; expected text or a number"),
        ('{"question": "q", "answer": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"question": "q", "answer": 1, "z": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
        ('{"question": "q\\ud800", "answer": 1}', "column 'question' has half of a surrogate pair"),
        ('{"question": "q", "answer": "\\udfff"}', "column 'answer' has half of a surrogate pair"),
        ('{"question": "q", "answer": "1", "answer": "2"}', "the key 'answer' occurs twice"),
    ],
)
def test_what_no_run_can_use_is_told_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q", "answer": "1", "other": NaN}\n' + line + "\n")
    with pytest.raises(ValueError, match=rf"rows\.jsonl line 2: .*{message}"):
        read_rows(str(path), "question", "answer", "")


def test_an_answer_that_is_nan_is_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q", "answer": NaN}\n{"question": "q", "answer": 2}\n')
    problems, skipped = read_rows(str(path), "question", "answer", "", skip_unanswered=True)
    assert [problem.answer for problem in problems] == ["2"] and skipped == ("rows-1",)


@pytest.mark.parametrize(
    "row, listed, letter",
    [
        (dict(answer="b", options=["x", "y"]), "A: x\nB: y", "B"),
        (dict(answer=1, options={"B": "x", "A": "y"}), "A: x\nB: y", "B"),
        (dict(answer="A", options={"B": "x", "A": "y"}), "A: x\nB: y", "B"),  # labels are written anew, in order
        (dict(answer="2", options={"label": ["1", "2"], "text": ["x", "y"]}), "A: x\nB: y", "B"),
        (dict(answer="y", options=["x", "y"]), "A: x\nB: y", "B"),
        (dict(answer="K", options=list("lmnopqrstuv")), "K: v", "K"),
    ],
)
def test_choices_in_every_form_become_lettered_lines(tmp_path, row, listed, letter):
    path = write(tmp_path / "a.jsonl", dict(question="Which?") | row)
    task = RowTask(path, path, options="options", family="choice")
    task.check()
    (problem,) = task.rows("test")
    assert listed in problem.question and problem.answer == letter
    assert task.verify(problem, task.gold_response(problem)).correct


def test_a_choice_that_no_option_matches_is_told_or_skipped(tmp_path):
    good, bad = (dict(question="Which?\nA: x\nB: y", answer=answer) for answer in ("(b)", "E"))
    path = write(tmp_path / "a.jsonl", good, bad)
    with pytest.raises(ValueError, match=r"a\.jsonl, a-2: answer 'E': expected one of the row's options A, B"):
        RowTask(path, path, family="choice").check()
    task = RowTask(path, path, family="choice", unanswered="skip")
    assert [problem.answer for problem in task.rows("test")] == ["B"] and task.skipped("test") == ("a-2",)
