"""Finds the final answer in a reply: a box, a mark, an answer tag, "the answer is ...", or what its last line says.

A reply may be long and may be anything. Every function reads it a bounded number of times from left to right, so that the time
is linear in its length: patterns have no nested or adjacent repetitions that could match the same text.
"""

import re

from amrsd_jax.tasks import operations
from amrsd_jax.tasks.exclamations import without_exclamation
from amrsd_jax.tasks.sentences import (
    DENIAL,
    DOUBT,
    IS,
    LETTERS_OF_FORMULAS,
    SAID_BY_OTHERS,
    SENTENCE,
    TAKEN_BACK,
    WORD,
    formulas,
    last_expression,
    numbers_of,
    of_last_line,
    of_sentence,
    without_tags,
)
from amrsd_jax.tasks.thoughts import after_thoughts

TAIL = 100_000  # the final answer is searched in this many characters at the end of a response, our choice
LINES = 4_000  # characters at the end in which earlier lines than the last are read, our choice
STATEMENTS = 20  # how many of the last "the answer is" are read, our choice

_BRACE = re.compile(r"(?:\\f?box(?:ed)?\s?)?\{|\}")
_ESCAPED = re.compile(r"\\\\|\\[{}]")  # a line break, and brackets of sets and systems
_SEPARATOR = re.compile(r"(?:[\s$.,;:()\[\]\\]|\\(?:quad|qquad|text\s?\{\s?(?:and|or)\s?\})|and|or)*")
_STATED = re.compile(
    r"\b(?:answer|result|solution|réponse|resposta|respuesta|antwort|risposta|ответ)s?\b(?P<between>[^\n.:=：]{0,60}?)"
    r"(?:\b(?:is|are|est|es|é|ist|è|be)\b|:|：|=)|\AA: |答案(?P<also>[^\n。：:]{0,9}?)[是为為：:]",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(  # "la respuesta no es 8", "答案不是8", "I don't think the answer is 8"
    rf"{DENIAL}\s*$|(?:n['’]t|\bnot) (?:think|believe|say|mean)\b[^.\n]*$"
    rf"|{DOUBT}(?:(?!\b(?:but|so|yet|however)\b)[^.\n])*$"
    r"|\b(?:wrong|false|incorrect|mistake)(?: to (?:say|think|claim|believe))? that [^.\n]*$",
    re.IGNORECASE,
)
_COMMENT = re.compile(  # "the answer is rounded to 2 decimal places", "... the 4th term", but "... found to be 5"
    r"(?:(?:then|thus|therefore|also|already|now|always|usually|just|only|easily) )?"
    r"(?:(?:(?:in)?correct|right|wrong|obtained|found|given|rounded|verified|consistent|expressed|checked|confirmed"
    r"|derived|computed|calculated|written|presented|shown"
    r"|stated|reported|based|reached|boxed|simplified|reasonable|unique|exact|clear)\b(?! (?:to be|as)\b)"
    r"|in (?!total|all\b|fact|sum)[a-z]{2}|the \d+(?:st|nd|rd|th)\b"
    r"|the (?:sum|product|difference|quotient|average|mean|square|cube|(?:square |cube )?root) of\b"
    r"|an? (?:[a-z]+ )?(?:integer|number|multiple|fraction|decimal|digit|factor|divisor|power)\b(?!,? ?[:=$\\(\d]))",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"\b(?:step|equation|line|part|section|table|figure|page|method|example)s? \(?\d+", re.IGNORECASE
)
_INTRODUCED = re.compile(r"result|solution", re.IGNORECASE)  # words that a derivation begins with
_GOES_ON = re.compile(  # what follows a result that is not the last one
    r"\W{0,9}(?:[2-9][.)]\s|(?:step|then|next|second|finally|(?:adding|subtracting|multiplying|dividing)"
    r"|(?:and |so |now,? )?(?:we|i|he|she|they|it) (?:then|now|add|subtract|multiply|divide)s?)\b)",
    re.IGNORECASE,
)
_MARK = re.compile("#{4,}")
_HEADING = re.compile(  # of Markdown: "#### Step 2: Multiply", "#### Conclusion", but not "#### Monday"; with a line below
    r"[ \t*_]{0,9}(?:(?i:step|part|case) ?\d{1,2}\b[^\n]{0,200}"
    r"|(?:\d{1,2}[.)] )?(?:(?i:answer|conclusion|solution|result|explanation|calculation|computation|reasoning|analysis|summary"
    r"|verification|check|proof|note|setup|given|approach|method)s?[ :*_]{0,9}"
    r"|(?!(?:No|Not|None|All|Any|Every|Infinitely|Does|There|It|The|This|Option|Choice|Empty)\b"
    r"|[^\n]{0,200} (?:is|are|has|have|does|do|no|not)\b)[A-Z]\w{0,30}[ -][^\d\n\\$]{1,200}"
    r"|[^\x00-\x7f][^\d\n\\$]{1,200}))\n\s*(?!(?i:since|because)\b|\()\S"
)
_TURN = re.compile(  # what a model goes on to write when it does not stop
    r"(?<=[^\s])\s*(?:<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id|user)\|>|</s>|\[INST\]|<(?:start|end)_of_turn>"
    r"|\n[*_#]{0,4} ?(?:Human|User|Question|Q|Problem|Exercise|Instruction|Input|问题|題目|题目)\s?(?:\d{1,3})?[*_]{0,2}[:：]"
    r"|\n#{1,4} (?:Human|User|Question|Problem|Exercise)\b[^\n]{0,9}\n)"
)
_EXPLAINED = re.compile(  # a reply that begins with its answer
    r"\A(?!\W*(?:Step|Part|Case|Problem|Question|If|Let|Given)\b)(?P<answer>(?=[^\n]{0,79}[\d\\])[^\n]{1,80})\n\s*"
    r"[*_#]{0,4} ?(?:Explanation|Reasoning|Justification|Rationale)\b[*_ ]*[:\n](?P<explanation>.*)",
    re.DOTALL,
)
_PHRASE = re.compile(r"I hope (?:it|this) is correct\.?\s*$")
_CALLED_WRONG = re.compile(r"[$\\)\]*\s]{0,5}(?:is|was|would be) (?:wrong|incorrect|not (?:the|right|correct))\b")
_TAG = re.compile(r"</?answer>", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[\w)}*%$\]°!])(?:\.(?=\s|$|[A-Z])|\.?\n[ \t]*\n)|。")
_VERDICT = re.compile(r"(?:\A|\n)[\s*_]*(Yes|No|True|False)[*_]*[.!]?[*_]*\s*\Z", re.IGNORECASE)
_LEADING = re.compile(r"\A(?:so|thus|hence|therefore|then|and|but)\b,?\s*", re.IGNORECASE)


