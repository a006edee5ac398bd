"""What the entry points share."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import resource
import torch
from score_lightning.cli import keep_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (2**20, 2**22, 2**24):
        torch.ones(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_memory()
pages()
print(pages() * resource.getpagesize())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
@pytest.mark.skipif(
    "[always]" in HUGE.read_text() if HUGE.exists() else False, reason="the system makes few large pages"
)
@pytest.mark.parametrize(("setting", "kept"), [({}, True), ({"MALLOC_MMAP_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_used_again_unless_the_user_says_otherwise(setting, kept):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment = {**inherited, **setting}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, env=environment, check=True)
    new = int(done.stdout) / (4 * (2**20 + 2**22 + 2**24))  # share of the numbers' pages that are new
    assert new < 0.05 if kept else new > 0.5
