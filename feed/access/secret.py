"""The secret that signs sessions: read from the database once, when the first one is opened or shown."""

from typing import Protocol


class SecretReader(Protocol):
    """Where it is kept. Raises DatabaseUnavailable."""

    async def secret(self) -> bytes:
        """The secret; the same for every process."""


class Secret:
    """Remembers it."""

    def __init__(self, reader: SecretReader) -> None:
        self._reader = reader
        self._value: bytes | None = None

    async def value(self) -> bytes:
        """The secret; raises DatabaseUnavailable."""
        if self._value is None:
            self._value = await self._reader.secret()
        return self._value
