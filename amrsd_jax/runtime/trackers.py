"""Trackers show a run while it trains: TensorBoard always, Weights & Biases where `config.tracker` asks for it."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from amrsd_jax.files import atomic_write, read_object
from amrsd_jax.names import first_line
from amrsd_jax.processes import only_first
from amrsd_jax.runtime.console import say
from amrsd_jax.sections import ConfigError

COLUMNS = (
    "step", "question", "answer", "response", "reward", "verdict", "advantage",
    "reflection_kind", "reflection_status", "reflection",
)  # fmt: skip
FINISH_SECONDS = 300  # W&B would wait without end for a network that is gone, and the report would never be written


@runtime_checkable
class Tracker(Protocol):
    """What the metrics of a run are passed to."""

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Shows metrics; `kind` is "train" or "eval"."""

    def rollouts(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Shows saved rollouts, as `runtime.rollouts` has them."""

    def close(self, results: dict[str, Any] | None) -> None:
        """Ends the run with the content of its `results.json`, None where there is none."""


class TensorBoard:
    """Writes event files below `tensorboard/`, with the config and a few rollouts as text."""

    def __init__(self, workdir: Path, step: int):
        from tensorboardX import SummaryWriter  # slow to import where PyTorch is installed

        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
        if (config := workdir / "config.json").exists():
            self._board.add_text("config", _verbatim(config.read_text(encoding="utf-8")), max(step, 0))

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def rollouts(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        self._board.add_text("rollouts", "\n\n---\n\n".join(map(_markdown, samples(rows))), step)

    def close(self, results: dict[str, Any] | None) -> None:
        self._board.close()


class WeightsAndBiases:
    """Sends a run to Weights & Biases. What fails there is told once, and ends the tracking but not the run.

    Project, mode and account are those of W&B's own environment variables and login; its local files are below `wandb/`.
    `wandb.json` has the id of the W&B run and the last step that was sent of each kind of row, so that a resumed run continues
    that run and sends no step twice: steps never go backwards.
    """

    def __init__(self, workdir: Path):
        self._path, self._run = workdir / "wandb.json", None
        with self._tolerated():
            self._start(workdir)

    def _start(self, workdir: Path) -> None:
        import wandb

        self._wandb = wandb
        saved = read_object(self._path) if self._path.exists() else {}
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(FINISH_SECONDS))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "amrsd_jax"), name=os.environ.get("WANDB_NAME", workdir.resolve().name),
            id=saved.get("id"), resume="allow", reinit="finish_previous", dir=str(workdir),
            config=read_object(workdir / "config.json"),
            allow_val_change=True,  # a run may be extended
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")
        self._sent = saved.get("sent", {})
        self._save()

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        self._send(kind, step, lambda: values)

    def rollouts(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        def table() -> dict[str, Any]:
            columns = [name for name in ("data_set", *COLUMNS) if name in rows[0]]  # data_set: in a run on a mixture
            data = [[row[name] for name in columns] for row in rows]
            return {"rollouts": self._wandb.Table(columns=columns, data=data)}

        self._send("rollouts", step, table)

    def close(self, results: dict[str, Any] | None) -> None:
        if self._run:
            with self._tolerated():
                self._run.summary.update(results or {})
                self._run.finish()

    def _send(self, kind: str, step: int, values: Callable[[], dict[str, Any]]) -> None:
        """Sends a row, unless it was sent before the run was resumed."""

        if self._run and step > self._sent.get(kind, -1):
            with self._tolerated():
                self._run.log(values() | {"step": step})
                self._sent[kind] = step
                self._save()

    def _save(self) -> None:
        atomic_write(self._path, json.dumps({"id": self._run.id, "sent": self._sent}) + "\n")

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of network, disk or account, which W&B raises in every kind
            self._run = None
            say(f"Weights & Biases failed, and the run goes on without it: {first_line(error)}")


def require(tracker: str) -> None:
    """Raises ConfigError if the config's tracker is not installed."""
    if tracker == "wandb":
        try:
            from wandb import init  # noqa: F401  a folder named wandb can be imported too, but has no such function
        except ImportError as error:
            raise ConfigError(
                f"tracker = 'wandb': {error}; install the extra: pip install 'amrsd_jax[wandb]', or pip install wandb"
            ) from error


@only_first
def start(tracker: str, workdir: Path) -> Tracker | None:
    """Returns the tracker that the config names besides TensorBoard; None where it names none, and on all but process 0."""
    return WeightsAndBiases(workdir) if tracker == "wandb" else None


# ---------------------------------------------------------------- texts


def samples(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns at most four rollouts, two of the lowest and two of the highest reward, those with a reflection if any has one.

    No two of them have the same question and reward.
    """
    reflected = [row for row in rows if row["reflection"]] or rows
    ranked = sorted(
        {(row["question"], row["reward"]): row for row in reflected}.values(), key=lambda row: row["reward"]
    )
    return ranked if len(ranked) <= 4 else ranked[:2] + ranked[-2:]


def _markdown(row: dict[str, Any]) -> str:
    parts = {
        "Question": row["question"],
        f"Response, reward {row['reward']:g}": row["response"],
        f"Reflection ({row['reflection_kind']}, {row['reflection_status']})": row["reflection"],
    }
    return "\n\n".join(f"**{title}**\n\n{_verbatim(text)}" for title, text in parts.items() if text)


def _verbatim(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
