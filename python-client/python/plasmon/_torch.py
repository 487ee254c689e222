"""Tensors of torch within pickles: their elements become buffers of the pickle, which a recall need not copy.

torch cannot make a tensor read-only, and a write to the store's memory ends the process. So only tensors that nobody
but the caller would write to are made over it: those that are learned themselves, or in lists and dictionaries of
tensors, and that need no gradients. All others (parameters, the tensors of a module) are copied once by a recall.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plasmon import _plasmon

if TYPE_CHECKING:
    from collections.abc import Callable


def reducers(value: Any) -> dict[type, Callable[[Any], Any]]:
    """Return how the tensors of a value are pickled, by type. Of subclasses torch knows best."""
    in_place = _is_of_tensors(value)

    def reduce(tensor: torch.Tensor) -> Any:
        return _reduce(tensor, in_place)

    return {torch.Tensor: reduce, torch.nn.Parameter: reduce}


def _is_of_tensors(value: Any) -> bool:
    if type(value) in (dict, OrderedDict):
        return all(map(_is_of_tensors, value.values()))
    if type(value) in (list, tuple):
        return all(map(_is_of_tensors, value))
    return type(value) in (torch.Tensor, torch.nn.Parameter, str, int, float, bool, type(None))


def _reduce(tensor: torch.Tensor, in_place: bool) -> Any:
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
    in_place = in_place and not is_parameter and not tensor.requires_grad
    said = (tensor.dtype, tuple(tensor.shape), order, tensor.requires_grad, is_parameter, in_place)
    return _tensor, (pickle.PickleBuffer(data), *said), attributes, None, None, _set_attributes


def _set_attributes(tensor: torch.Tensor, attributes: dict[str, Any]) -> None:
    vars(tensor).update(attributes)


def _tensor(
    data: Any,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    order: list[int],
    requires_grad: bool,
    is_parameter: bool,
    in_place: bool,
) -> torch.Tensor:
    """Return what `_reduce` pickled."""
    if memoryview(data).readonly:
        if in_place:
            data = np.asarray(_Unlocked(data))
        else:
            _plasmon.count_copied(memoryview(data).nbytes)
            data = bytearray(data)
    elements = torch.frombuffer(data, dtype=dtype).reshape([shape[at] for at in order])
    tensor = elements.permute([order.index(at) for at in range(len(order))])
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_(requires_grad)


class _Unlocked:
    """Bytes that torch takes without the warning that it cannot make them read-only: docs/values.md has it."""

    def __init__(self, data: Any) -> None:
        self._array = np.frombuffer(data, np.uint8)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {**self._array.__array_interface__, "data": (self._array.ctypes.data, False)}
