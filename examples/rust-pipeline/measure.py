"""Makes frames of measurements, which the Rust program `aggregate` waits for and aggregates.

python measure.py
"""

import numpy as np
import pandas as pd
import plasmon

BATCHES = 10
ROWS = 100_000

brain = plasmon.Brain(namespace="pipeline")
random = np.random.default_rng(seed=1)
for number in range(BATCHES):
    station = random.choice(["Basel", "Genève", "Lugano"], ROWS)
    brain[f"measurements-{number}"] = pd.DataFrame(
        {"station": pd.array(station, dtype="str"), "celsius": random.normal(10, 8, ROWS)}
    )
print("mean of each station, from Rust:", brain.recall("means", timeout=60))
