"""Reads which option of a multiple-choice question a text names: "the answer is (C)", "B is correct", "答案：B", `\\boxed{D}`.

A place where a letter may be named is found by a word such as "answer" and read in a window of bounded length after it, so that
the time is linear in the length of the text. A text that names several options, or hedges, names none.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from amrsd_jax.tasks.sentences import DOUBT

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
WINDOW = 200  # characters after a word such as "answer" within which the letter is read, our choice
CUES = 500  # the last occurrences of such words that are read, our choice
SEVERAL = ""  # the letter of a statement that names more than one option, or something else than an option

# Ranks of statements. A text is decided by its statements of the best rank.
FINAL, CLAIM, LABELLED_LINE = 1, 2, 3


class Statement(NamedTuple):
    """A statement that names an option.

    Attributes:
      rank: FINAL for a tag, a box, "the answer is" and a line of one letter; CLAIM for "B is correct" and "I choose B";
        LABELLED_LINE for a first or last line such as "B. the second option", and for "this corresponds to option B".
      end: where it ends, in characters of the marked text.
      letter: the letter, or SEVERAL.
    """

    rank: int
    end: int
    letter: str


def named(text: str, options: Mapping[str, str]) -> str | None:
    """Returns the letter that a text names: the last of its final statements, else the one that all its claims agree on.

    Args:
      text: a reply without its thoughts.
      options: the text of each letter's option, "" where it is not known.
    """
    found = list(statements(text, options))
    if not found:
        return None
    rank = min(statement.rank for statement in found)
    best = [statement for statement in found if statement.rank == rank]
    if rank == FINAL:
        letter = max(best, key=lambda statement: statement.end).letter
    else:
        letter = best[0].letter if len({statement.letter for statement in best}) == 1 else SEVERAL
    return letter if letter in options else None


def statements(text: str, options: Mapping[str, str]) -> Iterator[Statement]:
    """Yields every statement of a text that names an option, or several."""
    text = _NOT_THIS_BUT.sub("", _INSTEAD.sub(r"\1", _marked(text)))
    texts = {}
    for letter, content in options.items():
        texts.setdefault(_normal(content), []).append(letter)
    texts.pop("", None)
    for content in _TAG.finditer(text):
        yield Statement(FINAL, content.end(), _inside(content[1], options, texts) or SEVERAL)
    for content in _BOX.finditer(text):
        letter = _inside(content[1], options, texts)
        if letter is not None:
            yield Statement(FINAL, content.end(), letter)
    for noun in deque(_NOUN.finditer(text), maxlen=CUES):
        yield from _after_noun(text, noun, options, texts)
    for pattern, rank in ((_CHOSEN, CLAIM), (_CONCLUDED, CLAIM), (_MATCHES, LABELLED_LINE), (_CORRECTED, FINAL)):
        for cue in deque(pattern.finditer(text), maxlen=CUES):
            before = text[max(0, cue.start() - 80) : cue.start()]
            if _NEGATED_BEFORE.search(before[-30:]) or (
                "verb" in cue.groupdict() and cue["verb"] and _by_others(before)
            ):
                continue
            letter = _letter(text[cue.end() : cue.end() + WINDOW], options, whole_sentence=pattern is not _CHOSEN)
            if letter is not None:
                yield Statement(rank, cue.end(), letter)
    numerals = "II" in text  # then "I is correct" speaks about a statement and not about an option
    for claim in deque(_IS_CORRECT.finditer(text), maxlen=CUES):
        if numerals and claim["letter"] == "I":
            continue
        before = text[max(0, claim.start() - 30) : claim.start()]
        opinion = _OPINION_BEFORE.search(text[max(0, claim.start() - 60) : claim.start()])
        if not (_NEGATED_BEFORE.search(before) or _THING_BEFORE.search(before) or opinion):
            joined = _JOINED_BEFORE.search(text[max(0, claim.start() - 20) : claim.start()])
            yield Statement(CLAIM, claim.end(), SEVERAL if joined else claim["letter"])
    yield from _lines(text, options, texts)


# ---------------------------------------------------------------- preparation

_TAG = re.compile("\x01([^\x01\x02]*)(?:\x02|\\Z)")
_BOX = re.compile("\x03([^\x03\x04]*)\x04")
_PART = re.compile(r"(?i:(<answer>)|(</answer>))|(\\f?box(?:ed)?\s{0,5}\{)|(\{)|(\})")
_MARKUP = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:bf|rm|it|sf)|boldsymbol|bm|bf|rm|operatorname|displaystyle|large|Large|left|right|[()\[\]])"
    r"(?![a-z])|</?(?:b|i|u|em|strong|mark|code|span|p|div)>|[*`$\"“”„«»‘‚「」『』{}]|(?<![A-Za-zÀ-ɏ])['’]|['’](?![A-Za-zÀ-ɏ])|"
    r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
)
_SPACE = re.compile(r"\\(?:quad|qquad|[ ,;:!])|~|&nbsp;|[^\S\n]")
_WIDE = str.maketrans("（）［］【】：，？；．\1\2\3\4", "()[][]:,?;.    ")


def _marked(text: str) -> str:
    """Returns a text without markup; control characters mark where a tag (1, 2) and a box (3, 4) begin and end."""
    pieces, place, opened = [], 0, []
    text = text.translate(_WIDE)
    closing = {}
    parts = list(_PART.finditer(text))
    for part in parts:  # a box without its closing brace is no box
        if part[3] or part[4]:
            opened.append(part)
        elif part[5] and opened and (start := opened.pop())[3]:
            closing[part.start()] = "\x04"
            closing[start.start()] = "\x03"
    for part in parts:
        mark = "\x01" if part[1] else "\x02" if part[2] else closing.get(part.start(), "")
        pieces += (text[place : part.start()], mark)
        place = part.end()
    return _SPACE.sub(" ", _MARKUP.sub("", "".join(pieces) + text[place:]))


def _normal(text: str) -> str:
    """Returns the text of an option in lower case, without spaces around and inside, markup and a full stop."""
    return "".join(_MARKUP.sub("", text).split()).strip(".,;").casefold()


# ---------------------------------------------------------------- reading a letter

_LATIN = r"[A-Za-z0-9À-ɏА-я]"
# Words and signs that may stand between "the answer is" and the letter.
_SKIPPED = re.compile(
    r"(?:[\s:=,>→\]\x01\x03-]|[–—]|(?i:the|an?(?=\s+option)|options?|choices?|letter|answer|alternative|number|response|statement|"
    r"clearly|therefore|thus|definitely|(?:most )?likely|probably|simply|indeed|actually|obviously|hence|still|just|only|correct|"
    r"die|der|das|antwort|buchstabe|möglichkeit|la|le|les|lettre|réponse|choix|bien|donc|also|quindi|portanto|entonces|el|opción|"
    r"letra|alternativa|respuesta|inciso|il|opzione|lettera|risposta|opção|resposta|это|вариант|буква|ответ|под|буквой|optie|het|de|"
    r"antwoord)(?![a-zà-ÿ])|l['’]|[oa] |选项|選項|选|選|是|为|為|項|项|選択肢|は|보기|선택지|은|는){0,12}"
)
_CANDIDATE = re.compile(  # a small letter without brackets must be the last word
    rf"[(\[<]{{1,2}}\s?([A-Za-z])\s?[)\]>]{{1,2}}|[(\[]?([A-Z])(?!{_LATIN})|([b-z])(?=[.)]?\s*(?:\Z|\n))|(a)(?=[.)]?\s*\Z)"
)
_OR = r"or|and|oder|und|ou|et|o|y|e|u|или|и|of|en|lub|veya|ve|hoặc|và|atau|dan|nor"
_SECOND = re.compile(
    rf"[)\]]?\s*(?:[,/&、+]|(?i:{_OR})(?![a-zа-я])|,\s(?:or|and)|或者?|和|与|與|及|または|か|と|또는|과|와)\s*"
    rf"(?:(?i:or|and|option|choice|either|both|maybe|possibly|perhaps|even)\s+)?[(\[]?(?!I\s+[a-z])([A-Z])(?!{_LATIN})"
)
_DENIED = re.compile(
    r"[)\]]?\s*(?:\?|(?:(?:is|was|are|seems|would be|ist|est|es|è|é|está)\s+)?(?:clearly\s+|definitely\s+|also\s+)?"
    r"(?i:not(?!\s+[(\[]?[A-Z][)\].,\s])|wrong|incorrect|false|never|nicht|falsch|n['’]?est|ne|pas|no|non|não|не|неверн|faux|falsa|"
    r"errad|sbagliat)|(?:isn|wasn)['’]?t|不|错|錯|ではな|じゃな|ではあり|じゃあり|이?가? ?아[니닙닌]|is\s+out\b|"
    r"(?:could|might|may|can)\b)"
)
_CLEAR = re.compile(
    r"(?:\s*(?:$|[\n.,;:)\]<!|(\x01-\x04。、]|[–—]|\s-)|\s+(?:because|since|as|which|with|due|based|given|where|while|so|but|for|not|"
    r"rather|instead|over|weil|da|denn|car|parce|puisque|porque|pues|ya|perché|poiché|pois|потому|так|поскольку|omdat)(?![a-z])|"
    r"\s*[぀-ヿ一-鿿가-힣]|"
    r"\s+(?:is|ist|est|es|è|é|está)\s+(?:\w+\s+)?(?:correct|right|best|richtig|korrekt|bonne|juste|corr|cert|giust|esatt))"
)
_ENDS = re.compile(r"[)\]]?\s*(?:[.!。]?\s*(?:$|\n)|[\x03\x04])")


def _letter(text: str, options: Mapping[str, str], *, whole_sentence: bool = False) -> str | None:
    """Returns the letter at the beginning of a text, SEVERAL if more are listed there, None if there is none.

    Args:
      whole_sentence: nothing may follow but the end of the sentence or line.
    """
    match = _CANDIDATE.match(text, _SKIPPED.match(text).end())
    if not match or (whole_sentence and (match[3] or match[4])):
        return None
    letter, rest = next(filter(None, match.groups())).upper(), text[match.end() :]
    if (second := _SECOND.match(rest)) and (second[1] in options or second[1] == letter):
        return SEVERAL if second[1] != letter else None
    said = _normal(options.get(letter, ""))
    if said and _normal(rest).startswith(said):
        return letter
    if _DENIED.match(rest):
        return None
    if whole_sentence:
        return letter if _ENDS.match(rest) else None
    return letter if _CLEAR.match(rest) or (match[1] and not _REMARK.match(rest)) else None


def _option(text: str, texts: Mapping[str, list[str]]) -> str | None:
    """Returns the letter of the option that has a text, SEVERAL if several have it, None if none has."""
    labels = texts.get(_normal(text[:1000]), [])
    return labels[0] if len(labels) == 1 else SEVERAL if labels else None


def _beside_text(text: str, texts: Mapping[str, list[str]]) -> str | None:
    """Returns the letter behind the text of its option, as in `15, option (B)` and `15 (B)`; None where the text is another's."""
    both = _TEXT_AND_LETTER.fullmatch(text[:WINDOW])
    letter = both and (both[2] or both[3])
    return letter if both and texts.get(_normal(both[1])) == [letter] else None


