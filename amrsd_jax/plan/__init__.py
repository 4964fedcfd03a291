"""The memory a run will hold on each device, from shapes alone; `python -m amrsd_jax.plan` prints it.

Nothing is allocated and no weights, tokenizer or rows are fetched, so a run that does not fit is refused before any of
that. Parameters, optimiser, copies and cache are exact; what XLA adds in temporaries is estimated, and in float32 a total is
good to a factor of 1.5 either way (a test compares it with the compiler's own account). A CPU computes bfloat16 in float32 and
needs up to twice of what is said here.
"""

import dataclasses
from pathlib import Path

import jax
from ml_collections import ConfigDict

from amrsd_jax.checks import ConfigError
from amrsd_jax.plan import sizes

GIB = 1 << 30

_SMALLER = {  # what makes an item of the table smaller
    "parameters": "a smaller model, or more of mesh.fsdp and mesh.tensor",
    "optimiser": "lora.rank, or more of mesh.fsdp",
    "teacher": "another teacher.kind, or lora.rank",
    "reference policy": "loss.kl = 0, or lora.rank",
    "critic": "another credit.context",
    "decoding weights": "more of mesh.tensor",
    "keys and values": "fewer rollout.slots and reflection.slots",
    "prefill": "smaller rollout.admit and reflection.admit",
    "gathered weights": "more of mesh.tensor",
    "activations": "remat = 'full', more learning.micro_batches, fewer scoring.rows",
    "logits": "a smaller scoring.chunk, fewer rollout.slots",
    "gradients": "lora.rank, or more of mesh.fsdp",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes on one device.

    Attributes:
      model: in words, with its mesh.
      always: what is there during the whole run, by name.
      phases: what each phase adds for its time, by phase and name.
      available: of a device; on a CPU a device's share of the machine's free memory. None if nobody knows.
      device: what a device is called.
    """

    model: str
    always: dict[str, int]
    phases: dict[str, dict[str, int]]
    available: int | None
    device: str

    @property
    def largest(self) -> dict[str, int]:
        """What is held in the phase that holds most, by name."""
        return self.always | max(self.phases.values(), key=lambda parts: sum(parts.values()))

    @property
    def peak(self) -> int:
        return sum(self.largest.values())

    @property
    def fits(self) -> bool:
        return self.available is None or self.peak <= self.available

    def summary(self) -> str:
        """One line: the peak against the device's memory."""
        need = f"{self.model}: {self.peak / GIB:.2f} GiB on each device"
        if self.available is None:
            return f"{need}; the memory of {self.device} is not known"
        return f"{need} {'fit' if self.fits else 'do not fit'} into {self.available / GIB:.2f} GiB of {self.device}"

    def advice(self) -> str:
        """What makes the three largest items smaller."""
        largest = sorted(self.largest, key=self.largest.get, reverse=True)[:3]
        return "\n".join(f"  for less {name}: {_SMALLER[name]}" for name in largest)

    def table(self) -> str:
        """Lines of name and GiB, without what is 0."""
        lines = []
        for title, parts in {"always": self.always, **{f"while it {k}s": v for k, v in self.phases.items()}}.items():
            lines += [title, *(f"  {name:<30}{size / GIB:10.3f} GiB" for name, size in parts.items() if size)]
        return "\n".join([*lines, f"{'peak':<32}{self.peak / GIB:10.3f} GiB"])


def make_plan(config: ConfigDict, workdir: Path) -> Plan:
    """The memory of a resolved config's run on one device, against what the devices of its mesh say they have.

    Args:
      config: as `config.resolve` returns it.
      workdir: of the run; need not exist.

    Raises:
      ValueError: the mesh does not fit the machine, or the parts each other.
    """
    run = sizes.planned(config, workdir)
    device = run.mesh.local_devices[0]
    shape = ", ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    model = f"model = {config.model!r}, {run.policy.architecture.parameters():,} parameters, mesh {shape}"
    available = available_memory(device, len(run.mesh.local_devices))
    return Plan(model, sizes.always(run), sizes.phases(run), available, device.device_kind)


def require(config: ConfigDict, workdir: Path) -> None:
    """Refuses a run that does not fit its devices, unless `plan.refuse` is off or their memory is not known.

    Raises:
      ConfigError: with the numbers, and what to change.
    """
    plan = make_plan(config, workdir)
    if config.plan.refuse and not plan.fits:
        raise ConfigError(
            f"{plan.summary()}\n{plan.advice()}\n  to run it all the same: plan.refuse = False\n{plan.table()}"
        )


def available_memory(device: jax.Device, devices: int) -> int | None:
    """Bytes that a device has for us, None if nobody knows; a CPU's devices share what the machine has free."""
    if device.platform == "cpu":
        free = _host_memory()
        return None if free is None else free // devices
    return (device.memory_stats() or {}).get("bytes_limit")


def _host_memory() -> int | None:
    """Free bytes of the machine, or of the container's share of it if that is less; known on Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        free.append(int(limit) - int(used))
    except (OSError, ValueError):  # no container, or "max"
        pass
    return min(free, default=None)
