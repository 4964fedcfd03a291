"""Evaluates a policy on every benchmark of a config: `python -m amrsd_jax.evaluate --config=FILE [--checkpoint=PLACE]`.

PLACE is the workdir of a run (for its newest checkpoint), one of its folders checkpoints/<step>, or a Hugging Face folder or
hub id; without it, the config's own model is evaluated. The folder --out receives a Parquet file of answers per benchmark,
evaluation.json and evaluation.md. The same command continues an interrupted evaluation.
"""

import sys
from pathlib import Path

from absl import app, flags, logging

from amrsd_jax.flags import define_config, parser, require_named

CONFIG = define_config()
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "", "A run, one of its checkpoints/<step>, or a Hugging Face folder or hub id."
)
OUT = flags.DEFINE_string("out", "evaluation", "Folder to write; benchmarks that it holds are not repeated.")
flags.mark_flag_as_required("config")
require_named("out")


def main(_: list[str]) -> None:
    from amrsd_jax.evaluate.files import markdown
    from amrsd_jax.evaluate.saved import evaluate_saved
    from amrsd_jax.interrupt import Interrupted
    from amrsd_jax.runtime.compilation import use_compilation_cache

    logging.set_verbosity(logging.WARNING)  # the checkpoint library logs much at INFO
    out = Path(OUT.value)
    use_compilation_cache(out)
    try:
        record = evaluate_saved(CONFIG.value, CHECKPOINT.value, out)
    except (OSError, ValueError) as error:
        sys.exit(f"evaluate error: {error}")
    except (Interrupted, KeyboardInterrupt) as signal:
        sys.exit(f"evaluate: {signal or 'a second signal'}: the same command continues after the benchmarks in {out}")
    print(markdown(record))


if __name__ == "__main__":
    app.run(main, flags_parser=parser(__doc__, CONFIG))
