"""Selects the prompts of a step. Its only state is a position, one integer, so that a resumed run continues exactly."""

from collections.abc import Callable

from amrsd_jax.records import Problem, Prompts
from amrsd_jax.tasks.base import Task


def next_prompts(
    task: Task,
    split: str,
    position: int,
    count: int,
    *,
    encode: Callable[[Problem], list[int]],
    longest: int,
) -> tuple[Prompts, int, int]:
    """Returns the next `count` problems whose prompts have at most `longest` tokens.

    Args:
      task, split: source of the problems.
      position: index of the first problem to consider.
      count: number of problems; a finite split other than "train" may give fewer.
      encode: maps a problem to prompt ids.
      longest: limit in tokens; problems with longer prompts are skipped and counted.

    Returns:
      the prompts, the position after the last problem considered, and the number skipped.

    Raises:
      ValueError: all prompts of a split are too long, or 1,000 in a row of one that never ends.
    """
    problems, tokens, start, size = [], [], position, task.size(split)
    end = None if split == "train" else size
    # A row that fits may be the first of one epoch and the last of the next, with all others of both between them.
    most = 1000 if size is None else 2 * size - 1 if split == "train" else size
    consecutive = 0  # prompts that are too long
    while len(problems) < count and (end is None or position < end):
        problem = task.problem(split, position)
        ids = encode(problem)
        position += 1
        if len(ids) > longest:
            consecutive += 1
            if consecutive >= most:
                raise ValueError(
                    f"{consecutive} consecutive {split} prompts are longer than rollout.prompt_length = {longest} tokens; "
                    f"the last, {problem.id}, has {len(ids)}"
                )
            continue
        consecutive = 0
        problems.append(problem)
        tokens.append(tuple(ids))
    skipped = position - start - len(problems)
    return Prompts(tuple(problems), tuple(tokens)), position, skipped
