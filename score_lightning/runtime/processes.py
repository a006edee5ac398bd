"""Processes that share a task: ranks, devices, and how they are launched."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.fabric.strategies.ddp import DDPStrategy

from score_lightning.errors import SharedUserError, UserError, report
from score_lightning.perturbation import has_float64
from score_lightning.runtime.memory import check_bytes

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

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0; every rank must call it."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, device=torch.device(self.device))
        return box[0]


def rank_of(trainer: L.Trainer) -> Rank:
    """This process's rank in the trainer."""
    return Rank(trainer.global_rank, trainer.world_size, metric_device(trainer.strategy.root_device))


def local_processes(devices: str) -> int:
    """How many processes share this machine: those of a launcher, else as many as asked for, 1 where that is open."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", devices if devices.isdigit() else 1))


def metric_device(device: torch.device) -> torch.device:
    """Where metrics are gathered for a model on this device: there, or on the CPU if the device has no float64."""
    return device if has_float64(device) else torch.device("cpu")


def device_name(device: torch.device) -> str:
    """A GPU's name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


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

    Under torchrun the processes exist already. A single process needs no launch.

    Raises:
        UserError: when the processes cannot be started on that device.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))  # torchrun's
    everywhere = int(os.environ.get("WORLD_SIZE", here))
    if everywhere == 1:
        return Rank(device=metric_device(device)), device
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    try:
        check_bytes(here * PROCESS, f"{here} processes")
    except MemoryError as error:
        raise UserError(f"devices={processes} cannot be used: {error}") from error
    # rank 0 alone computes the final metrics, which takes a while for many images
    strategy = DDPStrategy(timeout=timedelta(days=1))
    try:
        fabric = L.Fabric(accelerator=device.type, devices=here, num_nodes=everywhere // here, strategy=strategy)
        fabric.launch()
    except (ValueError, RuntimeError, L.fabric.utilities.exceptions.MisconfigurationException) as error:
        raise UserError(f"devices={processes} cannot be used: {error}") from error
    return Rank(fabric.global_rank, fabric.world_size, metric_device(fabric.device)), fabric.device
