"""Problems from a local JSON-lines file, columns named in the config; answers judged by the mathematics verifier."""

import dataclasses
import functools
import json
from pathlib import Path

from amrsd_jax import rng
from amrsd_jax.tasks.base import Problem, Verdict
from amrsd_jax.tasks.mathematics import verify_mathematics


@dataclasses.dataclass(frozen=True)
class RowTask:
    """Rows of `train` in an order that is a function of (seed, epoch); rows of `test` in file order.

    Attributes:
      train, test: JSON-lines files.
      question, answer: columns.
      answer_after: the gold answer is what follows the last of these marks in its column ("####" for GSM8K), and what
        stands before it is the reference solution; "" takes the whole column.
      seed: of the order.
    """

    train: str = ""
    test: str = ""
    question: str = "question"
    answer: str = "answer"
    answer_after: str = ""
    seed: int = 0
    family: str = "mathematics"

    def __post_init__(self):
        for field in ("train", "test"):
            if not getattr(self, field):
                raise ValueError(f"task.args.{field} = '': expected a JSON-lines file")

    def problem(self, split: str, index: int) -> Problem:
        rows = self._rows(split)
        epoch, place = divmod(index, len(rows))
        if split == "train":
            place = int(_order(self.seed, epoch, len(rows))[place])
        return rows[place]

    def size(self, split: str) -> int | None:
        return len(self._rows(split))

    def verify(self, problem: Problem, response: str) -> Verdict:
        return verify_mathematics(problem.answer, response)

    def first_error(self, problem: Problem, response: str) -> tuple[int, int] | None:
        return None

    def _rows(self, split: str) -> tuple[Problem, ...]:
        path = {"train": self.train, "test": self.test}[split]
        return read_rows(path, self.question, self.answer, self.answer_after)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int):
    return rng.host(seed, "row order", epoch).permutation(size)


@functools.lru_cache
def read_rows(path: str, question: str, answer: str, answer_after: str) -> tuple[Problem, ...]:
    """Reads a JSON-lines file.

    Raises:
      ValueError: naming file, line and field, for a line that is not a JSON object, a column that is missing or not
        text or a number, or no answer in it (after its mark, if one is asked for).
    """
    problems = []
    with Path(path).expanduser().open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from error
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error.msg} at character {error.colno})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where}: {type(row).__name__}; expected one JSON object a line")
            asked, gold = (_text(row, column, where) for column in (question, answer))
            reference = None
            if answer_after:
                whole = gold
                reference, mark, gold = whole.rpartition(answer_after)
                if not mark or not gold.strip():
                    raise ValueError(
                        f"{where}: column {answer!r} has no answer after {answer_after!r}; it ends {whole[-60:]!r}"
                    )
            problems.append(
                Problem(f"{Path(path).stem}-{number}", asked, gold.strip(), reference and reference.strip())
            )
    if not problems:
        raise ValueError(f"{path}: no rows")
    return tuple(problems)


def _text(row: dict, column: str, where: str) -> str:
    if column not in row:
        raise ValueError(f"{where}: no column {column!r}; it has {', '.join(row)}")
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise ValueError(f"{where}: column {column!r} is {value!r}; expected text or a number")
    return str(value)
