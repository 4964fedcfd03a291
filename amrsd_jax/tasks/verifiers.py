"""Verifiers of rows: one for each family of tasks, or a function of the user's own."""

import dataclasses
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from amrsd_jax.names import nearest
from amrsd_jax.problems import Problem, Verdict
from amrsd_jax.tasks import choice, tools
from amrsd_jax.tasks.mathematics import verify_mathematics


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
      spans, scores: names of the verdicts' spans and scores that become `Rollouts.extras`.
    """

    verify: Callable[[Problem, str], Verdict]
    gold_response: Callable[[Problem], str] | None = None
    fault: Callable[[Problem], str] = _no_fault
    spans: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()


def _unmatchable_option(problem: Problem) -> str:
    if problem.answer not in (labels := choice.option_labels(problem.question)):
        return f"answer {problem.answer!r}: expected one of the row's options {', '.join(labels)}"
    return ""


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
            problem.answer, response, choice.option_labels(problem.question)
        ),
        lambda problem: choice.in_form(problem.answer),
        _unmatchable_option,
        scores=choice.SCORES,
    ),
    "tools": Verifier(
        lambda problem, response: tools.verify_tools(problem.answer, response, tools.documented(problem.question)),
        lambda problem: tools.in_form(problem.answer),
        _unmatchable_calls,
        scores=tools.SCORES,
    ),
}


def load(place: str) -> Verifier:
    """Returns the verifier at `module:function` or `file.py:function`.

    The function takes (problem, response) and returns a verdict, or the reward as a number. If it raises, or returns something
    else or a reward that is not finite, the reward is 0 and the message says so. The module may also define
    `gold_response(problem)`, and SPANS and SCORES, tuples of names.

    Raises:
      ValueError: there is no such module, file or function, or the module raises; names it.
    """
    name, _, function = place.rpartition(":")
    if not name or not function:
        raise ValueError(f"task.args.verifier = {place!r}: expected module:function or file.py:function")
    module = _module(name, place)
    if not callable(verify := getattr(module, function, None)):
        functions = [
            key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
        ]
        raise ValueError(f"task.args.verifier = {place!r}: no function {function!r}; {nearest(function, functions)}")
    names = {field: _names(module, field.upper(), place) for field in ("spans", "scores")}
    return Verifier(_guarded(verify), getattr(module, "gold_response", None), **names)


def _names(module: ModuleType, field: str, place: str) -> tuple[str, ...]:
    names = getattr(module, field, ())
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"task.args.verifier = {place!r}: {field} = {names!r}; expected a tuple of names")
    return tuple(names)


def _guarded(verify: Callable[[Problem, str], Verdict | float]) -> Callable[[Problem, str], Verdict]:
    """Returns a user's function as one that always returns a complete verdict: a response must not end a run."""

    def guarded(problem: Problem, response: str) -> Verdict:
        try:
            return _complete(verify(problem, response))
        except (Exception, SystemExit) as error:
            return Verdict(0.0, f"the verifier raised {type(error).__name__}: {error}", None, False)

    return guarded


def _complete(verdict: Any) -> Verdict:
    """Returns a user's result as a verdict with the declared types; raises if it is none, or its reward is not finite."""
    if not isinstance(verdict, Verdict):
        reward = float(verdict)
        verdict = Verdict(reward, "correct" if reward >= 1 else "wrong", None, True)
    reward = float(verdict.reward)
    if not math.isfinite(reward):  # would make every gradient of the step so
        raise ValueError(f"reward = {reward}; expected a finite number")
    return Verdict(
        reward,
        str(verdict.message),
        None if verdict.parsed is None else str(verdict.parsed),
        bool(verdict.format_ok),
        {name: float(score) for name, score in verdict.scores.items()},
        {name: (int(start), int(end)) for name, (start, end) in verdict.spans.items()},
    )


def _module(name: str, place: str) -> ModuleType:
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = str(Path(name).resolve())
        spec = importlib.util.spec_from_file_location(path, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path] = module  # dataclasses and pickle look there; as a path, its name hides no other module
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:  # whatever a user's own module raises
        raise ValueError(f"task.args.verifier = {place!r}: {type(error).__name__}: {error}") from error
