"""torch.func's transforms, as far as a solve has to know of them."""

from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]


def is_transformed(tensor: Tensor) -> bool:
    """Check whether a tensor is one of vmap, jvp, jacrev or grad, which has no memory of its own."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def is_vmapped(tensor: Tensor) -> bool:
    """Check whether a tensor stands for a batch of tensors."""
    return _functorch.is_batchedtensor(tensor)
