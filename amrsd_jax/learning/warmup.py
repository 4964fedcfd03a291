"""The embedded tasks' warm-up: supervised learning from documents of a demonstrator with a planted habit.

Kinds of documents teach skills: solving (with the habit), writing a reflection on an attempt, reading a reflection (what
it names comes out right, the rest keeps the habit), and if a config wants it, solving with the answer or a solution in
view (then all comes out right) or repairing an attempt as a critic does. Reinforcement learning starts from there.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from amrsd_jax import processes, rng
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.optimiser import make_optimizer, make_schedule
from amrsd_jax.learning.step import apply, init_params, init_state, state_shardings
from amrsd_jax.policy import Params, Policy
from amrsd_jax.policy.tokenizer import Message, Tokenizer, chat_ids
from amrsd_jax.reflection.parse import TAGS
from amrsd_jax.reflection.prompts import Templates, fill
from amrsd_jax.scoring.logprobs import project
from amrsd_jax.tasks.base import Problem
from amrsd_jax.tasks.chain import ChainTask


@dataclasses.dataclass(frozen=True)
class Packed:
    """Documents packed into rows [R, L]: ids, document number within the row (0 is padding), 1 where the id is learned."""

    tokens: Integer[np.ndarray, "R L"]
    segments: Integer[np.ndarray, "R L"]
    learned: Float[np.ndarray, "R L"]


def documents(
    task: ChainTask,
    texts: Templates,
    generator: np.random.Generator,
    *,
    solve: float,
    reflect: float,
    given: float,
    trace: float,
    peer: float,
    lines: int,
) -> Iterator[tuple[list[Message], str]]:
    """Endless documents (messages, completion).

    Args:
      solve, reflect, given, trace: shares of documents that solve, that reflect, that solve with the gold answer or a
        correct solution in view, half of them each, and that repair an attempt as a critic; the rest solve with a
        reflection in view.
      peer: share of reflecting documents that show a correct peer.
      lines: most true lines in a reflection that is read; the number of each is uniform from 1, their order random. A
        model that finds its line among several learns to look it up, where one line is too rarely decisive (our choice).
    """
    while True:
        problem = task.training_problem(generator)
        attempt = task.attempt(problem, generator)
        kind = generator.random()
        if kind < solve:
            yield texts.ask(problem.question), attempt
            continue
        verdict = task.verify(problem, attempt)
        step, line = task.reflect(problem, attempt, generator)
        if kind < solve + reflect:
            tag = TAGS[verdict.correct]
            sibling = task.solution(problem) if generator.random() < peer else None
            messages = texts.reflect(tag, problem.question, attempt, verdict.message, sibling, None)
            yield messages, f"<{tag}>{line}</{tag}>"
        elif kind < solve + reflect + given:
            yield texts.reread(problem.question, _given(task, texts, problem, generator)), task.solution(problem)
        elif kind < solve + reflect + given + trace:
            yield texts.retrace(problem.question, attempt, problem.answer), task.solution(problem)
        else:
            steps = [step] if lines == 1 else _several(task, problem, step, lines, generator)
            truth = task.solution(problem).split("\n")
            named = line if lines == 1 else "\n".join(truth[i] for i in steps)
            yield texts.reread(problem.question, named), task.attempt(problem, generator, right=steps)


def _several(task: ChainTask, problem: Problem, step: int, lines: int, generator: np.random.Generator) -> list[int]:
    """`step` and further pivotal ones, at most `lines` of them in all, in random order."""
    others = generator.permutation([i for i in task.pivotal_steps(problem) if i != step])
    return generator.permutation([step, *others[: generator.integers(lines)]]).tolist()


def _given(task: ChainTask, texts: Templates, problem: Problem, generator: np.random.Generator) -> str:
    """What a teacher sees that is shown the gold answer, or a peer's or the reference solution (both look alike)."""
    if generator.random() < 0.5:
        return fill(texts.given_answer, answer=problem.answer)
    return fill(texts.given_solution, solution=task.solution(problem))