_TEXT_AND_LETTER = re.compile(
    r"\s*(.+?)[\s,]+(?:which is\s+)?"
    r"(?:(?i:option|choice|answer)\s+[(\[]?([A-Z])[)\]]?|[(\[](?:(?i:option|choice)\s+)?([A-Z])[)\]])[\s.!]*"
)


def _inside(text: str, options: Mapping[str, str], texts: Mapping[str, list[str]]) -> str | None:
    """Returns the letter that the content of a tag or box names, as `_letter`."""
    text = text.strip()
    if (whole := _WHOLE.fullmatch(text[:1000])) and not _DENIED.match(text[whole.end(1) :]):
        if (second := _SECOND.match(text[whole.end(1) :])) and second[1] in options:
            return SEVERAL
        return whole[1].upper()
    letter = _option(text, texts)
    if letter is None:
        letter = _beside_text(text, texts) or _letter(text[:WINDOW], options)
    if letter is None and len(text) < 1000:
        found = [s for noun in _NOUN.finditer(text) for s in _after_noun(text, noun, options, texts)]
        letter = found[-1].letter if found else None
    return letter


_WHOLE = re.compile(
    r"(?:(?i:option|choice|answer|letter|选项|選択肢|보기)[\s:]{0,5})?[(\[<]?\s?([A-Za-z])\s?(?:[)\]>.,:-]|\Z)[^\n]*"
)


