"""Builds the package: the daemon, which is a program of its own, and with maturin all the rest.

Maturin puts an extension module into a wheel, or programs, not both; so this is what pip calls (PEP 517), and maturin
finds the daemon where the Python sources are. What calls maturin itself runs this file before that, with a command of
cargo and its options: ``python build_backend.py zigbuild --release``.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import maturin
from maturin import *  # noqa: F403  (what is not below, or is called by what is)

_HERE = Path(__file__).parent


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Build a wheel, as PEP 517 says."""
    build_daemon(["build", *_profile(config_settings)])
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Build what stands for a wheel in an editable installation, as PEP 660 says."""
    build_daemon(["build", *_profile(config_settings)])
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


def _profile(config_settings: Any) -> list[str]:
    """Return the profile that maturin is told to build with."""
    told = maturin.get_maturin_pep517_args(config_settings)
    return ["--profile", told[told.index("--profile") + 1]] if "--profile" in told else ["--release"]


def build_daemon(command: list[str]) -> None:
    """Build the daemon by a command of cargo, and put it into the package."""
    manifest = ["--manifest-path", str(_HERE.parent / "store-daemon" / "Cargo.toml"), "--bin", "plasmon-store"]
    told = subprocess.run(  # noqa: S603
        ["cargo", *command, *manifest, "--quiet", "--message-format", "json-render-diagnostics"],  # noqa: S607
        stdout=subprocess.PIPE,
        check=True,
    )
    messages = map(json.loads, told.stdout.splitlines())
    (program,) = (message["executable"] for message in messages if message.get("executable"))
    package = _HERE / "python" / "plasmon"
    # Another inode: a store may be running the one that is there.
    shutil.copy2(program, package / "plasmon-store.new")
    (package / "plasmon-store.new").replace(package / "plasmon-store")


if __name__ == "__main__":
    build_daemon(sys.argv[1:])
