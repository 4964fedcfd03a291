"""The code task: rows with tests, for which the model writes a Python program."""

import dataclasses
import functools

from amrsd_jax.names import nearest
from amrsd_jax.problems import Problem
from amrsd_jax.tasks import code, code_tests, rows, sandbox, sources
from amrsd_jax.tasks.verifiers import Verifier


@dataclasses.dataclass(frozen=True)
class CodeTask(rows.RowTask):
    """Rows with tests. `answer` and `reference` are a right program; `answer = ""` where the rows have none.

    Columns may be missing in a row, but for those of question and tests; `a|b` is the first of the two that it has.

    Attributes:
      tests: column of the tests, in a form of `code_tests`.
      setup: column of source that assertions run after, as MBPP has it.
      function: column of the name of the function under test.
      starter: column of the beginning of the program, which the question shows. Where it is complete Python, as HumanEval's, a
        reply may be the rest of it.
      examples: number of tests that the question shows.
      seconds: processor seconds of one process of a program, see `sandbox.Limits`.
      memory_gib: address space of one process.
      partial: whether the reward is the share of tests passed; else it is 1 if all are, and tests end at the first failure.
      show_tests: what the verdict's message says of the first test that failed: "all"; "inputs", without what was expected; or
        "none", also without input and output.
      unsafe: whether programs may run as this user where there is no sandbox.
    """

    answer: str = "code|canonical_solution|solution|answer"
    question: str = "text|prompt|question_content|question"
    tests: str = code.COLUMNS[0]
    setup: str = code.COLUMNS[1]
    function: str = code.COLUMNS[2]
    starter: str = code.COLUMNS[3]
    examples: int = 0
    seconds: int = 6
    memory_gib: float = 1.0
    partial: bool = True
    show_tests: str = "all"
    unsafe: bool = False
    family: str = "code"

    def __post_init__(self):
        if self.show_tests not in code.SHOWN:
            raise ValueError(f"task.args.show_tests = {self.show_tests!r}: {nearest(self.show_tests, code.SHOWN)}")
        for name, least, most in (("examples", 0, 100), ("seconds", 1, 600), ("memory_gib", 0.1, 1024)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"task.args.{name} = {getattr(self, name)}: expected {least} to {most}")
        for name in ("answer_after", "options"):
            if getattr(self, name):
                raise ValueError(f"task.args.{name} = {getattr(self, name)!r}: programs have none; expected ''")
        super().__post_init__()

    @property
    def judge(self) -> Verifier:
        if self.verifier:
            return super().judge
        limits = sandbox.Limits(self.seconds, int(self.memory_gib * 2**30), partial=self.partial)
        return _verifier(limits, self.columns, self.show_tests, self.unsafe, bool(self.answer))

    @property
    def columns(self) -> tuple[str, str, str, str]:
        """Columns of tests, setup, function and starter."""
        return self.tests, self.setup, self.function, self.starter

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.verifier else (f"programs run in {sandbox.choose(self.unsafe).description}",)

    def states_answer(self, problem: Problem, text: str) -> bool:
        return code.states_program(problem, text)

    def check(self) -> None:
        """Raises ValueError if there is no sandbox, or for a row whose tests cannot be read."""
        if not self.verifier:
            sandbox.choose(self.unsafe)
        super().check()

    def _read(self, uri: str):
        if not uri:
            return (), ()
        return read_rows(
            sources.under(self.folder, uri), self.question, self.answer, self.reference, self.columns, self.examples,
            self.unanswered == "skip",
        )  # fmt: skip


@functools.lru_cache
def read_rows(
    uri: str, question: str, answer: str, reference: str, columns: tuple[str, ...], examples: int, skip_faulty: bool
) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Reads a source; returns its problems, and the ids of rows that were skipped because their tests cannot be read.

    Raises:
      ValueError: a column is missing or no text, or tests that are shown cannot be read; names source, row and column.
    """
    problems, skipped = [], []
    for where, number, row in sources.rows(uri):
        name = f"{sources.label(uri)}-{number}"
        asked = rows.text_of(rows.value_of(row, question, where), question, where)
        gold, solution = (
            rows.text_of(rows.value_of(row, column, where), column, where) if column else ""
            for column in (answer, reference)
        )
        start = code.optional(row, columns[3])
        if start.strip() and start.strip() not in asked:
            asked = f"{asked.rstrip()}\n\nBegin with:\n```python\n{start.rstrip()}\n```"
        elif start.strip() == asked.strip():
            asked = f"Complete this function:\n```python\n{asked.rstrip()}\n```"
        if examples or skip_faulty:
            try:
                tests = "\n".join(code_tests.shown(code.suite(row, columns), examples))
            except ValueError as error:
                if not skip_faulty:
                    raise ValueError(f"{where}: {error}") from error
                skipped.append(name)
                continue
            asked += f"\n\nYour program must pass these tests:\n```\n{tests}\n```" if examples else ""
        problems.append(Problem(name, asked, gold.replace("\r\n", "\n"), solution.strip() or None, row))
    if not problems:
        raise ValueError(f"{uri}: no rows")
    return tuple(problems), tuple(skipped)


@functools.lru_cache
def _verifier(limits: sandbox.Limits, columns: tuple[str, ...], show: str, unsafe: bool, answered: bool) -> Verifier:
    return Verifier(
        lambda problem, response: code.verify_code(
            problem.row, _tests(problem, columns), response, columns, limits, show, unsafe
        ),
        code.in_form if answered else None,
        lambda problem: code.fault(problem, columns),
        code.states_program,
        scores=code.SCORES,
    )


@functools.lru_cache(maxsize=64)  # our choice: those of a row of LiveCodeBench have megabytes
def _tests(problem: Problem, columns: tuple[str, ...]) -> dict:
    return code.suite(problem.row, columns)
