"""What can be written to: every copy, frames wherever they lie, what is unpickled; and nobody else sees it."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import plasmon
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory import array_in_arena, copy_on_write_mappings, in_arena, own_bytes
from test_values import same

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@dataclasses.dataclass
class Held:
    inner: Any


class Metres(np.ndarray):
    """A subclass that NumPy itself would pickle without its attribute."""

    factor: float

    def __array_finalize__(self, other: Any) -> None:
        self.factor = getattr(other, "factor", 1.0)


class Slotted(np.ndarray):
    __slots__ = ("unit",)


class Seconds(np.ndarray):
    """A subclass that pickles itself."""

    scale = 1.0

    def __reduce__(self) -> Any:
        make, parts, state = super().__reduce__()
        return make, parts, (self.scale, state)

    def __setstate__(self, state: Any) -> None:
        self.scale, inner = state
        super().__setstate__(inner)


def write(value: Any) -> int:
    """Write into everything that a value of any type has to be written into; return into how many places."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return sum(map(write, value.ravel()))
        flat = np.ndarray.view(value, np.ndarray).reshape(-1, order="A")
        if flat.size:
            flat.view("u1")[:] ^= 0xFF
            assert np.shares_memory(flat, value)
        mask = value._mask if isinstance(value, np.ma.MaskedArray) else np.ma.nomask
        return 1 + (0 if mask is np.ma.nomask else write(mask))
    if isinstance(value, pd.Series):
        value.iloc[:] = value.iloc[::-1].array
        return 1
    if isinstance(value, pd.DataFrame):
        for at in range(value.shape[1]):
            value.iloc[:, at] = value.iloc[::-1, at].array
        return value.shape[1]
    if isinstance(value, pl.DataFrame):
        value[0, 0] = value[-1, 0]
        return 1
    if isinstance(value, bytearray) or (isinstance(value, memoryview) and not value.readonly):
        value[0] ^= 0xFF
        return 1
    if scipy.sparse.issparse(value):
        return sum(map(write, (value.data, value.indices, value.indptr)))
    if isinstance(value, dict):
        return sum(map(write, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(write, value))
    if isinstance(value, Held | SimpleNamespace):
        return sum(map(write, vars(value).values()))
    return 0


def arrays_of(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        mask = getattr(value, "_mask", None)
        return [value] if mask is None or mask is np.ma.nomask else [value, mask]
    if isinstance(value, pd.Series):
        return arrays_of(value.array)
    if isinstance(value, pd.DataFrame):
        return [array for at in range(value.shape[1]) for array in arrays_of(value.iloc[:, at])]
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return [array for name in ("_ndarray", "_data", "_mask") for array in arrays_of(getattr(value, name, None))]
    if isinstance(value, dict):
        return arrays_of([*value.values()])
    if isinstance(value, list | tuple):
        return [array for inner in value for array in arrays_of(inner)]
    if isinstance(value, Held | SimpleNamespace):
        return arrays_of([*vars(value).values()])
    return []


ROWS = st.sampled_from([1, 7, 3_000, 30_000])
DTYPES = [
    "bool",
    "i1",
    "u2",
    "i4",
    "f2",
    "f4",
    "f8",
    "c16",
    "M8[s]",
    "m8[D]",
    ">i4",
    "U3",
    "S2",
    [("a", "i4"), ("b", "f8")],
]


def _array(rows: int, dtype: Any) -> np.ndarray:
    return (
        np.arange(rows * np.dtype(dtype).itemsize, dtype="u1").view(dtype) if dtype != "bool" else np.zeros(rows, bool)
    )


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    array = _array(draw(ROWS), draw(st.sampled_from(DTYPES)))
    shape = draw(st.sampled_from(["flat", "row", "column", "backwards", "second"]))
    if shape in ("row", "column"):
        array = array.reshape((1, -1) if shape == "row" else (-1, 1))
    elif shape in ("backwards", "second"):
        array = array[::-1] if shape == "backwards" else array[::2]
    array.flags.writeable = draw(st.booleans())
    return array


def _masked(rows: int) -> np.ma.MaskedArray:
    return np.ma.masked_array(np.arange(rows, dtype="f4"), np.arange(rows) % 3 == 0, hard_mask=rows % 2 == 0)


def _metres(rows: int) -> Metres:
    array = np.arange(rows * 1.0).view(Metres)
    array.factor = 1000.0
    return array


SUBCLASSES = {
    "masked": _masked,
    "masked without a mask": lambda rows: np.ma.masked_array(np.arange(rows)),
    "matrix": lambda rows: np.arange(rows).view(np.matrix),
    "recarray": lambda rows: np.zeros(rows, [("a", "i8"), ("b", "f4")]).view(np.recarray),
    "chararray": lambda rows: np.array(["ab"] * rows).view(np.char.chararray),
    "attributes": _metres,
    "own pickling": lambda rows: np.arange(rows * 1.0).view(Seconds),
}

COLUMNS = {
    "int": lambda rows: np.arange(rows),
    "small": lambda rows: np.arange(rows, dtype="i2"),
    "float": lambda rows: np.arange(rows) / 3,
    "bool": lambda rows: np.arange(rows) % 2 == 0,
    "time": lambda rows: pd.date_range("2000", periods=rows, freq="s"),
    "zone": lambda rows: pd.date_range("2000", periods=rows, freq="s", tz="Europe/Zurich"),
    "span": lambda rows: pd.to_timedelta(np.arange(rows), unit="s"),
    "text": lambda rows: pd.array([f"row {n}" for n in range(rows)], dtype="str"),
    "category": lambda rows: pd.Categorical.from_codes(np.arange(rows) % 3, ["a", "b", "c"]),
    "arrow": lambda rows: pd.array(np.arange(rows), pd.ArrowDtype(pa.int32())),
    "nullable": lambda rows: pd.array(np.arange(rows), "Int64"),
    "object": lambda rows: np.array([(n,) for n in range(rows)] + [None], object)[:-1],
    "period": lambda rows: pd.period_range("2000", periods=rows, freq="h"),
    "interval": lambda rows: pd.arrays.IntervalArray.from_breaks(np.arange(rows + 1)),
}


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(ROWS)
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=4, unique=True))
    return pd.DataFrame({name: COLUMNS[name](rows) for name in names})


