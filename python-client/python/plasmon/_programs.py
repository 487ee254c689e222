"""The programs: ``plasmon`` runs inside the interpreter that starts it, ``plasmon-store`` takes its place."""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from plasmon import _plasmon

#: The daemon, of this very package, wherever it was imported from.
STORE_PROGRAM = str(Path(__file__).with_name("plasmon-store"))


def plasmon(program: str = "plasmon") -> NoReturn:
    """Run the command line with this process's arguments, and exit as it says."""
    # Python's own handler would only note the signal, and the command would go on.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_plasmon.run_plasmon([program, *sys.argv[1:]]))


def plasmon_store() -> NoReturn:
    """Become the daemon, with this process's arguments."""
    os.execv(STORE_PROGRAM, ["plasmon-store", *sys.argv[1:]])  # noqa: S606
