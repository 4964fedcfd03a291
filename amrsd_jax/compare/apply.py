"""From a run, its frozen rollouts and methods to contexts, scores and credit: the loop's phases, what is shared made once.

This file follows `train.training_step`; what a rule is given there, it is given here.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from amrsd_jax.build import Run
from amrsd_jax.compare.frozen import Frozen
from amrsd_jax.compare.methods import configure
from amrsd_jax.compare.parameters import Parameters
from amrsd_jax.credit.assign import advantages, assign
from amrsd_jax.records import Contexts, Credit, Rollouts, Scores
from amrsd_jax.sampling import Completion, Request
from amrsd_jax.scoring.score import score_rows


@dataclasses.dataclass(frozen=True)
class Applied:
    """One method on the rollouts: what its teacher saw, what it thought, what the rule made of it.

    Attributes:
      name: of the method.
      run: the run's parts with the method in place of its own.
      contexts, scores, credit: as a training step with this method would have made them.
      teacher: in words, whose parameters the teacher had.
    """

    name: str
    run: Run
    contexts: Contexts
    scores: Scores
    credit: Credit
    teacher: str


def score_student(frozen: Frozen, parameters: Parameters) -> tuple[Rollouts, Float[np.ndarray, "N T"]]:
    """The rollouts with the policy's log-probabilities in place of the recorded ones, and its entropies."""
    run, rollouts = frozen.run, frozen.rollouts
    rows = (rollouts.prompt, rollouts.prompt_length, rollouts.response)
    logp, entropy = score_rows(run.policy, parameters.policy, *rows, **run.scoring)
    logp = logp * rollouts.mask
    return dataclasses.replace(rollouts, logp=logp, logp_plain=logp), entropy * rollouts.mask


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
    sample = Remembered(run.sampler(run.sampling_weights(parameters.policy), "reflection", step))
    made, thought, applied = {}, {}, []
    for name, method in methods.items():
        source, kind = method.config.credit.context, method.teacher.kind
        if source not in made:
            wanted = [needed[other] for other, m in methods.items() if m.config.credit.context == source]
            made[source] = method.make_contexts(rollouts, np.any(wanted, axis=0), sample)
        params, words = parameters.teacher(kind)
        if (source, kind) not in thought:
            thought[source, kind] = _score_teacher(run, params, rollouts, made[source])
        contexts = only(made[source], needed[name])
        scores = _scores(rollouts, entropy, thought[source, kind], contexts)
        credit = assign(method.rule, dict(method.config.credit.args), step, advantage, rollouts, scores)
        applied.append(Applied(name, method, contexts, scores, credit, words if source != "none" else "none"))
    return applied


def only(contexts: Contexts, needed: Bool[np.ndarray, " N"]) -> Contexts:
    """The contexts of the needed rows; the others look as if nobody had asked for one."""
    kept = needed[contexts.rows]

    def column(values, absent):
        return tuple(value if wanted else absent for value, wanted in zip(values, needed, strict=True))

    return Contexts(
        column(contexts.kind, ""), column(contexts.status, "not_needed"), column(contexts.text, ""),
        contexts.rows[kept], contexts.context[kept], contexts.context_length[kept],
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


def _score_teacher(run: Run, params, rollouts: Rollouts, contexts: Contexts) -> Float[np.ndarray, "N T"]:
    """Log-probabilities of the rows with a context; 0 elsewhere."""
    logp, rows = np.zeros(rollouts.response.shape, np.float32), contexts.rows
    if len(rows):
        prompts = (contexts.context, contexts.context_length, rollouts.response[rows])
        logp[rows] = score_rows(run.policy, params, *prompts, **run.scoring)[0]
    return logp


def _scores(rollouts: Rollouts, entropy, logp_teacher, contexts: Contexts) -> Scores:
    """As `scoring.score` makes them: rows without a context hold equal zeros, so they have no gap."""
    scored = np.zeros(len(rollouts.text), bool)
    scored[contexts.rows] = True
    kept = rollouts.mask * scored[:, None]
    return Scores(rollouts.logp * kept, logp_teacher * kept, entropy * kept, scored)
