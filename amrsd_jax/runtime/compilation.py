"""The persistent compilation cache, on by default: a second run of the same shapes starts at once."""

from pathlib import Path

import jax


def use_compilation_cache(workdir: Path) -> None:
    """Keeps compiled programs in the workdir, unless JAX_COMPILATION_CACHE_DIR already names a place."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str((workdir / "compilation_cache").absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
