"""Tasks from the rows of a data set: the config names the columns and, if it is the user's own, the verifier."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from decimal import Decimal
from typing import Any

from amrsd_jax import rng
from amrsd_jax.names import nearest
from amrsd_jax.records import Problem, Verdict
from amrsd_jax.tasks import choice, sources, verifiers
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.verifiers import Verifier

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class RowTask(Task):
    """A task made of rows. "train" is shuffled anew in each epoch, from the seed; other splits keep the order of the file.

    Attributes:
      train, test: URIs of the rows, see `sources`; "" for none.
      folder: folder or web address of `train` and `test` where they are relative; "" is the working directory.
      question, answer, reference, options: columns, or values inside them such as `prompt.0.content`; `a|b` is the first of
        the two that a row has. A question that is a list of chat messages becomes the prompt as it is, without a template; the
        last one must be the user's. A list of answers is joined by commas; of a choice, the answer is a letter, the text or the
        index of an option (`choice.gold_letter`). `reference` is a worked solution; `options` are appended to the question as
        lines `A: ...` (`choice.read_options`); "" for none.
      answer_after: a mark such as "####" for GSM8K: in the answer's column, the gold answer follows the last mark, and the
        reference solution precedes it; "" takes the whole column as the answer.
      unanswered: treatment of a row without an answer, or with one that no response can match: "refuse" raises an error,
        "skip" leaves the row out and lists it in the data report.
      validation: share of train that is held out, by a hash of the question, so that a row's split depends neither on
        other rows nor on the seed.
      verifier: `module:function` or `file.py:function` of a verifier of the user's own, see `verifiers.load`; "" takes the
        family's.
      seed: seed of the order.
      family: "mathematics", "choice", "tools" or "code"; selects prompt templates and verifier.
    """

    train: str = ""
    test: str = ""
    folder: str = ""
    question: str = "question"
    answer: str = "answer"
    answer_after: str = ""
    reference: str = ""
    options: str = ""
    unanswered: str = "refuse"
    validation: float = 0.0
    verifier: str = ""
    seed: int = 0
    family: str = "mathematics"

    def __post_init__(self):
        if self.unanswered not in ("refuse", "skip"):
            expected = nearest(self.unanswered, ("refuse", "skip"))
            raise ValueError(f"task.args.unanswered = {self.unanswered!r}: {expected}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"task.args.validation = {self.validation}: expected a share in [0, 1)")
        if not sources.names_split(self.test):
            raise ValueError(f"task.args.test = {self.test!r}: names no split, which means train; expected ?split=test")
        _ = self.judge  # raises if there is no such verifier

    def problem(self, split: str, index: int) -> Problem:
        rows = self.rows(split)
        epoch, place = divmod(index, len(rows))
        if split == "train":
            place = int(_order(self.seed, epoch, len(rows))[place])
        return rows[place]

    def size(self, split: str) -> int | None:
        return len(self.rows(split))

    @property
    def judge(self) -> Verifier:
        """The verifier of these rows."""
        return _judge(self.verifier, self.family)

    def verify(self, problem: Problem, response: str) -> Verdict:
        return self.judge.verify(problem, response)

    @property
    def spans(self) -> tuple[str, ...]:
        return self.judge.spans

    @property
    def scores(self) -> tuple[str, ...]:
        return self.judge.scores

    def states_answer(self, problem: Problem, text: str) -> bool:
        return verifiers.FAMILIES[self.family].states(problem, text)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines of the data report on how answers are verified."""
        return ()

    def gold_response(self, problem: Problem) -> str | None:
        """Returns the gold answer in the form that the prompt asks for; None where the verifier does not say."""
        return self.judge.gold_response and self.judge.gold_response(problem)

    def check(self) -> None:
        """Raises ValueError, naming the row, for a gold answer that no response could match."""
        for split in SPLITS:
            for problem in self.rows(split):
                if fault := self.judge.fault(problem):
                    source = sources.under(self.folder, self.test if split == "test" else self.train)
                    raise ValueError(f"{source}, {problem.id}: {fault}")

    def rows(self, split: str) -> tuple[Problem, ...]:
        """Returns all problems of a split, in file order."""
        if split == "test":
            return self._read(self.test)[0]
        return _side(self._read(self.train)[0], self.validation, split == "validation")

    def skipped(self, split: str) -> tuple[str, ...]:
        """Returns the ids of skipped rows of the split's file; train and validation share one."""
        return self._read(self.test if split == "test" else self.train)[1]

    def _read(self, uri: str):
        if not uri:
            return (), ()
        lettered = self.family == "choice" and not self.verifier
        columns = (self.question, self.answer, self.answer_after, self.reference, self.options, lettered)
        if self.unanswered == "refuse":
            return read_rows(sources.under(self.folder, uri), *columns)
        return _matchable(self.judge, sources.under(self.folder, uri), *columns)


