"""The reflection warm-up: supervised learning from reflections that the task writes on the model's own attempts.

A small pretrained model writes few reflections that can be used. Before the first step it samples attempts at training problems,
the task writes reflections on them, and the model learns to write these from the very prompts that ask for one in training. Most
attempts of such a model are wrong, so several hints are written on a correct one, in other words, until hints and critiques are
equally many. A share of the attempts is rehearsed, because a model that learns from reflections alone answers differently: at
their tokens it is held to the distribution that it had. A model that never solves a problem can learn some reference solutions
before it samples attempts, a cold start: groups without a right answer teach nothing.

No field of the credit rule matters here, so runs of different methods begin from the same parameters.
"""

import dataclasses
import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from amrsd_jax import interrupt, rng
from amrsd_jax.experiment import Experiment
from amrsd_jax.learning import mesh as meshes
from amrsd_jax.learning.supervised import Document, pack, supervise
from amrsd_jax.policy import Params
from amrsd_jax.policy.tokenizer import chat_ids
from amrsd_jax.records import Completion, Rollouts
from amrsd_jax.reflection.parse import TAGS, parse
from amrsd_jax.reflection.reflections import reflection_request
from amrsd_jax.rollout import response_requests
from amrsd_jax.runtime.console import track
from amrsd_jax.sampling import completed_batches
from amrsd_jax.sections import ConfigError
from amrsd_jax.tasks.base import Task
from amrsd_jax.tasks.mixture import members
from amrsd_jax.tasks.stream import next_prompts
from amrsd_jax.tasks.verify import verify

PLACE = "reflection.warmup"
STREAM = "reflection warm-up"
WORDINGS = 4  # most reflections on one attempt


def check(experiment: Experiment) -> None:
    """Checks that the config's reflection warm-up, if it has one, is possible.

    Raises:
      ValueError: the task writes no reflections, replies begin inside a thought, solutions are too few or do not fit, reflection
        prompts do not fit, or rows cannot be split over the devices.
    """
    config, settings = experiment.config, experiment.context_settings
    if not config.reflection.warmup.attempts:
        return
    place = f"{PLACE}.attempts = {config.reflection.warmup.attempts}"
    for data_set, task in members(experiment.task).items():
        if type(task).write_reflection is Task.write_reflection:
            name = f"set {data_set!r}" if data_set else f"task {config.task.name!r}"
            raise ValueError(f"{place}: {name} writes no reflections to learn from; expected 0")
    if settings.reflections_open_thinking:
        raise ValueError(
            f"{place}: the chat template begins a reply inside a thought, which the task does not write; expected a template "
            "without it (reflection.chat_template, e.g. enable_thinking = False)"
        )
    if solutions := config.reflection.warmup.solutions:
        if settings.responses_open_thinking:
            raise ValueError(
                f"{PLACE}.solutions = {solutions}: the chat template begins a reply inside a thought, which reference solutions "
                "are not; expected a template without it (chat_template, e.g. enable_thinking = False)"
            )
        documents, left_out = solution_documents(experiment)
        rows = len(pack(documents, config.warmup_row_length).tokens) * config.reflection.warmup.passes
        if rows < config.reflection.warmup.rows:
            reasons = "".join(f", {count} left out as {reason!r}" for reason, count in left_out.items())
            raise ValueError(
                f"{PLACE}.solutions = {solutions}: they fill {rows} rows{reasons}; expected as many as fill the "
                f"{config.reflection.warmup.rows} rows of an update, or 0"
            )
    meshes.check_divides(f"{PLACE}.rows", config.reflection.warmup.rows, experiment.mesh)
    problem = experiment.task.problem("train", 0)
    for tag in TAGS.values():
        messages = settings.templates_of(problem).reflection_prompt(tag, problem.prompt_text, "", "", None, None)
        size = len(chat_ids(settings.tokenizer, messages, **settings.reflection_chat_template))
        if size >= config.reflection.prompt_length:
            raise ValueError(
                f"reflection.prompt_length = {config.reflection.prompt_length}: the prompt of a {tag} on an empty attempt at "
                f"{problem.id} has {size} tokens; expected more"
            )


