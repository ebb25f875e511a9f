"""Checkpoints: tensors and JSON in one safetensors file, written atomically.

One file and one rename: whoever reads sees either the whole old state or the whole new one, also after `kill -9`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

KEY = "repro"


class CheckpointError(Exception):
    """A checkpoint that can't be read; the message names the file and says what to do."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to `path`, whole or not at all.

    Args:
        path: the file; its folder must exist.
        tensors: by name, on any device.
        values: anything that JSON can hold.
    """
    host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(host, metadata={KEY: json.dumps(values)})
    write_atomically(path, data)


def write_atomically(path: Path, data: bytes) -> None:
    """Write bytes beside `path`, flush them to the disk, then rename."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_tensors(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        CheckpointError: if the file is damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = file.metadata() or {}
        return tensors, json.loads(metadata[KEY])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it to start this run from the beginning") from None
