"""Judges responses by a verifier of the user's own, in a process that can be killed when it hangs.

This file is a script that `tasks.workers` runs: its arguments are this process's import path as JSON, and the verifier's place;
it reads lines `[problem, response]` in JSON and writes a verdict for each, as JSON.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def main() -> None:
    path, place = sys.argv[1:]
    sys.path[:] = json.loads(path)
    from amrsd_jax.problems import Problem
    from amrsd_jax.tasks.verifiers import find

    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what the verifier prints must not be read as an answer
    verify = find(place)[1]
    out.write(b"ready\n")
    for line in sys.stdin.buffer:
        fields, response = json.loads(line)
        fields["messages"] = tuple(map(tuple, fields["messages"]))
        verdict = dataclasses.asdict(judge(place, verify, Problem(**fields), response))
        out.write(json.dumps(verdict).encode() + b"\n")


def judge(place: str, verify: Callable, problem: Any, response: str) -> Any:
    """Returns the complete verdict of a user's function; reward 0 and a message that names it if it raises."""
    from amrsd_jax.problems import Verdict

    try:
        return complete(verify(problem, response))
    except (Exception, SystemExit) as error:
        return Verdict(0.0, f"the verifier {place} raised {type(error).__name__}: {error}", None, False)


def complete(verdict: Any) -> Any:
    """Returns a user's result as a verdict with the declared types; raises if it is none, or its reward is not finite."""
    from amrsd_jax.problems import Verdict

    if not isinstance(verdict, Verdict):
        reward = float(verdict)
        verdict = Verdict(reward, "correct" if reward >= 1 else "wrong", None, True)
    reward = float(verdict.reward)
    if not abs(reward) < 1e30:  # in float32 it must be finite, else no gradient of the step would be
        raise ValueError(f"reward = {reward}; expected a finite number")
    return Verdict(
        reward,
        str(verdict.message),
        None if verdict.parsed is None else str(verdict.parsed),
        bool(verdict.format_ok),
        {str(name): float(score) for name, score in verdict.scores.items()},
        {str(name): (int(start), int(end)) for name, (start, end) in verdict.spans.items()},
    )


if __name__ == "__main__":
    main()
