"""AMR-SD on edits of a string (reverse, rotate, swap), each with its own planted mistake: a slower curve than addition's.

Command:   python -m amrsd_jax.main --config=configs/strings.py --workdir=runs/strings
Hardware:  two CPU cores, about five minutes.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.task.name = "strings"
    config.warmup.documents = 20_000
    config.rollout.prompt_length = 32
    config.steps = 60
    return config
