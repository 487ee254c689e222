"""The programs ``plasmon`` and ``plasmon-store``, which run inside the interpreter that starts them.

Neither NumPy nor pyarrow is imported here: their threads would take signals that are the daemon's.
"""

import signal
import sys
from typing import NoReturn

from plasmon import _plasmon


def plasmon(program: str = "plasmon") -> NoReturn:
    """Run the command line with this process's arguments, and exit as it says."""
    # Python's own handler would only note the signal, and the command would go on.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_plasmon.run_plasmon([program, *sys.argv[1:]]))


def plasmon_store() -> NoReturn:
    """Run the daemon with this process's arguments until it is stopped, and exit as it says."""
    sys.exit(_plasmon.run_store(["plasmon-store", *sys.argv[1:]]))


if __name__ == "__main__":
    plasmon_store()
