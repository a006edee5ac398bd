"""Processes that work on one task together: a rank's place among them, and how they are launched."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from score_lightning.errors import SharedUserError, UserError, explain
from score_lightning.runtime.memory import check_bytes

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
        """Raises a mistake, or a failure to write, of any rank on every rank, where the others would wait for it.

        Every rank must enter, and nothing inside may wait for another rank.
        """
        mine, own = None, None
        try:
            yield
        except UserError as error:
            mine = str(error)
        except OSError as error:
            mine = explain(error)
        except Exception as error:
            mine, own = f"{type(error).__name__}: {error}", error
        found = [message for message in self.gather(mine) if message is not None]
        if own is not None:
            raise own
        if found:
            raise SharedUserError(found[0])

    def gather(self, mine: Any) -> list[Any]:
        """What every rank has, by rank; every rank must ask."""
        if self.count == 1:
            return [mine]
        everyones = [None] * self.count
        torch.distributed.all_gather_object(everyones, mine)
        return everyones

    def broadcast(self, mine: Any) -> Any:
        """What rank 0 has; every rank must ask."""
        if self.count == 1:
            return mine
        box = [mine]
        torch.distributed.broadcast_object_list(box, device=torch.device(self.device))
        return box[0]


def rank_of(trainer: "L.Trainer") -> Rank:
    """This process among those of the trainer."""
    return Rank(trainer.global_rank, trainer.world_size, metric_device(trainer.strategy.root_device))


def metric_device(device: torch.device) -> torch.device:
    """Where metrics are gathered for a model on this device: there, but on the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def device_name(device: torch.device) -> str:
    """What a device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one.

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
    """What multiplies matrices of bfloat16 in a device's hardware; empty where nothing does."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"compute capability {major}.{minor}" if major >= 8 else ""
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return next((unit for unit in ("amx_bf16", "avx512_bf16") if has.get(unit)), "")


def launch(device: torch.device, processes: int = 1) -> tuple[Rank, torch.device]:
    """This rank and its device, after as many processes were started with the very command of this one.

    Under torchrun the processes are there already. One process is not launched at all.

    Raises:
        UserError: when the processes cannot be started on that device.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))  # torchrun's
    everywhere = int(os.environ.get("WORLD_SIZE", here))
    if everywhere == 1:
        return Rank(device=metric_device(device)), device
    import lightning as L
    from lightning.fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    try:
        check_bytes(here * PROCESS, f"{here} processes")
    except MemoryError as error:
        raise UserError(f"devices={processes} cannot be used: {error}") from error
    # the last formulas are rank 0's alone, and of many images they take a while
    strategy = DDPStrategy(timeout=timedelta(days=1))
    try:
        fabric = L.Fabric(accelerator=device.type, devices=here, num_nodes=everywhere // here, strategy=strategy)
        fabric.launch()
    except (ValueError, RuntimeError, L.fabric.utilities.exceptions.MisconfigurationException) as error:
        raise UserError(f"devices={processes} cannot be used: {error}") from error
    return Rank(fabric.global_rank, fabric.world_size, metric_device(fabric.device)), fabric.device