def pack(pairs: Iterator[tuple[list[int], list[int]]], length: int) -> Packed:
    """Packs (prompt ids, completion ids) into rows, each into the first open row with room. Only completions are learned.

    Raises:
      ValueError: a document is longer than a row.
    """
    finished, open_rows = [], []
    for number, (prompt, completion) in enumerate(pairs):
        size = len(prompt) + len(completion)
        if size > length:
            raise ValueError(f"warm-up document {number}: {size} tokens; warmup.row_length = {length} is too short")
        row = next((row for row in open_rows if row["room"] >= size), None)
        if row is None:
            row = {"room": length, "documents": []}
            open_rows.append(row)
        row["room"] -= size
        row["documents"].append((prompt, completion))
        if len(open_rows) > 16:  # the fullest row is closed
            fullest = min(range(len(open_rows)), key=lambda i: open_rows[i]["room"])
            finished.append(open_rows.pop(fullest))
    rows = finished + open_rows
    tokens, segments = np.zeros((2, len(rows), length), np.int32)
    learned = np.zeros((len(rows), length), np.float32)
    for i, row in enumerate(rows):
        end = 0
        for number, (prompt, completion) in enumerate(row["documents"], start=1):
            start, middle, end = end, end + len(prompt), end + len(prompt) + len(completion)
            tokens[i, start:end] = prompt + completion
            segments[i, start:end] = number
            learned[i, middle:end] = 1
    return Packed(tokens, segments, learned)


def warm_up(
    policy: Policy, task: ChainTask, texts: Templates, tokenizer: Tokenizer, mesh: Mesh, *,
    seed: int, count: int, row_length: int, rows: int, learning_rate: float, b2: float,
    solve: float, reflect: float, given: float, trace: float, peer: float, lines: int, chunk: int,
    progress=lambda batches: batches,
) -> tuple[Params, list[float]]:  # fmt: skip
    """Trains a fresh policy on `count` documents, `rows` packed rows at a time; returns parameters and losses (nats/token)."""
    mix = dict(solve=solve, reflect=reflect, given=given, trace=trace, peer=peer, lines=lines)
    source = documents(task, texts, rng.host(seed, "warm-up"), **mix)
    ids = (
        (chat_ids(tokenizer, messages), [*tokenizer.encode(text), tokenizer.eos_token_id])
        for messages, text in (next(source) for _ in range(count))
    )
    packed = pack(ids, row_length)
    batches = len(packed.tokens) // rows
    order = rng.host(seed, "warm-up order").permutation(len(packed.tokens))[: batches * rows].reshape(batches, rows)

    schedule = make_schedule(
        learning_rate=learning_rate, schedule="cosine", warmup_updates=batches // 20, total_updates=batches
    )
    optimizer = make_optimizer(schedule, b1=0.9, b2=b2, eps=1e-8, weight_decay=0.01, clip_norm=1.0)
    state = init_state(policy, optimizer, init_params(policy, rng.key(seed, "init"), mesh), mesh)

    def loss(params, batch):
        tokens, segments, learned = batch
        hidden = policy.forward(params, tokens, segments)
        logp, _ = project(policy, params, hidden[:, :-1], tokens[:, 1:], chunk=chunk)
        return -jnp.sum(logp * learned[:, 1:]) / jnp.maximum(jnp.sum(learned[:, 1:]), 1)

    def step(state, batch):
        value, grads = jax.value_and_grad(loss)(state.params, batch)
        state, _ = apply(optimizer, state, grads)
        return state, value

    out = (state_shardings(policy, optimizer, mesh), meshes.replicated(mesh))
    step = jax.jit(step, donate_argnums=0, out_shardings=out)
    losses = []
    for chosen in progress(order):
        batch = (packed.tokens[chosen], packed.segments[chosen], packed.learned[chosen])
        state, value = step(state, processes.put(batch, meshes.rows(mesh)))
        losses.append(value)
    return state.params, [float(x) for x in jax.device_get(losses)]
