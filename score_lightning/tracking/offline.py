"""The offline record of a Weights & Biases run, read back.

wandb's Python package no longer has a reader of its files (wandb.sdk.internal.datastore went; 0.31 reads them in its
compiled core alone), so their layout stands here. A file is a header of 7 bytes, then blocks of 32 KiB of parts of
records, each with a checksum, its length and its kind: a whole record (1), or its first (2), a middle (3) or its last
(4) part.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import lazy_import

protocol: Any = lazy_import("wandb.proto.wandb_internal_pb2")  # 1.2 s, for which runs without wandb do not wait

HEADER, BLOCK = 7, 2**15
WHOLE, MIDDLE, LAST = 1, 3, 4


def read_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, as protocol buffers; after a kill it ends with its last whole one."""
    data, place, parts = path.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + HEADER])
        end = place + HEADER + length
        if kind == 0 or end > len(data):
            return
        parts = (parts if kind in (MIDDLE, LAST) else b"") + data[place + HEADER : end]
        place = end
        if kind in (WHOLE, LAST):
            record = protocol.Record()
            record.ParseFromString(parts)
            yield record


def read_line(record: Any) -> dict[str, str]:
    """What a record logs: key -> JSON; empty for records of other kinds."""
    return {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
