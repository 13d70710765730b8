"""`feed serve`: runs the service."""

import os
import shlex
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from feed.cli.database import settings_of, without_password
from feed.demo import Demo
from feed.service import Service
from feed.serving.certificate import self_signed
from feed.serving.master import serve_with_workers
from feed.serving.server import serve_alone
from feed.settings.settings import Settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. [default: 8000]")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that serve; each takes its share of the connections. [default: 1]")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="Where the postings are. [default: DATABASE_URL, else an embedded Postgres]")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the embedded Postgres.")] = None,
    certfile: Annotated[Path | None, typer.Option(help="TLS certificate (chain), PEM.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    self_signed_: Annotated[
        bool, typer.Option("--self-signed", help="TLS with a certificate made for this run.")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Post lively sample postings, so that there is something to watch.")
    ] = False,
) -> None:
    """Serve the feed over HTTP/1.1 and HTTP/2.

    It serves until SIGTERM or Ctrl-C. HTTP/2 is spoken with prior knowledge on a plain port, and by ALPN on TLS.
    Settings come from the environment (FEED_* and DATABASE_URL); flags win. At the end every stream is told goodbye.

    Exit codes: 0 stopped, 1 refused to start or a worker did not end as it should, 2 usage.

    \b
    Examples:
      feed serve
      feed serve --demo --port 9000
      feed serve --database-url postgresql://jobs@db.example/jobs --host 0.0.0.0
      feed serve --self-signed
      feed serve --workers 4
    """
    flags: dict[str, Any] = {
        "host": host, "port": port, "workers": workers, "certfile": certfile, "keyfile": keyfile,
    }  # fmt: skip
    with ExitStack() as stack:
        if self_signed_:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feed-tls-")))
            flags["certfile"], flags["keyfile"] = self_signed(folder, host or "127.0.0.1")
        settings = settings_of(database_url, data_dir, **flags)
        where = _where(settings, database_url, data_dir)

        def greet(address: str) -> None:
            _greet(address, settings, where, insecure=self_signed_)

        def first(service: Service) -> None:
            if not service.hub.ready:
                _warn(service.tailer.fault)
            if demo:
                service.start("demo", Demo(service.store).run)

        def started(address: str, service: Service) -> None:
            first(service)
            greet(address)

        if settings.listen.workers > 1:
            serve_with_workers(settings, greet, first)
        else:
            serve_alone(settings, started)


def _greet(address: str, settings: Settings, where: str, *, insecure: bool) -> None:
    """Print lines to try, each of which works when it is pasted, and who may do what."""
    flag = " -k" if insecure else ""
    reader = "" if settings.open_reading else ' -H "Authorization: Bearer $KEY"'
    writer = "" if settings.open_writing else ' -H "Authorization: Bearer $KEY"'
    posting = '{"title": "Site Reliability Engineer", "company": "Acme", "url": "https://acme.example/42"}'
    lines = [
        ("Open the page", f"{address}/"),
        ("Watch it here", f"curl{flag} -N{reader} {address}/v1/jobs/stream"),
        ("Post a job", f"curl{flag}{writer} {address}/v1/jobs -H 'content-type: application/json' -d '{posting}'"),
        ("Use SQL", f"{_this_command()} psql{where}"),
    ]
    if reader or writer:
        scope = "write" if writer else "read"
        lines.insert(0, ("Make a key", f"KEY=$({_this_command()} key create --scope {scope}{where})"))
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(
        "",
        *(f"  {bold}{label}{plain}\n    {line}\n" for label, line in lines),
        f"  {_access(settings)}\n",
        sep="\n",
        flush=True,
    )


def _where(settings: Settings, database_url: str | None, data_dir: Path | None) -> str:
    """Return the flags with which another command, in another terminal, reaches the same database.

    A password is not among them: the banner may end up in a log. PGPASSWORD or ~/.pgpass can hold it.
    """
    if database_url is not None:
        return f" --database-url {shlex.quote(without_password(database_url)[0])}"
    if data_dir is not None or (settings.database.url is None and "FEED_DATA_DIR" in os.environ):
        return f" --data-dir {shlex.quote(str(settings.database.data_dir.absolute()))}"
    return ""


def _this_command() -> str:
    """Return how to call this `feed` from a shell: by its name where the PATH finds it, else by its path."""
    program = Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m feed"
    found = shutil.which(program.name)
    return program.name if found is not None and Path(found).samefile(program) else shlex.quote(str(program))


def _warn(fault: str | None) -> None:
    """Say in the banner that the database cannot be reached, and why."""
    print(
        f"\n  The service has started without its database: {fault or 'it has not answered yet'}"
        "\n  It goes on trying; until then streams, lists and writes are answered with 503. `feed doctor` says more.",
        flush=True,
    )


def _access(settings: Settings) -> str:
    """Return a sentence that says who may do what."""
    match settings.open_reading, settings.open_writing:
        case True, True:
            return "Reading and writing need no key: only this machine reaches this address. Through a proxy they do."
        case True, False:
            return "Everybody may read; writing needs a key."
        case False, True:
            return "Reading needs a key; writing from this machine does not."
        case _:
            return "Reading and writing need a key."