subclasses = st.builds(lambda name, rows: SUBCLASSES[name](rows), st.sampled_from(sorted(SUBCLASSES)), ROWS)
leaves = (
    arrays()
    | subclasses
    | frames()
    | frames().map(lambda frame: frame.iloc[:, 0])
    | frames().map(lambda frame: frame.iloc[::-2])
    | ROWS.map(lambda rows: pd.DataFrame(np.ones((rows, 3)), columns=list("abc")))
    | ROWS.map(lambda rows: bytearray(b"abc" * rows))
    | ROWS.map(lambda rows: memoryview(bytearray(b"abc" * rows)))
    | ROWS.map(lambda rows: pl.DataFrame({"n": range(rows)}))
    | st.sampled_from([3, 900]).map(lambda rows: scipy.sparse.eye(rows, format="csr"))
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.tuples(inner, inner),
        st.builds(lambda one: {"a": one, "n": 1}, inner),
        st.builds(Held, inner),
        st.builds(lambda one: SimpleNamespace(one=one), inner),
    ),
    max_leaves=4,
)


def alike(a: Any, b: Any) -> bool:
    if isinstance(a, Held | SimpleNamespace):
        return type(a) is type(b) and alike(vars(a), vars(b))
    if isinstance(a, dict):
        return list(a) == list(b) and alike([*a.values()], [*b.values()])
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    return same(a, b)


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(value=values)
def test_every_copy_can_be_written_to_and_is_nobody_elses(brain: plasmon.Brain, value: Any) -> None:
    brain["value"] = value
    copies = [brain.recall("value", copy=True), plasmon.compact(brain["value"])]
    if not isinstance(value, np.ndarray | memoryview):
        brain["found"] = brain["value"]  # what is sent on by the store
        copies.append(brain.recall("found", copy=True))
    for copied in copies:
        assert not any(array_in_arena(array) for array in arrays_of(copied) if array.nbytes)
        assert alike(copied, value)
        assert write(copied) > 0
        assert alike(brain["value"], value)
    if type(value) is pd.DataFrame and all(str(dtype) not in ("period[h]", "object") for dtype in value.dtypes):
        assert write(brain.recall("value", as_="pandas", copy=True)) > 0


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(value=values)
def test_what_lies_within_a_value_can_be_written_to_after_a_recall(brain: plasmon.Brain, value: Any) -> None:
    value = {"value": value}
    brain["value"] = value
    found, beside = brain["value"], brain["value"]
    assert alike(found, value)
    assert write(found) > 0
    assert alike(beside, value) and alike(brain["value"], value)
    brain["again"] = {"value": beside}  # what came from the store goes there again
    assert write(brain["again"]) > 0 and alike(beside, value) and alike(brain["again"]["value"], value)


