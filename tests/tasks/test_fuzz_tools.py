"""2,000 replies built by rule: the gold calls in other words, and calls that differ in one place.

Nothing raises, no wrong call is accepted, and no right one is refused (the bound on wrong refusals is zero).
"""

import copy
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amrsd_jax.tasks.tools import verify_tools

names = st.sampled_from(["find", "list_all", "get.weather", "[Optional]update", "buy"])
keys = st.sampled_from(["city", "n", "query", "on", "data", "ids"])
scalars = (
    st.integers(-(10**6), 10**6)
    | st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
    | st.booleans()
    | st.text(alphabet="abcXYZ äé{}\"':,\n1.", min_size=1, max_size=12).filter(lambda text: text.strip())
)
values = st.recursive(
    scalars,
    lambda x: st.lists(x, min_size=1, max_size=3) | st.dictionaries(keys, x, min_size=1, max_size=3),
    max_leaves=6,
)
calls = st.lists(st.tuples(names, st.dictionaries(keys, values, max_size=3)), min_size=1, max_size=3)
seeds = st.integers(0, 2**32 - 1).map(random.Random)


def gold_of(wanted):
    return json.dumps([{"Action": name, "Action_Input": json.dumps(arguments)} for name, arguments in wanted])


def otherwise(value, chance):
    """The same value in another spelling: numbers as text, keys in another order."""
    if isinstance(value, dict):
        items = [(key, otherwise(item, chance)) for key, item in value.items()]
        chance.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [otherwise(item, chance) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float) or chance.random() < 0.5:
        return value
    return repr(value) + ("0" if isinstance(value, float) and "e" not in repr(value) else "")


def changed(value, chance):
    """Another value: a digit, a sign, a letter, the order of a list, a key more or less."""
    if isinstance(value, dict) and value:
        key = chance.choice(sorted(value))
        return {**value, key: changed(value[key], chance)}
    if isinstance(value, list):
        return [*value, 1] if chance.random() < 0.5 or len(value) < 2 or value[::-1] == value else value[::-1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + chance.choice((1, -1, 10))
    return value.strip() + "x" if isinstance(value, str) else {"n": 1}


def written(form, made):
    if form == "row":
        return "\n".join(
            f"Thought: so\nAction: {name}\nAction Input: {json.dumps(arguments)}" for name, arguments in made
        )
    return "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>" for name, arguments in made
    )


@pytest.mark.slow
@settings(max_examples=900, deadline=None)
@given(calls, st.sampled_from(["row", "any"]), seeds)
def test_the_same_calls_in_other_words_are_right(wanted, form, chance):
    made = [(name, otherwise(arguments, chance)) for name, arguments in wanted]
    chance.shuffle(made)
    assert verify_tools(gold_of(wanted), written(form, made), form=form).reward == 1


@pytest.mark.slow
@settings(max_examples=800, deadline=None)
@given(calls, st.sampled_from(["row", "any"]), seeds)
def test_one_change_is_wrong(wanted, form, chance):
    made, place = copy.deepcopy(wanted), chance.randrange(len(wanted))
    name, arguments = made[place]
    kind = chance.choice(("name", "value", "more", "null", "less", "call more", "call less"))
    if kind == "name" or (kind in ("value", "less") and not arguments):
        made[place] = (name + "x", arguments)
    elif kind == "value":
        made[place] = (name, changed(arguments, chance))
    elif kind in ("more", "null"):
        made[place] = (name, {**arguments, "extra": None if kind == "null" else 1})
    elif kind == "less":
        made[place] = (name, {key: value for key, value in arguments.items() if key != min(arguments)})
    elif kind == "call more":
        made.append(made[place])
    else:
        made.pop(place)
    assert verify_tools(gold_of(wanted), written(form, made), form=form).reward == 0


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "Action:",
                "\nAction: find",
                "\nAction Input:",
                '{"n": 1}',
                '{"name": "find"',
                "}",
                "[",
                "{",
                '{"a":' * 200,
                "<think>",
                "null",
            ]
        )
        | st.text(max_size=8),
        max_size=20,
    ).map("".join)
)
def test_any_text_gets_a_verdict(text):
    for form in ("row", "any"):
        assert verify_tools('[{"name": "buy", "arguments": {"n": [7, {"x": 1}]}}]', text, form=form).reward == 0
