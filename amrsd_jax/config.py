"""The configuration of a run: each field with its type, bounds, default and meaning, declared once.

`base` turns the models into the `ml_collections.ConfigDict` that config files and flags edit; `validate.validate` turns that
back into a frozen `Config`, whose sections are passed to functions. A field whose default is that of another choice, e.g. of
the credit rule, is "" or None until `validate` fills it in.
"""

from typing import Annotated, Any, Literal

import ml_collections
import pydantic
from pydantic import Field

from amrsd_jax.names import nearest
from amrsd_jax.sections import (
    Count,
    Decay,
    Natural,
    NonNegative,
    Positive,
    PositiveShare,
    Section,
    Share,
    editable,
    open_section,
    section,
)

# ---------------------------------------------------------------- the model


PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")  # of a transformer block


class LoraConfig(Section):
    """Low-rank adapters over a frozen model."""

    rank: Natural = Field(0, description="inner size; 0: no adapters, every parameter is trained")
    alpha: Positive = Field(32.0, description="strength, divided by the rank")
    targets: str = Field(",".join(PROJECTIONS), description="projections that have an adapter")

    @pydantic.field_validator("targets")
    @classmethod
    def _known(cls, targets: str) -> str:
        for name in targets.split(","):
            if name.strip() not in PROJECTIONS:
                raise ValueError(f"{name.strip()!r}: {nearest(name, PROJECTIONS)}")
        return targets

    @property
    def projections(self) -> tuple[str, ...]:
        """The names of `targets`."""
        return tuple(name.strip() for name in self.targets.split(","))

    @property
    def scale(self) -> float:
        """alpha / rank, by which an adapter's product is multiplied."""
        return self.alpha / self.rank


class MeshConfig(Section):
    """Devices along each axis of the mesh."""

    data: int = Field(-1, ge=-1, description="-1 takes the devices that remain")
    fsdp: Count = Field(1, description="devices that share parameters and optimiser state, as well as rows")
    tensor: Count = Field(1, description="devices that share heads, projections and the vocabulary")

    @pydantic.field_validator("data")
    @classmethod
    def _not_zero(cls, data: int) -> int:
        if data == 0:
            raise ValueError("expected at least 1, or -1 for the devices that remain")
        return data


# ---------------------------------------------------------------- the task


class TaskConfig(Section):
    """Where problems come from."""

    name: str = Field("addition", description="a name of amrsd_jax.tasks.registry")
    args: dict[str, Any] = open_section(
        "arguments of the task that differ from its defaults; of a mixture the fields of DataSetConfig by data set"
    )


class DataSetConfig(TaskConfig):
    """A data set of a mixture: a task, and its share of the prompts."""

    name: str = Field("", description="a name of amrsd_jax.tasks.registry, other than those of embedded tasks")
    share: Positive = Field(1.0, description="of the prompts, relative to the shares of the other sets")
    templates: dict[str, str] = open_section("replacements for texts of reflection.prompts, in this set's prompts")


class WarmupConfig(Section):
    """Supervised warm-up of the embedded tasks."""

    documents: Natural = Field(0, description="0 skips the warm-up")
    row_length: Count = Field(160, description="packed tokens per row")
    rows: Count = Field(8, description="rows per update; tiny models need small batches")
    learning_rate: NonNegative = Field(3e-3, description="highest learning rate of the warm-up")
    b2: Decay = Field(0.98, description="decay of the second moment")
    solve: Share = Field(0.5, description="share of documents that solve a problem")
    reflect: Share = Field(0.25, description="share that write a reflection")
    given: Share = Field(0.0, description="share that solve with the gold answer or a solution in view")
    trace: Share = Field(0.0, description="share that repair an attempt as a critic; the rest solve with a reflection")
    peer: Share = Field(0.6, description="share of the reflecting documents that show a correct peer")
    lines: Count = Field(1, description="most lines in a reflection that a document solves with")

    @pydantic.model_validator(mode="after")
    def _shares(self):
        total = self.solve + self.reflect + self.given + self.trace
        if total > 1 + 1e-9:  # 0.4 + 0.35 + 0.25 may round to more than 1
            raise ValueError(f"solve + reflect + given + trace = {total}: expected at most 1")
        return self


# ---------------------------------------------------------------- a step


