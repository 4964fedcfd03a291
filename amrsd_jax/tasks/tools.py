"""Tool-use verifier: matches the calls in a reply with the gold calls, one by one. Nothing is executed."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from amrsd_jax.problems import Verdict
from amrsd_jax.tasks.compat import tool_score
from amrsd_jax.tasks.thoughts import after_thoughts

SCORES = ("names", "arguments", "compat")  # names of every verdict's further scores
MAX_CALLS = 64  # in one reply, our choice; benchmarks' gold answers have five at most
TAIL = 200_000  # calls are searched in this many characters at the end of a reply, our choice

_DOCUMENTED = re.compile(r"^(\S[^\n:]*):[^\n]*\nParameters:", re.MULTILINE)
_ACTION = re.compile(r"^[ \t>*#-]*Action(?:[ \t]*\d+)?[ \t]*:(?:\*\*)?([^\n]*)", re.MULTILINE)
_INPUT = re.compile(r"^[ \t>*#-]*Action[ _]Input(?:[ \t]*\d+)?[ \t]*:(?:\*\*)?\s*(?:```(?:json)?\s*)?", re.MULTILINE)
_NAME_KEYS = ("Action", "action", "name", "function", "tool", "tool_name", "function_name")
_INPUT_KEYS = ("Action_Input", "Action Input", "action_input", "arguments", "parameters", "args", "input", "tool_input")


@dataclasses.dataclass(frozen=True)
class Call:
    """A call: the tool's name and its arguments, None where these are not one JSON object."""

    name: str
    arguments: dict[str, Any] | None


def verify_tools(gold: str, response: str, tools: Sequence[str] = (), *, form: str = "row") -> Verdict:
    """Returns the verdict: reward 1 if the reply makes exactly the gold calls, in any order, else 0.

    Its further scores are `names` and `arguments`, the number of calls whose name, or name and arguments, match a gold call, as
    a share of the longer of the two lists, and `compat`, the published exact match. Messages quote the reply, never the gold
    calls.

    Args:
      gold: a JSON list of `{"Action": name, "Action_Input": object or JSON text of one}`.
      response: the whole reply.
      tools: names that the prompt documents; () allows any.
      form: "row" reads lines `Action:` and `Action Input:`; "any" also reads JSON objects with a name and arguments.
    """
    expected, actual = gold_calls(gold), calls(response[-TAIL:], tools, form)
    format_ok = bool(actual) and all(call.arguments is not None for call in actual)
    scores = {"names": 0.0, "arguments": 0.0, "compat": tool_score(gold, response[-TAIL:])}
    if not actual or len(actual) > MAX_CALLS:
        message = f"more than {MAX_CALLS} calls" if actual else "no call was found"
        return Verdict(0.0, message, None, False, scores)
    parsed = json.dumps([dataclasses.asdict(call) for call in actual], ensure_ascii=False)
    known = {*tools, *(call.name for call in expected)}  # a few gold calls use undocumented tools
    pairs = _match(expected, actual)
    longer = max(len(expected), len(actual))
    scores["names"] = len(pairs) / longer
    scores["arguments"] = sum(same_arguments(expected[i], actual[j]) for i, j in pairs) / longer
    faults = list(_faults(expected, actual, {j: i for i, j in pairs}, known if tools else None))
    if not faults:
        return Verdict(1.0, "correct", parsed, format_ok, scores)
    return Verdict(0.0, "; ".join(faults[:5]), parsed, format_ok, scores)


# ---------------------------------------------------------------- comparing


def same_arguments(gold: Call, actual: Call) -> bool:
    """Whether two calls have equal arguments.

    An empty argument equals an omitted one, a number equals its text, and space around text is ignored.
    """
    return actual.arguments is not None and _plain(gold.arguments) == _plain(actual.arguments)


def _plain(value: Any) -> Any:
    """Converts a value so that arguments that count as equal compare equal: objects to sorted items, numbers to text."""
    if isinstance(value, dict):
        items = ((key, _plain(item)) for key, item in value.items())
        return ("object", tuple(sorted((key, item) for key, item in items if item != ("text", ""))))
    if isinstance(value, list):
        return ("list", tuple(map(_plain, value)))
    if isinstance(value, bool):
        return ("text", "true" if value else "false")
    if isinstance(value, float) and value.is_integer():
        value = int(value) if abs(value) < 2**53 else value
    return ("text", "" if value is None else str(value).strip())


def _match(expected: Sequence[Call], actual: Sequence[Call]) -> list[tuple[int, int]]:
    """Pairs indices of gold calls and of the reply's calls: equal calls first, then calls of the same name, in order."""
    pairs, free = [], set(range(len(actual)))
    left = list(range(len(expected)))
    for alike in (same_arguments, lambda gold, call: True):
        for i in list(left):
            j = next(
                (j for j in sorted(free) if actual[j].name == expected[i].name and alike(expected[i], actual[j])), None
            )
            if j is not None:
                pairs.append((i, j))
                left.remove(i)
                free.remove(j)
    return sorted(pairs)