@pytest.mark.parametrize("within", [False, True], ids=["alone", "within a dict"])
@pytest.mark.parametrize("column", sorted(COLUMNS))
def test_frames_sent_on_by_pickle_can_be_written_to(brain: plasmon.Brain, column: str, within: bool) -> None:
    frame = pd.DataFrame({"a": COLUMNS[column](3_000), "b": np.arange(3_000.0)})
    brain["value"] = {"frame": frame} if within else frame
    for protocol in range(2, 6 if within else 5):  # NumPy's pickles of protocol 5 keep what is read-only
        sent = pickle.loads(pickle.dumps(brain["value"], protocol))
        assert alike(sent, brain["value"])
        assert write(sent) > 0


def test_arrays_alone_are_read_only_and_in_place_whatever_their_dtype(brain: plasmon.Brain) -> None:
    for dtype in DTYPES:
        brain["array"] = _array(30_000, dtype)
        mappings, copied = copy_on_write_mappings(), plasmon.copied_bytes()
        found = brain["array"]
        assert not found.flags.writeable and array_in_arena(found), dtype
        assert plasmon.copied_bytes() < copied + 1_000 and copy_on_write_mappings() == mappings
        del found
    sent = pickle.loads(pickle.dumps(brain["array"], 4))
    sent[0] = sent[1]


FRAME = pd.DataFrame(
    {name: make(5_000) for name, make in COLUMNS.items() if name not in ("object", "period", "interval")}
)


@pytest.mark.parametrize(
    ("around", "within"),
    [
        (lambda frame: {"frame": frame, "ok": True}, lambda found: found["frame"]),
        (lambda frame: [1, frame], lambda found: found[1]),
        (lambda frame: (frame, "x"), lambda found: found[0]),
        (Held, lambda found: found.inner),
        (lambda frame: SimpleNamespace(deep=[{"er": (frame,)}]), lambda found: found.deep[0]["er"][0]),
        (lambda frame: frame, lambda found: found),
    ],
    ids=["dict", "list", "tuple", "dataclass", "deeper", "alone"],
)
def test_a_frame_can_be_written_to_wherever_it_lies(brain: plasmon.Brain, around: Any, within: Any) -> None:
    brain["value"] = around(FRAME)
    brain["series"] = around(FRAME["float"])

    @brain.memoize()
    def computed(number: int) -> Any:
        return around(FRAME)

    ways = [
        lambda: brain["value"],
        lambda: brain.recall("value"),
        lambda: brain.recall_many(["value"])["value"],
        lambda: dict(brain.items())["value"],
        lambda: computed(1),
    ]
    for way in ways:
        found = within(way())
        frame = found
        frame.loc[0, "int"] = -1
        frame.loc[0, "time"] = pd.NaT
        frame.loc[0, "text"] = "other"
        frame.loc[0, "category"] = None
        frame.loc[0, "nullable"] = pd.NA
        assert (frame["int"][0], frame["text"][0]) == (-1, "other") and frame["int"][1] == 1
        assert array_in_arena(frame["float"].array._ndarray)
        assert same(within(way()), FRAME)
    series = within(brain["series"])
    series += 1
    assert series[0] == 1.0 and same(within(brain["series"]), FRAME["float"])
    computed.clear()


def test_a_table_recalled_as_pandas_can_be_written_to(brain: plasmon.Brain) -> None:
    for columns in (["a"], ["a", "b"]):
        brain["table"] = pa.table({name: np.arange(30_000.0) for name in columns})
        for copy in (False, True):
            frame = brain.recall("table", as_="pandas", copy=copy)
            frame.loc[0, "a"] = 7
            assert frame["a"][0] == 7 and brain["table"]["a"][0].as_py() == 0
    text = pa.table({"text": ["some text"] * 10_000})
    brain["table"] = text
    own = brain.recall("table", as_="pandas", copy=True)["text"].array
    assert not any(in_arena(buffer.address) for buffer in own._pa_array.chunk(0).buffers() if buffer)