# ---------------------------------------------------------------- statements

_IS = r"is|ist|est|es|è|é|was|would be|should be|must be|has to be|will be|becomes?|remains"
_LANGUAGES = {  # languages: (nouns, what joins the noun and the letter)
    "english": (
        r"answer|ans\.?|choice|option|letter|alternative|response|selection|solution|pick|final|result|conclusion|verdict|"
        r"(?:correct|right|best) (?:one|statement)|(?<![^\n*])(?:correct|selected|chosen)", _IS),
    "germanic": (r"antwort(?:möglichkeit)?|lösung|auswahl|wahl|richtig|korrekt|antwoord|optie|keuze", "ist|lautet|wäre|is"),
    "romance": (
        r"réponse|choix|respuesta|opción|solución|inciso|letra|risposta|opzione|scelta|soluzione|lettera|resposta|opção|"
        r"alternativa|gabarito", "est|serait|sera|es|sería|será|è|sarebbe|é|seria"),
    "slavic": (r"ответ(?:ом|а)?|(?:верный |правильный )?вариант|odpowied(?:ź|zią)", "это|является|будет|to|jest"),
    "other": (r"cevap|cevabı|yanıt|đáp án|câu trả lời|jawaban(?:nya)?|svar(?:et)?|vastaus|απάντηση|الإجابة|الجواب|उत्तर|"
              "răspuns(?:ul)?|odpověď|válasz", "olarak|là|adalah|yaitu|är|er|on|είναι|هي|هو|है|este|je"),
    "option": (r"选项|選項", "是|为|為"),
    "asian": (
        r"答案|答(?=:)|解答|正解|答え|回答|正答|정답|답변|답|(?:故|应|應|应该|因此|所以|可|则|我|就)?(?:选|選)(?:择|擇)?(?!项|項|択)",
        "是|为|為|选|選|は|은|는|이|应该?是"),
}  # fmt: skip
_CJK = ("option", "asian")  # languages without spaces between words
_NOUN = re.compile(
    "|".join(
        rf"(?P<{name}>(?<![A-Za-zÀ-ɏ/])(?:{nouns})(?![a-zà-ɏ]))" if name not in _CJK else rf"(?P<{name}>{nouns})"
        for name, (nouns, _) in _LANGUAGES.items()
    ),
    re.IGNORECASE,
)
_SIGNS = r"[:=>→]|\s[-–—]\s|[–—]"
_JOINTS = {
    name: re.compile(rf"{joints}|[:=>→]" if name in _CJK else rf"(?<![^\W\d_])(?:{joints})(?![a-zà-ɏ])|{_SIGNS}", re.IGNORECASE)
    for name, (_, joints) in _LANGUAGES.items()
}  # fmt: skip
_DIRECT = {  # nouns after which a letter is the answer: "Answer B"; "option B" alone only mentions it
    "answer", "ans", "antwort", "réponse", "respuesta", "risposta", "resposta", "gabarito", "ответ", "antwoord", "odpowiedź",
    "cevap", "yanıt", "đáp án", "jawaban", "उत्तर", "الإجابة", "الجواب", "răspuns", "odpověď", "válasz",
    "верный вариант", "правильный вариант",
}  # fmt: skip
_WRONG = re.compile(
    r"(?i:\b(?:wrong|incorrect|not|never|false|except|eliminat\w*|tempting|neither|nor|cannot|unlikely|choices|options|"
    r"falsch\w*|nicht|no|non|não|ne|niet|nie|incorrect[ea]|fausse|errada|sbagliata|неверн\w*|неправильн\w*)\b|n['’]t\b)|"
    r"不|错|錯|아니|틀린"
)
_BY_OTHERS = (
    r"(?<![a-z])(?:you|one|people|others|they|(?:some|many|most)(?: \w+)?) (?:(?:might|may|could|would|will|often|also) )*"
    r"(?:think|say|argue|guess|believe|claim)"
)
_SUPPOSED = re.compile(
    rf"(?i:(?:{_BY_OTHERS}|common (?:mistake|error|misconception)|{DOUBT})"
    r"(?:(?!\b(?:but|so|and|yet|however|thus|making)\b)[^.\n,;:]){0,25}\Z)|"
    r"(?i:\b(?:if|whether|suppos\w+|assum\w+|unless|wrong|worst|incorrect|false|tempting|other|another|previous|earlier|distractor|"
    r"students?|your|not|cannot|least|mistake|"
    r"wenn|falsche?|si|fausse|se|если)\b)[^.\n,;:]{0,25}\Z|n['’]t (?:think|believe|say|mean|agree)\b[^.\n,;:]{0,25}\Z|"
    r"\bno \Z|[不非别][^。\n]{0,3}\Z|"
    r"如果[^，。,\n]{0,15}\Z"
)


