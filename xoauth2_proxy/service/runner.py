"""Runs one relay until a signal ends it: in this process, or as the parent of its workers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from xoauth2_proxy import __version__, log
from xoauth2_proxy.accounts.sandbox_addresses import last_known
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.files import default_state_dir
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.service.app import App
from xoauth2_proxy.service.components import StandardComponents
from xoauth2_proxy.service.event_loop import EventLoop
from xoauth2_proxy.service.listening import text_of
from xoauth2_proxy.service.without_password import log_without_password
from xoauth2_proxy.standard_streams import OutputFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.admin.health import Health
    from xoauth2_proxy.config import Config, ConfigSource
    from xoauth2_proxy.sandbox.app import Sandbox
    from xoauth2_proxy.service.listening import Addresses, ListenerAddresses

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count

_TLS_WORDS = {
    "none": "no TLS",
    "starttls": "STARTTLS",
    "implicit": "TLS",
    "auto": "TLS, STARTTLS or neither",
}

_log = log.logger("server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The settings of one run."""

    config: Config
    source: ConfigSource  # the source of `config`, for reading it again
    sandbox: bool = False
    sandbox_smtp_port: int = 0  # 0: any free port
    sandbox_http_port: int = 0  # 0: the last one, or any free one
    sandbox_settings: Path | None = None  # None: the usual settings
    loop: EventLoop = EventLoop.AUTO
    ready_file: Path | None = None
    is_quiet: bool = False  # print no welcome

    @property
    def state_dir(self) -> Path:
        """The directory of tokens and keys."""
        return self.source.state_dir

    def components(self) -> StandardComponents:
        """Return the refreshers and the store for this run. Raises `ValueError`."""
        return StandardComponents(self.source, self.config)


class Service(Protocol):
    """A relay that can be run: `App`, or the parent of several workers."""

    health: Health

    async def start(self) -> Addresses:
        """Return once clients are accepted. Raises `OSError`, `ValueError`, `CannotStart`."""
        ...

    async def reload(self) -> None:
        """Read the configuration again and use it. Raises `ConfigError`, `OSError`."""
        ...

    async def stop(self) -> None:
        """Drain, then stop everything."""
        ...


def run(
    settings: Run,
    build: Callable[[Run], Service] = lambda settings: App(
        settings.config, settings.components(), embedded_sandbox(settings)
    ),
    interrupt: Callable[[], None] = lambda: None,
) -> int:
    """Serve until SIGTERM or SIGINT, then drain; return the exit code.

    SIGHUP reads the configuration again, without touching transactions in flight. A second SIGINT
    calls `interrupt` and ends the process at once.
    """
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=settings.loop.factory()) as runner:
            runner.run(_serve(settings, build, interrupt))
    except (CannotStart, ModuleNotFoundError) as error:
        sys.stderr.write(f"xoauth2-proxy: cannot start: {error}\n")
        return EXIT_FAILED
    return 0


class CannotStart(Exception):
    """The relay could not start, for example because an address is in use."""


def embedded_sandbox(settings: Run) -> Sandbox | None:
    """Return the sandbox to run, or None; its modules are imported only if needed.

    Raises `ValueError`: its settings are wrong.
    """
    if not settings.sandbox:
        return None
    from xoauth2_proxy.sandbox.app import Sandbox
    from xoauth2_proxy.sandbox.settings_document import read_settings_file

    known = last_known(settings.state_dir)
    return Sandbox(
        settings.state_dir,
        read_settings_file(settings.sandbox_settings),
        smtp_port=settings.sandbox_smtp_port,
        http_port=settings.sandbox_http_port,
        preferred_http_port=known.http_port if known else 0,
    )


async def _serve(
    settings: Run, build: Callable[[Run], Service], interrupt: Callable[[], None]
) -> None:
    # Handlers first: a signal during the start must not leave half a relay running.
    stop, reload_requested = asyncio.Event(), asyncio.Event()
    _on_signals(stop, reload_requested, interrupt)
    try:
        app = build(settings)
        addresses = await app.start()
    except (OSError, ValueError) as error:
        raise CannotStart(error) from error
    reloading = asyncio.create_task(_reload_on_request(app, reload_requested), name="reload")
    try:
        for warning in settings.config.warnings:
            _log.warning("%s", warning)
        log_without_password(settings.config.accounts)
        if settings.ready_file is not None:
            _write_ready_file(settings.ready_file, addresses, app.health.sandbox)
        if not settings.is_quiet:
            _print_welcome(_welcome(settings, addresses, app.health.sandbox))
        await stop.wait()
        _log.info("stopping: letting transactions in flight finish")
    finally:
        reloading.cancel()
        await asyncio.gather(reloading, return_exceptions=True)
        await app.stop()


