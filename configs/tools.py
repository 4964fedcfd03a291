"""AMR-SD, or another method, on ToolAlpaca: which tools to call for a user's request, and with which arguments.

Command:   python -m amrsd_jax.main --config=configs/tools.py --workdir=runs/tools
           ... --config=configs/tools.py:sdpo                a method of configs/methods.py
           ... --config.model=Qwen/Qwen3-1.7B                or Qwen/Qwen3-4B, Qwen/Qwen2.5-7B-Instruct
           ... --config.task.args.folder=DATA/tooluse        its train.json and test.json, on this machine
           ... --config.chat_template.enable_thinking=True
Hardware:  eight accelerators of 80 GB (--config.mesh.fsdp); the published runs had four GH200 for about six hours.
Memory:    43 GiB on each, with SDPO 47, as estimated by `python -m amrsd_jax.plan --devices=8 --memory_gib=80`; slices of TPUs
           and their meshes: docs/scaling.md.

Rows and split are those that SDPO published (its repository at the commit of configs/science.py; ToolAlpaca's, Apache-2.0):
4,046 rows of train, 68 of test. Rows whose gold calls cannot be read are skipped and listed. With the published settings
SDPO is reported to fall to 0 after about 400 steps here; docs/monitor.md says how such a run is stopped. What else is
published and what is ours: configs/benchmark.py.
"""

from configs.benchmark import benchmark, choose
from configs.science import PUBLISHED


def get_config(argument: str = ""):
    _, method = choose(argument)
    config = benchmark(method, solutions=False)
    config.task.name = "tools"
    config.task.args.folder = f"{PUBLISHED}/tooluse"
    config.task.args.update(train="train.json", test="test.json", question="prompt", unanswered="skip")
    return config