def _after_noun(
    text: str, noun: re.Match, options: Mapping[str, str], texts: Mapping[str, list[str]]
) -> Iterator[Statement]:
    """Yields what is said of an answer: after "is", a colon or the like within the same sentence, or right after "answer"."""
    before, after = text[max(0, noun.start() - 45) : noun.start()], text[noun.end() : noun.end() + 90]
    if _SUPPOSED.search(before):
        return
    if noun.lastgroup == "english" and (
        called := _CALLED_CORRECT.search(text[max(0, noun.start() - WINDOW) : noun.start()])
    ):
        letter = _option(called[1], texts)
        if letter is not None and _CLAIM_ENDS.match(after):
            yield Statement(CLAIM, noun.end(), letter)
            return
    direct = noun.lastgroup == "asian" or noun[0].lower().rstrip(".") in _DIRECT
    if direct and (letter := _letter(after, options)) is not None:
        yield from _unless_listed(text, noun.end(), letter)
        return
    sentence = re.match(r"[^\n.?!;。]*\n?", after)[0]
    for joint in list(_JOINTS[noun.lastgroup].finditer(sentence))[:4]:
        gap = sentence[: joint.start()]
        if _WRONG.search(gap) or re.search(rf"(?<!{_LATIN})[B-HJ-Z](?!{_LATIN})", gap):
            return
        end = noun.end() + joint.end()
        window = text[end : end + WINDOW]
        letter = _letter(window, options)
        if letter is None and texts:
            said = re.split(r"\n|\.(?:\s|$)|[\x01-\x04]", window.strip(" \n\x03"), maxsplit=1)[0]
            letter = _option(said, texts) or _beside_text(said, texts)
        if letter is not None:
            yield from _unless_listed(text, end, letter)
            return
    if noun.lastgroup == "english" and _CONCLUDING.search(before) and (letter := _letter(after, options)) is not None:
        yield Statement(CLAIM, noun.end(), letter)  # "it is option (E)"