@dataclasses.dataclass(frozen=True)
class Record:
    """What a reflection warm-up did, as the workdir keeps it.

    Attributes:
      attempts, correct: attempts that were sampled, and those of them that are correct.
      documents: number of documents by kind: "hint", "critique", "answer" for rehearsed attempts, and "solution".
      left_out: number of reflections that are not learnt by reason: "none" (the task wrote none), "no_room" (the prompt does
        not fit), "truncated" (it is longer than `reflection.tokens`), or why it would be unusable in training; and that of
        solutions: "no_solution" (the problem has none) and "long_solution" (it is longer than `rollout.response_length`).
      losses: of each update on reflections and attempts, nats per token.
      cold_start: the same of each update on solutions.
      seconds: by part, "cold_start", "sample" and "train".
    """

    attempts: int
    correct: int
    documents: dict[str, int]
    left_out: dict[str, int]
    losses: list[float]
    cold_start: list[float]
    seconds: dict[str, float]

    def line(self) -> str:
        """Returns a line for the console."""
        documents = ", ".join(f"{count} x {kind}" for kind, count in self.documents.items())
        left_out = "".join(f", {count} left out as {reason!r}" for reason, count in self.left_out.items())
        last = np.mean(self.losses[-max(1, len(self.losses) // 5) :])
        solutions = ""
        if self.cold_start:
            solutions = f"loss of solutions {self.cold_start[0]:.3f} -> {self.cold_start[-1]:.3f}; "
        return (
            f"reflection warm-up: {solutions}{self.attempts} attempts, {self.correct} correct; {documents}{left_out}; "
            f"{len(self.losses)} updates, loss {self.losses[0]:.3f} -> {last:.3f} nats per token; "
            f"{sum(self.seconds.values()):.0f} s"
        )


def warm_up(
    experiment: Experiment, params: Params, progress: Callable[[Iterable[Any]], Iterable[Any]]
) -> tuple[Params, Record]:
    """Returns the parameters after the reflection warm-up, and its record.

    Args:
      params: all parameters of the policy; those that are trained, all or the adapters, are donated.
      progress: wraps the iteration over updates.

    Raises:
      ConfigError: no attempt has a reflection to learn from, or see `supervise`.
      Interrupted: a signal was received.
    """
    config, begin = experiment.config.reflection.warmup, time.perf_counter()
    generator, cold_start = rng.host(experiment.config.seed, f"{STREAM} order"), []

    def learn(params, documents):
        return supervise(
            experiment.policy, params, pack(documents, experiment.config.warmup_row_length), experiment.mesh, place=PLACE,
            rows=config.rows, passes=config.passes, learning_rate=config.learning_rate, generator=generator,
            chunk=experiment.config.scoring.chunk, progress=progress,
        )  # fmt: skip

    solutions, without = solution_documents(experiment)
    if solutions:  # none are asked for by default
        params, cold_start = learn(params, solutions)
    middle = time.perf_counter()
    attempts = sample_attempts(experiment, params)
    documents, left_out = make_documents(experiment, attempts)
    mixed = list(itertools.chain(*documents.values()))
    generator.shuffle(mixed)  # so that every update has documents of each kind
    sampled = time.perf_counter()
    params, losses = learn(params, mixed)
    return params, Record(
        attempts=len(attempts.text),
        correct=sum(verdict.correct for verdict in attempts.verdicts),
        documents={kind: len(some) for kind, some in documents.items()}
        | ({"solution": len(solutions)} if solutions else {}),
        left_out=dict(left_out + without),
        losses=losses,
        cold_start=cold_start,
        seconds={"cold_start": middle - begin, "sample": sampled - middle, "train": time.perf_counter() - sampled},
    )


def sample_attempts(experiment: Experiment, params: Params) -> Rollouts:
    """Returns verified attempts at the first training problems, in whole groups, sampled as in training.

    Raises:
      Interrupted: a signal was received.
    """
    config = experiment.config.rollout
    prompts, _, _ = next_prompts(
        experiment.task, "train", 0, -(-experiment.config.reflection.warmup.attempts // config.group),
        encode=experiment.prompt_ids, longest=config.prompt_length,
    )  # fmt: skip
    requests, key = response_requests(config, prompts, 0), rng.key(experiment.config.seed, STREAM)
    sampler, sampler_params = experiment.samplers["rollout"], experiment.sampler_params(params)

    def sample() -> Iterator[Completion]:
        for finished in completed_batches(experiment.policy, sampler, sampler_params, requests, key):
            interrupt.check()
            yield from finished

    attempts = track(sample(), "reflection warm-up, attempts", len(prompts.problems) * config.group)
    return verify(
        experiment.task, experiment.tokenizer, sorted(attempts, key=lambda c: (c.request.row, c.index)),
        prompt_length=config.prompt_length, response_length=config.response_length, stop=config.stop,
    )  # fmt: skip


def make_documents(experiment: Experiment, attempts: Rollouts) -> tuple[dict[str, list[Document]], Counter[str]]:
    """Returns documents by kind, and the number of attempts without a reflection by reason; both as in `Record`.

    Raises:
      ConfigError: no attempt has a reflection to learn from.
    """
    config, generator = experiment.config.reflection.warmup, rng.host(experiment.config.seed, STREAM)
    documents, left_out = {kind: [] for kind in (*TAGS.values(), "answer")}, Counter()

    def write(row: int, tag: str) -> bool:
        document = reflection_document(experiment, attempts, row, generator)
        if isinstance(document, str):
            left_out[document] += 1
            return False
        documents[tag].append(document)
        return True

    rows = {TAGS[correct]: [] for correct in TAGS}
    for row, verdict in enumerate(attempts.verdicts):
        rows[TAGS[verdict.correct]].append(row)
    rarer, other = sorted(rows, key=lambda tag: len(rows[tag]))
    for tag in (rarer, other):
        wanted = len(attempts.text) // 2 if tag == rarer else len(attempts.text) - len(documents[rarer])
        for _ in range(WORDINGS):
            rows[tag] = [row for row in rows[tag] if len(documents[tag]) < wanted and write(row, tag)]
    if not any(documents.values()):
        raise ConfigError(
            f"{PLACE}.attempts = {config.attempts}: none of {len(attempts.text)} attempts has a reflection to learn from: "
            f"{', '.join(f'{count} x {reason!r}' for reason, count in left_out.items())}"
        )
    rehearsed = np.flatnonzero(generator.random(len(attempts.text)) < config.rehearsal).tolist()
    documents["answer"] += [answer_document(attempts, row) for row in rehearsed]
    return documents, left_out


def reflection_document(
    experiment: Experiment, attempts: Rollouts, row: int, generator: np.random.Generator
) -> Document | str:
    """Returns an attempt's reflection prompt with the task's reflection, or the reason of `Record.left_out` if there is none."""
    task, tokenizer, config = experiment.task, experiment.tokenizer, experiment.config.reflection
    problem, tag = attempts.problems[row], TAGS[attempts.verdicts[row].correct]
    text = task.write_reflection(problem, attempts.text[row], generator)
    if text is None:
        return "none"
    states_answer = functools.partial(task.states_answer, problem)
    text, status = parse(f"<{tag}>{text}</{tag}>", tag, finished=True, states_answer=states_answer)
    if status != "ok":
        return status
    request = reflection_request(experiment.context_settings, attempts, row, row)
    if request is None:
        return "no_room"
    written = f"{text}</{tag}>" if config.open_tag else f"<{tag}>{text}</{tag}>"
    completion = tokenizer.encode(written, add_special_tokens=False, split_special_tokens=True)
    if len(completion) >= config.tokens:
        return "truncated"
    return Document(list(request.prompt), [*completion, tokenizer.eos_token_id])


def answer_document(attempts: Rollouts, row: int) -> Document:
    """Returns the prompt and the response of an attempt, right or wrong, whole or truncated."""
    length = int(attempts.mask[row].sum())
    return Document(
        attempts.prompt[row, : attempts.prompt_length[row]].tolist(),
        attempts.response[row, :length].tolist(),
        rehearsed=True,
    )


def solution_documents(experiment: Experiment) -> tuple[list[Document], Counter[str]]:
    """Returns the first training problems with their reference solutions, and the number left out by reason, as in `Record`."""
    config, tokenizer, documents, left_out = experiment.config, experiment.tokenizer, [], Counter()
    prompts, _, _ = next_prompts(
        experiment.task, "train", 0, config.reflection.warmup.solutions, encode=experiment.prompt_ids,
        longest=config.rollout.prompt_length,
    )  # fmt: skip
    for problem, prompt in zip(prompts.problems, prompts.tokens, strict=True):
        completion = tokenizer.encode(problem.reference or "", add_special_tokens=False, split_special_tokens=True)
        if not completion:
            left_out["no_solution"] += 1
        elif len(completion) >= config.rollout.response_length:
            left_out["long_solution"] += 1
        else:
            documents.append(Document(list(prompt), [*completion, tokenizer.eos_token_id]))
    return documents, left_out
