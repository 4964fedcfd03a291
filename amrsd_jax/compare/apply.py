"""Applies methods to loaded rollouts with the training step's own functions; what methods share is computed once."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from amrsd_jax import rng
from amrsd_jax.compare.load import LoadedRollouts
from amrsd_jax.compare.methods import configure
from amrsd_jax.compare.parameters import Parameters
from amrsd_jax.credit import assign
from amrsd_jax.experiment import Experiment
from amrsd_jax.policy import Params
from amrsd_jax.records import Contexts, Credit, LogProbs, Rollouts
from amrsd_jax.reflection.contexts import make_contexts, null_contexts
from amrsd_jax.reflection.quotes import quoted_spans
from amrsd_jax.reflection.reflections import Reflections
from amrsd_jax.reflection.sources import Generators
from amrsd_jax.rollout import decide
from amrsd_jax.runtime.console import note
from amrsd_jax.scoring.score import combine_scores, null_gap


@dataclasses.dataclass(frozen=True)
class Applied:
    """A method applied to the rollouts.

    Attributes:
      name: name of the method.
      experiment: the run's experiment with this method in place of its own.
      contexts, logprobs: those that a training step with this method makes; a rule that distils is scored too.
      null_gap: the gap on the same rows where the teacher's prompt has no text in it [N, T].
      assigned: the rule's credit, as it enters the loss.
      teacher, teacher_params: a description of the teacher's parameters, and the parameters.
    """

    name: str
    experiment: Experiment
    contexts: Contexts
    logprobs: LogProbs
    null_gap: Float[np.ndarray, "N T"]
    assigned: Credit
    teacher: str
    teacher_params: Params

    @functools.cached_property
    def credit(self) -> Credit:
        """The rule's credit; a rule that distils also has the sampled-token form of its divergence, coefficient (l_T - l_S).

        That is the score-function gradient of KL(S || T); for another divergence it is our choice of what to show.
        """
        distill = self.experiment.objective.distill
        if distill is None:
            return self.assigned
        added = np.float32(distill.coefficient) * self.logprobs.gap
        return dataclasses.replace(self.assigned, token_advantage=self.assigned.token_advantage + added)


def score_student(loaded: LoadedRollouts, parameters: Parameters) -> tuple[Rollouts, Float[np.ndarray, "N T"]]:
    """Returns the rollouts with the policy's log-probabilities in place of the recorded ones, and its entropies."""
    experiment, rollouts = loaded.experiment, loaded.rollouts
    logprobs, entropy = experiment.scorer.score_rollouts(experiment.policy, parameters.policy, rollouts)
    return dataclasses.replace(rollouts, sampler_logprobs=logprobs), entropy


