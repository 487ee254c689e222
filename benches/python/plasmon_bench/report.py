"""Tables and a chart of what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from plasmon_bench.peers import PEERS
from plasmon_bench.values import KIB, MIB

if TYPE_CHECKING:
    from plasmon_bench.results import Results


@dataclass(frozen=True)
class Row:
    """A line of the summary: a cell, and what Plasmon is to reach there."""

    cell: str
    title: str
    #: Ratio to the best peer that is to be reached, if there is an aim; less is better, but for rates.
    target: float | None
    #: The peers to compare with, if not all.
    among: tuple[str, ...] = ()

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate."""
        return self.cell.startswith("rate.")


K1, K64, M1, M64, M512 = (f"array:{size}" for size in (KIB, 64 * KIB, MIB, 64 * MIB, 512 * MIB))

SUMMARY = (
    Row(f"recall.{K1}", "recall ndarray 1 KiB", 0.4),
    Row(f"recall.{K64}", "recall ndarray 64 KiB", 0.3),
    Row(f"recall.{M1}", "recall ndarray 1 MiB", 0.2),
    Row(f"recall.{M64}", "recall ndarray 64 MiB", 0.1),
    Row(f"recall.{M512}", "recall ndarray 512 MiB", 0.1),
    Row("recall.int", "recall int", 0.8),
    Row("recall.str", "recall short str", 0.8),
    Row("recall.dict", "recall dict of 20", 1.0),
    Row("recall.table", "recall Arrow table, 87 MB", 0.6),
    Row("recall.pandas", "recall pandas frame, 87 MB", 0.3),
    Row("recall.polars", "recall polars frame, 87 MB", 1.0),
    Row("rate.recall.1", "recalls of 100 bytes, 1 process", 1.2),
    Row("rate.recall.2", "recalls of 100 bytes, 2 processes", 1.2),
    Row("rate.recall.4", "recalls of 100 bytes, 4 processes", 1.2),
    Row(f"learn.{K1}", "learn ndarray 1 KiB, of servers", 0.8, ("valkey", "redis")),
    Row("learn.int", "learn int, of servers", 0.8, ("valkey", "redis")),
    Row("learn.str", "learn short str, of servers", 0.8, ("valkey", "redis")),
    Row(f"learn.{K1}", "learn ndarray 1 KiB", None),
    Row("learn.int", "learn int", None),
    Row("learn_many", "learn_many of 100, each", 1.0),
    Row(f"learn.{K64}", "learn ndarray 64 KiB", 1.0),
    Row(f"learn.{M1}", "learn ndarray 1 MiB", 0.5),
    Row(f"learn.{M64}", "learn ndarray 64 MiB, warm", 1.0),
    Row(f"learn.{M512}", "learn ndarray 512 MiB, warm", 1.0),
    Row("first.64 MiB.after 2 s", "first learn, 64 MiB, ready for 2 s", 0.6),
    Row("first.512 MiB.after 2 s", "first learn, 512 MiB, ready for 2 s", 0.4),
    Row("first.64 MiB.at once", "first learn, 64 MiB, at once", 1.0),
    Row("first.512 MiB.at once", "first learn, 512 MiB, at once", 1.0),
    Row("learn.table", "learn Arrow table, 87 MB", 0.7),
    Row("learn.pandas", "learn pandas frame, 87 MB", 0.9),
    Row("learn.polars", "learn polars frame, 87 MB", 1.0),
    Row("rate.learn.1", "learns of 100 bytes, 1 process", None),
    Row("rate.learn.2", "learns of 100 bytes, 2 processes", None),
    Row("rate.learn.4", "learns of 100 bytes, 4 processes", None),
    Row("rebind", "rebind ndarray 1 MiB", 0.6),
    Row("forget", "forget ndarray 1 KiB", None),
    Row("exists", "exists", 0.8),
    Row("names", "list 10,000 names", 0.8),
    Row("memory.idle", "daemon memory, idle (PSS)", 1.2),
    Row("memory.10k", "daemon memory, 10,000 objects (PSS)", 1.5),
    Row("start", "start of a store", 1.0, ("redis",)),
    Row("connect", "connect, imports done", 1.0, ("redis",)),
)


