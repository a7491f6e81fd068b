"""`textllm serve`: the REST API, in worker processes."""

import ipaddress
import os
import socket
import sys
from errno import EADDRINUSE
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Host, invocation_of
from textllm_cli.render import Screen, reporting
from textllm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from textllm_adapters.settings import Settings

FILES: Final = 32_768  # of one worker: twice the connections that it may have
DATABASE_PATIENCE_S: Final = 60.0  # after a reboot, a database may come later than we do

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, max=1024, help="How many processes answer.")] = 1,
    grace_s: Annotated[
        float | None,
        typer.Option(
            "--grace-s",
            min=0,
            max=86_400,
            metavar="SECONDS",
            help="How long streams may run on after SIGTERM; the setting stream_drain_s unless given.",
        ),
    ] = None,
    log_level: Annotated[
        Level | None, typer.Option("--log-level", case_sensitive=False, help="In place of the setting logging.level.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Serve the REST API.

    SIGTERM ends it in order: it is not ready any more, serves for five seconds more, then refuses new turns, lets
    streams end within the time of grace, and cuts the rest short, each with its last event and its ledger entry. Ctrl-C
    does the same without the five seconds, a second one without the grace. SIGHUP renews the workers, one after the
    other, and loses no request; one that dies is replaced.

    Example: textllm serve --host 0.0.0.0 --workers 4
    """
    invocation = invocation_of(context)
    with reporting(as_json=as_json) as screen:
        if invocation.config is not None:  # workers read the settings for themselves
            os.environ["TEXTLLM_CONFIG"] = str(invocation.config.absolute())
        if log_level is not None:
            os.environ["TEXTLLM_LOGGING__LEVEL"] = log_level
        settings, here = invocation.host("serve")
        if sys.platform == "win32":
            raise ConfigurationError("The server needs Linux, macOS or another system with POSIX signals; try WSL.")
        if not (find_spec("granian") and find_spec("litestar")):
            raise ConfigurationError(
                "The server needs the extra `server` (in the checkout: "
                "uv pip install -c constraints.txt -e '.[server]', or "
                "uv run --extra server textllm …)."
            )
        address = _free_address(host, port)
        requires_keys = _requires_keys(settings, address)
        if not requires_keys and not ipaddress.ip_address(address).is_loopback:
            screen.warn(f"no authentication: who reaches {address} can read all conversations and spend your money")
        for notice in here.notices(settings):
            screen.warn(notice)
        if (notice_of_tracing := _tracing_notice()) is not None:
            screen.warn(notice_of_tracing)
        interruptibly(_try_out(here, settings, screen, requires_keys=requires_keys))
        os.environ["TEXTLLM_AUTH"] = "required" if requires_keys else "disabled"  # workers do not know the address
        _configure_logs(settings)
        _serve(settings, address, port, workers, settings.stream_drain_s if grace_s is None else grace_s, screen)


async def _try_out(here: Host, settings: "Settings", screen: Screen, *, requires_keys: bool) -> None:
    """Find out here, and say clearly, what the engine cannot be opened with, so that not each worker does.

    Raises:
        ConfigurationError, StorageUnavailableError
    """
    async with here.try_out(
        settings, model_progress=screen.model_progress, database_patience_s=DATABASE_PATIENCE_S
    ) as administration:
        if requires_keys and not await administration.any_api_key():
            screen.warn("nobody can call yet: make the first key with `textllm keys create --role admin`")


def _free_address(host: str, port: int) -> str:
    """The IP address of `host`, where nobody listens on `port` yet.

    Raises:
        ConfigurationError: it is no address of this machine, or not free.
    """
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((found[0], port), family=family).close()
    except OSError as error:
        way_out = "; choose another with --port" if error.errno == EADDRINUSE else ""
        raise ConfigurationError(f"Cannot listen on {_url(host, port)}: {error.strerror or error}{way_out}") from error
    return str(found[0])


def _requires_keys(settings: "Settings", address: str) -> bool:
    """Whether callers need a key: off loopback always, unless the settings say aloud that they do not."""
    if settings.auth == "auto":
        return not ipaddress.ip_address(address).is_loopback
    return settings.auth == "required"


def _serve(settings: "Settings", address: str, port: int, workers: int, grace_s: float, screen: Screen) -> NoReturn:
    from textllm_http.listener import listen
    from textllm_http.supervisor import become_supervisor

    url = _url(address, port)
    _allow_connections()
    become_supervisor(
        listen(address, port, unread_timeout_s=settings.unread_timeout_s),
        workers=workers,
        grace_s=grace_s,
        log_level=settings.logging.level,
        log_dir=_log_dir(settings),
        on_start=lambda: screen.record({"url": url}, "") if screen.as_json else screen.say(f"serving on {url}"),
    )


def _tracing_notice() -> str | None:
    """What an operator should know of the traces that the environment asks for.

    Raises:
        ConfigurationError: it asks for what is not there.
    """
    from textllm_adapters.telemetry.tracing import tracing_notice

    return tracing_notice()


def _configure_logs(settings: "Settings") -> None:
    """Find out, while it can be said clearly, whether logs can be written.

    Raises:
        ConfigurationError: the folder or the file cannot be written.
    """
    from textllm_adapters.telemetry.logs import configure_logs

    configure_logs(settings.logging.level, _log_dir(settings))


def _log_dir(settings: "Settings") -> Path | None:
    return settings.logging.log_dir if settings.logging.log_to_file else None


def _allow_connections() -> None:
    """Let each worker have a file for each connection, as far as the system allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
