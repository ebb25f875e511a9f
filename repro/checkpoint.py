"""Checkpoints: tensors and JSON in one safetensors file, written atomically.

One file and one rename: whoever reads sees either the whole old state or the whole new one, also after `kill -9`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from repro.durability import write_atomically
from repro.errors import Failure

KEY = "repro"  # one key, since safetensors writes several in no fixed order


class CheckpointError(Failure):
    """A checkpoint that can't be read; the message names the file and says what to do."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to `path`, whole or not at all.

    Args:
        path: the file; its folder must exist.
        tensors: by name, on any device.
        values: anything that JSON can hold.
    """
    host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(values)
    write_atomically(path, save(host, metadata={KEY: f"{_digest(host, text)} {text}"}))


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of all that a file holds; safetensors itself would take a flipped bit for a number."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_tensors(
    path: Path, device: torch.device | str = "cpu", *, remedy: str = "restore it, or run its cell again with --force"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Args:
        path: the file.
        device: of the tensors.
        remedy: what a user can do about a damaged file, for the message.

    Raises:
        CheckpointError: if the file is damaged or of another kind.
    """
    try:
        raw = path.read_bytes()  # once: safe_open opens the file by its name again for every tensor
        tensors = load(raw)
        metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"][KEY]
        digest, text = metadata.split(" ", 1) if metadata[0] != "{" else (None, metadata)  # older files have no hash
        if digest not in (None, _digest(tensors, text)):
            raise ValueError("its SHA-256 is another")
        return {name: tensor.to(device) for name, tensor in tensors.items()}, json.loads(text)
    except (SafetensorError, LookupError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}") from None


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the weights of a finished run into its model.

    Args:
        model: as it was trained.
        tensors: its state by name.

    Raises:
        CheckpointError: if they are another model's.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reasons = " ".join(str(error).partition(":\n")[2].split())
        raise CheckpointError(f"weights must be those of the settings' {type(model).__name__}; {reasons}") from None