class RolloutConfig(Section):
    """How responses are sampled."""

    prompts: Count = Field(16, description="B, problems per step")
    group: Count = Field(8, description="G, responses per problem")
    prompt_length: Count = Field(32, description="P, tokens; longer prompts are skipped and counted")
    response_length: Count = Field(80, description="T, tokens")
    temperature: Positive = Field(1.0, description="above 0: a greedy policy has no gradient")
    top_k: Natural = Field(0, description="0 keeps all tokens")
    top_p: PositiveShare = Field(1.0, description="1 keeps all tokens")
    slots: Count = Field(128, description="rows decoded at the same time")
    admit: Count = Field(16, description="prompts that are prefilled together, rounded to equally many on each device")
    segment: Count = Field(64, description="decode steps between two reads by the host")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="strings that end a response or a reflection, which keeps them; end tokens always do"
    )
    rounds: Count = Field(1, description="batches sampled at most, to replace groups of equal rewards (DAPO)")

    @pydantic.field_validator("stop", mode="before")
    @classmethod
    def _from_json(cls, stop: Any) -> Any:
        return tuple(stop) if isinstance(stop, list) else stop

    @pydantic.field_serializer("stop")
    def _to_json(self, stop: tuple[str, ...]) -> list[str]:
        return list(stop)  # as config.json has it, with which the config of a resumed run is compared

    @pydantic.model_validator(mode="after")
    def _group_fits(self):
        if self.group > self.slots:
            raise ValueError(f"group = {self.group}: expected at most slots = {self.slots}")
        return self


class RewardConfig(Section):
    """Changes to the verifier's reward."""

    overlong_buffer: Natural = Field(0, description="DAPO's soft penalty over the last tokens of the budget; 0: none")
    permute: bool = Field(False, description="control run: rewards are permuted within the batch")


Baseline = Literal["", "group", "leave_one_out", "batch", "none"]


class CreditConfig(Section):
    """The credit rule."""

    rule: str = Field("amrsd", description="a name of amrsd_jax.credit.RULES, or file.py:NAME for a Rule of your own")
    args: dict[str, Any] = open_section("hyper-parameters of the rule that differ from its defaults")
    context: str = Field(
        "", description="what the teacher sees besides the question (reflection.sources); '': the rule's"
    )
    negatives: Natural | None = Field(
        None, description="negative contexts per row, for rules that contrast; None: the rule's"
    )
    baseline: Baseline = Field(
        "",
        description="what is subtracted from a reward: the mean of its group (GRPO), of the group's other rows (RLOO), of the "
        "batch, or nothing; '': the rule's",
    )
    normalize: bool | None = Field(
        None,
        description="divide advantages by the standard deviation of the group, or of the batch if the baseline is not a "
        "group's; None: only with baseline = group, as in GRPO",
    )
    sample_std: bool = Field(
        False,
        description="that deviation is the sample's, as in TRL and verl: sqrt(G / (G - 1)) times the population's",
    )
    exact_savings: bool = Field(True, description="skip reflection and teacher where they cannot change the credit")


TeacherKind = Literal["", "policy", "snapshot", "ema", "initial", "trust_region", "external"]


class TeacherConfig(Section):
    """The teacher's parameters."""

    kind: TeacherKind = Field("", description="'': the rule's own")
    every: Count = Field(10, description="steps between refreshes of a snapshot")
    rate: Share = Field(0.05, description="share of the policy in a moving average, per step, or in a trust region")


class ExternalConfig(Section):
    """Another run, whose newest parameters are the external teacher's and the critic's, frozen."""

    workdir: str = Field("", description="'': none; the critic is then the policy of step 0")


class ReflectionWarmupConfig(Section):
    """Supervised training on reflections that the task writes on the model's own attempts, before the first step."""

    attempts: Natural = Field(0, description="attempts that are sampled for it, in whole groups; 0 skips it")
    passes: Count = Field(1, description="times that every document is trained on")
    rows: Count = Field(4, description="packed rows per update")
    learning_rate: NonNegative = Field(5e-5, description="with adapters, about 5e-4")
    rehearsal: Share = Field(
        1.0,
        description="share of the attempts at whose tokens the model is held to its distribution before the warm-up",
    )
    solutions: Natural = Field(
        0,
        description="training problems whose reference solutions are learnt too, for tasks that the model never solves",
    )

    @pydantic.model_validator(mode="after")
    def _beside_attempts(self):
        if self.solutions and not self.attempts:
            raise ValueError(f"solutions = {self.solutions}: expected 0 without a warm-up (attempts = 0)")
        return self


