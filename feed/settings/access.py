"""Who may do what."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from feed.settings.units import Seconds


class AccessOptions(BaseSettings):
    """Who may do what."""

    reading: Literal["open", "keys"] | None = None
    """Who may read; unless given: everybody where the service listens on loopback only, else holders of a credential."""
    writing: Literal["open", "keys"] | None = None
    """Who may write; unless given as for `reading`. `open` is refused on any address but loopback."""
    metrics: Literal["open", "keys"] | None = None
    """Who may read `/metrics`; unless given as for `reading`. Keys: of scope metrics or admin."""
    access_poll: Seconds = 1.0
    """Between looks for revocations, kicks and logouts; open streams end at the next."""
    key_cache: Seconds = 5.0
    """A key read from the database is good for so long without another look."""
    session_age: Seconds = 12 * 3600.0
    """A browser's session, at the longest."""
    session_same_site: Literal["strict", "lax", "none"] = "lax"
    """`SameSite` of its cookie; `none` lets pages of other sites of `cors_origins` send it."""
    ticket_age: Seconds = 30.0
    """From a ticket to its first use."""
    ticket_resume: Seconds = 3600.0
    """From its first use: so long its stream may come back with a last id and without a new ticket."""
    ticket_bound: bool = True
    """A ticket's stream may come back from the address of its first use only."""
    jwt_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] | None = None
    """Of the tokens (JWT) that are accepted; None: no tokens are."""
    jwt_key: SecretStr | None = None
    """The secret of HS256 (32 bytes at least), or a public key in PEM."""
    jwt_key_file: Path | None = None
    """A file with the same."""
    jwt_jwks_url: str | None = None
    """Where the keys are published (RFC 7517), instead of either."""
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_leeway: Annotated[float, Field(ge=0, le=300)] = 10.0
    """Seconds that clocks may differ."""
    jwks_age: Seconds = 300.0
    """Between reads of the published keys; an unknown key id asks sooner, at most every ten seconds."""
