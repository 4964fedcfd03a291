"""From a run, its frozen rollouts and methods to contexts, scores and credit: the loop's phases, what is shared made once.

This file follows `train.training_step`; what a rule is given there, it is given here.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from amrsd_jax import rng
from amrsd_jax.build import Run
from amrsd_jax.compare.frozen import Frozen
from amrsd_jax.compare.methods import configure
from amrsd_jax.compare.parameters import Parameters
from amrsd_jax.credit.assign import advantages, assign
from amrsd_jax.policy import Params
from amrsd_jax.records import Contexts, Credit, Rollouts, Scores
from amrsd_jax.reflection.contexts import Writers
from amrsd_jax.sampling import Completion, Request
from amrsd_jax.scoring.score import no_negatives, reread, score_rows


@dataclasses.dataclass(frozen=True)
class Applied:
    """One method on the rollouts: what its teacher saw, what it thought, what the rule made of it.

    Attributes:
      name: of the method.
      run: the run's parts with the method in place of its own.
      contexts, scores: as a training step with this method would have made them; a rule that distils is scored too.
      assigned: the rule's credit, as it enters the loss.
      teacher, teacher_params: in words, whose parameters the teacher had; and these.
    """

    name: str
    run: Run
    contexts: Contexts
    scores: Scores
    assigned: Credit
    teacher: str
    teacher_params: Params

    @functools.cached_property
    def credit(self) -> Credit:
        """The rule's credit, and for one that distils the sampled-token form of its divergence: coefficient (l_T - l_S).

        That is the score-function form of KL(S || T); for another divergence it is our choice of what to show.
        """
        distil = self.run.objective.distil
        if distil is None:
            return self.assigned
        gap = self.scores.logp_teacher - self.scores.logp_student
        return dataclasses.replace(
            self.assigned, token_advantage=self.assigned.token_advantage + np.float32(distil.coefficient) * gap
        )


def score_student(frozen: Frozen, parameters: Parameters) -> tuple[Rollouts, Float[np.ndarray, "N T"]]:
    """The rollouts with the policy's log-probabilities in place of the recorded ones, and its entropies."""
    run, rollouts = frozen.run, frozen.rollouts
    rows = (rollouts.prompt, rollouts.prompt_length, rollouts.response, rollouts.mask)
    logp, entropy = score_rows(run.policy, parameters.policy, *rows, **run.scoring)
    return dataclasses.replace(rollouts, logp=logp, logp_plain=logp), entropy


def apply(
    run: Run,
    step: int,
    rollouts: Rollouts,
    entropy: Float[np.ndarray, "N T"],
    parameters: Parameters,
    names: Sequence[str],
) -> list[Applied]:
    """Every method on the same rollouts.

    A context is made once for all methods that read its source, for the rows that any of them needs; each method sees the
    rows that it needs itself, so its credit is that of a training step of its own. (`shuffled_reflection` takes texts from
    all rows that were made.) A teacher scores a source's rows once.

    Args:
      run: whose parts they share.
      step: training steps done before the rollouts were sampled; rules that anneal read it.
      rollouts: as `score_student` gives them.
      entropy: of the student [N, T], nats.
      parameters: of students and teachers.
      names: of methods, see `methods`.
    """
    reward = rollouts.reward + run.penalty(rollouts)
    advantage = advantages(reward, run.config.rollout.group, normalize=run.config.credit.normalize)
    methods = {name: configure(run, name) for name in names}
    needed = {name: method.needs_context(advantage, rollouts, step) for name, method in methods.items()}
    run = dataclasses.replace(run, external=None)  # the critic is the policy of step 0, whatever the run's own was
    writers = Writers(
        Remembered(run.sampler(run.sampling_weights(parameters.policy), "reflection", step)),
        Remembered(run.sampler(run.sampling_weights(parameters.initial), "critic", step)),
    )
    made, read, applied = {}, {}, []
    for name, method in methods.items():
        source, kind = _source(method), method.teacher.kind
        if source not in made:
            wanted = [needed[other] for other, m in methods.items() if _source(m) == source]
            made[source] = method.make_contexts(rollouts, np.any(wanted, axis=0), writers)
        params, words = parameters.teacher(kind)
        for view in (made[source], *made[source].negatives):
            if (id(view), kind) not in read:
                (read[id(view), kind],) = reread((run.policy, params), rollouts, view, **run.scoring)
        contexts = only(made[source], needed[name])
        scores = _scores(rollouts, entropy, made[source], contexts, lambda view, kind=kind: read[id(view), kind])
        credit = settled(method, step, advantage, rollouts, scores)
        words = words if method.config.credit.context != "none" else "none"
        applied.append(Applied(name, method, contexts, scores, credit, words, params))
    return applied


def _source(method: Run) -> tuple[str, str, int]:
    """What its contexts are made of."""
    maker = method.make_contexts
    return maker.source, maker.negatives, maker.count


def settled(run: Run, step: int, advantage: Float[np.ndarray, " N"], rollouts: Rollouts, scores: Scores) -> Credit:
    """The rule's credit; one that remembers is applied to the same rollouts until it remembers nothing new."""
    noise = rng.host(run.config.seed, "credit", step).random(len(advantage), np.float32)
    args, memory, credit = dict(run.config.credit.args), (), None
    for _ in range(100):
        credit = assign(run.rule, args, step, advantage, rollouts, scores, noise=noise, memory=memory)
        if credit.memory == memory:
            break
        memory = credit.memory
    return credit


def only(contexts: Contexts, needed: Bool[np.ndarray, " N"]) -> Contexts:
    """The contexts of the needed rows; the others look as if nobody had asked for one."""
    kept = needed[contexts.rows]

    def column(values, absent):
        return tuple(value if wanted else absent for value, wanted in zip(values, needed, strict=True))

    return Contexts(
        column(contexts.kind, ""), column(contexts.status, "not_needed"), column(contexts.text, ""),
        contexts.rows[kept], contexts.context[kept], contexts.context_length[kept],
        tuple(only(negative, needed) for negative in contexts.negatives),
    )  # fmt: skip


class Remembered:
    """A sampler that answers a request it has seen with the same completion: several sources ask for the same reflections."""

    def __init__(self, sample):
        self._sample, self._known = sample, {}

    def __call__(self, requests: Iterable[Request]) -> Iterator[Completion]:
        requests = list(requests)
        new = [request for request in requests if self._key(request) not in self._known]
        for completion in self._sample(new) if new else ():
            self._known[self._key(completion.request)] = completion
        for request in requests:
            yield dataclasses.replace(self._known[self._key(request)], request=request)

    @staticmethod
    def _key(request: Request):
        return request.row, tuple(request.prompt), request.temperature


def _scores(rollouts: Rollouts, entropy, made: Contexts, contexts: Contexts, read) -> Scores:
    """As `scoring.score` makes them: rows without a context hold equal zeros, so they have no gap.

    Args:
      entropy: of the student [N, T].
      made, contexts: all that was made, and the part of it that the method needs.
      read: a made context -> the teacher's log-probabilities and entropies.
    """
    scored = np.zeros(len(rollouts.text), bool)
    scored[contexts.rows] = True
    kept = rollouts.mask * scored[:, None]
    logp, entropy_teacher = read(made)
    negative, has = no_negatives(rollouts, len(made.negatives))
    for k, (whole, part) in enumerate(zip(made.negatives, contexts.negatives, strict=True)):
        negative[k, part.rows], has[k, part.rows] = read(whole)[0][part.rows], True
    return Scores(rollouts.logp * kept, logp * kept, entropy * kept, entropy_teacher * kept, scored, negative, has)