def held_out(question: str, share: float) -> bool:
    """Whether a question is held out for validation: the first 8 bytes of its SHA-256, as a fraction, are below `share`."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") < share * 2**64


@functools.lru_cache
def _judge(verifier: str, family: str) -> Verifier:
    return verifiers.load(verifier) if verifier else verifiers.FAMILIES[family]


@functools.lru_cache
def _matchable(judge: Verifier, *source: Any) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """As `read_rows`, but also skips rows whose answer no response can match."""
    problems, skipped = read_rows(*source, skip_unanswered=True)
    kept = tuple(problem for problem in problems if not judge.fault(problem))
    if not kept:
        raise ValueError(f"{source[0]}: no row has an answer that a response can match")
    return kept, skipped + tuple(problem.id for problem in problems if judge.fault(problem))


@functools.lru_cache(maxsize=16)
def _side(problems: tuple[Problem, ...], share: float, validation: bool) -> tuple[Problem, ...]:
    """Returns the problems inside or outside of the validation split."""
    return tuple(problem for problem in problems if held_out(problem.question, share) == validation)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int):
    return rng.host(seed, "row order", epoch).permutation(size)


@functools.lru_cache
def read_rows(
    uri: str,
    question: str,
    answer: str,
    answer_after: str,
    reference: str = "",
    options: str = "",
    lettered: bool = False,
    skip_unanswered: bool = False,
) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Reads a source; returns its problems and the ids of rows that were skipped because they have no answer.

    Args:
      uri: see `sources`; the other arguments are attributes of `RowTask`.
      lettered: whether the answer becomes the letter of one of the row's options; it stays as it is if it names none.
      skip_unanswered: whether rows without an answer are skipped.

    Raises:
      ValueError: a row is not an object, a column is missing or neither text nor a number, or there is no answer (behind its
        mark, if one is given). The message names source, row, column and value.
    """
    problems, skipped = [], []
    for where, number, row in sources.rows(uri):
        name = f"{sources.label(uri)}-{number}"
        raw = value_of(row, answer, where)
        if skip_unanswered and (raw in (None, "", []) or raw != raw):
            skipped.append(name)
            continue
        asked = value_of(row, question, where)
        messages = _messages(asked, question, where)
        text = messages[-1][1] if messages else text_of(asked, question, where)
        gold, solution = text_of(raw, answer, where), None
        if answer_after:
            whole = gold
            solution, mark, gold = whole.rpartition(answer_after)
            if not mark or not gold.strip():
                raise ValueError(
                    f"{where}: column {answer!r} ends with {whole[-60:]!r}; expected an answer after {answer_after!r}"
                )
        if reference:
            solution = text_of(value_of(row, reference, where), reference, where)
        known = choice.listed_options(text)
        if options:
            known = _options(value_of(row, options, where), options, where)
            lines = (f"{letter}: {option}" for letter, option in choice.lettered(known).items())
            text = "\n".join((f"{text}\n", *lines))
            messages = messages and (*messages[:-1], (messages[-1][0], text))
        if lettered:
            with contextlib.suppress(ValueError):  # `RowTask.check` tells, or the row is skipped
                known = known or choice.question_options(text)
                label = choice.gold_letter(raw if isinstance(raw, int | float) else gold, known)
                gold = choice.LETTERS[list(known).index(label)]
        problems.append(Problem(name, text, gold.strip(), solution and solution.strip(), row, messages))
    if not problems:
        raise ValueError(f"{uri}: no rows")
    return tuple(problems), tuple(skipped)


def value_of(row: sources.Row, column: str, where: str) -> Any:
    """Returns a column, see `sources.first_column`; raises ValueError, with the nearest one, if the row has none."""
    try:
        return sources.first_column(row, column)
    except KeyError:
        raise ValueError(f"{where}: no column {column!r}; {nearest(column, row)}") from None


def _messages(value: Any, column: str, where: str) -> tuple[tuple[str, str], ...]:
    """Returns (role, content) of each message of a conversation that ends with the user's; () for another value."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return ()
    messages = []
    for number, item in enumerate(value):
        place = f"{column}.{number}"
        role, content = item.get("role"), item.get("content")
        if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            content = "".join(part.get("text") or "" for part in content)
        if not isinstance(role, str) or not isinstance(content, str):
            raise ValueError(
                f"{where}: column {place!r} is {_shown(item)}; expected a message with role and content, both text"
            )
        if unused := sorted(key for key in item if key not in ("role", "content") and item[key] not in (None, [], "")):
            raise ValueError(
                f"{where}: column {place!r} has {unused[0]!r}; expected a message with role and content alone"
            )
        messages.append((role, _encodable(content, f"{place}.content", where)))
    if messages[-1][0] != "user" or not messages[-1][1].strip():
        raise ValueError(f"{where}: column {column!r} ends with {_shown(value[-1])}; expected a message of the user")
    return tuple(messages)


def text_of(value: Any, column: str, where: str) -> str:
    """Returns a value of a row as text; raises ValueError, which names row and column, if it is none."""
    if isinstance(value, list) and value and all(map(_is_text, value)):
        return _encodable(", ".join(map(str, value)), column, where)
    if isinstance(value, list | dict) and value and all(isinstance(item, dict) for item in value):
        return _encodable(json.dumps(value, ensure_ascii=False, default=str), column, where)
    if not _is_text(value):
        raise ValueError(f"{where}: column {column!r} is {_shown(value)}; expected text or a number")
    return _encodable(str(value), column, where)


def _is_text(value: Any) -> bool:
    if isinstance(value, bool) or (isinstance(value, float | Decimal) and not math.isfinite(value)):
        return False
    return isinstance(value, str | int | float | Decimal) and bool(str(value).strip())


def _encodable(text: str, column: str, where: str) -> str:
    """Returns a text; raises if it has a lone surrogate, which no tokenizer and no file of rollouts can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        place = text[max(0, error.start - 20) : error.end + 20]
        raise ValueError(f"{where}: column {column!r} has half of a surrogate pair, as in {place!r}") from error
    return text


def _options(value: Any, column: str, where: str) -> dict[str, str]:
    try:
        options = choice.read_options(value)
    except ValueError as error:
        raise ValueError(f"{where}: column {column!r} is {error}") from error
    return {label: _encodable(text, column, where) for label, text in options.items()}


def _shown(value: Any) -> str:
    return repr(value)[:200]
