"""Multiple-choice verifier: reads the answer tag strictly, other forms leniently, and the options and gold answers of rows."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from amrsd_jax.problems import Verdict
from amrsd_jax.tasks import letters
from amrsd_jax.tasks.compat import choice_score
from amrsd_jax.tasks.letters import LETTERS
from amrsd_jax.tasks.replies import before_next_turn
from amrsd_jax.tasks.thoughts import after_thoughts

SCORES = ("lenient", "compat")  # names of every verdict's further scores
TAIL = 100_000  # the answer is searched in this many characters at the end of a response, our choice

Options = Mapping[str, str]  # letter -> text, "" where the text is not known

_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[):.][ \t]*(?=\S)([^\n]*)", re.MULTILINE)
_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)


def verify_choice(
    gold: str, response: str, options: Options | Sequence[str] = LETTERS, *, form: str = "row"
) -> Verdict:
    """Returns the verdict: reward 1 if the last answer tag holds exactly the gold letter, else 0.

    Its further scores are `lenient`, 1 for the gold letter in any common form (`letters`), and `compat`, the published exact
    match. Only what follows the last thought is read, except by `compat`.

    Args:
      gold: a letter.
      response: the whole response.
      options: letters of the row's options, with their texts where these are known.
      form: "row" requires the tag; with "any" the lenient reading decides the reward.
    """
    strict, named = tagged(response), lenient(response, options)
    format_ok = strict in options
    scores = {"lenient": float(named == gold), "compat": choice_score(gold, response)}
    parsed = strict if form == "row" else named
    if parsed in options:
        right = parsed == gold
        return Verdict(float(right), "correct" if right else "the answer is wrong", parsed, format_ok, scores)
    if parsed is None:
        message = "no <answer>...</answer> was found" if form == "row" else "no option was named"
        return Verdict(0.0, message, None, False, scores)
    message = f"the answer tag holds something else than one of {', '.join(options)}"
    return Verdict(0.0, message, parsed[:200], False, scores)


def tagged(response: str) -> str | None:
    """Returns the stripped content of the last closed answer tag after the thoughts, None without one."""
    contents = _TAG.findall(after_thoughts(response)[-TAIL:])
    return contents[-1].strip() if contents else None


def lenient(response: str, options: Options | Sequence[str] = LETTERS) -> str | None:
    """Returns the option that a response names, in any common form; None if it names none, or several."""
    return letters.named(before_next_turn(after_thoughts(response)[-TAIL:]), _as_mapping(options))


def _as_mapping(options: Options | Sequence[str]) -> Options:
    return options if isinstance(options, Mapping) else dict.fromkeys(options, "")


# ---------------------------------------------------------------- options and gold answers of rows


def listed_options(question: str) -> dict[str, str]:
    """Returns the options that a question lists, one per line: the last run A, B, C, ...; {} if it lists none."""
    runs: list[dict[str, str]] = []
    for letter, text in _OPTION.findall(question):
        if letter == "A":
            runs.append({"A": text.strip()})
        elif runs and len(runs[-1]) < len(LETTERS) and letter == LETTERS[len(runs[-1])]:
            runs[-1][letter] = text.strip()
    runs = [run for run in runs if len(run) > 1]
    return runs[-1] if runs else {}


def question_options(question: str) -> dict[str, str]:
    """As `listed_options`; every letter without a text if the question lists none."""
    return listed_options(question) or dict.fromkeys(LETTERS, "")


def read_options(value: Any) -> dict[str, str]:
    """Reads a row's options, label -> text: a list of texts, an object by label, or labels beside texts.

    The last are `{"label": [...], "text": [...]}` or a list of `{"label": ..., "text": ...}`. Without labels these are A, B, C,
    ...; a list of letters alone has no texts.

    Raises:
      ValueError: it is something else, or has fewer than 2 or more than 26 options.
    """
    labels, texts = None, value
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        labels, texts = value.get("label", value.get("labels")), value["text"]
    elif isinstance(value, dict):
        labels, texts = list(value), list(value.values())
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "text" in item for item in value):
        labels, texts = [item.get("label") for item in value], [item["text"] for item in value]
    elif isinstance(value, list) and all(isinstance(item, str) and item in LETTERS for item in value):
        labels, texts = value, [""] * len(value)
    if (
        not isinstance(texts, list)
        or not 2 <= len(texts) <= len(LETTERS)
        or any(isinstance(text, bool) or not isinstance(text, str | int | float) for text in texts)
    ):
        raise ValueError(f"{repr(value)[:200]}; expected a list of 2 to {len(LETTERS)} options")
    labels = [str(label).strip(" ().") for label in labels or () if label is not None]
    labels = [label.upper() if len(label) == 1 else label for label in labels]
    if len(set(labels)) != len(texts):
        labels = LETTERS
    return dict(zip(labels, map(str, texts), strict=False))


def lettered(options: Options) -> dict[str, str]:
    """Returns options with A, B, C, ... in place of their labels, in order; a text that is not known is the label."""
    return {letter: text or label for letter, (label, text) in zip(LETTERS, options.items(), strict=False)}


def gold_letter(gold: Any, options: Options) -> str:
    """Returns the label of a gold answer: a label (`C`, `c`, `(C)`, `C. blue`), an option's text, or its index, counted from 0.

    They are tried in this order, but a number that is no text is a label or an index (our choice). Without the texts of the
    options there is no index.

    Raises:
      ValueError: it names none of the options.
    """
    if isinstance(gold, list) and len(gold) == 1:
        gold = gold[0]
    if isinstance(gold, float):  # 2.0 is an index, in a column of a table that has empty places
        gold = int(gold) if gold.is_integer() else str(gold)
    text, numeric = " ".join(str(gold).split()), isinstance(gold, int) and not isinstance(gold, bool)
    listed = any(options.values())  # an index counts options that the row shows
    places = {str(index): label for index, label in enumerate(options)} if listed else {}
    same = [label for label, option in options.items() if " ".join(option.split()).casefold() == text.casefold() != ""]
    written = _GOLD.fullmatch(text)
    letter = written[1].upper() if written and isinstance(gold, str) else None
    if text in options and (numeric or isinstance(gold, str)):
        return text
    if letter in options and (not written[2] or written[2].strip().casefold() in options[letter].strip().casefold()):
        return letter
    if isinstance(gold, str) and len(same) == 1:
        return same[0]
    if (numeric or (isinstance(gold, str) and not same)) and text in places:
        return places[text]
    raise ValueError(
        f"answer {text[:80]!r}: expected one of the row's options {', '.join(options)}, or its index from 0"
    )


_GOLD = re.compile(
    r"(?:<answer>|[(\[{*$ ]|\\boxed\{|\\text\{){0,6}([A-Za-z])(?:</answer>|[)\]}*$.: ]){0,6}((?<=[).:\]]) .+)?"
)


def stem(question: str) -> str:
    """Returns a question without its options."""
    first = _OPTION.search(question)
    return question[: first.start()] if first else question


def in_form(letter: str) -> str:
    """Writes a letter in the form that the prompt asks for."""
    return f"<answer>\n{letter}\n</answer>"
