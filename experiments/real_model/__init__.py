"""Question: does credit from reflections help a pretrained model of 135 M parameters more than GRPO and dropped failures do?

Command:  python -m experiments.real_model run       (every run that the results lack; needs what
          docs/real_models.md installs; hours). Rows of one core: two of these at a time, `taskset -c 0` and `-c 1`.
          python -m experiments.real_model table | figure                  (from experiments/results/real_model.json)
Axes:     --rungs, --arms, --lr, --seeds narrow the grid. An arm may set arguments of its rule: `amrsd@tau=0.05,lam=1`.
Arms:     the keys of ARMS in `arms.py`; PARTS has their seeds: five for CORE, five for our own try, three for the others.
Endpoint: sampled accuracy on held-out problems, averaged over training, at equal rollouts. The comparisons that decide were named
          before their runs: CONTRASTS and TRY, paired by start and seed, with Student's t, and
          Bonferroni's and Holm's corrections. All else describes.

Runs on a rung begin with SmolLM2 after one reflection warm-up of its own seed, the start. Its digits may differ between kinds
of processors; rows name it, and arms are compared within one. The arms of a seed also share training problems, held-out problems
and sampling noise.
"""

from experiments.common import Study
from experiments.real_model.arms import ARMS, LR, RUNGS
from experiments.real_model.chart import figure
from experiments.real_model.runs import run
from experiments.real_model.tables import table

STUDY = Study("real_model", run, table, page="docs/tables.md", figure=figure)
AXES = {
    "rungs": dict(nargs="+", default=list(RUNGS), choices=list(RUNGS)),
    "arms": dict(nargs="+", default=list(ARMS)),
    "lr": dict(nargs="+", type=float, default=[LR]),
    "seeds": dict(nargs="+", type=int),
}
