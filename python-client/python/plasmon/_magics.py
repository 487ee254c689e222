"""Magics for notebooks, loaded with ``%load_ext plasmon``: ``%learn``, ``%recall`` and ``%brain``.

Only this module knows IPython, and only IPython loads it.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic_arguments import MagicArgumentParser
from IPython.display import display

from plasmon._brain import Brain
from plasmon.exceptions import PlasmonError

if TYPE_CHECKING:
    from collections.abc import Callable


class _Magics:
    """The magics of one shell, and the brain they work on."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._brain: Brain | None = None
        self._parsers: dict[str, MagicArgumentParser] = {}
        for name, magic, options in (
            ("learn", self._learn, _LEARN),
            ("recall", self._recall, _RECALL),
            ("brain", self._show, _BRAIN),
        ):
            self._register(name, magic, options)
        for command in ("%recall", "recall"):
            shell.set_hook("complete_command", self._complete_names, str_key=command)

    def _register(self, name: str, magic: Callable[[Any], None], options: list[tuple[tuple[str, ...], Any]]) -> None:
        parser = MagicArgumentParser(f"%{name}", add_help=False)
        for flags, how in options:
            parser.add_argument(*flags, **how)

        def run(line: str) -> None:
            try:
                magic(parser.parse_args(shlex.split(line)))
            except (PlasmonError, ValueError, TypeError, OSError) as error:
                raise UsageError(f"%{name}: {error}") from error  # a line, not a page of trace

        run.__doc__ = f"{magic.__doc__}\n\n{parser.format_help()}"
        self._shell.register_magic_function(run, "line", name)

    def _complete_names(self, _shell: Any, event: Any) -> list[str]:
        """Return names of the store that begin with what was typed: some thousands at most."""
        try:
            names = self._connected().client.first_names(event.symbol)
        except PlasmonError:
            return []
        quote = event.text_until_cursor.removesuffix(event.symbol)[-1:]
        if quote in ("'", '"'):
            return [name + quote for name in names if quote not in name]
        return [name for name in names if shlex.quote(name) == name]

    def _connected(self) -> Brain:
        if self._brain is None:
            self._brain = Brain()
        return self._brain

    def _learn(self, asked: Any) -> None:
        """Put variables into the store, each under its name: ``%learn prices``, ``%learn prices --as daily``."""
        missing = [name for name in asked.names if name not in self._shell.user_ns]
        if missing:
            raise UsageError(f"%learn: there is no variable {missing[0]!r}")
        if asked.as_ and len(asked.names) > 1:
            raise UsageError("%learn: --as names one variable's value")
        things = {asked.as_ or name: self._shell.user_ns[name] for name in asked.names}
        self._connected().learn_many(things)

    def _recall(self, asked: Any) -> None:
        """Bind variables to values of the store, without copying: ``%recall prices``, ``%recall daily --as prices``."""
        if asked.as_ and len(asked.names) > 1:
            raise UsageError("%recall: --as names one variable")
        brain = self._connected()
        variables = {}
        for name in asked.names:
            variable = asked.as_ or name
            if not variable.isidentifier():
                raise UsageError(f"%recall: {name!r} cannot be a variable; choose one with --as")
            variables[variable] = brain.recall(name, timeout=asked.timeout)
        self._shell.push(variables)

    def _show(self, asked: Any) -> None:
        """Show what the store has; with a socket or a namespace, work there from now on."""
        if asked.socket is not None:
            self._brain = Brain(asked.socket, asked.namespace or "default")
        elif asked.namespace is not None:
            self._brain = self._connected().in_namespace(asked.namespace)
        brain = self._connected()
        display({"text/plain": brain._as_text(), "text/html": brain._repr_html_()}, raw=True)


_LEARN: list[tuple[tuple[str, ...], Any]] = [
    (("names",), {"nargs": "+", "metavar": "VARIABLE", "help": "The variables; all are bound at one moment."}),
    (("--as",), {"dest": "as_", "metavar": "NAME", "help": "Name in the store, if it is another one."}),
]

_RECALL: list[tuple[tuple[str, ...], Any]] = [
    (("names",), {"nargs": "+", "metavar": "NAME", "help": "Names in the store."}),
    (("--as",), {"dest": "as_", "metavar": "VARIABLE", "help": "The variable, if it is another one."}),
    (("--timeout",), {"type": float, "metavar": "SECONDS", "help": "Longest wait for a name to be bound."}),
]

_BRAIN: list[tuple[tuple[str, ...], Any]] = [
    (("socket",), {"nargs": "?", "help": "The store's socket, if it is not this user's store."}),
    (("--namespace",), {"help": "The namespace."}),
]


def load(shell: Any) -> None:
    """Give a shell the magics."""
    _Magics(shell)