class ReflectionConfig(Section):
    """How reflections and teacher prompts are made."""

    prompt_length: Count = Field(192, description="longest reflection prompt; the attempt is cut to fit")
    tokens: Count = Field(128, description="longest reflection (our choice)")
    context_length: Count = Field(192, description="R, longest teacher prompt; the reflection is cut to fit")
    temperature: NonNegative = Field(0.7, description="our choice")
    open_tag: bool = Field(
        False,
        description="begin the policy's reply with its tag, for models that write none: the reply is the reflection",
    )
    keep_sentences: bool = Field(False, description="where a reflection reaches its limit, keep its whole sentences")
    chat_template: dict[str, Any] = open_section("arguments of the chat template that differ in reflection prompts")
    peers: bool = Field(True, description="show a verified-correct sibling")
    reference: bool = Field(False, description="show the reference solution where no such sibling is shown")
    null_control_every: Natural = Field(
        0,
        description="steps between measurements of the gap that the teacher's prompt makes without a reflection; 0: none",
    )
    slots: Count = Field(64, description="as in rollout")
    admit: Count = Field(32, description="as in rollout")
    templates: dict[str, str] = open_section("replacements for texts of reflection.prompts")
    warmup: ReflectionWarmupConfig = section(ReflectionWarmupConfig)


class ScoringConfig(Section):
    """How log-probabilities are computed."""

    rows: Count = Field(32, description="rows scored together")
    chunk: Count = Field(2048, description="tokens of one device whose logits exist at one time")


class LossConfig(Section):
    """The policy-gradient loss: clipped surrogate + kl * KL(policy || reference) - entropy * H(policy)."""

    ratio: Literal["token", "sequence"] = Field(
        "token",
        description="importance ratio per token, or the value of one per row, with each token's own gradient (GSPO)",
    )
    clip_low: NonNegative = Field(0.2, description="the ratio is clipped below 1 - clip_low")
    clip_high: NonNegative = Field(0.2, description="and above 1 + clip_high")
    clip_dual: NonNegative = Field(
        0.0, description="bound of the ratio where the credit is negative (dual clip; verl's default is 3); 0: none"
    )
    reduction: Literal["sequence_mean", "token_mean", "constant"] = Field(
        "sequence_mean",
        description="mean over the tokens of a row, then over rows (GRPO); over all tokens (DAPO); or a row's sum divided by "
        "constant_length (Dr.GRPO)",
    )
    constant_length: Annotated[int, Field(gt=0)] | None = Field(None, description="divisor of reduction = constant")
    kl: NonNegative = Field(0.0, description="coefficient of the KL to the policy at step 0")
    kl_estimator: Literal["k3", "k2"] = Field(
        "k3",
        description="k3 estimates the KL, but its gradient is that of KL(reference || policy); k2's is that of the KL",
    )
    entropy: NonNegative = Field(0.0, description="coefficient of the entropy bonus")
    old_logprobs: Literal["", "sampler", "trainer", "update"] = Field(
        "",
        description="denominator of the ratio: as sampled, recomputed by the trainer, or by the update's own program, in which "
        "the ratio begins at exactly 1; '': update where a clip bound is below 0.01, else sampler",
    )
    importance_cap: Positive | None = Field(
        None,
        description="bound of the importance weight between sampler and trainer, of surrogate and divergence; needs "
        "old_logprobs = trainer or update",
    )
    mask_truncated: bool = Field(False, description="leave out responses that reached the length limit")

    @pydantic.model_validator(mode="after")
    def _consistent(self):
        if (self.reduction == "constant") != (self.constant_length is not None):
            raise ValueError(
                f"constant_length = {self.constant_length} with reduction = {self.reduction!r}: "
                "the length belongs to reduction 'constant', which needs it"
            )
        if self.importance_cap is not None and self.old_logprobs not in ("trainer", "update"):
            raise ValueError(
                f"importance_cap = {self.importance_cap}: expected old_logprobs = 'trainer' or 'update', not "
                f"{self.old_logprobs or 'sampler'!r}; the sampler's log-probabilities cannot be weighed against themselves"
            )
        if 0 < self.clip_dual <= 1:
            raise ValueError(
                f"clip_dual = {self.clip_dual}: expected 0, or more than 1, the ratio at which an update begins"
            )
        return self


