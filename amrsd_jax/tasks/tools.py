"""Tool use: the calls that a reply makes, matched one by one with the gold ones; nothing is executed."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from amrsd_jax.tasks.base import Verdict
from amrsd_jax.tasks.compat import tool_score

MOST = 64  # calls in one reply, our choice; benchmarks' gold answers have five at most
TAIL = 200_000  # characters at the end of a reply that are read, our choice

_DOCUMENTED = re.compile(r"^(\S[^\n:]*):[^\n]*\nParameters:", re.MULTILINE)
_ACTION = re.compile(r"^[ \t>*#-]*Action(?:[ \t]*\d+)?[ \t]*:(?:\*\*)?([^\n]*)", re.MULTILINE)
_INPUT = re.compile(r"^[ \t>*#-]*Action[ _]Input(?:[ \t]*\d+)?[ \t]*:(?:\*\*)?\s*(?:```(?:json)?\s*)?", re.MULTILINE)
_NAME_KEYS = ("Action", "action", "name", "function", "tool", "tool_name", "function_name")
_INPUT_KEYS = ("Action_Input", "Action Input", "action_input", "arguments", "parameters", "args", "input", "tool_input")


@dataclasses.dataclass(frozen=True)
class Call:
    """A tool's name and its arguments; None for arguments that are not one JSON object."""

    name: str
    arguments: dict[str, Any] | None


def verify_tools(gold: str, response: str, tools: Sequence[str] = (), *, form: str = "row") -> Verdict:
    """Reward 1 if the reply makes the gold calls, each once and nothing else, in any order.

    Args:
      gold: a JSON list of `{"Action": name, "Action_Input": object, or one as JSON text}`.
      response: what is judged.
      tools: names that the prompt documents; () takes any.
      form: "row", lines `Action:` and `Action Input:`; "any", also JSON objects with a name and arguments.

    Further scores: `names` and `arguments`, the shares of gold calls whose name, and whose name and arguments are right,
    of all calls of the longer list; `compat`, the published exact match. Messages name what the reply said, never the gold.
    """
    wanted, made = gold_calls(gold), calls(response[-TAIL:], tools, form)
    format_ok = bool(made) and all(call.arguments is not None for call in made)
    scores = {"names": 0.0, "arguments": 0.0, "compat": tool_score(gold, response[-TAIL:])}
    if not made or len(made) > MOST:
        problem = f"more than {MOST} calls" if made else "no call was found"
        return Verdict(0.0, problem, None, False, scores)
    parsed = json.dumps([dataclasses.asdict(call) for call in made], ensure_ascii=False)
    known = {*tools, *(call.name for call in wanted)}  # a few gold answers call what their prompt does not document
    pairs = _match(wanted, made)
    longer = max(len(wanted), len(made))
    scores["names"] = len(pairs) / longer
    scores["arguments"] = sum(same_arguments(wanted[i], made[j]) for i, j in pairs) / longer
    faults = list(_faults(wanted, made, dict((j, i) for i, j in pairs), known if tools else None))
    if not faults:
        return Verdict(1.0, "correct", parsed, format_ok, scores)
    return Verdict(0.0, "; ".join(faults[:5]), parsed, format_ok, scores)


# ---------------------------------------------------------------- comparing


def same_arguments(gold: Call, made: Call) -> bool:
    """Whether arguments are equal: an empty one counts as left out, a number may be written as text, space around text is
    nothing."""
    return made.arguments is not None and _plain(gold.arguments) == _plain(made.arguments)


def _plain(value: Any) -> Any:
    """A value so that equal ones are equal: objects as sorted items, numbers as their text."""
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


def _match(wanted: Sequence[Call], made: Sequence[Call]) -> list[tuple[int, int]]:
    """Pairs of a gold call and the call that answers it: equal ones first, then those of the same name, in order."""
    pairs, free = [], set(range(len(made)))
    left = list(range(len(wanted)))
    for alike in (same_arguments, lambda gold, call: True):
        for i in list(left):
            j = next((j for j in sorted(free) if made[j].name == wanted[i].name and alike(wanted[i], made[j])), None)
            if j is not None:
                pairs.append((i, j))
                left.remove(i)
                free.remove(j)
    return sorted(pairs)


