"""Logs: an event's name plus fields; readable on a terminal, one JSON object a line elsewhere."""

import logging
import sys

import structlog


def configure(level: str, form: str = "auto") -> None:
    """Send our own and the libraries' logs to stderr in one form.

    `level`: debug, info, warning or error. `form`: `console` for people, `json`, or `auto`: for people on a terminal.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    terminal = sys.stderr.isatty()
    # Plain tracebacks: the others print local variables, and credentials are among them.
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)]
        if form == "console" or (form == "auto" and terminal)
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("hpack", "h2", "asyncio"):  # a line for every header field is of use to nobody
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    for name in ("httpx", "httpcore"):  # a line for every request, with all that its URL says
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # Hypercorn logs through loggers of its own: once, and without what `feed serve` says itself.
    for name in ("hypercorn.error", "hypercorn.access"):
        theirs = logging.getLogger(name)
        theirs.propagate = not theirs.handlers
        if theirs.propagate:
            theirs.setLevel(max(logging.WARNING, root.level))
