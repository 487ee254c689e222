"""brain-plasma's interface: ``from plasmon.compat.brain_plasma import Brain, exceptions``.

The same names, argument orders and rules as brain-plasma 0.3, on a Plasmon store; docs/migration.md
has the differences.
"""

from __future__ import annotations

from typing import Any

import plasmon
from plasmon import exceptions
from plasmon.exceptions import BadNamespace

__all__ = ["Brain", "exceptions"]


class Brain(plasmon.Brain):
    """A store as a dictionary, as brain-plasma has it: namespaces have 5 to 15 characters.

    Args:
        path: The store's socket.
        namespace: 5 to 15 of the ASCII letters, digits, ``_``, ``.`` and ``-``.
        ClientClass: Ignored: there is one client.

    """

    def __init__(
        self,
        path: str | None = None,
        namespace: str = "default",
        ClientClass: Any = None,  # noqa: N803, ARG002
        **options: Any,
    ) -> None:
        super().__init__(path, _checked(namespace), **options)

    def set_namespace(self, namespace: str | None = None) -> str:
        """Move to a namespace of 5 to 15 characters, or return the current one's name."""
        return super().set_namespace(None if namespace is None else _checked(namespace))


def _checked(namespace: str) -> str:
    if isinstance(namespace, str) and not 5 <= len(namespace) <= 15:
        raise BadNamespace(f"a namespace has 5 to 15 characters here, and {namespace!r} has {len(namespace)}")
    return namespace
