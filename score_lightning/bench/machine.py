"""The machine and the software that a measurement depends on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from score_lightning.runtime.memory import host_bytes
from score_lightning.runtime.processes import bf16_units, processor_name

PACKAGES = (
    "score_lightning", "torch", "torchvision", "lightning", "torchmetrics", "torch-fidelity", "diffusers", "azula",
    "denoising-diffusion-pytorch", "ema-pytorch", "smalldiffusion",
)  # fmt: skip


def describe(device: str) -> dict[str, str]:
    """Name -> value of everything that results depend on."""
    facts = {
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "bf16 in the processor": bf16_units(torch.device("cpu")) or "none",
        "threads": str(torch.get_num_threads()),
        "memory": f"{total_memory('cpu') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        facts["GPU"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    missing = []
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            missing.append(package)
    return facts | ({"not installed, and left out": ", ".join(missing)} if missing else {})


def total_memory(device: str) -> int:
    """Bytes of the GPU's or the machine's memory."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return host_bytes()
