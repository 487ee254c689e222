"""Plots the walk that the Rust program `produce` makes, batch by batch as it comes, into a PNG.

python plot.py walk.png
"""

import sys

import plasmon
from matplotlib.figure import Figure

BATCHES = 10

brain = plasmon.Brain(namespace="pipeline")
figure = Figure(figsize=(8, 4))
axes = figure.subplots()
rows = 0
for number in range(BATCHES):
    batch = brain.recall(f"walk-{number}", timeout=60)  # a pyarrow.RecordBatch or Table; not copied
    axes.plot(batch["step"].to_numpy()[::100], batch["position"].to_numpy()[::100], linewidth=1)
    rows += batch.num_rows
    del brain[f"walk-{number}"]  # what the plot needs of it, it has
axes.set(title=f"{rows:,} steps from Rust", xlabel="step", ylabel="position")
figure.savefig(sys.argv[1], dpi=80, bbox_inches="tight")
print(f"{rows} rows plotted")
