"""Makes the lines that a run prints: one per step and per evaluation, and warnings, which are not repeated at every step."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from amrsd_jax import credit
from amrsd_jax.config import Config
from amrsd_jax.records import Contexts
from amrsd_jax.reflection.parse import WRITTEN
from amrsd_jax.runtime.console import Pace

STREAK = 5  # steps in a row without a learning signal after which the warning is repeated (our choice)


class StepLines:
    """Makes the console lines of training steps; it must be called once for each step, in their order."""

    def __init__(self, config: Config, rule: credit.Rule):
        self._config, self._pace = config, Pace(config.steps)
        self._warned = self._told_unusable = self._told_cut = False
        self._streak = 0
        self._prompts = rule.reads_gap or bool(rule.distill)  # others read the words of a text alone

    def __call__(self, step: int, row: Mapping[str, float | None], contexts: Contexts) -> list[str]:
        """Returns the lines of the step with these metrics and contexts."""
        config = self._config
        lines = [one_line(step, config.steps, row, config.credit.context, self._pace.left(step))]
        self._streak = self._streak + 1 if without_signal(row) else 0
        if self._streak == STREAK or (self._streak and not self._warned):
            lines.append(f"step {step}: no learning signal in {_steps(self._streak)}: {advice(row, config)}")
            self._warned = True
        if not self._told_unusable and (line := unusable_reflections(step, contexts, prompts=self._prompts)):
            lines.append(line)
            self._told_unusable = True
        if not self._told_cut and self._prompts and (rows := contexts.all_cut()):
            lines.append(
                f"step {step}: the teacher's prompt had no room for the whole text of {len(rows)} of {len(contexts.rows)} rows, "
                f"among them row {rows[0]}: raise reflection.context_length = {config.reflection.context_length}"
            )
            self._told_cut = True
        return lines


def _steps(streak: int) -> str:
    return "this step" if streak == 1 else f"{streak} steps in a row"


def percent(share: float) -> str:
    """Returns a share as a text such as "62 %"."""
    return f"{100 * share:.0f} %"


def one_line(
    step: int, steps: int, row: Mapping[str, float | None], context: str = "none", left: str | None = None
) -> str:
    """Returns the console line of a step.

    Args:
      context: `config.credit.context`.
      left: the time until the end of the run.
    """
    kl = row.get("policy/kl_to_reference")
    parts = [
        f"step {step:{len(str(steps))}}/{steps}",
        f"reward {row['reward/mean']:.3f}",
        f"length {row['response_length/mean']:.0f}",
        f"entropy {row['policy/entropy']:.3f}" if kl is None else f"KL {kl:.4f}",
        f"grad norm {row['grad_norm']:.2g}",
        f"{row['tokens/s']:.0f} tokens/s",
        f"MFU {percent(row['mfu'])}" if "mfu" in row else "",
        f"{row['seconds/step']:.1f} s",
        f"ETA {left}" if left else "",
        _teacher(row, context),
        "UPDATE SKIPPED: not finite" if row["updates/skipped"] else "",
        "no learning signal" if without_signal(row) else "",
    ]
    return "  ".join(filter(None, parts))


def _teacher(row: Mapping[str, float | None], context: str) -> str:
    """Returns on how many rows the policy reflected, or another teacher had a context; "" for rules without a teacher."""
    if context == "none":
        return ""
    did, made = ("reflected on", "usable") if "reflection" in context else ("teacher on", "with its context")
    if not row["reflection/needed"]:
        return f"{did} no row"
    return f"{did} {percent(row['reflection/needed'])} of rows, {percent(row['reflection/usable'])} {made}"


def without_signal(row: Mapping[str, Any]) -> bool:
    """Returns whether a step's rewards changed no parameter: every gradient was 0, or none was finite."""
    return row.get("grad_norm") == 0 or row.get("updates/skipped") == 1


def advice(row: Mapping[str, float | None], config: Config) -> str:
    """Returns why a step had no learning signal, and which fields of the config to change."""
    if row["updates/skipped"]:
        return "no gradient was finite. Try a lower optimizer.learning_rate"
    if row["groups/zero_advantage"] < 1:
        return "rewards differ, but all credit is 0 where the loss counts (credit.args, loss.mask_truncated)"
    group = f"more responses per problem (rollout.group = {config.rollout.group})"
    if row["reward/accuracy"] == 1:
        return "every response is right. The task is solved: try harder problems (task.args)"
    if row["reward/accuracy"]:
        return (
            f"the responses to each problem are all right or all wrong. Try {group}, or replace such problems "
            "(rollout.rounds = 3)"
        )
    documents = config.warmup.documents
    model = f"a longer warm-up (warmup.documents = {documents})" if documents else "a model that solves some of them"
    reasons = [f"no response is right. Try easier problems (task.args), {group}, or {model}"]
    if (cut := row["response_length/clip_ratio"]) > 0.5:
        limit = config.rollout.response_length
        reasons.append(f"{percent(cut)} of the responses reach rollout.response_length = {limit}: raise it")
    if row["reward/format"] < 0.5:
        reasons.append(f"only {percent(row['reward/format'])} have an answer of the form that the verifier reads")
    return "; ".join(reasons)


def unusable_reflections(step: int, contexts: Contexts, *, prompts: bool = True) -> str | None:
    """Returns a line where most of the needed texts are unusable or have no room: how many, why, and one of them; else None.

    Args:
      prompts: whether a teacher reads the texts in its prompt, so that they need room there.
    """
    reasons = Counter(status for status in contexts.status if status in (*WRITTEN, *(["no_room"] if prompts else [])))
    needed = sum(status != "not_needed" for status in contexts.status)
    if 2 * reasons.total() <= needed:
        return None
    reason, count = reasons.most_common(1)[0]
    sample = " ".join(contexts.text[contexts.status.index(reason)].split())
    example = f"such as {sample[:200]!r}"
    if reason == "no_room":
        example = "since their prompts do not fit: raise reflection.prompt_length or reflection.context_length"
    return (
        f"step {step}: {reasons.total()} of {needed} texts for the teacher are unusable, and their rows keep the credit of GRPO; "
        f"{count} are {reason!r}, {example}"
    )


def evaluation_line(step: int, benchmark: str, metrics: Mapping[str, float]) -> str:
    """Returns the line of a benchmark that was evaluated after a step; its metrics are those of `evaluate.measure`."""
    parts = [f"sampled {metrics['sampled']:.3f} ({metrics['sampled_low']:.3f} to {metrics['sampled_high']:.3f})"]
    k = metrics["samples"]
    parts += [f"{name} {metrics[name]:.3f}" for name in (f"pass_at_{k}", f"maj_at_{k}", "greedy") if name in metrics]
    return f"step {step}, evaluation on {metrics['n']} problems of {benchmark}: {', '.join(parts)}"