def _print_welcome(text: str) -> None:
    """Print the welcome; a closed or full standard output does not stop the relay."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, OutputFailed) as error:
        _log.warning("the addresses cannot be written to standard output: %s", error)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process


def _on_signals(
    stop: asyncio.Event, reload_requested: asyncio.Event, interrupt: Callable[[], None]
) -> None:
    def stop_requested(signal_number: int) -> None:
        if stop.is_set() and signal_number == signal.SIGINT:
            interrupt()
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop_requested, signal_number)
    loop.add_signal_handler(signal.SIGHUP, reload_requested.set)


async def _reload_on_request(service: Service, reload_requested: asyncio.Event) -> None:
    while True:
        await reload_requested.wait()
        reload_requested.clear()
        try:
            await service.reload()
        except ConfigError as error:
            _log.error("cannot reload the configuration; the previous one stays in use: %s", error)
        except Exception:
            _log.exception("cannot reload the configuration; the previous one stays in use")
        else:
            _log.info("configuration read again")


def _raise_file_limit() -> None:
    """Raise the limit on open files to the maximum; a client and its upstream take two."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write_ready_file(file: Path, addresses: Addresses, sandbox: dict[str, str]) -> None:
    ready: dict[str, object] = {
        "pid": os.getpid(),
        "smtp": text_of(addresses.smtp),
        "listeners": {one.name: list(map(text_of, one.addresses)) for one in addresses.listeners},
        "admin": f"http://{text_of(addresses.admin)}",
    }
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(ready | ({"sandbox": sandbox} if sandbox else {})))
    draft.replace(file)


def _welcome(settings: Run, addresses: Addresses, sandbox: dict[str, str]) -> str:
    """Return the welcome: the addresses, and the commands to try next."""
    host, port = _connectable(addresses.smtp)
    admin = f"http://{text_of(_connectable(addresses.admin))}"
    mailboxes = [account.email for account in settings.config.accounts]
    login = f"login {mailboxes[0]}" if mailboxes else "no mailbox yet"
    everywhere = [text_of(one) for listener in addresses.listeners for one in listener.addresses]
    lines = [
        f"xoauth2-proxy {__version__} is ready on {', '.join(everywhere)}. Ctrl+C stops it.",
        f"  Mail client  {_settings_of(addresses.listeners[0])}; {login}",
    ]
    lines += [
        f"               {_settings_of(listener)} ({listener.name})"
        for listener in addresses.listeners[1:]
    ]
    if sandbox:
        lines.append(
            "               with the password from its account (sandbox mailboxes: secret)"
        )
        if {account.key for account in settings.config.accounts} >= set(MOCK_MAILBOXES):
            lines.append(f"  Benchmark    {_bench_command(settings, (host, port), admin)}")
        lines.append(f"  Received     {sandbox['http']}/   as JSON: {sandbox['http']}/messages")
    lines.append(f"  Mailboxes    {admin}/")
    lines.append(f"  Health       {admin}/health   metrics: {admin}/metrics")
    lines.append(
        "  Log          one line a message, on standard error; 2>proxy.log keeps it off the screen"
    )
    lines.append("  Later        xoauth2-proxy status shows how the mailboxes are")
    return "\n".join(lines) + "\n"


def _settings_of(listener: ListenerAddresses) -> str:
    """Return what a mail client is set to."""
    host, port = _connectable(listener.addresses[0])
    return f"server {host}, port {port}, {_TLS_WORDS[listener.tls]}"


def _connectable(address: tuple[str, int]) -> tuple[str, int]:
    """Return an address to connect to: loopback in place of a wildcard address."""
    host, port = address
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def _bench_command(settings: Run, smtp: tuple[str, int], admin: str) -> str:
    words = [_bench_program(), "--scenario quick --use-mock-tokens"]
    if smtp != ("127.0.0.1", 2525):
        words.append(f"--host {smtp[0]} --port {smtp[1]} --admin-url {admin}")
    if settings.state_dir != default_state_dir():
        words.append(f"--state-dir {settings.state_dir}")
    listener = settings.config.listeners[0]
    if listener.tls_cert is not None:
        tls = "implicit" if listener.tls_mode == "implicit" else "starttls"
        words.append(f"--tls {tls} --ca-file {listener.tls_cert}")
    return " ".join(words)


def _bench_program() -> str:
    """Return the command for the benchmarker, with its path if it is not on PATH."""
    name = "xoauth2-bench"
    beside = Path(sys.executable).parent / name
    if shutil.which(name) or not beside.exists():
        return name
    with suppress(ValueError):
        return str(beside.relative_to(Path.cwd()))
    return str(beside)