def final_answer(response: str) -> tuple[str | None, bool]:
    """Returns (answer, whether it had a requested form).

    The answer is the content of the last balanced `\\boxed{}`, else the text behind the last `####`, else the last formula or
    number of the last line; only the first two forms are requested. Boxes with only separators between them make one
    answer, joined by commas.
    """
    return _final(after_thoughts(response)[-TAIL:])


def _final(text: str) -> tuple[str | None, bool]:
    box = last_boxes(text)
    if box is not None:
        return box, True
    if (place := _last_mark(text)) is not None:
        return without_tags(text[place:].strip().split("\n")[0]).strip(), True
    return (None if r"\boxed{" in text else of_last_line(text)), False


def _last_mark(text: str) -> int | None:
    """Returns where the last `####` that marks an answer ends; one that begins a heading, with numbers below it, marks none."""
    marks = list(_MARK.finditer(text))[-STATEMENTS:]
    numbers = max((text.rfind(sign) for sign in "0123456789\\$"), default=-1)
    while marks and (heading := _HEADING.match(text, marks[-1].end())) and heading.end() <= numbers + 1:
        marks.pop()
    return marks[-1].end() if marks and text[marks[-1].end() :].strip() else None


def any_answer(response: str) -> tuple[str | None, bool]:
    """As `final_answer`, but before the last line tries the last answer tag and the last "the answer is ...", in some languages.

    "The final answer is ..." behind the last box counts more than the box. Where the last line has no formula or number, earlier
    lines are read; what follows the reply, as another question, is not.
    """
    text = before_next_turn(after_thoughts(response)[-TAIL:].strip())
    text = _PHRASE.sub("", text).rstrip()
    if (explained := _EXPLAINED.match(text)) and not re.search(
        r"\\f?box(?:ed)?\b|####|<answer>", explained["explanation"]
    ):
        text = explained["answer"]
    answer, asked_for = _final(text)
    if asked_for:
        behind = text[max(text.rfind(r"\boxed"), text.rfind(r"\fbox"), _last_mark(text) or 0) :]
        denied = "not " if _CALLED_WRONG.match(behind.rpartition("}")[2]) else ""
        return _last_stated(behind, final=True) or denied + answer, True
    if (tagged := _last_tagged(text)) is not None:
        return of_sentence(tagged), True
    if stated := _last_stated(text, final=True) or _last_stated(text):
        return stated, False
    if verdict := _VERDICT.search(text[-SENTENCE:]):
        return verdict[1], False
    found = formulas(text[-SENTENCE:])
    if (
        found
        and (behind := re.split(r"[.。]\s", text[-SENTENCE:][found[-1][2] :], maxsplit=1)[1:])
        and numbers_of(behind[0])
    ):
        return last_expression(behind[0]), False
    lines = [line for line in text[-LINES:].splitlines() if line.strip()]
    while answer is None and lines:
        lines.pop()
        answer = of_last_line("\n".join(lines)[-SENTENCE:])
    return answer or _last_words(text[-SENTENCE:]), False


