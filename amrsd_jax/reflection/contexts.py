"""Makes teacher contexts: prompts with privileged texts, for the rows whose credit a teacher can change."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from amrsd_jax.policy.tokenizer import chat_ids
from amrsd_jax.records import Contexts, Problem, Rollouts
from amrsd_jax.reflection.fit import fit
from amrsd_jax.reflection.settings import ContextSettings
from amrsd_jax.reflection.sources import NEGATIVES, Generators, PrivilegedTexts, no_text, privileged_texts
from amrsd_jax.tasks.verify import pad


def make_contexts(
    source: str,
    negatives: str,
    negative_count: int,
    settings: ContextSettings,
    rollouts: Rollouts,
    needs_teacher: Bool[np.ndarray, " N"],
    generators: Generators,
) -> Contexts:
    """Returns contexts for the rows that need a teacher.

    Args:
      source: names of `sources.SOURCES`, joined as described there.
      negatives, negative_count: name of `sources.NEGATIVES` ("" for rules without a contrast), and number per row (K).
      settings: how prompts are made.
      rollouts: N verified rows.
      needs_teacher: rows that need a teacher, as the credit rule declares.
      generators: the models that write texts.
    """
    texts = privileged_texts(source, settings, rollouts, needs_teacher, generators)
    contexts = teacher_prompts(settings, rollouts, texts, range(len(texts.status)))
    if not negatives:
        return contexts
    negative_contexts = NEGATIVES[negatives](settings, rollouts, texts, negative_count)
    prompts = tuple(teacher_prompts(settings, rollouts, one.texts, one.question_rows) for one in negative_contexts)
    return dataclasses.replace(contexts, negatives=prompts)


def null_contexts(settings: ContextSettings, rollouts: Rollouts, rows: Sequence[int]) -> Contexts:
    """Returns contexts without a text for some rows: a control of what the teacher's template alone changes."""
    return teacher_prompts(settings, rollouts, no_text("null", rollouts, rows), range(len(rollouts.text)))


def teacher_prompts(
    settings: ContextSettings, rollouts: Rollouts, texts: PrivilegedTexts, question_rows: Sequence[int]
) -> Contexts:
    """Returns texts as prompts with the question of row question_rows[r] for row r.

    A text that is too long loses its end. A row whose prompt does not even fit without a text becomes "no_room".
    """
    prompts: dict[int, list[int]] = {}
    cut = []
    for row in texts.usable():
        if texts.kind[row] == "question":
            prompt = rollouts.prompt[row, : rollouts.prompt_length[row]].tolist()
            prompt, shortened = prompt if len(prompt) <= settings.config.context_length else None, False
        else:
            prompt, shortened = _teacher_prompt(settings, rollouts.problems[question_rows[row]], texts.text[row])
        if prompt is None:
            texts.status[row] = "no_room"
        else:
            prompts[row] = prompt
            cut += [row] * shortened
    rows = np.array(sorted(prompts), np.int64)
    return Contexts(
        kind=tuple(texts.kind),
        status=tuple(texts.status),
        text=tuple(texts.text),
        rows=rows,
        prompt=pad([prompts[row] for row in rows], settings.config.context_length, np.int32),
        prompt_length=np.array([len(prompts[row]) for row in rows], np.int32),
        cut=tuple(cut),
    )


def _teacher_prompt(settings: ContextSettings, problem: Problem, text: str) -> tuple[list[int] | None, bool]:
    """Returns the prompt ids of a question and a text, None if there is no room for any text, and whether the text was cut."""

    def messages(text):
        return settings.templates_of(problem).teacher_prompt(problem.question, text, problem.messages)

    whole = chat_ids(settings.tokenizer, messages(text), **settings.chat_template)
    if len(whole) <= (limit := settings.config.context_length):
        return whole, False
    return fit(settings.tokenizer, messages, text, limit, **settings.chat_template), True
