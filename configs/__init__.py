"""Configs of runs; an installed package has them as `amrsd_jax.configs`."""

import sys

sys.modules.setdefault("configs", sys.modules[__name__])  # the name by which they import each other