def markdown(results: Results) -> str:
    """Return docs/benchmarks.md."""
    lines = [
        "# Plasmon beside its peers",
        "",
        "Written by `scripts/bench`, which installs all that it compares; run it yourself. Every ratio is between",
        "medians of one run on one machine, writer and reader in separate processes, times taken inside them; less is",
        "better, but for rates. Trust ratios: the times are those of this machine in that hour.",
        "",
        f"- Run: {results.run}",
        *(f"- {name.capitalize()}: {text}" for name, text in results.machine.items()),
        "",
        "![ratios to the best peer](benchmarks.svg)",
        "",
        *_absent(results),
        "## Plasmon and the best peer of each row",
        "",
        "| | Plasmon | best peer | ratio | aim | to the floor |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_summary(results, row) for row in SUMMARY if results.median("plasmon", row.cell) is not None),
        "",
        *_copies(results),
    ]
    for title, cells in _groups().items():
        lines += _table(results, title, cells)
    lines += ["## How each was used", ""]
    for word in PEERS:
        if about := results.about.get(word):
            versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
            lines.append(f"- **{about['title']}**: {about['how']} ({versions})")
    lines.append("- **floor: bare socket ping-pong**: 48 bytes there and 64 back, with 5 µs of work between (Rust).")
    if results.failed:
        lines += ["", "## What could not be measured", ""]
        for word, why in results.failed.items():
            lines += [f"- {results.title(word)}, {workload}: {text}" for workload, text in why.items()]
    return "\n".join(lines) + "\n"


def _absent(results: Results) -> list[str]:
    if not results.absent:
        return []
    told = [f"> - **{word}**: {why}" for word, why in results.absent.items()]
    return ["> **ABSENT from this run, for they could not be installed here:**", *told, ""]


def _summary(results: Results, row: Row) -> str:
    ours = results.median("plasmon", row.cell)
    assert ours is not None
    best = results.best(row.cell, row.more_is_better, row.among)
    if best is None:
        return f"| {row.title} | {_with_range(results, 'plasmon', row.cell)} | – | – | – | {_to_floor(results, row)} |"
    peer, theirs = best
    ratio = ours / theirs
    aim = "–"
    if row.target is not None:
        met = ratio >= row.target if row.more_is_better else ratio <= row.target
        aim = f"{'≥' if row.more_is_better else '≤'} {row.target} {'met' if met else '**missed**'}"
    told = (
        row.title,
        _with_range(results, "plasmon", row.cell),
        f"{_amount(row.cell, theirs)} ({results.title(peer)})",
        f"**×{ratio:.2f}**",
        aim,
        _to_floor(results, row),
    )
    return f"| {' | '.join(told)} |"


def _to_floor(results: Results, row: Row) -> str:
    ours = results.median("plasmon", row.cell)
    found = []
    for floor, what in (("floor", _floor_of(row.cell)), ("round-trip", "ping-pong")):
        theirs = results.median(floor, row.cell)
        if theirs is not None and ours is not None and what is not None:
            found.append(f"×{ours / theirs:.2f} {what}")
    return ", ".join(found) or "–"


def _floor_of(cell: str) -> str | None:
    """Return what the floor does in the place of an operation; `None` if nothing."""
    if cell == "recall.table":
        return "open_file"
    does = {"recall": "array over memory", "learn": "copy", "first": "copy", "rebind": "copy"}
    return does.get(cell.partition(".")[0])


def _copies(results: Results) -> list[str]:
    """Return large learns as a share of the speed of a copy into warm memory."""
    told = []
    for cell, size in ((f"learn.{M64}", "64 MiB"), (f"learn.{M512}", "512 MiB")):
        ours, floor = results.median("plasmon", cell), results.median("floor", cell)
        if ours and floor:
            told.append(
                f"- A learn of {size} runs at {floor / ours:.2f} of the speed of a copy into warm memory (aim ≥ 0.85)."
            )
    return [*told, ""] if told else []


def _groups() -> dict[str, list[str]]:
    return {
        "Learn an ndarray": [f"learn.{size}" for size in (K1, K64, M1, M64, M512)],
        "First learn on a new store": [f"first.{size}.{when}" for size in ("64 MiB", "512 MiB") for when in WHENS],
        "Recall an ndarray, one element read": [f"recall.{size}" for size in (K1, K64, M1, M64, M512)],
        "Tables and frames of 87 MB": [f"{verb}.{kind}" for kind in FRAMES for verb in ("learn", "recall")],
        "Python builtins": [f"{verb}.{kind}" for kind in ("int", "str", "dict") for verb in ("learn", "recall")],
        "Values of 100 bytes per second": [f"rate.{verb}.{n}" for verb in ("learn", "recall") for n in (1, 2, 4)],
        "Names": ["rebind", "forget", "exists", "names", "learn_many"],
        "Start, connect, memory of the daemon": ["start", "connect", "memory.idle", "memory.10k"],
    }


