"""Problems from a data set's rows, columns named in the config, judged by the verifier of their family."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from typing import Any

from amrsd_jax import rng
from amrsd_jax.tasks import choice, sources, tools
from amrsd_jax.tasks.base import Problem, Verdict
from amrsd_jax.tasks.mathematics import verify_mathematics

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class RowTask:
    """Rows of `train` in an order that is a function of (seed, epoch); rows of `validation` and `test` in file order.

    Attributes:
      train, test: where rows come from, see `sources`; "" for no such rows.
      folder: a folder or web address that `train` and `test` are in, where they are relative; "" is the working directory.
      question, answer, reference, options: columns, or places inside them such as `prompt.0.content`; `a|b` is the first of
        the two that a row has. A list of answers is one answer with commas. `reference` is a worked solution, `options` a
        list of texts that follows the question as lines `A: ...`; "" for none.
      answer_after: the gold answer is what follows the last of these marks in its column ("####" for GSM8K), and what
        stands before it is the reference solution; "" takes the whole column.
      unanswered: what becomes of a row without an answer, or with one that no response can match: "refuse" it, with an
        error, or "skip" it, and list it in the report.
      validation: share of train held out, by a hash of the question: a row's side never depends on other rows or the seed.
      seed: of the order.
      family: "mathematics", "choice" or "tools": verifier and prompt templates.
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
    seed: int = 0
    family: str = "mathematics"

    def __post_init__(self):
        if self.unanswered not in ("refuse", "skip"):
            raise ValueError(f"task.args.unanswered = {self.unanswered!r}: expected refuse or skip")
        if not 0 <= self.validation < 1:
            raise ValueError(f"task.args.validation = {self.validation}: expected a share in [0, 1)")

    def problem(self, split: str, index: int) -> Problem:
        rows = self.rows(split)
        epoch, place = divmod(index, len(rows))
        if split == "train":
            place = int(_order(self.seed, epoch, len(rows))[place])
        return rows[place]

    def size(self, split: str) -> int | None:
        return len(self.rows(split))

    def verify(self, problem: Problem, response: str) -> Verdict:
        if self.family == "choice":
            return choice.verify_choice(problem.answer, response, choice.option_labels(problem.question))
        if self.family == "tools":
            return tools.verify_tools(problem.answer, response, tools.documented(problem.question))
        return verify_mathematics(problem.answer, response)

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        return None

    def gold_response(self, problem: Problem) -> str:
        """The gold answer in the form that is asked for."""
        if self.family == "choice":
            return choice.in_form(problem.answer)
        return tools.in_form(problem.answer) if self.family == "tools" else rf"\boxed{{{problem.answer}}}"

    def check(self) -> None:
        """Raises ValueError, naming the row, for a gold answer that no response could match."""
        for problem in (*self.rows("train"), *self.rows("validation"), *self.rows("test")):
            if fault := _unmatchable(problem, self.family):
                raise ValueError(f"{problem.id}: {fault}")

    def rows(self, split: str) -> tuple[Problem, ...]:
        """All problems of a split, in file order."""
        if split == "test":
            return self._read(self.test)[0]
        return _side(self._read(self.train)[0], self.validation, split == "validation")

    def skipped(self, split: str) -> tuple[str, ...]:
        """Ids of the rows without an answer; those of train's file for train and validation."""
        return self._read(self.test if split == "test" else self.train)[1]

    def _read(self, uri: str):
        if not uri:
            return (), ()
        columns = (self.question, self.answer, self.answer_after, self.reference, self.options)
        if self.unanswered == "refuse":
            return read_rows(sources.under(self.folder, uri), *columns)
        return _matchable(self.family, sources.under(self.folder, uri), *columns)


def held_out(question: str, share: float) -> bool:
    """Whether a question is in the validation split: the first 8 bytes of its SHA-256, as a fraction, are below the share."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") < share * 2**64


def _unmatchable(problem: Problem, family: str) -> str:
    """Why no response could match a row's gold answer; "" if one could."""
    if family == "choice" and problem.answer not in (labels := choice.option_labels(problem.question)):
        return f"answer {problem.answer!r} is none of its options {', '.join(labels)}"
    if family == "tools":
        try:
            tools.gold_calls(problem.answer)
        except ValueError as error:
            return str(error)
    return ""


@functools.lru_cache
def _matchable(family: str, *source: str) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """As `read_rows`, with rows that no response could match among the skipped."""
    problems, skipped = read_rows(*source, skip_unanswered=True)
    fine = tuple(problem for problem in problems if not _unmatchable(problem, family))
    if not fine:
        raise ValueError(f"{source[0]}: no row has an answer that a response could match")
    return fine, skipped + tuple(problem.id for problem in problems if _unmatchable(problem, family))


@functools.lru_cache(maxsize=16)
def _side(problems: tuple[Problem, ...], share: float, validation: bool) -> tuple[Problem, ...]:
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
    skip_unanswered: bool = False,
) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Reads a source; returns its problems and the ids of rows that were skipped because they have no answer.

    Raises:
      ValueError: naming source, row and field, for a row that is not an object, a column that is missing or not text or a
        number, or no answer in it (after its mark, if one is asked for).
    """
    problems, skipped = [], []
    for where, number, row in sources.rows(uri):
        name = f"{sources.label(uri)}-{number}"
        if skip_unanswered and _column(row, answer, where) in (None, "", []):
            skipped.append(name)
            continue
        asked, gold = (_text(_column(row, column, where), column, where) for column in (question, answer))
        solution = None
        if answer_after:
            whole = gold
            solution, mark, gold = whole.rpartition(answer_after)
            if not mark or not gold.strip():
                raise ValueError(
                    f"{where}: column {answer!r} has no answer after {answer_after!r}; it ends {whole[-60:]!r}"
                )
        if reference:
            solution = _text(_column(row, reference, where), reference, where)
        if options:
            asked = f"{asked}\n\n{_listed(_column(row, options, where), options, where)}"
        problems.append(Problem(name, asked, gold.strip(), solution and solution.strip()))
    if not problems:
        raise ValueError(f"{uri}: no rows")
    return tuple(problems), tuple(skipped)


def _column(row: sources.Row, column: str, where: str) -> Any:
    for alternative in column.split("|"):
        with contextlib.suppress(KeyError):
            return sources.column(row, alternative)
    raise ValueError(f"{where}: no column {column!r}; it has {', '.join(row)}")


def _text(value: Any, column: str, where: str) -> str:
    if isinstance(value, list) and value and all(map(_is_text, value)):
        return ", ".join(map(str, value))
    if isinstance(value, list | dict) and value and all(isinstance(item, dict) for item in value):
        return json.dumps(value)
    if not _is_text(value):
        raise ValueError(f"{where}: column {column!r} is {value!r}; expected text or a number")
    return str(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and bool(str(value).strip())


def _listed(value: Any, column: str, where: str) -> str:
    if not isinstance(value, list) or not 2 <= len(value) <= len(choice.LETTERS) or not all(map(_is_text, value)):
        raise ValueError(
            f"{where}: column {column!r} is {value!r}; expected a list of 2 to {len(choice.LETTERS)} options"
        )
    return "\n".join(f"{letter}: {text}" for letter, text in zip(choice.LETTERS, value, strict=False))
