"""The embedded tasks' warm-up: supervised learning from documents of a demonstrator with a bad habit, e.g. forgotten carries.

Each kind of document teaches a skill: solving (with the habit), writing a reflection on an attempt, solving with a reflection
in view (the steps that it names are right, the others keep the habit), and if the config asks for it, solving with the answer
or a solution in view (all steps are right) or repairing an attempt as a critic. Reinforcement learning starts from there.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jax.sharding import Mesh

from amrsd_jax import rng
from amrsd_jax.config import WarmupConfig
from amrsd_jax.learning.state import init_params
from amrsd_jax.learning.supervised import Document, pack, supervise
from amrsd_jax.policy import Params, Policy
from amrsd_jax.policy.tokenizer import Message, Tokenizer, chat_ids
from amrsd_jax.records import Problem
from amrsd_jax.reflection.parse import TAGS
from amrsd_jax.reflection.prompts import Templates, fill
from amrsd_jax.sections import ConfigError
from amrsd_jax.tasks.chain import ChainTask


def documents(
    task: ChainTask,
    templates: Templates,
    generator: np.random.Generator,
    config: WarmupConfig,
) -> Iterator[tuple[list[Message], str]]:
    """Yields documents (messages, completion) without end, in the shares that the config names.

    A document that solves with a given text has the gold answer or a correct solution in view, with equal probability. A
    reflection in view has from 1 to `config.lines` lines of the solution, uniformly, in random order: a model learns better
    to look up a line among several than from one line, which is needed too rarely (our choice).
    """
    solve, reflect, given, trace, lines = config.solve, config.reflect, config.given, config.trace, config.lines
    while True:
        problem = task.training_problem(generator)
        attempt = task.attempt(problem, generator)
        kind = generator.random()
        if kind < solve:
            yield templates.question_prompt(problem.question), attempt
            continue
        verdict = task.verify(problem, attempt)
        step, line = task.reflect(problem, attempt, generator)
        if kind < solve + reflect:
            tag = TAGS[verdict.correct]
            sibling = task.solution(problem) if generator.random() < config.peer else None
            messages = templates.reflection_prompt(tag, problem.question, attempt, verdict.message, sibling, None)
            yield messages, f"<{tag}>{line}</{tag}>"
        elif kind < solve + reflect + given:
            yield (
                templates.teacher_prompt(problem.question, _given(task, templates, problem, generator)),
                task.solution(problem),
            )
        elif kind < solve + reflect + given + trace:
            yield templates.repair_prompt(problem.question, attempt, problem.answer), task.solution(problem)
        else:
            steps = [step] if lines == 1 else _several(task, problem, step, lines, generator)
            truth = task.solution(problem).split("\n")
            named = line if lines == 1 else "\n".join(truth[i] for i in steps)
            yield templates.teacher_prompt(problem.question, named), task.attempt(problem, generator, right=steps)


def _several(task: ChainTask, problem: Problem, step: int, lines: int, generator: np.random.Generator) -> list[int]:
    """Returns `step` and further pivotal steps, at most `lines` in all, in random order."""
    others = generator.permutation([i for i in task.pivotal_steps(problem) if i != step])
    return generator.permutation([step, *others[: generator.integers(lines)]]).tolist()


def _given(task: ChainTask, templates: Templates, problem: Problem, generator: np.random.Generator) -> str:
    """Returns a text with the gold answer or a solution (a peer's and the reference have one form)."""
    if generator.random() < 0.5:
        return fill(templates.given_answer, answer=problem.answer)
    return fill(templates.given_solution, solution=task.solution(problem))


def warm_up(
    policy: Policy,
    task: ChainTask,
    templates: Templates,
    tokenizer: Tokenizer,
    mesh: Mesh,
    config: WarmupConfig,
    *,
    seed: int,
    chunk: int,
    progress: Callable[[Iterable], Iterable] = lambda batches: batches,
    **template: object,
) -> tuple[Params, list[float]]:
    """Trains a fresh policy on the demonstrator's documents; returns its parameters and the losses (nats per token).

    Args:
      config: the number of documents, their kinds, and the optimiser's settings.
      seed: seed of parameters and documents.
      chunk: tokens of one device whose logits exist at one time.
      progress: wraps the iteration over batches, to show it.
      template: arguments of the chat template.

    Raises:
      ConfigError: a document is longer than a row, or see `supervise`.
    """
    packed = pack(_encoded(task, templates, tokenizer, config, seed, **template), config.row_length)
    return supervise(
        policy, init_params(policy, rng.key(seed, "init"), mesh), packed, mesh, place="warmup", rows=config.rows,
        learning_rate=config.learning_rate, b2=config.b2, generator=rng.host(seed, "warm-up order"), chunk=chunk,
        progress=progress,
    )  # fmt: skip


def _encoded(
    task: ChainTask,
    templates: Templates,
    tokenizer: Tokenizer,
    config: WarmupConfig,
    seed: int,
    **template: object,
) -> Iterator[Document]:
    source = documents(task, templates, rng.host(seed, "warm-up"), config)
    for number in range(config.documents):
        messages, text = next(source)
        document = Document(
            chat_ids(tokenizer, messages, **template), [*tokenizer.encode(text), tokenizer.eos_token_id]
        )
        if document.size > config.row_length:
            raise ConfigError(
                f"warm-up document {number}: {document.size} tokens; warmup.row_length = {config.row_length} is too short"
            )
        yield document