def apply(
    experiment: Experiment,
    step: int,
    rollouts: Rollouts,
    entropy: Float[np.ndarray, "N T"],
    parameters: Parameters,
    names: Sequence[str],
) -> list[Applied]:
    """Applies every method to the same rollouts.

    Contexts of one source are made once, for the rows that any method needs; each method is given only the rows that it needs,
    so its credit is that of its own training step. (`shuffled_reflection` takes texts from all rows that have one.) Each kind
    of teacher scores the rows of a source once.

    Args:
      experiment: the run's experiment; methods share its parts.
      step: training steps done before the rollouts were sampled, for rules that anneal.
      rollouts: from `score_student`.
      entropy: the student's entropies, in nats.
      parameters: the parameters of student and teachers.
      names: names of methods, see `methods`.
    """
    methods = {name: configure(experiment, name) for name in names}
    decisions = {name: decide(method, rollouts, step) for name, method in methods.items()}
    generators = make_generators(experiment, parameters, step)
    null = null_contexts(experiment.context_settings, rollouts, range(len(rollouts.text)))
    contexts_of, scores_of, null_of, applied = {}, {}, {}, []
    for name, method in methods.items():
        note(f"{name} ({len(applied) + 1} of {len(methods)})")
        advantage, needs_teacher = decisions[name]
        source, kind = _source(method), method.teacher.config.kind
        if source not in contexts_of:
            needs = [decisions[other][1] for other, m in methods.items() if _source(m) == source]
            contexts_of[source] = make_contexts(
                *source, method.context_settings, rollouts, np.any(needs, axis=0), generators
            )
        params, description = parameters.of_teacher(kind)
        if (source, kind) not in scores_of:
            all_contexts = [contexts_of[source], *contexts_of[source].negatives]
            scores_of[source, kind] = method.scorer.score_contexts(method.teacher.model, params, rollouts, all_contexts)
        contexts = restrict(contexts_of[source], needs_teacher)
        student = rollouts.sampler_logprobs, entropy
        logprobs = combine_scores(rollouts, contexts, student, scores_of[source, kind])
        if kind not in null_of and len(contexts.rows):
            everywhere = dataclasses.replace(logprobs, scored=np.ones_like(logprobs.scored))
            null_of[kind] = null_gap(method.scorer, (method.teacher.model, params), rollouts, null, everywhere)
        control = null_of.get(kind, np.zeros_like(logprobs.gap)) * logprobs.scored[:, None]
        quoted = quoted_spans(method.tokenizer, rollouts, contexts) if method.rule.quotes else None
        credit = settled_credit(method, step, advantage, rollouts, logprobs, quoted)
        description = description if method.config.credit.context != "none" else "none"
        applied.append(Applied(name, method, contexts, logprobs, control, credit, description, params))
    return applied


def make_generators(experiment: Experiment, parameters: Parameters, step: int) -> Generators:
    """Returns the generators of contexts: the policy, and as critic the policy of step 0, whatever critic the run had.

    Weights in the form that decoding reads are made for each use: they are as large as the model.
    """
    experiment = dataclasses.replace(experiment, external=None)

    def sampler(params, stream):
        return lambda requests: experiment.sampler(experiment.sampler_params(params), stream, step)(requests)

    reflections = Reflections(experiment.context_settings, sampler(parameters.policy, "reflection"))
    return Generators(reflections, sampler(parameters.initial, "critic"))


def _source(method: Experiment) -> tuple[str, str, int]:
    """Returns the settings that determine a method's contexts."""
    return method.config.credit.context, method.rule.negatives, method.config.credit.negatives


def settled_credit(
    method: Experiment,
    step: int,
    advantage: Float[np.ndarray, " N"],
    rollouts: Rollouts,
    logprobs: LogProbs,
    quoted: Integer[np.ndarray, "N 2"] | None,
) -> Credit:
    """Returns the rule's credit; a rule with a memory is applied to the same rollouts until its memory stops changing."""
    config = method.config
    noise = rng.host(config.seed, "credit", step).random(len(advantage), np.float32)
    memory, credit = (), None
    for _ in range(100):
        credit = assign(
            method.rule, config.credit.args, step, advantage, rollouts, logprobs,
            group=config.rollout.group, mask_truncated=config.loss.mask_truncated,
            quoted=quoted, noise=noise, memory=memory,
        )  # fmt: skip
        if credit.memory == memory:
            break
        memory = credit.memory
    return credit


def restrict(contexts: Contexts, needs_teacher: Bool[np.ndarray, " N"]) -> Contexts:
    """Returns the contexts of the rows that need a teacher; the others look as if none had been made."""
    kept = needs_teacher[contexts.rows]

    def column(values, absent):
        return tuple(value if needed else absent for value, needed in zip(values, needs_teacher, strict=True))

    return Contexts(
        column(contexts.kind, ""), column(contexts.status, "not_needed"), column(contexts.text, ""),
        contexts.rows[kept], contexts.prompt[kept], contexts.prompt_length[kept],
        tuple(row for row in contexts.cut if needs_teacher[row]),
        tuple(restrict(negative, needs_teacher) for negative in contexts.negatives),
    )  # fmt: skip
