"""Tensors of torch come back equal, of the same type, and in place where nobody would write to them.

With the oldest NumPy that the package allows: `scripts/test torch` runs this.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

import numpy as np
import plasmon
import pytest
import torch


def in_arena(tensor: torch.Tensor) -> bool:
    address = tensor.data_ptr()
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, *_, name = line.split(maxsplit=5)
            start, end = (int(part, 16) for part in span.split("-"))
            if start <= address < end:
                return "plasmon" in name
    return False


def same(a: Any, b: Any) -> bool:
    kind = (type(a), a.dtype, a.shape, a.requires_grad, a.device, a.layout)
    if kind != (type(b), b.dtype, b.shape, b.requires_grad, b.device, b.layout):
        return False
    return torch.equal(a, b) if a.layout is torch.strided else torch.equal(a.to_dense(), b.to_dense())


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 50, 8), (16_000,), (3,), (), (0, 4)], ids=str)
def test_every_dtype_and_shape_comes_back(brain: plasmon.Brain, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 100).to(dtype)
    before = plasmon.copied_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        brain["tensor"] = tensor
        found = brain["tensor"]
    assert same(found, tensor) and found.stride() == tensor.stride()
    if tensor.numel() * tensor.element_size() >= 4096:
        assert in_arena(found) and plasmon.copied_bytes() < before + 1000


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.T,
        lambda t: t.reshape(8, 5, 50, 50).contiguous(memory_format=torch.channels_last),
        lambda t: t.reshape(8, 250, 50).permute(2, 0, 1),
        lambda t: t.to(torch.complex64).mul(1j).conj(),
    ],
    ids=["transposed", "channels last", "permuted", "conjugated"],
)
def test_every_order_of_dimensions_comes_back(brain: plasmon.Brain, view: Any) -> None:
    tensor = view(torch.rand(2000, 50))
    brain["tensor"] = tensor
    found = brain["tensor"]
    assert same(found, tensor) and in_arena(found) and found.stride() == tensor.stride()


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[::2, 5:40],
        lambda t: t[0].expand(100, 50),
        lambda t: t.to(torch.complex64).mul(1j).conj().imag,
    ],
    ids=["sliced", "expanded", "negated"],
)
def test_what_does_not_lie_in_one_piece_comes_back_in_one(brain: plasmon.Brain, view: Any) -> None:
    tensor = view(torch.rand(2000, 50))
    brain["tensor"] = tensor
    found = brain["tensor"]
    assert same(found, tensor) and in_arena(found) and found.is_contiguous()


def test_dictionaries_and_lists_of_tensors_come_back_in_place(brain: plasmon.Brain) -> None:
    state = torch.nn.Sequential(torch.nn.Linear(100, 80), torch.nn.BatchNorm1d(2000)).state_dict()
    brain["state"] = state
    found = brain["state"]
    assert type(found) is type(state) and list(found) == list(state)
    assert all(same(found[name], state[name]) for name in state)
    large = [name for name in state if state[name].numel() >= 1024]
    assert len(large) == 5 and all(in_arena(found[name]) for name in large)
    shared = torch.rand(5000)
    brain["list"] = [shared, (shared, 1, "one"), OrderedDict(a=shared)]
    first, (second, *_), third = brain["list"]
    assert first is second is third["a"] and in_arena(first)


def test_what_needs_gradients_comes_back_private_and_writable(brain: plasmon.Brain) -> None:
    for tensor in (torch.rand(5000, requires_grad=True), torch.nn.Parameter(torch.rand(5000))):
        brain["tensor"] = tensor
        found = brain["tensor"]
        assert same(found, tensor) and found.is_leaf and not in_arena(found)
        with torch.no_grad():
            found += 1
    frozen = torch.nn.Parameter(torch.rand(5000), requires_grad=False)
    brain["tensor"] = frozen
    assert same(brain["tensor"], frozen) and not in_arena(brain["tensor"])


def test_a_module_is_trained_on_after_a_recall(brain: plasmon.Brain) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(100, 2000), torch.nn.BatchNorm1d(2000), torch.nn.Linear(2000, 1))
    brain["model"] = model
    found = brain["model"]
    assert all(same(a, b) for a, b in zip(model.state_dict().values(), found.state_dict().values(), strict=True))
    optimizer = torch.optim.SGD(found.parameters(), lr=0.1)
    found(torch.rand(32, 100)).sum().backward()  # writes to the running means
    optimizer.step()
    assert not torch.equal(found[0].weight, model[0].weight)
    assert torch.equal(brain["model"][0].weight, model[0].weight)


class Labelled(torch.Tensor):
    pass


def test_what_else_there_is_of_tensors_comes_back(brain: plasmon.Brain) -> None:
    labelled = torch.rand(5000).as_subclass(Labelled)
    labelled.label = "a label"
    tagged = torch.rand(5000)
    tagged.tag = "mine"
    sparse = torch.eye(200).to_sparse()
    for tensor in (labelled, tagged, sparse):
        brain["tensor"] = tensor
        assert same(brain["tensor"], tensor) and vars(brain["tensor"]) == vars(tensor)
    computed = torch.rand(5000, requires_grad=True) * 2
    brain["tensor"] = computed
    assert same(brain["tensor"], computed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions are about to drop them
        quantized = torch.quantize_per_tensor(torch.rand(5000), 0.1, 0, torch.qint8)
    brain["tensor"] = quantized
    assert torch.equal(brain["tensor"].int_repr(), quantized.int_repr())


def test_a_copy_can_be_written_to_and_other_forms_are_had(brain: plasmon.Brain) -> None:
    tensor = torch.rand(50, 100)
    brain["tensor"] = tensor
    copied = brain.recall("tensor", copy=True)
    copied += 1
    assert same(copied, tensor + 1) and same(brain["tensor"], tensor)
    assert np.array_equal(brain.recall("tensor", as_="numpy"), tensor.numpy())
    held = brain["tensor"]
    brain["tensor"] = torch.zeros(50, 100)
    assert same(held, tensor)
    assert same(plasmon.compact(held), tensor) and not in_arena(plasmon.compact(held))


def test_arrays_are_recalled_with_this_numpy(brain: plasmon.Brain) -> None:
    assert np.__version__.startswith("1.26.")
    for array in (
        np.arange(5000.0),
        np.asfortranarray(np.eye(60)),
        np.eye(60)[::2, ::-1],
        np.ones((1,) * 32),
        np.array(5),
    ):
        brain["array"] = array
        found = brain["array"]
        assert np.array_equal(found, array) and found.dtype == array.dtype and not found.flags.writeable


def test_equal_tensors_are_equal_arguments(brain: plasmon.Brain) -> None:
    calls = []

    @brain.memoize()
    def total(tensor: torch.Tensor) -> float:
        calls.append(tensor)
        return float(tensor.sum())

    assert total(torch.ones(5000)) == total(torch.ones(5000)) == 5000 and len(calls) == 1
    total(torch.zeros(5000))
    assert len(calls) == 2