_CALLED_CORRECT = re.compile(  # "Therefore, the nucleus is the correct answer"
    r"(?:^|[\n.!?:;,]\s?)(?:(?i:so|thus|hence|therefore|then|i (?:think|believe)|we (?:see|conclude)|that),? ){0,3}"
    r"([^\n.!?:;,]{1,150}) (?:is|must be)(?: therefore| thus| clearly)? (?:the|our) (?:correct|right|best|final) $"
)
_CLAIM_ENDS = re.compile(r"\s*(?!,? but\b)(?:[.!,;)]|$|\n|(?:because|since|as)\b)")
_CONCLUDING = re.compile(r"(?i:(?<![a-z])(?:is|be|thus|therefore|hence|so),?\s+(?:the\s+)?$)")


def _unless_listed(text: str, place: int, letter: str) -> Iterator[Statement]:
    """Yields a final statement, unless the next line begins with the next letter: then it is a list of options."""
    following = re.compile(rf"\s*\(?{chr(ord(letter) + 1)}\s?[).:]") if letter else None
    lines = text[place : place + 2 * WINDOW].strip().split("\n")
    if not (following and len(lines) > 1 and any(following.match(line) for line in lines[1:3])):
        yield Statement(FINAL, place, letter)


_CHOSEN = re.compile(
    r"(?i:(?<![a-z])(?:(?P<verb>choose|chose|choosing|select|pick|picking|opt for|go(?:ing)? with|went with|mark|circle|say)|"
    r"wähle|choisis|elijo|escojo|selecciono|scelgo|escolho|выбираю|it['’]s|it is|must be|has to be|it should be)(?![a-z]))"
)
_CORRECTED = re.compile(
    r"(?i:(?<![a-z])(?:(?:no|oh|hmm|hm|ah|oops),?\s+)?"
    r"(?:wait|actually|correction|no|sorry|i mean)(?:[,:]|\s*[-–—])?\s+(?:(?:so )?(?:it|that)(?: is|['’]s) )?)"
    r"(?=[(A-Z])"
)
# Whoever chooses is the writer, or the reader who is asked to: "I would choose", "Let's pick", "So choose", "you should pick".
_WRITER = re.compile(
    r"(?i:(?<![a-z])(?:i|we|let['’]?s|let (?:us|me)|(?:you|one)(?= (?:should|must|can)(?![a-z]))))(?:['’](?:d|ll|m|ve|re))?"
    r"(?i:\s+(?:would|will|should|must|can|am|are|have|had|decided|to|therefore|thus|hence|then|now|definitely|just|simply|finally|"
    r"clearly|need|going|also|still|rather))*\s+$"
)
_ASKED = re.compile(
    r"(?i:(?:so|therefore|thus|hence|then|and|please|just|simply|clearly|finally|now|to|answer|step \d+|should|must)[,:]?\s+)*$"
)