def _faults(wanted, made, partner: dict[int, int], known: set[str] | None) -> Iterator[str]:
    for j, call in enumerate(made):
        where = f"call {j + 1} ({call.name[:60]})"
        if call.arguments is None:
            yield f"{where}: its input is not one JSON object"
        elif known is not None and call.name not in known:
            yield f"{where}: no such tool"
        elif j not in partner:
            yield f"{where} is not needed"
        elif not same_arguments(wanted[partner[j]], call):
            yield from _wrong_arguments(where, wanted[partner[j]].arguments, call.arguments)
    if len(made) < len(wanted):
        yield "too few calls"


def _wrong_arguments(where: str, gold: dict, made: dict) -> Iterator[str]:
    for name, value in made.items():
        if _plain(value) != _plain(gold.get(name)):
            yield f"{where}: argument {name[:60]!r} is {'wrong' if name in gold else 'not needed'}"
    if any(name not in made and _plain(value) != ("text", "") for name, value in gold.items()):
        yield f"{where}: an argument is missing"


# ---------------------------------------------------------------- reading


@functools.lru_cache(maxsize=4096)
def documented(prompt: str) -> tuple[str, ...]:
    """Names of the tools that a prompt documents: what stands before the colon, a line above `Parameters:`."""
    return tuple(dict.fromkeys(_DOCUMENTED.findall(prompt)))


def gold_calls(gold: str) -> list[Call]:
    """The calls of a gold answer.

    Raises:
      ValueError: it is not a JSON list of calls.
    """
    rows = json.loads(gold)
    found = [_as_call(row) for row in (rows if isinstance(rows, list) else [rows])]
    if not found or any(call is None or call.arguments is None for call in found):
        raise ValueError(f"gold answer is not a list of calls: {gold[:80]!r}")
    return found


def calls(response: str, tools: Sequence[str] = (), form: str = "row") -> list[Call]:
    """The calls that a reply makes, in its order, without its thoughts; at most one more than `MOST`."""
    text = said if (said := response.rpartition("</think>")[2]).strip() else response
    found = list(_written(text, tools))
    if found or form == "row":
        return found
    return list(_objects(text))


def _written(text: str, tools: Sequence[str]) -> Iterator[Call]:
    """Lines `Action:`, each with the `Action Input:` before the next one."""
    actions = list(_ACTION.finditer(text))[: MOST + 1]
    for action, following in zip(actions, [*actions[1:], None], strict=False):
        end = following.start() if following else len(text)
        given = _INPUT.search(text, action.end(), end)
        value, _ = _decode(text, given.end()) if given else (None, 0)
        yield Call(_name(action[1].strip(), tools), value if isinstance(value, dict) else None)


def _objects(text: str) -> Iterator[Call]:
    """JSON objects with a name and arguments, wherever they stand, alone or in lists."""
    place, tries = 0, 0
    while (place := text.find("{", place)) >= 0 and tries <= MOST:
        value, end = _decode(text, place)
        call = _as_call(value)
        tries += 1
        if call is not None:
            yield call
        place = end if call is not None else place + 1


def _as_call(value: Any) -> Call | None:
    """An object as a call, None if it is not one. Its arguments may be JSON text."""
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
    """A tool's name as it is written after `Action:`, without what a writer decorates it with."""
    if written in tools:
        return written
    plain = written.strip("`*\"' ").removesuffix("()").rstrip(".")
    return plain if plain in tools or not tools else written


def _decode(text: str, place: int) -> tuple[Any, int]:
    """The JSON value at a place, and where it ends; (None, place) if there is none that every reader would read alike."""
    try:
        return _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None, place


def _once(pairs: list[tuple[str, Any]]) -> dict:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _no_constant(name: str):
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def in_form(gold: str) -> str:
    """A gold answer as a row wants it."""
    lines = (
        f"Action: {call.name}\nAction Input: {json.dumps(call.arguments, ensure_ascii=False)}"
        for call in gold_calls(gold)
    )
    return "\n".join(lines)
