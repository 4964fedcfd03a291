"""Verifiers of rows: one for each family of tasks, or a function of the user's own."""

import dataclasses
import functools
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from amrsd_jax import own_code
from amrsd_jax.problems import Problem, Verdict
from amrsd_jax.tasks import choice, leaks, own_verifier, tools
from amrsd_jax.tasks.mathematics import verify_mathematics
from amrsd_jax.tasks.workers import Pool

SECONDS = 20.0  # wall time of one judgement by a user's own verifier, our choice


def _no_fault(problem: Problem) -> str:
    return ""


@dataclasses.dataclass(frozen=True)
class Verifier:
    """Judges responses to rows.

    Attributes:
      verify: (problem, response) -> verdict. It must not raise, whatever the response holds.
      gold_response: problem -> its gold answer in the form that the prompt asks for; None where that is not known: the
        data report then has no self-test.
      fault: problem -> why no response can match its gold answer; "" if one can.
      states: (problem, text) -> whether the text states the gold answer.
      spans, scores: names of the verdicts' spans and scores that become `Rollouts.extras`.
    """

    verify: Callable[[Problem, str], Verdict]
    gold_response: Callable[[Problem], str] | None = None
    fault: Callable[[Problem], str] = _no_fault
    states: Callable[[Problem, str], bool] = lambda problem, text: leaks.states_answer(
        text, problem.answer, problem.question
    )
    spans: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()


def _unmatchable_option(problem: Problem) -> str:
    if problem.answer not in (options := choice.question_options(problem.question)):
        return f"answer {problem.answer!r}: expected one of the row's options {', '.join(options)}, or its index from 0"
    return ""


def _states_option(problem: Problem, text: str) -> bool:
    options = choice.question_options(problem.question)
    if problem.answer not in options:  # of a user's own verifier
        return leaks.states_answer(text, problem.answer)
    return leaks.states_letter(text, problem.answer, options)


def _unmatchable_calls(problem: Problem) -> str:
    try:
        tools.gold_calls(problem.answer)
    except ValueError as error:
        return str(error)
    return ""


FAMILIES = {
    "mathematics": Verifier(
        lambda problem, response: verify_mathematics(problem.answer, response),
        lambda problem: rf"\boxed{{{problem.answer}}}",
    ),
    "choice": Verifier(
        lambda problem, response: choice.verify_choice(
            problem.answer, response, choice.question_options(problem.question)
        ),
        lambda problem: choice.in_form(problem.answer),
        _unmatchable_option,
        _states_option,
        scores=choice.SCORES,
    ),
    "tools": Verifier(
        lambda problem, response: tools.verify_tools(problem.answer, response, tools.documented(problem.prompt_text)),
        lambda problem: tools.in_form(problem.answer),
        _unmatchable_calls,
        lambda problem, text: leaks.states_calls(text, problem.answer),
        scores=tools.SCORES,
    ),
}


def load(place: str) -> Verifier:
    """Returns the verifier at `module:function` or `file.py:function`.

    The function takes (problem, response) and returns a verdict, or the reward as a number. It runs in worker processes, which
    are killed after `SECONDS`, or the number of that name in the module. If it raises, hangs or ends its process, or returns
    something else or a reward that is not finite, the reward is 0 and the message names the verifier. The module may also define
    `gold_response(problem)`, and SPANS and SCORES, tuples of names.

    Raises:
      ValueError: there is no such module, file or function, or the module raises; names it.
    """
    module, _ = find(place)
    names = {field: _names(module, field.upper(), place) for field in ("spans", "scores")}
    seconds = getattr(module, "SECONDS", SECONDS)
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"task.args.verifier = {place!r}: SECONDS = {seconds!r}; expected a number above 0")
    return Verifier(_in_worker(place, seconds), getattr(module, "gold_response", None), **names)


def find(place: str) -> tuple[ModuleType, Callable]:
    """Returns the module and the function at `module:function` or `file.py:function`; raises as `load`."""
    return own_code.find("task.args.verifier", place, callable, "a function")


def _in_worker(place: str, seconds: float) -> Callable[[Problem, str], Verdict]:
    """Returns a verifier that runs the function at a place in a worker process and always gives a verdict by the deadline."""

    def verify(problem: Problem, response: str) -> Verdict:
        fields = {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}
        line = json.dumps([fields, response], default=str).encode()
        try:
            answer = _workers(place).ask(line, seconds=seconds)
        except RuntimeError as error:
            return Verdict(0.0, f"the verifier {place} did not start: {error}", None, False)
        if answer is None:
            message = f"the verifier timed out after {seconds:g} s, or ended its process: {place}"
            return Verdict(0.0, message, None, False)
        verdict = json.loads(answer)
        return Verdict(**verdict | {"spans": {name: tuple(span) for name, span in verdict["spans"].items()}})

    return verify


@functools.cache
def _workers(place: str) -> Pool:
    """Returns the processes that run a user's verifier, without accelerators: one per processor, up to 8 (our choice)."""
    script, path = Path(own_verifier.__file__), json.dumps([str(Path(folder).resolve()) for folder in sys.path])
    return Pool(script, min(os.cpu_count() or 1, 8), path, place, environment={"JAX_PLATFORMS": "cpu"})


def _names(module: ModuleType, field: str, place: str) -> tuple[str, ...]:
    names = getattr(module, field, ())
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"task.args.verifier = {place!r}: {field} = {names!r}; expected a tuple of names")
    return tuple(names)