def before_next_turn(text: str) -> str:
    """Returns a reply without another turn or question that a model goes on to write."""
    return _TURN.split(text, maxsplit=1)[0]


def gold_answer(gold: str) -> str:
    """Returns the answer in a gold answer that is a whole solution or a sentence, and any other gold answer as it is."""
    if (box := last_boxes(gold)) is not None:
        return box
    if "####" in gold:
        return _final(gold)[0] or gold
    words = [word for word in WORD.findall(re.sub(r"\\text\s?\{[^{}]*\}", "", gold)) if word not in LETTERS_OF_FORMULAS]
    if len(words) > 2 and (formulas(gold) or len(gold) > 200):
        return any_answer(gold)[0] or gold
    return gold


def last_boxes(text: str) -> str | None:
    """Returns the content of the balanced box that begins last, joined to that of earlier boxes with only separators between.

    Empty boxes are skipped. `\\{` and `\\}` are no braces, unless no box is balanced without them.
    """
    without = _ESCAPED.sub("  ", text)  # of the same length
    return _boxes(text, without) or (None if without == text else _boxes(text, text))


def _boxes(text: str, braces: str) -> str | None:
    """Returns the boxes of a text, whose braces are read in `braces`, a text of the same length.

    A single pass, since a looping response may open thousands of boxes.
    """
    opened, boxes = [], []
    for brace in _BRACE.finditer(braces):
        if brace[0] != "}":
            opened.append(brace)
        elif opened and (start := opened.pop())[0] != "{" and text[start.end() : brace.start()].strip():
            boxes.append((start.start(), start.end(), brace.start()))
    if not boxes:
        return None
    boxes.sort()
    start, inside, end = boxes.pop()
    contents = [text[inside:end]]
    while boxes and boxes[-1][2] < start and _SEPARATOR.fullmatch(text[boxes[-1][2] + 1 : start][:100]):
        start, inside, end = boxes.pop()
        if text[inside:end] not in contents:
            contents.insert(0, text[inside:end])
    return ", ".join(contents)


