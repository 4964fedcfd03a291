"""Tasks: problems and their verifiers. `registry` makes a task by its name.

Nothing is imported here: verifiers run without JAX, as in `python -m amrsd_jax.tasks.grade`.
"""
