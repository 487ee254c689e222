"""Tensors of torch within pickles: their elements become buffers of the pickle, which a recall need not copy.

torch cannot make a tensor read-only, and a write to the store's memory would end the process. So tensors, as all that
asks a buffer of a pickle for bytes to write to, lie in pages that are copied when they are first written.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import torch  # pyright: ignore[reportMissingImports]  # whether it is there makes no difference

if TYPE_CHECKING:
    from collections.abc import Callable

    from plasmon import _plasmon


def reducers() -> dict[type, Callable[[Any], Any]]:
    """Return how tensors are pickled, by type. Of subclasses torch knows best."""
    return {torch.Tensor: _reduce, torch.nn.Parameter: _reduce}


def _reduce(tensor: torch.Tensor) -> Any:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return tensor.__reduce_ex__(5)
    attributes = vars(tensor) or None
    tensor = tensor.resolve_conj().resolve_neg()  # torch's own pickles forget the one and the other
    if not tensor.is_leaf or tensor._backward_hooks or tensor.numel() == 0:
        return tensor.__reduce_ex__(5)
    elements = tensor.detach()
    # From the longest stride to the shortest: so a transposed or channels-last tensor lies in one piece.
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    if not elements.permute(order).is_contiguous():
        elements, order = elements.contiguous(), list(range(tensor.dim()))
    try:
        data = elements.permute(order).reshape(-1).view(torch.uint8).numpy()
    except RuntimeError:
        return tensor.__reduce_ex__(5)  # torch was built for another NumPy
    is_parameter = type(tensor) is torch.nn.Parameter
    said = (tensor.dtype, tuple(tensor.shape), order, tensor.requires_grad, is_parameter)
    return _tensor, (pickle.PickleBuffer(data), *said), attributes, None, None, _set_attributes


def _set_attributes(tensor: torch.Tensor, attributes: dict[str, Any]) -> None:
    vars(tensor).update(attributes)


def _tensor(
    data: _plasmon.Buffer | bytearray,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    order: list[int],
    requires_grad: bool,
    is_parameter: bool,
) -> torch.Tensor:
    """Return what `_reduce` pickled."""
    elements = torch.frombuffer(data, dtype=dtype).reshape([shape[at] for at in order])
    tensor = elements.permute([order.index(at) for at in range(len(order))])
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_(requires_grad)