def _last_tagged(text: str) -> str | None:
    """Returns the content of the last closed answer tag that is not empty, None without one."""
    content, start = None, None
    for tag in _TAG.finditer(text):
        if tag[0][1] != "/":
            start = tag.end()
        elif start is not None:
            content, start = text[start : tag.start()].strip() or content, None
    return content


def _last_stated(text: str, final: bool = False) -> str | None:
    """Returns the answer of the last "the answer is ..." that states one; with `final`, of "the final answer is ..." alone."""
    answer = None
    for stated in list(_STATED.finditer(text))[-STATEMENTS:]:
        if SAID_BY_OTHERS.search(text[max(0, stated.start() - 60) : stated.start()]):
            continue
        if final and not re.search(r"final\s$", text[max(0, stated.start() - 6) : stated.start()], re.IGNORECASE):
            continue
        following = text[stated.end() : stated.end() + SENTENCE]
        behind = following.lstrip(" \t*:_\n")
        sentence = _SENTENCE_END.split(behind, maxsplit=1)[0].split("\n")[0]
        rest = behind[len(sentence) :]
        # "Here is the solution: 1. Add ..." and "The result of 3*5 is 15. Adding 5, ..." come before the answer.
        listed = "\n" in following.removesuffix(behind) and re.match(r"\d{1,2}[.)]\s", behind)
        if not final and _INTRODUCED.match(stated[0]) and re.search(r"\d", rest) and (listed or _GOES_ON.match(rest)):
            continue
        if rest[:1] != ".":  # "5!." is a factorial
            sentence = without_exclamation(sentence)
        if behind.startswith(("$", r"\[", r"\(")) and (found := formulas(behind)) and found[0][1] == 0:
            sentence = behind[: max(len(sentence), found[0][2])]
        before = stated["between"] or stated["also"] or ""
        if _DENIED_BEFORE.search(text[max(0, stated.start() - 40) : stated.start()]) or _DENIED_BEFORE.search(before):
            sentence = f"not {sentence}"
        sentence = re.sub(r"^(?:pas|nicht|не|niet) ", "not ", sentence)
        if taken_back := TAKEN_BACK.search(behind[: len(sentence) + 40]):
            if numbers_of(behind[taken_back.end() :]):  # another answer follows
                answer = None
                continue
            sentence = f"not {sentence[: taken_back.start()]}"
        found = None if r"\boxed" in sentence else of_sentence(sentence)  # a box that was cut off
        if found and (re.search(r"\d|\\", found) or len(found.split()) < 4) and not _is_remark(found, sentence):
            answer = found
    return answer


def _is_remark(found: str, sentence: str) -> bool:
    """Returns whether a sentence says something about the answer, such as how it was found, and does not state it."""
    if re.search(r"\d", sentence) and not re.search(r"\d|\\", _REFERENCE.sub("", sentence)):
        return True
    return bool(_COMMENT.match(found) or _COMMENT.match(sentence)) or operations.is_acted_upon(found)


def _last_words(text: str) -> str | None:
    """Returns what the last sentence of a reply without numbers says in a few words: `Tuesday`, `no solution`, `Yes`."""
    lines = text.replace("**", "").strip().splitlines() or [""]
    sentence = _LEADING.sub("", _SENTENCE_END.split(lines[-1].rstrip(". !"))[-1].strip(), count=1)
    if verdict := re.match(r"(Yes|No)[,.]", sentence, re.IGNORECASE):
        return verdict[1]
    if missing := re.search(r"\b(?:does not|doesn't) exist$", sentence):
        return missing[0]
    said = IS.split(sentence)[-1].strip(" .!*")
    return said if re.fullmatch(r"[^\d\\{}$]+", said) and len(said.split()) < 5 else None
