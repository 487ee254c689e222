"""Runs workloads against peers and writes the tables. `scripts/bench` calls it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from plasmon_bench import machine, report, workloads
from plasmon_bench.peers import PEERS
from plasmon_bench.results import Results
from plasmon_bench.session import Failed, Session

#: The virtual environment of each peer, if not the one of Plasmon.
ENVIRONMENTS = {"plasma": "plasma", "brain-plasma": "plasma", "vineyard": "vineyard", "ray": "ray"}


def main() -> None:
    """Do it."""
    options = _options()
    results = Results(**json.loads(options.keep.read_text())) if options.merge and options.keep.exists() else Results()
    results.machine = machine.describe()
    begun = time.monotonic()
    for number in range(options.rounds):
        for word in options.peers:
            _measure(word, options, results)
            print(f"round {number + 1}: {word}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
        results.add("round-trip", machine.round_trips(options.round_trip))
    run = f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, rounds: {options.rounds}"
    run += f", {', '.join(options.chosen)} alone" if options.chosen else ""
    run += ", quick" if options.quick else ""
    results.run = f"{results.run}; {run}" if options.merge and results.run else run
    options.keep.parent.mkdir(parents=True, exist_ok=True)
    options.keep.write_text(json.dumps(asdict(results)))
    text = report.markdown(results)
    print(text)
    if options.out:
        (options.out / "benchmarks.md").write_text(text)
        (options.out / "benchmarks.svg").write_text(report.chart(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    known = [*workloads.WORKLOADS, "first"]
    parser.add_argument("workloads", nargs="*", help=f"only these, of {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="a few minutes: one round, fewer times each")
    parser.add_argument("--rounds", type=int, default=0, help="how often all peers take their turn (2, quick 1)")
    parser.add_argument("--peers", default=",".join(PEERS), help="only these, separated by commas")
    parser.add_argument("--out", type=Path, help="directory for benchmarks.md and benchmarks.svg")
    parser.add_argument("--keep", type=Path, default=Path("target/bench/results.json"), help="where samples are kept")
    parser.add_argument("--merge", action="store_true", help="add to the samples that are kept")
    parser.add_argument("--environments", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--round-trip", type=Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.peers = options.peers.split(",")
    options.rounds = options.rounds or (1 if options.quick else 2)
    options.chosen, options.workloads = options.workloads, options.workloads or known
    for word, these, all_ in (("workload", options.workloads, known), ("peer", options.peers, list(PEERS))):
        for one in these:
            if one not in all_:
                parser.error(f"there is no {word} {one}: {', '.join(all_)}")
    return options


def _measure(word: str, options: argparse.Namespace, results: Results) -> None:
    """Run all workloads against one peer; what fails is noted, and the next begun."""
    environment = options.environments / f"venv-{ENVIRONMENTS.get(word, 'plasmon')}"
    python, log = environment / "bin" / "python", options.environments / f"{word}.log"
    absent = environment / "absent"
    if absent.exists():
        results.absent[word] = absent.read_text().strip()
        return
    try:
        with Session(word, python, log) as session:
            results.about[word] = session.worker().call("about")
    except Failed as why:
        results.absent[word] = f"cannot be used ({why}): {_last_line(log)}"
        return
    for name in options.workloads:
        if name == "first":
            cells = workloads.first(word, python, log, options.quick)
        else:
            cells = workloads.on_clients(word, python, log, workloads.WORKLOADS[name], options.quick)
        try:
            for cell, samples in cells:
                results.add(word, {cell: samples})
        except Failed as why:
            results.failed.setdefault(word, {})[name] = str(why)
            print(f"{word}, {name}: {why}", file=sys.stderr)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


if __name__ == "__main__":
    main()
