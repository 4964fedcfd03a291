"""Plans the memory of a run on each device, from shapes alone; `python -m amrsd_jax.plan` prints the plan.

Nothing is allocated, and no weights, tokenizer or rows are fetched, so a run that does not fit is refused at once.
Parameters, optimiser, copies and cache are exact. On a CPU the process itself and the copy that a checkpoint is written from are
counted too. XLA's temporaries are estimated: on a CPU in float32 the peak is right within a factor of 1.5 (a test compares it
with the compiler's memory analysis), and `python -m amrsd_jax.plan --topology=v5e:2x4` puts what the compiler of a TPU says
beside it. A CPU computes bfloat16 in float32, and needs up to twice the planned memory.
"""

import dataclasses
from pathlib import Path

import jax

from amrsd_jax.config import Config
from amrsd_jax.plan import sizes
from amrsd_jax.sections import ConfigError

GIB = 1 << 30
PROCESS = 8 * GIB // 10  # of a host that computes: Python, its libraries and compiled programs, as measured

ADVICE = {  # item of the table -> settings that make it smaller
    "parameters": "a smaller model, or more of mesh.fsdp and mesh.tensor",
    "optimiser": "lora.rank, or more of mesh.fsdp",
    "teacher": "another teacher.kind, or lora.rank",
    "reference policy": "loss.kl = 0, or lora.rank",
    "critic": "another credit.context",
    "critic's decoding weights": "another credit.context, or more of mesh.tensor",
    "decoding weights": "more of mesh.tensor",
    "weights in the making": "more of mesh.tensor",
    "keys and values": "fewer rollout.slots and reflection.slots",
    "prefill": "smaller rollout.admit and reflection.admit",
    "gathered weights": "more of mesh.tensor",
    "activations": "remat = 'full', more learning.micro_batches, fewer scoring.rows",
    "logits": "a smaller scoring.chunk, fewer rollout.slots",
    "gradients": "lora.rank, or more of mesh.fsdp",
    "process": "nothing in the config",
    "copy of the state": "lora.rank",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Memory of a run, in bytes on one device.

    Attributes:
      model: description of the model and the mesh.
      always: memory held during the whole run, by item.
      phases: memory that each phase adds while it runs, by phase and item.
      available: bytes of the device's memory; on a CPU its share of the machine's free memory. None if unknown.
      device: name of the device.
    """

    model: str
    always: dict[str, int]
    phases: dict[str, dict[str, int]]
    available: int | None
    device: str

    @property
    def largest(self) -> dict[str, int]:
        """Bytes during the phase that needs most, by item."""
        return self.always | max(self.phases.values(), key=lambda parts: sum(parts.values()))

    @property
    def peak(self) -> int:
        """Bytes during the phase that needs most."""
        return sum(self.largest.values())

    @property
    def fits(self) -> bool:
        """Whether the peak fits into the device, or its memory is unknown."""
        return self.available is None or self.peak <= self.available

    def summary(self) -> str:
        """Returns one line that compares the peak with the device's memory."""
        need = f"{self.model}: {self.peak / GIB:.2f} GiB on each device"
        if self.available is None:
            return f"{need}; the memory of {self.device} is unknown"
        return f"{need} {'fit' if self.fits else 'do not fit'} into {self.available / GIB:.2f} GiB of {self.device}"

    def advice(self) -> str:
        """Returns lines that say how to make the three largest items smaller."""
        largest = sorted(self.largest, key=self.largest.get, reverse=True)[:3]
        return "\n".join(f"  for less {name}: {ADVICE[name]}" for name in largest)

    def table(self) -> str:
        """Returns the table of items and GiB, without items of 0."""
        lines = []
        for title, parts in {"always": self.always, **{f"to {k}": v for k, v in self.phases.items()}}.items():
            lines += [title, *(f"  {name:<30}{size / GIB:10.3f} GiB" for name, size in parts.items() if size)]
        return "\n".join([*lines, f"{'peak':<32}{self.peak / GIB:10.3f} GiB"])


def make_plan(config: Config, workdir: Path | None = None) -> Plan:
    """Plans the memory of a run, and looks up the memory of the devices of its mesh.

    Args:
      config: the validated config.
      workdir: of the run; need not exist.

    Raises:
      ValueError: the mesh does not fit the machine, or the parts of the run do not fit together.
    """
    run = sizes.planned(config, workdir)
    device = run.mesh.local_devices[0]
    plan = plan_of(run, available_memory(device, len(run.mesh.local_devices)), device.device_kind)
    return _beside_host(plan, run) if device.platform == "cpu" else plan


def plan_of(run: sizes.Planned, available: int | None, device: str) -> Plan:
    """Plans the memory of a run on devices that provide so many bytes, None if unknown.

    Args:
      device: name of the device.
    """
    shape = ", ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    model = f"model = {run.config.model!r}, {run.policy.architecture.parameters():,} parameters, mesh {shape}"
    return Plan(model, sizes.always(run), sizes.phases(run), available, device)


def _beside_host(plan: Plan, run: sizes.Planned) -> Plan:
    """Returns the plan of devices that share their memory with the process, and with the copy from which it saves the state.

    A checkpoint is written while the next step runs, so any phase of a step may have the copy beside it.
    """
    copy = {"copy of the state": sizes.saved(run)}
    phases = {name: parts if name == "warm up" else parts | copy for name, parts in plan.phases.items()}
    always = plan.always | {"process": PROCESS // len(run.mesh.local_devices)}
    return dataclasses.replace(plan, always=always, phases=phases)


def require(config: Config, workdir: Path) -> None:
    """Refuses a run that does not fit its devices, unless `plan.refuse` is off or their memory is unknown.

    Raises:
      ConfigError: the run does not fit; the message shows the plan and says what to change.
    """
    plan = make_plan(config, workdir)
    if config.plan.refuse and not plan.fits:
        lines = [plan.summary(), plan.advice(), "  to run it anyway: plan.refuse = False", plan.table()]
        if jax.default_backend() == "gpu":
            lines.insert(2, "  for a larger share of the GPU: XLA_CLIENT_MEM_FRACTION=0.95 in the environment")
        raise ConfigError("\n".join(lines))


def available_memory(device: jax.Device, devices: int) -> int | None:
    """Returns the bytes that a device provides, None if unknown. CPU devices share the free memory of the machine."""
    if device.platform == "cpu":
        free = _host_memory()
        return None if free is None else free // devices
    return (device.memory_stats() or {}).get("bytes_limit")


def _host_memory() -> int | None:
    """Returns the free bytes of the machine, or of its container (cgroup v2) if that has less; None outside of Linux.

    Pages of files that a container has read count as free, as they do in the machine's `MemAvailable`.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        known = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free.append(int(limit) - int(used) + int(known["inactive_file"]) + int(known["active_file"]))
    except (OSError, ValueError, KeyError):  # no container, or its limit is "max"
        pass
    return min(free, default=None)