def _by_others(before: str) -> bool:
    """Whether someone else chooses, as in "a fool would choose": the clause has a subject, and it is not the writer."""
    clause = re.split(r"[.!?,;:\n\x01-\x04]", before)[-1].lstrip()
    return not (_WRITER.search(clause) or _ASKED.fullmatch(clause))


_CONCLUDED = re.compile(
    r"(?i:(?<![a-z])(?:therefore|thus|hence|so|consequently|conclusion|finally|clearly|obviously|definitely|probably|"
    r"most likely|=>|∴)(?![a-z]))"
)
_MATCHES = re.compile(  # "this corresponds to option B"
    r"(?i:(?<!of )(?<![a-z])(?:this|that|it|which|(?:our|the|this) (?:answer|result|value))\s+"
    r"(?:correspond(?:s|ing)\s+to|match(?:es)?|agrees\s+with)\s+(?=(?:the\s+)?(?:answer\s+)?(?:option|choice)))"
)
_NEGATED_BEFORE = re.compile(
    r"(?i:\b(?:not|never|\w+n['’]?t|avoid|cannot|neither|nor|if|whether|why|unless|instead of|nicht|ne|no|não|не|wrong|mistake|"
    r"foolish|doubt\w*|unlikely|suppos\w+|assum\w+|tempting)"
    r"(?:\s+\w+){0,2}\s*[(\[]?$)|[不别勿]$"
)
_JOINED_BEFORE = re.compile(
    rf"(?<!{_LATIN})[A-Z](?!{_LATIN})[)\]]?\s*(?:[,/&、]|(?:{_OR})(?!{_LATIN})|和|或|与|と|과|와)\s*(?:option\s*)?[(\[]?$"
)
_NOT_THIS_BUT = re.compile(
    r"(?<![a-z])[Nn]ot\s+(?:[Oo]ption\s+)?[(\[]?[A-Z][)\]]?,?\s+but\s+(?:rather\s+)?(?=[(\[A-Zo])"
)
_INSTEAD = re.compile(  # "C, not D"
    rf"(?<!{_LATIN})([(\[]?[A-Z][)\]]?),?\s+(?:and\s+)?(?:not|rather than|instead of)\s+(?:[Oo]ption\s+)?[(\[]?[A-Z][)\]]?"
    rf"(?=[.!)\s]*(?:\n|\Z))"
)
_THING_BEFORE = re.compile(
    r"(?i:\b(?:vitamin|plan|point|figure|field|group|set|matrix|event|team|hepatitis|grade|type)\s+$)"
)
_OPINION_BEFORE = re.compile(rf"(?i:{_BY_OTHERS}\b(?: that)?(?: option| choice| answer)?\s*[(\[]?$)")
_IS_CORRECT = re.compile(
    rf"(?<!{_LATIN})[(\[]?(?P<letter>[A-Z])[)\]]?(?!{_LATIN})(?:\s+alone)?\s{{0,3}}(?:"
    r"(?:is|must be|would be|should be|seems|appears|looks|sounds)\s+(?:to be\s+)?(?:(?:clearly|indeed|probably|(?:most )?likely|"
    r"therefore|thus|definitely|"
    r"also|the|most|only|our|my|single|final)\s+)*(?:correct|right|best|answer|accurate|appropriate|solution|true)"
    r"(?![a-z]|\s+(?:only\s+)?if\b|,? but [(\[]?[A-Z][)\]]? (?:is|looks|seems|sounds|fits) better\b)|"
    r"ist\s+(?:die\s+)?(?:richtig|korrekt|antwort)|est\s+(?:la\s+|le\s+)?(?:bonne|correct|juste|exact|réponse)|"
    r"es\s+(?:la\s+)?(?:opción\s+|respuesta\s+)?correcta|è\s+(?:la\s+)?(?:risposta\s+|opzione\s+)?(?:corrett|giust|esatt)|"
    r"(?:é|está)\s+(?:a\s+)?(?:resposta\s+|alternativa\s+)?(?:corret|cert)|[-–—]?\s*(?:это\s+)?(?:правильн|верн)|"
    r"(?:选项|選項|项|項)?(?:是|为|為)?(?:最)?(?:正确|正確)|(?:が|は)(?:正解|正しい)|(?:가|이)\s?(?:정답|맞)|は?です)"
)