class LearningConfig(Section):
    """How the rows of a step are divided among updates."""

    minibatches: Count = Field(1, description="optimiser updates per step")
    micro_batches: Count = Field(1, description="parts of an update whose gradients are accumulated")
    skip: bool = Field(False, description="do not compute parts whose rows have no credit (groups of equal rewards)")
    share_prompts: bool = Field(
        False,
        description="run a prompt once for all its responses in a part, for responses of a few hundred tokens; no effect where "
        "rows are split over devices",
    )

    @property
    def parts(self) -> int:
        """The number of micro-batches that a step is divided into."""
        return self.minibatches * self.micro_batches


class OptimizerConfig(Section):
    """AdamW with clipping by the global norm."""

    learning_rate: NonNegative = Field(1e-4, description="highest learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="after the warm-up; linear and cosine reach 0 after the run's last update; a rollback takes the rate back",
    )
    warmup_updates: Natural = Field(
        0,
        description="linear: the first update has 1 / warmup_updates of the learning rate, where HF and verl begin with 0",
    )
    b1: Decay = Field(0.9, description="decay of the first moment")
    b2: Decay = Field(0.95, description="decay of the second moment")
    eps: Positive = Field(1e-8, description="added to the root of the second moment")
    weight_decay: NonNegative = Field(0.0, description="of kernels, embeddings and adapters, times the learning rate")
    clip_norm: NonNegative = Field(1.0, description="0 turns clipping off")
    max_skipped: Count = Field(
        3, description="steps in a row with a skipped update (gradient or result not finite) that end the run"
    )


# ---------------------------------------------------------------- what a run reports and keeps


class SignalConfig(Section):
    """What the collapse monitor does when a signal passes its threshold."""

    action: Literal["off", "warn", "rollback", "stop"] = Field("warn", description="what is done when it fires")
    threshold: float = Field(description="value from which it counts as passed")


def _signal(threshold: float, description: str) -> Any:
    return Field(default_factory=lambda: SignalConfig(threshold=threshold), description=description)


class MonitorConfig(Section):
    """The collapse monitor (docs/monitor.md); all values are our choice."""

    window: Count = Field(5, description="steps that a signal is averaged over; the first window is its start")
    patience: Count = Field(3, description="steps in a row beyond the threshold before a signal fires")
    rollbacks: Natural = Field(2, description="rollbacks at most; one more stops the run")
    reward: SignalConfig = _signal(0.5, "relative fall from the running best")
    entropy: SignalConfig = _signal(0.1, "ratio to the start, at or below")
    entropy_rise: SignalConfig = _signal(2.0, "ratio to the start, at or above")
    shorter: SignalConfig = _signal(0.5, "mean length, ratio to the start, at or below")
    longer: SignalConfig = _signal(2.0, "mean length, ratio to the start, at or above")
    truncation: SignalConfig = _signal(0.5, "share of responses that reached the length limit")
    repetition: SignalConfig = _signal(0.5, "share of tokens in 4-grams that their response repeats")
    gap: SignalConfig = _signal(0.1, "mean |teacher - student| log-probability, ratio to the start, at or below")
    mass: SignalConfig = _signal(0.5, "share of |credit| on 1 % of the tokens")
    zero_advantage: SignalConfig = _signal(0.95, "share of groups whose advantages are all 0")
    unusable: SignalConfig = _signal(0.5, "share of the needed reflections that were written and are unusable")
    timeouts: SignalConfig = _signal(0.1, "share of verdicts that timed out")


class Questions(Section):
    """The questions of a benchmark, and how they are answered."""

    every: Natural = Field(10, description="steps between evaluations; 0: only before and after training")
    problems: Natural = Field(256, description="number of problems, the first of a split; 0: all rows")
    samples: Count = Field(1, description="k, answers sampled per question, besides a greedy one")
    temperature: NonNegative = Field(1.0, description="of the sampled answers")
    top_k: Natural = Field(0, description="0 keeps all tokens")
    top_p: PositiveShare = Field(1.0, description="1 keeps all tokens")


class BenchmarkConfig(Questions):
    """A further benchmark: a task, and the fields that differ from `evaluation`."""

    task: TaskConfig


