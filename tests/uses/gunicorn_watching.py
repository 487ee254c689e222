"""Configuration of gunicorn: workers note in $PICKLED whatever is pickled or unpickled in them."""

import os
import pickle
import traceback
from typing import Any


def note() -> None:
    stack = "".join(traceback.format_stack())
    if "importlib._bootstrap" not in stack:  # modules that pickle something when they are imported
        with open(os.environ["PICKLED"], "a") as log:
            print(stack, file=log)


def post_fork(server: Any, worker: Any) -> None:
    def noting(real: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            note()
            return real(*args, **kwargs)

        return noted

    for name in ("dump", "dumps", "load", "loads"):
        setattr(pickle, name, noting(getattr(pickle, name)))
    for name in ("Pickler", "Unpickler"):

        class Noting(getattr(pickle, name)):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                note()
                super().__init__(*args, **kwargs)

        setattr(pickle, name, Noting)