def _lines(text: str, options: Mapping[str, str], texts: Mapping[str, list[str]]) -> Iterator[Statement]:
    """Yields what a first and a last line say that are one letter, or begin with one: `C`, `(c)`, `C. the third option`."""
    lines = [line.strip(" #>-•→⇒∴✅✓✔\t") for line in text.strip().split("\n") if line.strip(" #>-•→⇒∴✅✓✔\t\r")]
    if not lines:
        return
    whole = text.strip()
    if _WHOLE_REPLY.fullmatch(whole):
        yield Statement(FINAL, len(text), whole.strip(" \n()[].")[-1].upper())
        return
    if (letter := _option(whole, texts)) is not None:
        yield Statement(FINAL, len(text), letter)
        return
    for line, end in ((lines[-1], len(text)), (lines[0], 0)):
        if only := _ONLY_LETTER.fullmatch(line):
            yield Statement(FINAL if end else LABELLED_LINE, end, (only[1] or only[2]).upper())
        elif (beside := _BESIDE.match(line)) and _option(line[beside.end() :], texts) == beside[1]:
            yield Statement(LABELLED_LINE, end, beside[1])
        elif labelled := _LABELLED.match(line + " "):
            letter, rest = next(filter(None, labelled.groups())).upper(), line[labelled.end() - 1 :]
            said = _normal(rest)
            if labelled[3] and not (said and said == _normal(options.get(letter, ""))):
                continue
            others = {label[1] for label in _LABEL.finditer(text)} - {letter}
            if not others and not _SECOND.match(rest) and not _DENIED.match(rest) and not _REMARK.match(rest):
                yield Statement(LABELLED_LINE, end, letter)


_LABEL_WORD = (
    r"(?:(?i:option|choice|letter|opción|opzione|opção|alternativa|letra|lettre|lettera|вариант|选项|選項|選択肢|보기)"
    r"\s?)?"
)
_WHOLE_REPLY = re.compile(rf"{_LABEL_WORD}[\s(\[]*[a-zA-Z][\s)\].]*")
_ONLY_LETTER = re.compile(rf"{_LABEL_WORD}(?:[(\[]\s?([A-Za-z])\s?[)\]]|([A-Z]))\s?[.。!)]?")
_BESIDE = re.compile(r"[(\[]?([A-Z])[)\]]?\s*[-–—]?\s+")  # "C - the third option"
_LABELLED = re.compile(
    rf"{_LABEL_WORD}(?:[(\[]([A-Z])[)\]]\s?[.:]?\s|([A-Z])\s?(?:[.:)]\s|,?\s(?=(?i:because|since)\s)|\((?=[^()]*\)\.?\s*$))|"
    r"([a-z])[.:)]\s)"
)
_LABEL = re.compile(rf"^\s{{0,5}}{_LABEL_WORD}[(\[]?([A-Z])[)\]]?[.:)\]]", re.MULTILINE)
_REMARK = re.compile(  # "(A) is too small" speaks about an option and does not choose it
    r"\s*(?:is|was|are|has|does|do|can|could|would|will|may|might|seems|looks|gives|says|states|contradicts|fails|confuses)\b"
)
