"""Sets up the persistent compilation cache, so that a second run with the same shapes need not compile."""

from pathlib import Path

import jax


def use_compilation_cache(workdir: Path) -> None:
    """Stores compiled programs in the workdir, unless JAX_COMPILATION_CACHE_DIR names another folder."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str((workdir / "compilation_cache").absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