WHENS = ("after 2 s", "at once")
FRAMES = ("table", "pandas", "polars")

TITLES = {
    K1: "1 KiB", K64: "64 KiB", M1: "1 MiB", M64: "64 MiB", M512: "512 MiB",
    "table": "Arrow", "learn_many": "learn_many of 100, each", "names": "list 10,000 names", "rebind": "rebind 1 MiB",
    "connect": "connect, imports done", "memory.idle": "PSS idle", "memory.10k": "PSS, 10,000 objects",
}  # fmt: skip


def _title(cell: str) -> str:
    if cell in TITLES:
        return TITLES[cell]
    verb, _, rest = cell.partition(".")
    if verb == "first":
        return rest.replace(".", ", ")
    if verb == "rate":
        what, _, count = rest.partition(".")
        return f"{what}, {count} process{'es' if count != '1' else ''}"
    return f"{verb} {TITLES.get(rest, rest)}".strip()


def _table(results: Results, title: str, cells: list[str]) -> list[str]:
    cells = [cell for cell in cells if any(cell in mine for mine in results.samples.values())]
    if not cells:
        return []
    lines = [f"## {title}", "", "| | " + " | ".join(_title(cell) for cell in cells) + " |"]
    lines.append("| --- |" + " --- |" * len(cells))
    for peer in ("round-trip", *PEERS):
        mine = results.samples.get(peer, {})
        if any(cell in mine for cell in cells):
            lines.append(
                f"| {results.title(peer)} | " + " | ".join(_cell(results, peer, cell) for cell in cells) + " |"
            )
        elif peer in results.absent:
            lines.append(f"| {peer} |" + " absent |" * len(cells))
    return [*lines, ""]


def _cell(results: Results, peer: str, cell: str) -> str:
    median = results.median(peer, cell)
    if median is None:
        return "–"
    best = results.best(cell, cell.startswith("rate."))
    ratio = f" **×{median / best[1]:.2f}**" if best else ""
    return f"{_amount(cell, median)}{ratio} [{_range(results, peer, cell)}]"


def _with_range(results: Results, peer: str, cell: str) -> str:
    median = results.median(peer, cell)
    assert median is not None
    return f"{_amount(cell, median)} [{_range(results, peer, cell)}]"


def _range(results: Results, peer: str, cell: str) -> str:
    least, greatest = results.range(peer, cell)
    return f"{_amount(cell, least)} – {_amount(cell, greatest)}"


def _amount(cell: str, value: float) -> str:
    if cell.startswith("memory."):
        return f"{value / 1e6:.1f} MB"
    if cell.startswith("rate."):
        return f"{value / 1e3:.3g} k/s"
    for unit, seconds in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= seconds:
            return f"{value / seconds:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


# ---- the chart

WIDTH, LEFT, LINE = 860, 300, 20


def chart(results: Results) -> str:
    """Return docs/benchmarks.svg: how many times faster than the best peer, row by row, on a logarithmic scale."""
    import math

    rows = []
    for row in SUMMARY:
        ours, best = results.median("plasmon", row.cell), results.best(row.cell, row.more_is_better, row.among)
        if ours and best:
            rows.append((row, (ours / best[1] if row.more_is_better else best[1] / ours), results.title(best[0])))
    scale = (WIDTH - LEFT - 150) / math.log10(1_000)
    zero = LEFT + scale * 0.7
    height = LINE * len(rows) + 70
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="10" y="20" font-size="14" font-weight="bold">Plasmon beside the best other store of each row</text>',
        '<text x="10" y="38" fill="#555">times faster (right, green) or slower (left, orange); logarithmic</text>',
    ]
    for power in (1, 10, 100):
        x = zero + scale * math.log10(power)
        out.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="46" y2="{height - 8}" stroke="#ddd"/>')
        out.append(f'<text x="{x + 2:.0f}" y="54" fill="#999" font-size="10">×{power}</text>')
    for number, (row, factor, peer) in enumerate(rows):
        y = 60 + number * LINE
        length = max(-0.7, min(math.log10(factor), 2.2)) * scale
        color = "#2a8f5b" if factor >= 1 else "#d9822b"
        x, wide = (zero, length) if length >= 0 else (zero + length, -length)
        out.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(row.title)}</text>')
        out.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{max(wide, 1):.1f}" height="{LINE - 6}" fill="{color}"/>')
        said = f"×{factor:.2f} {peer}" if factor < 10 else f"×{factor:.0f} {peer}"
        out.append(
            f'<text x="{max(x + wide, zero) + 4:.1f}" y="{y + 13}" fill="#333" font-size="11">{escape(said)}</text>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"
