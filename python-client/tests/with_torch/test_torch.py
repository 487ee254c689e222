"""Tensors of torch come back equal, of the same type, in place, and can be written to without anybody else seeing it.

With the oldest NumPy that the package allows: `scripts/test oldest` runs this.
"""

from __future__ import annotations

import os
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
                return "plasmon-arena" in name
    return False


def plasmon_mappings() -> int:
    """How many copy-on-write mappings of stores' memory this process has."""
    with open("/proc/self/maps") as maps:
        return sum("plasmon-arena" in line and " rw-p " in line for line in maps)


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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
@pytest.mark.parametrize("shape", [(40, 50, 80), (5_000,), (3,), (), (0, 4)], ids=str)
def test_every_dtype_and_shape_comes_back(brain: plasmon.Brain, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 100).to(dtype)
    before = plasmon.copied_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        brain["tensor"] = tensor
        found = brain["tensor"]
    assert same(found, tensor) and found.stride() == tensor.stride()
    is_large = tensor.numel() * tensor.element_size() > 64 << 10
    assert in_arena(found) == is_large and plasmon.copied_bytes() < before + (1000 if is_large else 82_000)


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
        lambda t: t[0].expand(1000, 50),
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
    state = torch.nn.Sequential(torch.nn.Linear(1000, 80), torch.nn.BatchNorm1d(20_000)).state_dict()
    brain["state"] = state
    found = brain["state"]
    assert type(found) is type(state) and list(found) == list(state)
    assert all(same(found[name], state[name]) for name in state)
    large = [name for name in state if state[name].numel() >= 1024]
    assert len(large) == 5 and all(in_arena(found[name]) for name in large)
    assert plasmon_mappings() == 1, "the tensors of one recall share a mapping"
    shared = torch.rand(50_000)
    brain["list"] = [shared, (shared, 1, "one"), OrderedDict(a=shared)]
    first, (second, *_), third = brain["list"]
    assert first is second is third["a"] and in_arena(first)


@pytest.mark.parametrize("length", [3, 5_000, 50_000, 500_000])
def test_what_is_written_in_place_nobody_else_sees(brain: plasmon.Brain, length: int) -> None:
    for tensor in (
        torch.rand(length),
        torch.rand(length, requires_grad=True),
        torch.nn.Parameter(torch.rand(length)),
        torch.nn.Parameter(torch.rand(length), requires_grad=False),
    ):
        brain["tensor"] = tensor
        found, beside = brain["tensor"], brain["tensor"]
        assert same(found, tensor) and found.is_leaf and in_arena(found) == (length >= 50_000)
        with torch.no_grad():
            found += 1
            assert torch.equal(found, tensor + 1)
            beside[-1] = 7
        beside.detach().numpy()[0] = 8
        assert beside[0] == 8 and torch.equal(beside[1:-1], tensor[1:-1])
        assert same(brain["tensor"], tensor)


def test_what_nobody_has_written_stays_when_the_name_is_forgotten_and_its_room_is_learned_into(
    brain: plasmon.Brain,
) -> None:
    tensor = torch.rand(500_000)
    brain["tensor"] = tensor
    found = brain["tensor"]
    found[:100_000] = 7
    brain.forget("tensor")
    for number in range(20):
        brain["others"] = np.full(2_000_000, number)
    assert brain.stats()["pins"] == 1
    assert torch.equal(found[100_000:], tensor[100_000:]) and (found[:100_000] == 7).all()
    part = found[400_000:]
    del found
    assert brain.stats()["pins"] == 1 and torch.equal(part, tensor[400_000:])
    del part
    assert brain.stats()["pins"] == 0 and plasmon_mappings() == 0


def test_parent_and_child_write_each_for_itself_after_a_fork(brain: plasmon.Brain) -> None:
    brain["tensor"] = torch.zeros(500_000)
    found = brain["tensor"]
    found[0] = 1
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        well = bool(found[0] == 1 and found[1] == 0)
        found[:] = 2
        os.read(told, 1)
        os._exit(0 if well and (found == 2).all() and (brain["tensor"] == 0).all() else 1)
    found[:] = 3
    os.write(tell, b"!")
    assert os.waitpid(child, 0)[1] == 0
    assert (found == 3).all() and (brain["tensor"] == 0).all()
    os.close(told)
    os.close(tell)


def test_a_recall_takes_no_memory_before_it_is_touched(brain: plasmon.Brain) -> None:
    brain["tensor"] = torch.ones(16 << 20)  # 64 MiB
    brain["small"] = torch.ones(100_000)
    del brain["small"]  # what is needed once has been loaded
    before, copied = resident_bytes(), plasmon.copied_bytes()
    found = brain["tensor"]
    assert resident_bytes() < before + (16 << 20) and plasmon.copied_bytes() < copied + 1000
    found[: 1 << 20] = 7  # 4 MiB
    assert resident_bytes() < before + (32 << 20)
    assert (found[: 1 << 20] == 7).all() and (found[1 << 20 :] == 1).all()


def test_tensors_and_arrays_beside_each_other_are_written_in_place(brain: plasmon.Brain) -> None:
    brain["both"] = {"tensor": torch.zeros(50_000), "array": np.zeros(50_000), "shared": torch.zeros(5_000).numpy()}
    found = brain["both"]
    assert plasmon_mappings() == 1 and all(in_arena(torch.from_numpy(found[name])) for name in ("array", "shared"))
    found["tensor"] += 1
    found["array"] += 2
    assert (found["tensor"] == 1).all() and (found["array"] == 2).all() and not found["shared"].any()
    again = brain["both"]
    assert not again["tensor"].any() and not again["array"].any()


def test_a_module_is_trained_on_in_place_after_a_recall(brain: plasmon.Brain) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(100, 20_000), torch.nn.BatchNorm1d(20_000), torch.nn.Linear(20_000, 1))
    brain["model"] = model
    found = brain["model"]
    assert all(in_arena(tensor) for tensor in found.state_dict().values() if tensor.numel() >= 20_000)
    assert all(same(a, b) for a, b in zip(model.state_dict().values(), found.state_dict().values(), strict=True))
    optimizer = torch.optim.SGD(found.parameters(), lr=0.1)
    for _ in range(3):
        found(torch.rand(32, 100)).square().sum().backward()  # writes to the running means
        optimizer.step()
    assert all(in_arena(tensor) for tensor in found.state_dict().values() if tensor.numel() >= 20_000)
    assert not torch.equal(found[0].weight, model[0].weight)
    again = brain["model"].state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


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
