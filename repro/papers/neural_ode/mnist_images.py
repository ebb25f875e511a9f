"""MNIST as Section 3's experiments use it: on the device, cut for a tier, cropped at random, and its errors counted."""

import torch
from jaxtyping import Bool, UInt8
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from repro.data import DATASETS, Labelled
from repro.metrics import are_correct, nll_nats


class Images:
    """The images of one run, on its device: uint8 with their labels.

    Args:
        device: where they live.
        validation: whether 10,000 training images are held out to select on; without, the test images are selected on.
        train_limit: use so many training images only.
        evaluation_limit: use so many images of the others only.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        validation: bool = True,
        train_limit: int | None = None,
        evaluation_limit: int | None = None,
    ) -> None:
        splits = DATASETS["mnist"].load(validation=validation)
        self.sha256 = splits.sha256
        self.train = _on_device(splits.train, train_limit, device)
        self.select = _on_device(splits.validation if validation else splits.test, evaluation_limit, device)
        self.test = _on_device(splits.test, evaluation_limit, device)


def _on_device(part: Labelled, limit: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    return part.images[:limit].to(device), part.labels[:limit].to(device)


def to_float(images: UInt8[Tensor, "batch h w"]) -> Tensor:
    """Bytes to [batch, 1, h, w] in [0, 1]."""
    return images.unsqueeze(1).float() / 255


def random_crop(images: UInt8[Tensor, "batch h w"], padding: int, stream: Generator) -> UInt8[Tensor, "batch h w"]:
    """Shift every image by up to `padding` pixels each way, filling with black."""
    if padding == 0:
        return images
    batch, height, width = images.shape
    offsets = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=stream).to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)
    columns = offsets[1] + torch.arange(width, device=images.device)
    item = torch.arange(batch, device=images.device)[:, None, None]
    return F.pad(images, [padding] * 4)[item, rows[:, :, None], columns[:, None, :]]


def measure_error(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 1000) -> tuple[int, float]:
    """Count the errors and average the negative log-likelihood (nats) over all the images."""
    correct, nll = classify(model, images, labels, batch)
    return int((~correct).sum()), nll


@torch.no_grad()
def classify(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 1000) -> tuple[Bool[Tensor, " n"], float]:
    """Classify all the images; mark the correct ones and average the labels' negative log-likelihood (nats)."""
    model.eval()
    correct, nll = [], 0.0
    for chunk, target in zip(images.split(batch), labels.split(batch), strict=True):
        logits = model(to_float(chunk))
        correct.append(are_correct(logits, target))
        nll += float(nll_nats(logits, target)) * len(target)
    model.train()
    return torch.cat(correct), nll / len(labels)
