"""What can go wrong between a client and a feed: it refused, it is not there now, or it is no feed."""

from collections.abc import Sequence
from http import HTTPStatus

import httpx
import orjson

from feed.errors import ConfigurationError, Fault, FeedError

ASK = "Is this the address of a feed?"
# Answers that no feed gives to what its clients ask: unless a problem document comes with them, something else answers.
_FOREIGN = frozenset({404, 405, 410, 501, 505})
# Answers that say "not now": a request timeout, too early, too many requests; every 5xx joins them.
_PASSING = frozenset({408, 425, 429})


# What OpenSSL says of an answer that is not TLS, by its version.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
# How h11 begins what it says of an answer that is not HTTP.
_NO_HTTP = ("illegal status line", "illegal header line")


class ClientError(FeedError):
    """Anything that `FeedClient` reports."""


class Unusable(ClientError, ConfigurationError):
    """An address or an event id that no request can be made of."""


class Refused(ClientError):
    """The server will not do this however often it is asked: a 4xx other than 408, 425 and 429.

    `status` is the HTTP status; `faults` names the bad fields where the server did (`index`: the item, from
    0).
    """

    def __init__(self, status: int, message: str, faults: Sequence[Fault] = ()) -> None:
        self.status = status
        self.faults = tuple(faults)
        super().__init__(message)


class Unavailable(ClientError):
    """The server does not answer now (no connection, time-out, 408, 425, 429, 5xx); the same call may succeed
    later.

    `retry_after` is the wait the server asked for, in seconds, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class UnexpectedAnswer(ClientError):
    """Something answers at this address, but not as a feed does."""


def error_of(response: httpx.Response) -> ClientError:
    """Return the error that a response other than a 2xx stands for; its body has been read."""
    status = response.status_code
    problem = _problem(response)
    faults = _faults(problem)
    said = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:3])
    said = said or str(problem.get("detail") or problem.get("title") or response.reason_phrase or _phrase(status))
    message = f"{response.url.copy_with(query=None)} answered {status}: {said}"
    if status in _FOREIGN and not problem:
        return UnexpectedAnswer(f"{message}. {ASK}")
    if status in _PASSING or status >= 500:
        wait = response.headers.get("retry-after", "")
        return Unavailable(message, float(wait) if wait.isascii() and wait.isdigit() else None)
    if status >= 400:
        return Refused(status, message, faults)
    return UnexpectedAnswer(f"{message}. {ASK}")


def error_on_the_way(error: httpx.RequestError) -> ClientError:
    """Return as one of ours what httpx raised before an answer or in the middle of one.

    It may pass, unless it shows that what listens there speaks another protocol.
    """
    reason = str(error) or type(error).__name__
    url = error.request.url.copy_with(query=None)
    if url.scheme == "https" and any(word in reason for word in _NO_TLS):
        return UnexpectedAnswer(f"{url}: what listens there does not speak TLS. If it is a plain port, write http://.")
    if isinstance(error, httpx.RemoteProtocolError) and reason.startswith(_NO_HTTP):
        return UnexpectedAnswer(f"{url}: what listens there does not speak HTTP. {ASK}")
    return Unavailable(f"{url}: {reason}")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "with an unknown status"


def _problem(response: httpx.Response) -> dict[str, object]:
    """Return the body of an `application/problem+json` answer (RFC 9457), or nothing where it is none."""
    try:
        problem = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _faults(problem: dict[str, object]) -> tuple[Fault, ...]:
    errors = problem.get("errors")
    if not isinstance(errors, list):
        return ()
    return tuple(
        Fault(
            field=str(error.get("field", "")),
            message=str(error.get("message", "")),
            index=index if isinstance(index := error.get("index"), int) else None,
        )
        for error in errors
        if isinstance(error, dict)
    )
