"""The stream of training prompts: where it stands is one integer, so a resumed run continues it exactly."""

from collections.abc import Callable

from amrsd_jax.records import Prompts
from amrsd_jax.tasks.base import Problem, Task


def take(
    task: Task,
    split: str,
    position: int,
    count: int,
    *,
    encode: Callable[[Problem], list[int]],
    longest: int,
) -> tuple[Prompts, int, int]:
    """The next `count` problems whose prompt has at most `longest` tokens.

    Args:
      task, split: where they come from.
      position: index of the first problem to look at.
      count: how many; a finite split other than "train" may give fewer.
      encode: problem to prompt ids.
      longest: tokens; problems with longer prompts are passed over and counted.

    Returns:
      prompts, position after the last problem looked at, number passed over.

    Raises:
      ValueError: a thousand problems in a row, or a whole split, have prompts that are too long.
    """
    problems, tokens, start, size = [], [], position, task.size(split)
    end = None if split == "train" else size
    run = 0
    while len(problems) < count and (end is None or position < end):
        problem = task.problem(split, position)
        ids = encode(problem)
        position += 1
        if len(ids) > longest:
            run += 1
            if run >= min(size or 1000, 1000):
                raise ValueError(
                    f"{run} {split} prompts in a row are longer than rollout.prompt_length = {longest} tokens; "
                    f"the last, {problem.id}, has {len(ids)}"
                )
            continue
        run = 0
        problems.append(problem)
        tokens.append(tuple(ids))
    skipped = position - start - len(problems)
    return Prompts(tuple(problems), tuple(tokens)), position, skipped