def test_copies_as_numpy_can_be_written_to(brain: plasmon.Brain) -> None:
    values = {
        "table": pa.table({"a": [1.0, 2.0], "b": ["x", "y"], "c": [True, False]}),
        "frame": pd.DataFrame({"a": [1.0, 2.0]}),
        "objects": pd.DataFrame({"a": [1.0, 2.0], "b": [(1,), None]}),
        "bytes": b"abc" * 100,
        "text": "abc" * 100,
        "json": [1, 2, 3],
        "array": np.arange(5),
        "times": np.arange(5_000).astype("M8[s]"),
    }
    for name, value in values.items():
        brain[name] = value
        found = brain.recall(name, as_="numpy", copy=True)
        for array in found.values() if isinstance(found, dict) else [found]:
            array[0] = array[1]
        assert same(brain[name], value)


def test_bytes_made_in_place_are_copied_to_be_written_to(brain: plasmon.Brain) -> None:
    with brain.create("made", 1_000) as view:
        view[:] = b"x" * 1_000
    del view
    copied = brain.recall("made", copy=True)
    copied[0] = 1
    assert bytes(brain["made"]) == b"x" * 1_000


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0),
        np.arange(6).reshape(2, 3),
        np.arange(20_000.0).reshape(2, -1)[:, ::2],
        np.array(1.5),
        np.zeros((0, 3)),
        np.zeros(0, "u1"),
        np.ones(3, "c16"),
        np.zeros(3, "i4,f8"),
        np.ones(3, ">i4"),
    ],
    ids=str,
)
def test_memory_views_keep_their_form(brain: plasmon.Brain, array: np.ndarray[Any, Any]) -> None:
    for writable in (True, False):
        value = memoryview(array if writable else memoryview(array).toreadonly())
        brain["value"] = value
        for found in (brain["value"], brain.recall("value", copy=True), plasmon.compact(value)):
            assert type(found) is memoryview
            assert (found.format, found.shape) == (value.format, value.shape)
            assert np.array_equal(np.asarray(found), array)
        for copied in (brain.recall("value", copy=True), plasmon.compact(value)):
            assert not copied.readonly


def test_a_compact_buffer_of_arrow_is_one() -> None:
    copied = plasmon.compact(pa.py_buffer(b"abc").slice(1))
    assert type(copied) is pa.Buffer
    assert copied.to_pybytes() == b"bc"


# ---- code that writes without asking


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("linear_model", "SGDClassifier", {}),
        ("linear_model", "SGDRegressor", {}),
        ("linear_model", "SGDOneClassSVM", {}),
        ("linear_model", "Perceptron", {}),
        ("linear_model", "PassiveAggressiveClassifier", {}),
        ("neural_network", "MLPClassifier", {"hidden_layer_sizes": [50]}),
        ("cluster", "MiniBatchKMeans", {"n_clusters": 5}),
        ("decomposition", "MiniBatchDictionaryLearning", {"n_components": 8}),
        ("decomposition", "LatentDirichletAllocation", {}),
        ("naive_bayes", "GaussianNB", {}),
        ("naive_bayes", "MultinomialNB", {}),
        ("preprocessing", "StandardScaler", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_training_goes_on_after_a_recall(brain: plasmon.Brain, module: str, name: str, options: Any) -> None:
    run(
        """
import sys, importlib, json, warnings
import numpy as np, plasmon, sklearn
warnings.simplefilter("ignore")
brain = plasmon.Brain(sys.argv[1], sys.argv[2])
estimator = getattr(importlib.import_module("sklearn." + sys.argv[3]), sys.argv[4])(**json.loads(sys.argv[5]))
X = np.abs(np.random.default_rng(0).normal(size=(120, 2_000))); y = np.arange(120) % 2
def train(estimator, rows):
    if sklearn.base.is_classifier(estimator): estimator.partial_fit(X[rows], y[rows], classes=[0, 1])
    else: estimator.partial_fit(X[rows], y[rows])
train(estimator, slice(0, 60))
brain["model"] = estimator
stored = brain.object_id("model"), bytes(brain.client.object("model").ipc())
for _ in range(3):
    train(brain["model"], slice(60, 120))
found = brain["model"]
train(found, slice(60, 120))
assert stored == (brain.object_id("model"), bytes(brain.client.object("model").ipc()))
""",
        brain.path,
        brain.namespace,
        module,
        name,
        __import__("json").dumps(options),
    )


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "lil", "dok"])
def test_sparse_matrices_can_be_worked_with(brain: plasmon.Brain, kind: str) -> None:
    rng = np.random.default_rng(3)
    matrix = scipy.sparse.random(2_000, 2_000, 0.005, "coo", rng=rng)
    matrix = matrix.asformat(kind)
    if kind in ("csr", "csc"):
        matrix.has_sorted_indices = False
    brain["m"] = matrix
    found = brain["m"]
    assert found.sum() == matrix.sum()
    if kind not in ("lil", "dok"):
        assert (found.max(), found.min()) == (matrix.max(), matrix.min())
    found = brain["m"]
    if kind in ("csr", "csc", "bsr"):
        found.sort_indices()
        found.sum_duplicates()
        found.data *= 2
        assert found.sum() == 2 * matrix.sum()
    assert np.array_equal(brain["m"].toarray(), matrix.toarray())
    assert brain.recall("m", copy=True).sum() == matrix.sum()


