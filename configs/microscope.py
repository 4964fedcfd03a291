"""The quickstart with a model that has also learned to read answers and solutions, and to repair an attempt.

It is for comparing methods, whatever their teacher is shown.

Command:   python -m amrsd_jax.main --config=configs/microscope.py --workdir=runs/microscope
           python -m amrsd_jax.compare --rollouts=runs/microscope --methods=all --out=runs/microscope/compare
Hardware:  two CPU cores, about five minutes and one minute.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.warmup.update(documents=20_000, solve=0.35, reflect=0.2, given=0.2, trace=0.1)
    return config
