"""The configuration of a run: every field with its default."""

import dataclasses

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from amrsd_jax import credit, tasks
from amrsd_jax.policy.huggingface import is_place

ASKED = (
    "every",
    "problems",
    "samples",
    "temperature",
    "top_k",
    "top_p",
)  # of an evaluation; a benchmark may have its own


def base() -> ConfigDict:
    """Every field, at its default. Configs start from this and change what they are about."""
    config = ConfigDict()
    config.seed = 0
    config.steps = 30  # training steps: one batch of rollouts each

    config.model = (
        "tiny"  # a preset of policy.architecture, or a Hugging Face folder or hub id, which brings its weights
    )
    config.architecture = ConfigDict(  # fields of the model to replace; None keeps its own
        dict(
            vocab_size=placeholder(int), width=placeholder(int), layers=placeholder(int), heads=placeholder(int),
            kv_heads=placeholder(int), head_dim=placeholder(int), ffn=placeholder(int), qk_norm=placeholder(bool),
            qkv_bias=placeholder(bool), tied=placeholder(bool), rope_theta=placeholder(float), dtype=placeholder(str),
        )
    )  # fmt: skip
    config.lora = ConfigDict(  # low-rank adapters over a frozen model
        dict(
            rank=0,  # 0: none, every parameter learns
            alpha=32.0,  # strength, divided by the rank
            targets="query,key,value,output,gate,up,down",
        )
    )
    config.tokenizer = ""  # folder or hub id; "" is that of the model's place, or of a preset the embedded task's own
    config.chat_template = ConfigDict()  # arguments of the chat template, e.g. enable_thinking
    config.attention = "auto"  # of whole rows: xla, cudnn, splash, or what the devices have
    config.remat = "dots"  # what the backward pass recomputes: none, dots, full
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))  # data = -1 takes the devices that remain

    config.task = ConfigDict(
        dict(
            name="addition",
            args=ConfigDict(),  # those of the task that differ from its defaults
        )
    )
    config.warmup = ConfigDict(  # supervised warm-up of embedded tasks; 0 documents skips it
        dict(
            documents=0,
            row_length=160,  # packed tokens a row
            rows=8,  # rows an update; small batches are decisive for tiny models
            learning_rate=3e-3,
            b2=0.98,
            solve=0.5,  # share of documents that solve,
            reflect=0.25,  # that reflect,
            given=0.0,  # that solve with the gold answer or a solution in view,
            trace=0.0,  # that repair an attempt as a critic; the rest solve with a reflection in view
            peer=0.6,  # share of reflecting documents that show a correct peer
            lines=1,  # most true lines in a reflection that is read
        )
    )

    config.rollout = ConfigDict(
        dict(
            prompts=16,  # B, problems a step
            group=8,  # G, rollouts a problem
            prompt_length=32,  # P; longer prompts are skipped and counted
            response_length=80,  # T
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            slots=128,  # rows in flight
            admit=16,  # prompts prefilled together
            segment=64,  # decode steps between two looks of the host
            rounds=1,  # DAPO's dynamic sampling: batches drawn at most, to replace groups of equal rewards
        )
    )
    config.reward = ConfigDict(
        dict(
            overlong_buffer=0,  # DAPO's soft penalty over the last tokens of the budget; 0 is off
            permute=False,  # control run: rewards shuffled within the batch
        )
    )
    config.credit = ConfigDict(
        dict(
            rule="amrsd",
            args=ConfigDict(),  # those of the rule that differ from its defaults
            context="",  # what the teacher sees besides the question, see reflection.sources; "" is the rule's own
            normalize=True,  # divide advantages by the group's standard deviation (GRPO) or not (Dr.GRPO)
            exact_savings=True,  # skip reflection and teacher for rows whose credit they cannot change
        )
    )
    config.teacher = ConfigDict(
        dict(
            kind="",  # policy, snapshot, ema, initial, trust_region, external; "" is the rule's own
            every=10,  # steps between refreshes of a snapshot
            rate=0.05,  # share of the policy in a moving average, per step, or in a trust region
        )
    )
    config.distill = ConfigDict(  # of rules that distil, see scoring.divergence; None is the rule's own
        dict(
            coefficient=placeholder(float), alpha=placeholder(float), top_k=placeholder(int), support=placeholder(str),
            entry_clip=placeholder(float), importance_cap=placeholder(float),
        )
    )  # fmt: skip
    config.external = ConfigDict(
        dict(
            workdir="",  # a run whose newest parameters are the external teacher's and the critic's, frozen; without
            # one the critic is the policy of step 0
        )
    )
    config.reflection = ConfigDict(
        dict(
            prompt_length=192,  # longest reflection prompt; the attempt is shortened to fit
            tokens=128,  # longest reflection (our choice)
            context_length=192,  # R, longest teacher prompt; the reflection is shortened to fit
            temperature=0.7,  # our choice
            chat_template=ConfigDict(),  # replaces arguments of chat_template where a reflection is asked for
            peers=True,  # show a verified-correct sibling
            reference=False,  # show the reference solution where no such sibling is shown
            slots=64,
            admit=32,
            templates=ConfigDict(),  # replacements for texts of reflection.prompts
        )
    )
    config.scoring = ConfigDict(
        dict(
            rows=32,  # rows scored together
            chunk=4096,  # tokens whose logits exist at one time
        )
    )
    config.loss = ConfigDict(
        dict(
            ratio="token",  # token, or one per sequence (GSPO)
            clip_low=0.2,
            clip_high=0.2,
            reduction="sequence_mean",  # sequence_mean, token_mean, constant
            constant_length=placeholder(int),  # divisor of reduction = constant
            kl=0.0,  # coefficient of the KL to the policy at step 0
            kl_estimator="k3",  # k3, k2
            entropy=0.0,  # coefficient of the entropy bonus
            old_logp="sampler",  # denominator of the ratio: as sampled, or recomputed by the trainer
            importance_cap=placeholder(float),  # truncated importance weight between the two; needs old_logp = trainer
            mask_truncated=False,  # leave out responses that hit the length limit
        )
    )
    config.learning = ConfigDict(
        dict(
            minibatches=1,  # optimiser updates a step
            micro_batches=1,  # pieces of an update whose gradients are accumulated
            skip=False,  # leave out pieces of rows without credit, as all of a group with equal rewards are
        )
    )
    config.optimizer = ConfigDict(
        dict(
            learning_rate=1e-4,
            schedule="constant",  # constant, linear, cosine
            warmup_updates=0,
            b1=0.9,
            b2=0.95,
            eps=1e-8,
            weight_decay=0.0,
            clip_norm=1.0,
            max_skipped=3,  # updates refused in a row (gradient not finite) before the run stops
        )
    )
    config.monitor = ConfigDict(  # of collapse, see docs/monitor.md; actions: off, warn, rollback, stop; all our choice
        dict(
            window=5,  # steps that a signal is smoothed over; the first window is its start
            patience=3,  # steps in a row beyond the threshold before it fires
            rollbacks=2,  # at most; one more stops the run
            reward=_signal(0.5),  # relative fall from the running best
            entropy=_signal(0.1),  # ratio to the start, at or below
            entropy_rise=_signal(2.0),  # ratio to the start, at or above
            shorter=_signal(0.5),  # mean length, ratio to the start, at or below
            longer=_signal(2.0),  # mean length, ratio to the start, at or above
            truncation=_signal(0.5),  # share of responses
            repetition=_signal(0.5),  # share of tokens in 4-grams that their response repeats
            gap=_signal(0.1),  # mean |l_T - l_S|, ratio to the start, at or below
            mass=_signal(0.5),  # share of |credit| on 1 % of the tokens
            flat=_signal(0.95),  # share of rows with advantage 0
            timeouts=_signal(0.1),  # share of verdicts
        )
    )
    config.evaluation = ConfigDict(
        dict(
            every=10,  # steps; 0 evaluates only before and after
            problems=256,  # the first of a split; 0 takes all rows
            samples=1,  # k, answers drawn for each, besides a greedy one
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            last=5,  # evaluations whose mean is reported besides the best and the last
            benchmarks=ConfigDict(),  # further ones: name to task=(name, args) and fields above that differ; see `evaluate`
        )
    )
    config.checkpoint = ConfigDict(dict(every=10, keep=2))  # steps; latest kept, besides the best
    config.plan = ConfigDict(
        dict(refuse=True)
    )  # a run that does not fit the devices' memory, before anything is allocated
    config.report = ConfigDict(dict(rollouts_every=5))  # steps between dumps of rollouts; first and last always
    return config


def _signal(threshold: float) -> ConfigDict:
    return ConfigDict(dict(action="warn", threshold=threshold))


def resolve(config: ConfigDict) -> ConfigDict:
    """A valid config with what it leaves to its task and rule spelled out, so that what is written down is complete."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.tokenizer = config.tokenizer or (config.model if is_place(config.model) else "")
        config.task.args = tasks.defaults(config.task.name) | dict(config.task.args)
        for name, section in config.evaluation.benchmarks.items():
            own = {field: config.evaluation[field] for field in ASKED}
            own["problems"] = own["problems"] if tasks.embedded(section.task.name) else 0  # rows are asked to the last
            args = tasks.defaults(section.task.name) | dict(section.task.get("args", {}))
            task = dict(name=section.task.name, args=args)
            config.evaluation.benchmarks[name] = ConfigDict(own | dict(section) | dict(task=task))
        rule = credit.get(config.credit.rule)
        config.credit.args = rule.defaults | dict(config.credit.args)
        config.credit.context = config.credit.context or rule.context
        config.teacher.kind = config.teacher.kind or rule.teacher
        if rule.distil:
            for name, value in dataclasses.asdict(rule.distil).items():
                config.distill[name] = value if config.distill[name] is None else config.distill[name]
    return config
