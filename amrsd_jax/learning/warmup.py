"""The embedded tasks' warm-up: supervised learning from documents of a demonstrator with a bad habit, e.g. forgotten carries.

Each kind of document teaches a skill: solving (with the habit), writing a reflection on an attempt, solving with a reflection
in view (the steps that it names are right, the others keep the habit), and if the config asks for it, solving with the answer
or a solution in view (all steps are right) or repairing an attempt as a critic. Reinforcement learning starts from there.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from amrsd_jax import processes, rng
from amrsd_jax.config import OptimizerConfig, WarmupConfig
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.state import init_params, init_state, state_shardings
from amrsd_jax.learning.step import apply_gradients
from amrsd_jax.policy import Params, Policy
from amrsd_jax.policy.tokenizer import Message, Tokenizer, chat_ids
from amrsd_jax.records import Problem
from amrsd_jax.reflection.parse import TAGS
from amrsd_jax.reflection.prompts import Templates, fill
from amrsd_jax.scoring.logprobs import project
from amrsd_jax.sections import ConfigError
from amrsd_jax.tasks.chain import ChainTask


@dataclasses.dataclass(frozen=True)
class Packed:
    """Documents packed into rows [R, L]: ids, document number within the row (0 is padding), and 1 where the loss counts."""

    tokens: Integer[np.ndarray, "R L"]
    segments: Integer[np.ndarray, "R L"]
    loss_mask: Float[np.ndarray, "R L"]


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


def pack(pairs: Iterator[tuple[list[int], list[int]]], length: int) -> Packed:
    """Packs (prompt ids, completion ids) into rows, each into the first open row with room; the loss counts completions only.

    Raises:
      ConfigError: a document is longer than a row.
    """
    finished, open_rows = [], []
    for number, (prompt, completion) in enumerate(pairs):
        size = len(prompt) + len(completion)
        if size > length:
            raise ConfigError(f"warm-up document {number}: {size} tokens; warmup.row_length = {length} is too short")
        row = next((row for row in open_rows if row["room"] >= size), None)
        if row is None:
            row = {"room": length, "documents": []}
            open_rows.append(row)
        row["room"] -= size
        row["documents"].append((prompt, completion))
        if len(open_rows) > 16:  # close the fullest row
            fullest = min(range(len(open_rows)), key=lambda i: open_rows[i]["room"])
            finished.append(open_rows.pop(fullest))
    rows = finished + open_rows
    tokens, segments = np.zeros((2, len(rows), length), np.int32)
    loss_mask = np.zeros((len(rows), length), np.float32)
    for i, row in enumerate(rows):
        end = 0
        for number, (prompt, completion) in enumerate(row["documents"], start=1):
            start, middle, end = end, end + len(prompt), end + len(prompt) + len(completion)
            tokens[i, start:end] = prompt + completion
            segments[i, start:end] = number
            loss_mask[i, middle:end] = 1
    return Packed(tokens, segments, loss_mask)


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
) -> tuple[Params, list[float]]:
    """Trains a fresh policy on the demonstrator's documents; returns its parameters and the losses (nats per token).

    Args:
      config: the number of documents, their kinds, and the optimiser's settings.
      seed: seed of parameters and documents.
      chunk: tokens of one device whose logits exist at one time.
      progress: wraps the iteration over batches, to show it.

    Raises:
      ConfigError: a document is longer than a row, the documents fill less than one batch, or see `check_finite`.
    """
    source = documents(task, templates, rng.host(seed, "warm-up"), config)
    ids = (
        (chat_ids(tokenizer, messages), [*tokenizer.encode(text), tokenizer.eos_token_id])
        for messages, text in (next(source) for _ in range(config.documents))
    )
    packed = pack(ids, config.row_length)
    rows = config.rows
    batches = len(packed.tokens) // rows
    if not batches:
        raise ConfigError(
            f"warmup.documents = {config.documents}: they fill {len(packed.tokens)} rows; "
            f"expected at least warmup.rows = {rows}"
        )
    order = rng.host(seed, "warm-up order").permutation(len(packed.tokens))[: batches * rows].reshape(batches, rows)

    adamw = OptimizerConfig(
        learning_rate=config.learning_rate,
        schedule="cosine",
        warmup_updates=batches // 20,
        b2=config.b2,
        weight_decay=0.01,
    )
    optimizer = make_optimizer(adamw, make_schedule(adamw, batches))
    state = init_state(policy, optimizer, init_params(policy, rng.key(seed, "init"), mesh), mesh)

    def loss(params, batch):
        tokens, segments, loss_mask = batch
        hidden = policy.forward(params, tokens, segments)
        logprobs, _ = project(policy, params, hidden[:, :-1], tokens[:, 1:], chunk=chunk)
        return -jnp.sum(logprobs * loss_mask[:, 1:]) / jnp.maximum(jnp.sum(loss_mask[:, 1:]), 1)

    def step(state, batch):
        value, grads = jax.value_and_grad(loss)(state.params, batch)
        state, _ = apply_gradients(optimizer, state, grads)
        return state, value

    out = (state_shardings(policy, optimizer, mesh), meshes.replicated(mesh))
    step = jax.jit(step, donate_argnums=0, out_shardings=out)
    losses = []
    for chosen in progress(order):
        batch = (packed.tokens[chosen], packed.segments[chosen], packed.loss_mask[chosen])
        state, value = step(state, processes.put(batch, meshes.rows(mesh)))
        losses.append(value)
    losses, applied = jax.device_get((losses, state.updates))
    losses = [float(x) for x in losses]
    check_finite(losses, int(applied), config.learning_rate)
    return state.params, losses


def check_finite(losses: Sequence[float], applied: int, learning_rate: float) -> None:
    """Raises ConfigError if the last loss is not finite, or if fewer than half of the updates were finite and so applied."""
    if np.isfinite(losses[-1]) and applied >= len(losses) / 2:
        return
    raise ConfigError(
        f"warmup.learning_rate = {learning_rate}: the loss goes from {losses[0]:.4g} to {losses[-1]:.4g}, and {applied} of "
        f"{len(losses)} updates are finite; expected a learning rate with which they stay finite"
    )
