"""Who may read and write, and by which credentials."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from feed.settings.group import Group, Seconds


class AccessSettings(Group):
    """Who may read and write."""

    reading: Literal["open", "keys"] | None = None
    """Who may read: `open` is everybody, `keys` are holders of a credential. The default is `open` on loopback only."""
    writing: Literal["open", "keys"] | None = None
    """Who may write, as for reading. `open` is refused on any address but loopback."""
    metrics: Literal["open", "keys"] | None = None
    """Who may read `/metrics`, as for reading. Keys need the scope `metrics` or `admin`."""
    poll: Seconds = Field(default=1.0, validation_alias="FEED_ACCESS_POLL")
    """Seconds between looks for revocations, kicks and logouts. Open streams end at the next look."""
    key_cache: Seconds = 5.0
    """Seconds for which a key that was read from the database is good without another look."""
    session_age: Seconds = 12 * 3600.0
    """Longest session of a browser in seconds."""
    session_same_site: Literal["strict", "lax", "none"] = "lax"
    """`SameSite` of the session's cookie. `none` lets the pages of other sites in `FEED_CORS_ORIGINS` send it."""
    ticket_age: Seconds = 30.0
    """Seconds within which a ticket must be used for the first time. They begin anew when its stream is refused."""
    ticket_resume: Seconds = 3600.0
    """Seconds after its first use for which a ticket's stream may come back with a last id."""
    ticket_bound: bool = True
    """Whether a ticket's stream may come back only from the address of its first use."""


class JwtSettings(Group):
    """JSON Web Tokens (RFC 7519) that are accepted."""

    algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] | None = Field(
        default=None, validation_alias="FEED_JWT_ALGORITHM"
    )
    """Algorithm of the tokens that are accepted. Unless given, no tokens are accepted."""
    key: SecretStr | None = Field(default=None, validation_alias="FEED_JWT_KEY")
    """The secret of HS256 (at least 32 bytes), or a public key in PEM."""
    key_file: Path | None = Field(default=None, validation_alias="FEED_JWT_KEY_FILE")
    """A file that holds the same."""
    jwks_url: str | None = Field(default=None, validation_alias="FEED_JWT_JWKS_URL")
    """The address of a published key set (RFC 7517), instead of a key."""
    audience: str | None = Field(default=None, validation_alias="FEED_JWT_AUDIENCE")
    """The audience (`aud`) that tokens must name."""
    issuer: str | None = Field(default=None, validation_alias="FEED_JWT_ISSUER")
    """The issuer (`iss`) that tokens must name."""
    leeway: Annotated[float, Field(ge=0, le=300)] = Field(default=10.0, validation_alias="FEED_JWT_LEEWAY")
    """Seconds by which clocks may differ: a token is let in, and its streams go on, for so long after its `exp`."""
    jwks_age: Seconds = 300.0
    """Seconds between reads of the key set. An unknown key id asks sooner, at most every ten seconds."""