def _faults(
    expected: Sequence[Call], actual: Sequence[Call], partner: dict[int, int], known: set[str] | None
) -> Iterator[str]:
    """Yields what is wrong with the reply's calls, given the gold call of each matched one, and the names that exist."""
    for j, call in enumerate(actual):
        where = f"call {j + 1} ({call.name[:60]})"
        if call.arguments is None:
            yield f"{where}: its input is not one JSON object"
        elif known is not None and call.name not in known:
            yield f"{where}: no such tool"
        elif j not in partner:
            yield f"{where} is not needed"
        elif not same_arguments(expected[partner[j]], call):
            yield from _wrong_arguments(where, expected[partner[j]].arguments, call.arguments)
    if len(actual) < len(expected):
        yield "too few calls"


def _wrong_arguments(where: str, gold: dict, actual: dict) -> Iterator[str]:
    for name, value in actual.items():
        if _plain(value) != _plain(gold.get(name)):
            yield f"{where}: argument {name[:60]!r} is {'wrong' if name in gold else 'not needed'}"
    if any(name not in actual and _plain(value) != ("text", "") for name, value in gold.items()):
        yield f"{where}: an argument is missing"


# ---------------------------------------------------------------- reading


@functools.lru_cache(maxsize=4096)
def documented(prompt: str) -> tuple[str, ...]:
    """Returns the names of the tools that a prompt documents: the text before a colon, one line above `Parameters:`."""
    return tuple(dict.fromkeys(_DOCUMENTED.findall(prompt)))


def gold_calls(gold: str) -> list[Call]:
    """Reads the calls of a gold answer.

    Raises:
      ValueError: it is not a JSON list of calls.
    """
    rows = json.loads(gold)
    parsed = [_as_call(row) for row in (rows if isinstance(rows, list) else [rows])]
    if not parsed or any(call is None or call.arguments is None for call in parsed):
        raise ValueError(f"gold answer {gold[:80]!r}: expected a JSON list of calls")
    return parsed


def calls(response: str, tools: Sequence[str] = (), form: str = "row") -> list[Call]:
    """Returns the calls that a reply makes after its thoughts, in order; at most one more than `MAX_CALLS`."""
    text = after_thoughts(response)
    written = list(_written(text, tools))
    if written or form == "row":
        return written
    return list(_objects(text))


def _written(text: str, tools: Sequence[str]) -> Iterator[Call]:
    """Reads lines `Action:`, each with the `Action Input:` before the next one."""
    actions = list(_ACTION.finditer(text))[: MAX_CALLS + 1]
    for action, following in zip(actions, [*actions[1:], None], strict=False):
        end = following.start() if following else len(text)
        given = _INPUT.search(text, action.end(), end)
        value, _ = _decode(text, given.end()) if given else (None, 0)
        yield Call(_name(action[1].strip(), tools), value if isinstance(value, dict) else None)


def _objects(text: str) -> Iterator[Call]:
    """Reads JSON objects with a name and arguments anywhere in a text, alone or in lists."""
    place, tries = 0, 0
    while (place := text.find("{", place)) >= 0 and tries <= MAX_CALLS:
        value, end = _decode(text, place)
        call = _as_call(value)
        tries += 1
        if call is not None:
            yield call
        place = end if call is not None else place + 1


def _as_call(value: Any) -> Call | None:
    """Returns a JSON value as a call, or None if it is not one. The arguments may be JSON text."""
    if not isinstance(value, dict):
        return None
    value = value.get("function") if isinstance(value.get("function"), dict) else value
    name = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), None)
    given = next((value[key] for key in _INPUT_KEYS if key in value), None)
    if name is None or given is None:
        return None
    if isinstance(given, str):
        given, _ = _decode(given.strip() or "{}", 0)
    return Call(name, given if isinstance(given, dict) else None)


def _name(written: str, tools: Sequence[str]) -> str:
    """Returns the tool's name in the text after `Action:`, without quotes, emphasis and `()`."""
    if written in tools:
        return written
    plain = written.strip("`*\"' ").removesuffix("()").rstrip(".")
    return plain if plain in tools or not tools else written


def _decode(text: str, place: int) -> tuple[Any, int]:
    """Returns the JSON value at a place and its end; (None, place) if there is none, or one with duplicate keys or NaN."""
    try:
        return _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None, place


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)


def in_form(gold: str) -> str:
    """Writes a gold answer in the form that the prompt asks for."""
    lines = (
        f"Action: {call.name}\nAction Input: {json.dumps(call.arguments, ensure_ascii=False)}"
        for call in gold_calls(gold)
    )
    return "\n".join(lines)
