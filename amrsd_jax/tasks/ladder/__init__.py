"""The ladder: families of short exercises that small pretrained models can learn, `--config.task.name=ladder`."""

from amrsd_jax.tasks.ladder.judge import Judgement, judge
from amrsd_jax.tasks.ladder.task import RUNGS, Ladder

__all__ = ["RUNGS", "Judgement", "Ladder", "judge"]
