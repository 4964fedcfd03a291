"""Tool-use verifier: matches the calls in a reply with the gold calls, one by one. Nothing is executed."""

import ast
import dataclasses
import functools
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from amrsd_jax.problems import Verdict
from amrsd_jax.tasks import syntax
from amrsd_jax.tasks.compat import tool_score
from amrsd_jax.tasks.thoughts import after_thoughts

SCORES = ("names", "arguments", "compat")  # names of every verdict's further scores
MAX_CALLS = 64  # in one reply, our choice; benchmarks' gold answers have five at most
TAIL = 200_000  # calls are searched in this many characters at the end of a reply, our choice
DEEPEST = 64  # levels of objects and lists in arguments, our choice; benchmarks' gold answers have four at most

CODE = 10_000  # characters of a reply that is read as Python, our choice

_DOCUMENTED = re.compile(r"^(\S[^\n:]*):[^\n]*\nParameters:", re.MULTILINE)
_ACTION = re.compile(  # the name may stand on the next line
    r"^[ \t>*#-]*Action(?:[ \t]*\d+)?[ \t]*:(?:\*\*)?(?:[ \t]*\n(?![ \t>*#-]*Action))?([^\n]*)",
    re.MULTILINE | re.IGNORECASE,
)
_INPUT = re.compile(
    r"^[ \t>*#-]*Action[ _]Input(?:[ \t]*\d+)?[ \t]*:(?:\*\*)?\s*(?:```(?:json)?\s*)?", re.MULTILINE | re.IGNORECASE
)
_NAME_KEYS = ("Action", "action", "name", "function", "tool", "tool_name", "function_name")
_INPUT_KEYS = ("Action_Input", "Action Input", "action_input", "arguments", "parameters", "args", "input", "tool_input")
_BESIDE = {"id", "type", "index", "thought", "reasoning"}  # keys that a call without arguments may have beside its name
_NOTHING = ("", "null", "None", "{}", "[]", '""')  # texts in place of arguments where there are none
_AFTER_INPUT = re.compile(r"(?:Observation|Thought|Action|Final Answer|</|```)|\Z", re.IGNORECASE)
_FENCE = re.compile(r"\A```(?:python|tool_code|tool_call)?\s|```\s*\Z")
_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d{0,40})(?:\.\d{1,40})?(?:[eE][+-]?\d{1,3})?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Call:
    """A call: the tool's name and its arguments, {} where it has none, None where these are not one JSON object."""

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
    expected, actual = gold_calls(gold), calls(response, tools, form)
    format_ok = bool(actual) and all(call.arguments is not None for call in actual)
    published = tool_score([(call.name, call.arguments) for call in expected], response[-TAIL:])
    scores = {"names": 0.0, "arguments": 0.0, "compat": published}
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

    A gold argument that is null or empty may be omitted, and an empty one may be added; an added null is one argument too many.
    A number equals its text (19.9 and "19.90"), and space around text is ignored. Lists are compared in order.
    """
    return actual.arguments is not None and _same(gold.arguments, actual.arguments)


def _same(gold: Any, actual: Any) -> bool:
    if isinstance(gold, dict) and isinstance(actual, dict):
        return all(_same_argument(name, gold, actual) for name in {**gold, **actual})
    if isinstance(gold, list) and isinstance(actual, list):
        return len(gold) == len(actual) and all(map(_same, gold, actual))
    if isinstance(gold, dict | list) or isinstance(actual, dict | list):
        return False
    if gold in (None, ""):
        return actual in (None, "")
    both_texts = isinstance(gold, str) and isinstance(actual, str)
    return _text(gold) == _text(actual) or (not both_texts and _equal_numbers(gold, actual))


def _same_argument(name: str, gold: dict, actual: dict) -> bool:
    if name not in actual:
        return gold[name] in (None, "")
    if name not in gold:
        return actual[name] == ""
    return _same(gold[name], actual[name])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _equal_numbers(x: Any, y: Any) -> bool:
    texts = _text(x), _text(y)
    return all(map(_NUMBER.fullmatch, texts)) and Decimal(texts[0]) == Decimal(texts[1])


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
    for name in actual:
        if not _same_argument(name, gold, actual):
            yield f"{where}: argument {name[:60]!r} is {'wrong' if name in gold else 'not needed'}"
    if any(name not in actual and not _same_argument(name, gold, actual) for name in gold):
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
    rows, end = _decode(gold.strip(), 0)
    parsed = [_as_call(row) for row in (rows if isinstance(rows, list) else [rows])]
    if end < len(gold.strip()) or not parsed or any(call is None or call.arguments is None for call in parsed):
        raise ValueError(f"gold answer {gold[:80]!r}: expected a JSON list of calls")
    return parsed


def calls(response: str, tools: Sequence[str] = (), form: str = "row") -> list[Call]:
    """Returns the calls that a reply makes after its thoughts, in order; at most one more than `MAX_CALLS`."""
    text = after_thoughts(response)[-TAIL:]
    written = list(_written(text, tools))
    if written or form == "row":
        return written
    return _as_python(text) or list(_objects(text))


def _as_python(text: str) -> list[Call]:
    """Returns the calls of a reply that is nothing but calls in Python, `ls()` or `[f(a=1), g()]`; [] for another reply."""
    code = _FENCE.sub("", text.strip()).strip().strip("`")
    if not code.endswith((")", "]")) or len(code) > CODE:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd literals
            lines = syntax.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = []
    for line in lines:
        value = line.value if isinstance(line, ast.Expr) else None
        found += value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
    calls = [_python_call(node) for node in found]
    return calls if all(calls) else []


def _python_call(node: ast.AST | None) -> Call | None:
    """Returns a call of a name, with dots or without; None for anything else."""
    if not isinstance(node, ast.Call):
        return None
    name, attributes = node.func, []
    while isinstance(name, ast.Attribute):
        attributes.append(name.attr)
        name = name.value
    if not isinstance(name, ast.Name):
        return None
    try:
        given = _refuse_duplicates([(argument.arg, ast.literal_eval(argument.value)) for argument in node.keywords])
        given, _ = _decode(json.dumps(given), 0)  # as every argument: no number beyond floats, not too deep
    except (ValueError, TypeError, RecursionError, MemoryError):
        given = None
    return Call(
        ".".join([name.id, *attributes[::-1]]),
        None if node.args or any(argument.arg is None for argument in node.keywords) else given,
    )


def _written(text: str, tools: Sequence[str]) -> Iterator[Call]:
    """Reads lines `Action:`, each with the `Action Input:` before the next one."""
    actions = list(_ACTION.finditer(text))[: MAX_CALLS + 1]
    for action, following in zip(actions, [*actions[1:], None], strict=False):
        end = following.start() if following else len(text)
        given = _INPUT.search(text, action.end(), end)
        yield Call(_name(action[1].strip(), tools), _input(text, given.end(), end) if given else {})


def _input(text: str, place: int, end: int) -> dict[str, Any] | None:
    """Returns the JSON object at a place, {} where nothing is written there, None for anything else."""
    value, _ = _decode(text, place)
    if isinstance(value, dict):
        return value
    line = text[place:end].partition("\n")[0].strip("`* ")
    return {} if line in _NOTHING or _AFTER_INPUT.match(text, place, end) else None


def _objects(text: str) -> Iterator[Call]:
    """Reads JSON objects with a name anywhere in a text, alone or in lists; not those inside of an object that is cut off.

    The name may stand before the object of the arguments, as `<function=name>`.
    """
    place, tries, broken = 0, 0, False
    while (place := text.find("{", place)) >= 0 and tries <= MAX_CALLS:
        value, end = _decode(text, place)
        if value is None:
            call, broken = None, broken or _OPENED.match(text, place) is not None
        else:
            broken = broken and not _BEGINS.search(text[max(0, place - 100) : place])
            tag = _FUNCTION.search(text[max(0, place - 200) : place])
            call = None if broken else Call(tag[1], value) if tag and isinstance(value, dict) else _as_call(value)
        if call is not None:
            yield call
        place, tries = (place + 1 if call is None else end), tries + 1


_OPENED = re.compile(r'\{\s*"')  # an object, as opposed to a brace in prose
_FUNCTION = re.compile(r"<function=([^<>\s]{1,100})>\s*$")
_BEGINS = re.compile(r"(?:^|\n|>)\s*$")


def _as_call(value: Any) -> Call | None:
    """Returns a JSON value as a call, or None if it is not one. The arguments may be JSON text, null or absent."""
    if not isinstance(value, dict):
        return None
    value = value.get("function") if isinstance(value.get("function"), dict) else value
    key = next((key for key in _NAME_KEYS if isinstance(value.get(key), str)), None)
    inputs = [name for name in _INPUT_KEYS if name in value]
    if key is None or (not inputs and not set(value) <= {key} | _BESIDE):
        return None
    given = value[inputs[0]] if inputs else None
    if isinstance(given, str) and given.strip() not in _NOTHING:
        text = given.strip()
        given, end = _decode(text, 0)
        given = given if end == len(text) else text
    elif given is None or given == [] or isinstance(given, str):
        given = {}
    return Call(value[key], given if isinstance(given, dict) else None)


def _name(written: str, tools: Sequence[str]) -> str:
    """Returns the tool's name in the text after `Action:`, without quotes, emphasis and `()`."""
    if written in tools:
        return written
    plain = written.strip("`*\"' ").removesuffix("()").rstrip(".")
    return plain if plain in tools or not tools else written


def _decode(text: str, place: int) -> tuple[Any, int]:
    """Returns the JSON value at a place and its end.

    (None, place) if there is none, or one with duplicate keys, NaN, a number beyond every float or more than `DEEPEST` levels.
    """
    try:
        value, end = _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None, place
    level = [value]
    for _ in range(DEEPEST + 1):  # without recursion
        level = [
            item for x in level if isinstance(x, dict | list) for item in (x.values() if isinstance(x, dict) else x)
        ]
    return (None, place) if level else (value, end)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant, parse_float=_finite)


def in_form(gold: str) -> str:
    """Writes a gold answer in the form that the prompt asks for."""
    lines = (
        f"Action: {call.name}\nAction Input: {json.dumps(call.arguments, ensure_ascii=False)}"
        for call in gold_calls(gold)
    )
    return "\n".join(lines)
