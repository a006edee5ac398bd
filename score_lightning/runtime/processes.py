"""Processes that share a task: ranks, devices, and how they are launched."""

import logging
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from score_lightning.errors import SharedUserError, UserError, report
from score_lightning.perturbation import has_float64
from score_lightning.runtime.memory import check_bytes
from score_lightning.runtime.signals import end_at_signals
from score_lightning.runtime.startup import is_first

if TYPE_CHECKING:
    import lightning as L

PROCESS = 2**26  # bytes that a process takes at least


@dataclass(frozen=True)
class Rank:
    """This process: its number, the number of processes, and the device that metrics are gathered on."""

    number: int = 0
    count: int = 1
    device: torch.device | str = "cpu"

    @contextmanager
    def sharing_errors(self) -> Iterator[None]:
        """Raises a user's mistake or a failure to write of any rank on every rank: the others would wait for it.

        Every rank must enter, and nothing inside may wait for another rank.
        """
        message, unexpected = None, None
        try:
            yield
        except UserError as error:
            message = str(error)
        except OSError as error:
            message = report(error)
        except Exception as error:
            message, unexpected = f"{type(error).__name__}: {error}", error
        messages = [other for other in self.gather(message) if other is not None]
        if unexpected is not None:
            raise unexpected
        if messages:
            raise SharedUserError(messages[0])

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order; every rank must call it."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def collect(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, at rank 0, and none at the others; every rank must call it."""
        if self.count == 1:
            return [value]
        values = [None] * self.count if self.number == 0 else None
        torch.distributed.gather_object(value, values)
        return values or []

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0; every rank must call it."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, device=torch.device(self.device))
        return box[0]


def rank_of(trainer: "L.Trainer") -> Rank:
    """This process's rank in the trainer."""
    return Rank(trainer.global_rank, trainer.world_size, metric_device(trainer.strategy.root_device))


@dataclass(frozen=True)
class Launcher:
    """What has started the processes of this task, if not this program: how many on each of how many machines."""

    name: str
    processes: int
    machines: int


def find_launcher() -> Launcher | None:
    """torchrun or SLURM's srun, if one of them has started this process."""
    e = os.environ
    if "LOCAL_WORLD_SIZE" in e:
        here = int(e["LOCAL_WORLD_SIZE"])
        return Launcher("torchrun", here, int(e.get("WORLD_SIZE", here)) // here)
    # srun's, not the batch script's own; Lightning takes these names for shells, in which it starts processes itself
    if "SLURM_STEP_NUM_TASKS" in e and e.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        machines = int(e.get("SLURM_NNODES", 1))
        return Launcher("SLURM", int(e.get("SLURM_NTASKS_PER_NODE", int(e["SLURM_NTASKS"]) // machines)), machines)
    return None


def placement(devices: str, machines: int = 1, prefix: str = "") -> tuple[str, int]:
    """(devices of each machine, machines) of a task: those of a launcher where they are open, which is auto and 1.

    Raises:
        UserError: when they contradict the launcher; the settings' names have the prefix.
    """
    launcher = find_launcher()
    if launcher is None:
        return devices, machines
    wrong = []
    if devices.isdigit() and int(devices) != launcher.processes:
        wrong.append(f"{prefix}devices={devices}")
    if machines not in (1, launcher.machines):
        wrong.append(f"{prefix}num_nodes={machines}")
    if wrong:
        raise UserError(
            f"{launcher.name} has started {launcher.processes} processes on each of {launcher.machines} machines, not"
            f" {' '.join(wrong)}: leave that out, or take what was started"
        )
    return str(launcher.processes) if devices == "auto" else devices, launcher.machines


def local_processes(devices: str) -> int:
    """How many processes share this machine: those of a launcher, else as many as asked for, 1 where that is open."""
    launcher = find_launcher()
    if launcher is not None:
        return launcher.processes
    return int(devices) if devices.isdigit() else 1


def check_address() -> None:
    """Checks where the first process will listen, if the environment says so; torchrun listens itself.

    Raises:
        UserError: when there is no such address, or another program listens there.
    """
    address, port = os.environ.get("MASTER_ADDR", "localhost"), os.environ.get("MASTER_PORT")
    if port is None or "LOCAL_WORLD_SIZE" in os.environ or not is_first():
        return
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch does
            probe.bind(("", int(port)))
        socket.getaddrinfo(address, port)
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"the processes cannot connect at MASTER_ADDR={address}, MASTER_PORT={port} ({reason}): set MASTER_PORT to"
            " a free port and MASTER_ADDR to the name of the first machine, or leave them out on a single machine"
        ) from error


def metric_device(device: torch.device) -> torch.device:
    """Where metrics are gathered for a model on this device: there, or on the CPU if the device has no float64."""
    return device if has_float64(device) else torch.device("cpu")


def device_name(device: torch.device) -> str:
    """A GPU's name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def processor_name() -> str:
    """The model of this machine's processor, as far as the system tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one.

    Raises:
        UserError: when there is no such device.
    """
    try:
        if name == "auto":
            return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        probe = torch.zeros(1, device=name)
        probe.item()  # which fails where there is no memory, as on meta
        return probe.device
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(f"device={name} cannot be used: {str(error).splitlines()[0]}") from error


def bf16_units(device: torch.device) -> str:
    """The hardware units that multiply bfloat16 matrices on a device; empty without any."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"compute capability {major}.{minor}" if major >= 8 else ""
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return next((unit for unit in ("amx_bf16", "avx512_bf16") if has.get(unit)), "")


def launch(device: torch.device, processes: int = 1) -> tuple[Rank, torch.device]:
    """This rank and its device, after starting the other processes with the command of this one.

    Under torchrun and SLURM the processes exist already. A single process needs no launch.

    Raises:
        UserError: when the processes cannot be started on that device, or are not those of torchrun or SLURM.
    """
    devices, machines = placement("auto" if processes == 1 else str(processes))
    here = 1 if devices == "auto" else int(devices)
    if here * machines == 1:
        return Rank(device=metric_device(device)), device
    import lightning as L
    from lightning.fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    try:
        check_bytes(here * PROCESS, f"{here} processes")
    except MemoryError as error:
        raise UserError(f"devices={processes} cannot be used: {error}") from error
    check_address()
    # rank 0 alone computes the final metrics, which takes a while for many images
    strategy = DDPStrategy(timeout=timedelta(days=1))
    try:
        fabric = L.Fabric(accelerator=device.type, devices=here, num_nodes=machines, strategy=strategy)
        with end_at_signals():
            fabric.launch()
    except (ValueError, RuntimeError, L.fabric.utilities.exceptions.MisconfigurationException) as error:
        raise UserError(f"devices={processes} cannot be used: {error}") from error
    return Rank(fabric.global_rank, fabric.world_size, metric_device(fabric.device)), fabric.device
