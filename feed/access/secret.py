"""The secret that signs session cookies, read from the database when the first one is made or checked."""

from typing import Protocol


class SecretReader(Protocol):
    """The store of the secret. Its call raises DatabaseUnavailable while the database is away."""

    async def secret(self) -> bytes:
        """Return the secret, which is the same for every process."""


class Secret:
    """Reads the secret once and keeps it."""

    def __init__(self, reader: SecretReader) -> None:
        self._reader = reader
        self._value: bytes | None = None

    async def value(self) -> bytes:
        """Return the secret; raises DatabaseUnavailable."""
        if self._value is None:
            self._value = await self._reader.secret()
        return self._value