# ---- what it costs, and where it ends


def test_the_arrays_of_a_recall_share_a_mapping_and_take_memory_when_they_are_written(brain: plasmon.Brain) -> None:
    brain["arrays"] = {at: np.full(4 << 20, at, "u1") for at in range(8)}
    mappings, before, copied = copy_on_write_mappings(), own_bytes(), plasmon.copied_bytes()
    found = brain["arrays"]
    assert copy_on_write_mappings() == mappings + 1
    assert [int(array[-1]) for array in found.values()] == list(range(8))
    assert own_bytes() - before < 1 << 20 and plasmon.copied_bytes() - copied < 4_096
    found[0][:] = 100
    assert own_bytes() - before < 6 << 20
    part = found[1][5:10]
    del found
    assert brain.stats()["pins"] == 1 and part.sum() == 5
    del part
    assert brain.stats()["pins"] == 0 and copy_on_write_mappings() == mappings


def test_short_arrays_are_copied_instead(brain: plasmon.Brain) -> None:
    brain["arrays"] = [np.ones(1_000), np.ones(2_000)]
    mappings, copied = copy_on_write_mappings(), plasmon.copied_bytes()
    found = brain["arrays"]
    assert copy_on_write_mappings() == mappings and 24_000 <= plasmon.copied_bytes() - copied < 25_000
    found[0][:] = 7
    assert brain["arrays"][0].sum() == 1_000


def test_what_is_only_read_needs_no_mapping(brain: plasmon.Brain) -> None:
    brain["tables"] = [pa.table({"n": np.arange(100_000)})]
    mappings = copy_on_write_mappings()
    found = brain["tables"]
    assert copy_on_write_mappings() == mappings
    assert all(in_arena(buffer.address) for buffer in found[0]["n"].chunk(0).buffers() if buffer)


def test_parent_and_child_write_each_for_itself_after_a_fork(brain: plasmon.Brain) -> None:
    brain["array"] = [np.zeros(500_000)]
    (found,) = brain["array"]
    found[0] = 1
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        well = bool(found[0] == 1 and found[1] == 0)
        found[:] = 2
        os.read(told, 1)
        os._exit(0 if well and (found == 2).all() and (brain["array"][0] == 0).all() else 1)
    found[:] = 3
    os.write(tell, b"!")
    assert os.waitpid(child, 0)[1] == 0
    assert (found == 3).all() and (brain["array"][0] == 0).all()
    os.close(told)
    os.close(tell)


def test_more_values_than_mappings_are_recalled_all_the_same(brain: plasmon.Brain) -> None:
    brain["array"] = [np.ones(10_000)]
    out = run(
        """
import sys, plasmon
brain = plasmon.Brain(sys.argv[1], sys.argv[2])
copied, held = plasmon.copied_bytes(), []
while plasmon.copied_bytes() - copied < 60_000:
    copied = plasmon.copied_bytes()
    held.append(brain["array"][0])
held[0][0] = held[-1][0] = 7
assert held[0].sum() == held[-1].sum() == 10_006 and held[1].sum() == 10_000
print(len(held))
""",
        brain.path,
        brain.namespace,
    )
    assert 20_000 < int(out) <= 32_001


