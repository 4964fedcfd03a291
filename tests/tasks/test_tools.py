"""Tool calls by hand: reading, matching one by one, scores apart, messages without the gold answer."""

import json

import pytest

from amrsd_jax.tasks.tools import calls, documented, gold_calls, in_form, verify_tools

TOOLS = ("find", "[Optional]update", "list")


def gold(*pairs):
    return json.dumps([{"Action": name, "Action_Input": json.dumps(arguments)} for name, arguments in pairs])


def reply(*pairs):
    return "\n".join(f"Thought: hm\nAction: {name}\nAction Input: {json.dumps(arguments)}" for name, arguments in pairs)


NESTED = ("[Optional]update", {"id": "g", "data": {"picture": {"url": "x}"}}})
TWICE = [("find", {"v": "kjv", "n": 1}), ("find", {"v": "asv", "n": 1})]


@pytest.mark.parametrize(
    "wanted, said, reward, names, arguments, compat",
    [
        ([("list", {})], reply(("list", {})), 1, 1, 1, 1),
        (
            [NESTED],
            reply(NESTED),
            1,
            1,
            1,
            0,
        ),  # nested braces and a name with brackets, which the published grader refuses
        (TWICE, reply(*TWICE), 1, 1, 1, 1),
        (TWICE, reply(*TWICE[::-1]), 1, 1, 1, 0),  # in any order
        (TWICE, reply(("find", {"v": "web", "n": 9}), TWICE[1]), 0, 1, 0.5, 1),  # the published one merges arguments
        (TWICE, reply(TWICE[0]), 0, 0.5, 0.5, 0),
        (TWICE[:1], reply(*TWICE), 0, 0.5, 0.5, 0),
        ([("find", {"a": 5})], reply(("find", {"a": "5"})), 1, 1, 1, 0),
        ([("find", {"a": 5.0})], reply(("find", {"a": 5})), 1, 1, 1, 1),
        ([("find", {"a": True})], reply(("find", {"a": 1})), 0, 1, 0, 1),  # Python's 1 == True
        ([("find", {"a": "x", "b": ""})], reply(("find", {"a": "x"})), 1, 1, 1, 0),  # an empty argument is none
        ([("find", {"a": "x"})], reply(("find", {"a": "X"})), 0, 1, 0, 0),
        ([("find", {"a": [1, 2]})], reply(("find", {"a": [2, 1]})), 0, 1, 0, 0),
        ([("find", {})], "I would call find.", 0, 0, 0, 0),
        ([("find", {"a": 1})], 'Action: find\nAction Input: {"a": 1', 0, 1, 0, 0),
        ([("find", {"a": 1})], 'Action: find\nAction Input: {"a": 2, "a": 1}', 0, 1, 0, 1),
        ([("find", {"a": 1})], '**Action:** `find`\n**Action Input:** ```json\n{"a": 1}\n```', 1, 1, 1, 0),
    ],
)
def test_scores_by_hand(wanted, said, reward, names, arguments, compat):
    verdict = verify_tools(gold(*wanted), said, TOOLS)
    assert verdict.reward == reward
    assert verdict.scores == {"names": names, "arguments": arguments, "compat": compat}


def test_other_forms_count_only_where_any_form_does():
    wanted = gold(("find", {"a": 1}))
    for said in (
        '<tool_call>\n{"name": "find", "arguments": {"a": 1}}\n</tool_call>',
        '[{"function": {"name": "find", "arguments": "{\\"a\\": 1}"}}]',
        '```json\n{"tool": "find", "parameters": {"a": 1}}\n```',
        wanted,
    ):
        assert verify_tools(wanted, said, TOOLS).message == "no call was found"
        assert verify_tools(wanted, said, TOOLS, form="any").reward == 1


def test_messages_name_what_was_said_and_never_the_gold():
    wanted = gold(("find", {"city": "Oslo", "year": 1843}), ("list", {"secret": "Ada"}))
    said = reply(("find", {"city": "Rome", "size": 3}), ("fly", {}), ("list", {}), ("list", {}))
    message = verify_tools(wanted, said, TOOLS).message
    assert message == (
        "call 1 (find): argument 'city' is wrong; call 1 (find): argument 'size' is not needed; "
        "call 1 (find): an argument is missing; call 2 (fly): no such tool; call 3 (list): an argument is missing"
    )
    assert verify_tools(wanted, reply(("find", {"city": "Oslo", "year": 1843})), TOOLS).message == "too few calls"
    for secret in ("Oslo", "year", "1843", "secret", "Ada"):
        assert secret not in message


def test_a_reply_that_never_ends_is_refused():
    assert verify_tools(gold(("find", {})), reply(*[("find", {})] * 500), TOOLS).message == "more than 64 calls"
    assert len(calls(reply(*[("find", {})] * 500), TOOLS)) == 65


def test_tools_of_a_prompt():
    prompt = "Name: X\nDocumentation:\nfind: F.\nParameters: {}\nOutput: o\n[Optional]update: U: v.\nParameters: {}\nOutput: o"
    assert documented(prompt) == ("find", "[Optional]update")


@pytest.mark.parametrize("wrong", ["[]", "[1]", '[{"Action": "a", "Action_Input": "{"}]', "{", '{"Action": 1}'])
def test_a_gold_answer_that_is_none_is_an_error(wrong):
    with pytest.raises(ValueError):
        gold_calls(wrong)


def test_a_gold_answer_in_the_wanted_form_is_right():
    wanted = gold(NESTED, *TWICE)
    assert verify_tools(wanted, in_form(wanted), TOOLS).reward == 1