class EvaluationConfig(Questions):
    """Evaluation on the test split of the config's task, and on further benchmarks."""

    last: Count = Field(5, description="evaluations whose mean is reported besides the best and the last")
    benchmarks: dict[str, BenchmarkConfig] = open_section(
        "name to task=dict(name=..., args=...) and fields that differ"
    )


class CheckpointConfig(Section):
    """When checkpoints are saved, and which are kept."""

    every: Count = Field(10, description="steps between checkpoints")
    keep: Count = Field(2, description="latest checkpoints kept, besides the best and the one to roll back to")


class PlanConfig(Section):
    """The memory plan."""

    refuse: bool = Field(
        True, description="refuse a run that does not fit the devices' memory, before it allocates any"
    )


class ReportConfig(Section):
    """The rollouts saved for the report."""

    rollouts_every: Count = Field(5, description="steps between two saved batches of rollouts; first and last always")


class Config(Section):
    """Every field of a run."""

    seed: int = Field(0, ge=0, lt=2**32, description="below 2**32, the range of JAX's generator")
    steps: Count = Field(30, description="training steps: one batch of rollouts each")
    model: str = Field(
        "tiny",
        min_length=1,
        description="a preset of policy.architecture, a GGUF file, or a Hugging Face folder or hub id",
    )
    architecture: dict[str, Any] = open_section("fields of policy.Architecture that differ from the model's")
    lora: LoraConfig = section(LoraConfig)
    tokenizer: str = Field(
        "", description="folder, GGUF file or hub id; '': the model's, or for a preset the embedded task's own"
    )
    chat_template: dict[str, Any] = open_section(
        "arguments of the chat template, e.g. enable_thinking; date_string: the day, where the template writes one; "
        "path: a file, 'chatml' or 'plain' instead of the tokenizer's own template"
    )
    attention: Literal["auto", "xla", "cudnn", "splash"] = Field("auto", description="which attention kernel runs")
    decode_attention: Literal["auto", "blocks", "xla", "cudnn", "ragged"] = Field(
        "auto", description="layout of the cache and the attention that reads it, see policy/cache.py"
    )
    remat: Literal["none", "dots", "full"] = Field("dots", description="what the backward pass recomputes")
    mesh: MeshConfig = section(MeshConfig)
    task: TaskConfig = section(TaskConfig)
    warmup: WarmupConfig = section(WarmupConfig)
    rollout: RolloutConfig = section(RolloutConfig)
    reward: RewardConfig = section(RewardConfig)
    credit: CreditConfig = section(CreditConfig)
    teacher: TeacherConfig = section(TeacherConfig)
    distill: dict[str, Any] = open_section("fields of scoring.Divergence that differ from the rule's")
    external: ExternalConfig = section(ExternalConfig)
    reflection: ReflectionConfig = section(ReflectionConfig)
    scoring: ScoringConfig = section(ScoringConfig)
    loss: LossConfig = section(LossConfig)
    learning: LearningConfig = section(LearningConfig)
    optimizer: OptimizerConfig = section(OptimizerConfig)
    monitor: MonitorConfig = section(MonitorConfig)
    evaluation: EvaluationConfig = section(EvaluationConfig)
    checkpoint: CheckpointConfig = section(CheckpointConfig)
    plan: PlanConfig = section(PlanConfig)
    report: ReportConfig = section(ReportConfig)
    tracker: Literal["", "wandb"] = Field(
        "",
        description="besides TensorBoard: wandb (Weights & Biases), set up by its own variables (WANDB_PROJECT, ...)",
    )

    @property
    def rows(self) -> int:
        """N, rows of a step."""
        return self.rollout.prompts * self.rollout.group

    @property
    def updates(self) -> int:
        """The number of optimiser updates that the run makes."""
        return self.steps * self.learning.minibatches

    @property
    def warmup_row_length(self) -> int:
        """Tokens of a row of the reflection warm-up, which holds every reflection and every attempt with its prompt."""
        rollout, reflection = self.rollout, self.reflection
        return max(rollout.prompt_length + rollout.response_length, reflection.prompt_length + reflection.tokens)


def base() -> ml_collections.ConfigDict:
    """Returns the config with every field at its default, in the form that config files and flags edit."""
    return editable(Config())