def test_where_there_is_no_memory_to_write_into_values_can_be_read(brain: plasmon.Brain) -> None:
    brain["array"] = [np.ones(8 << 20)]
    run(
        """
import resource, sys, numpy as np, plasmon
brain = plasmon.Brain(sys.argv[1], sys.argv[2])
brain["array"], np.ones(10)
with open("/proc/self/status") as status:
    data = next(int(line.split()[1]) for line in status if line.startswith("VmData")) << 10
resource.setrlimit(resource.RLIMIT_DATA, (data + (16 << 20), resource.RLIM_INFINITY))
(found,) = brain["array"]
assert found.sum() == 8 << 20 and not found.flags.writeable
""",
        brain.path,
        brain.namespace,
    )


# ---- subclasses of ndarray, many arrays, functions with arrays


@pytest.mark.parametrize("name", sorted(SUBCLASSES))
def test_subclasses_of_ndarray_come_back_exactly_and_in_place(brain: plasmon.Brain, name: str) -> None:
    value = SUBCLASSES[name](100_000)
    before, copied = own_bytes(), plasmon.copied_bytes()
    brain["value"] = value
    found = brain["value"]
    assert same(found, value) and found.dtype == value.dtype
    shared = all(map(array_in_arena, arrays_of(found)))
    assert shared == (name != "own pickling")
    assert (plasmon.copied_bytes() - copied < 2_000) == shared
    if shared:
        assert own_bytes() - before < 1 << 20
    assert getattr(found, "factor", None) == getattr(value, "factor", None)


def test_what_numpy_forgets_of_masked_arrays_comes_back(brain: plasmon.Brain) -> None:
    hard = np.ma.masked_array(np.arange(20_000), np.arange(20_000) % 2 == 0, fill_value=-1, hard_mask=True)
    bare = np.ma.masked_array(np.arange(20_000))
    brain["value"] = [hard, bare, np.ma.masked]
    first, second, masked = brain["value"]
    assert (first.hardmask, first.fill_value) == (True, -1) and first.sum() == hard.sum()
    assert second.mask is np.ma.nomask and masked is np.ma.masked
    first[1] = np.ma.masked
    assert first.mask[1] and not brain["value"][0].mask[1]
    slotted = np.arange(20_000).view(Slotted)
    slotted.unit = "m"
    brain["value"] = slotted
    assert type(brain["value"]) is Slotted and brain["value"].unit == "m"


def test_a_memmap_comes_back_without_its_file(brain: plasmon.Brain, tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "file", "f8", "w+", shape=(100_000,))
    mapped[:] = 5
    brain["value"] = mapped
    del mapped
    found = brain["value"]
    assert type(found) is np.memmap and found.filename is None and found.sum() == 500_000 and array_in_arena(found)


@pytest.mark.parametrize("count", [255, 256, 257, 3_000])
def test_any_number_of_arrays_is_shared(brain: plasmon.Brain, count: int) -> None:
    arrays = [np.full(5_000 + at, at % 200, "u1") for at in range(count)]
    before, copied = own_bytes(), plasmon.copied_bytes()
    brain["arrays"] = arrays
    found = brain["arrays"]
    assert own_bytes() - before < 4 << 20
    assert plasmon.copied_bytes() - copied < 100 * count + 1_000
    assert same(found, arrays) and all(array.__array_interface__["data"][0] % 64 == 0 for array in found)
    assert all(map(array_in_arena, found[:: count // 5]))
    write(found)
    assert same(brain["arrays"], arrays)


def test_arrays_beside_what_only_cloudpickle_can_say_come_back(brain: plasmon.Brain) -> None:
    large, masked = np.arange(50_000), _masked(50_000)
    brain["value"] = [large, masked, lambda: large]
    found = brain["value"]
    assert same(found[:2], [large, masked]) and same(found[2](), large)
    assert array_in_arena(found[0]) and array_in_arena(found[1])


def test_what_was_recalled_is_an_equal_argument(brain: plasmon.Brain) -> None:
    calls = []

    @brain.memoize()
    def total(value: Any) -> int:
        calls.append(value)
        return len(calls)

    value = {"large": np.arange(50_000), "small": np.arange(5), "frame": FRAME[["int", "float", "text"]]}
    brain["value"], brain["large"], brain["small"] = value, value["large"], value["small"]
    brain["frame"] = value["frame"]
    recalled = {name: brain[name] for name in value}
    assert total(value) == total(brain["value"]) == total(recalled) == 1
    total.clear()
