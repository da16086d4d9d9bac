"""SMTP users for Locust: they send with the benchmarker's client and report to Locust.

`locust -f` on this file sends according to its options; your own locustfile imports `SmtpUser`,
which sends one message at each `send`. Locust is an extra, so no other module imports this one.

Locust's users are greenlets, and the client consists of coroutines. All users of a process share
one asyncio loop, which runs in a greenlet: gevent's selector lets the others run while it waits. So
there is one implementation of SMTP, and no thread. uvloop cannot be that loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import gevent
import typer
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from locust import User, events, task
from locust.runners import MasterRunner

from bench.client.connection import SubmissionFailed
from bench.client.endpoint import Tls
from bench.client.login import Mechanism
from bench.client.submission import ClientBehaviour, Submission
from bench.load.messages import Messages
from bench.options.request_builder import request_of
from bench.options.run_options import RunOptions
from bench.process.interruption import Interruption
from bench.runs.logins import logins_of
from bench.targets.target import open_target
from bench.targets.target_request import TargetError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Coroutine

    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment

    from bench.client.endpoint import Endpoint
    from bench.client.login import ClientLogin
    from bench.measurement.sample import SendFailure
    from bench.runs.run_request import RunRequest
    from bench.targets.target_request import TargetRequest

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_TLS_OF_SCHEME = {"smtp": None, "smtps": Tls.IMPLICIT, "": None}
# Our options that Locust's command line accepts; Locust has its own for the amount and the time.
_TAKEN = (
    "scenario",
    "connection",
    "pipelined",
    "sizes",
    "recipients",
    "use_mock_tokens",
    "no_auth",
    "allow_remote",
    "password",
)


class _Loop:
    """The asyncio loop of a process, usable from other greenlets."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._greenlet = gevent.spawn(self._loop.run_forever)

    def do(self, work: Coroutine[object, object, T]) -> T:
        """Run `work` in the loop and return its result; killing the greenlet cancels it."""
        result: AsyncResult = AsyncResult()
        running: list[asyncio.Task[T]] = []

        def begin() -> None:
            running.append(self._loop.create_task(work))
            running[0].add_done_callback(lambda done: _settle(done, result))

        self._loop.call_soon_threadsafe(begin)
        try:
            value: T = result.get()
        except gevent.GreenletExit:
            self._loop.call_soon_threadsafe(lambda: running and running[0].cancel())
            raise
        return value


def _settle(done: asyncio.Task[T], result: AsyncResult) -> None:
    if done.cancelled():
        result.set_exception(CancelledError())
    elif (error := done.exception()) is not None:
        result.set_exception(error)
    else:
        result.set(done.result())


class Post:
    """The state that the users of a process share: messages, logins and endpoints."""

    def __init__(self, request: RunRequest) -> None:
        plan = request.plan
        self.request = request
        self.loop = _Loop()
        self.messages = Messages(plan.to_email, plan.workload, request.files)
        self.numbers = itertools.count()
        self.behaviour = ClientBehaviour(
            is_pipelined=plan.workload.is_pipelined, reply_seconds=plan.reply_seconds
        )
        self._logins: list[ClientLogin] = []
        self._turns = itertools.count()
        self._endpoints: dict[str, Endpoint] = {}  # by Locust's host
        self._finding = BoundedSemaphore(1)

    def submission(self, host: str) -> Submission:
        """Return an unopened connection for the next mailbox in turn.

        Raises:
            TargetError: the target may not be measured, or is missing.
        """
        with self._finding:  # one user looks for the server, the others wait for the result
            if host not in self._endpoints:
                self._endpoints[host] = self.loop.do(self._find(host))
        login = self._logins[next(self._turns) % len(self._logins)]
        return Submission(self._endpoints[host], login, self.behaviour)

    def give_up(self, environment: Environment, error: TargetError) -> None:
        """End the test; only the first user's call has an effect."""
        if environment.process_exit_code is None:
            environment.process_exit_code = 1
            _LOG.error("%s", error)
            if environment.runner is not None:
                # In its own greenlet, because it ends the calling user's.
                gevent.spawn(environment.runner.quit)

    async def _find(self, host: str) -> Endpoint:
        async with open_target(_target(self.request, host), Interruption(), _LOG.info) as target:
            self._logins = logins_of(self.request, target.state_dir)
            return target.endpoint


class SmtpUser(User):
    """A client with its own connection, kept or reopened as the options say."""

    abstract = True

    def on_start(self) -> None:
        """Find the server; without one the test ends, and the log says why."""
        self._post = _POSTS[self.environment]
        try:
            self._submission = self._post.submission(self.host or "")
        except TargetError as error:
            self._post.give_up(self.environment, error)
            # Locust treats a greenlet that ends like this as a user that has stopped.
            raise gevent.GreenletExit from None

    def on_stop(self) -> None:
        """Disconnect from the server."""
        if hasattr(self, "_submission"):
            self._post.loop.do(self._submission.close())

    def send(self) -> bool:
        """Send one message, connecting first if necessary; return whether it succeeded."""
        if not self._submission.is_open and not self._open():
            return False
        number = next(self._post.numbers)
        mailbox = self._submission.login.mailbox
        content = self._post.messages.content(number, mailbox)
        paths = self._post.messages.forward_paths(number)
        began = time.perf_counter()
        failure = None
        try:
            self._post.loop.do(self._submission.send(mailbox, paths, content))
        except SubmissionFailed as error:
            failure = error.failure
        # A user stopped meanwhile reports no failure, like Locust's own users.
        self._tell("SEND", time.perf_counter() - began, failure, len(content))
        most = self._post.request.plan.workload.reuse.messages
        if most is not None and self._submission.messages >= most:
            self._post.loop.do(self._submission.close())
        return failure is None

    def _open(self) -> bool:
        began = time.perf_counter()
        try:
            opening = self._post.loop.do(self._submission.open())
        except SubmissionFailed as error:
            kind = "AUTH" if self._submission.has_connected else "CONNECT"
            self._tell(kind, time.perf_counter() - began, error.failure)
            return False
        self._tell("CONNECT", opening.connect_seconds)
        if opening.auth_seconds is not None:
            self._tell("AUTH", opening.auth_seconds)
        return True

    def _tell(
        self, kind: str, seconds: float, failure: SendFailure | None = None, size_bytes: int = 0
    ) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=type(self).__name__,
            response_time=seconds * 1000,  # Locust counts in milliseconds
            response_length=size_bytes,
            exception=None if failure is None else SubmissionFailed(failure),
            context={},
        )


class Sender(SmtpUser):
    """A client that sends one message after the other."""

    @task
    def message(self) -> None:
        """Send one."""
        self.send()


_POSTS: WeakKeyDictionary[Environment, Post] = WeakKeyDictionary()


def _add_options(parser: LocustArgumentParser, **_: object) -> None:
    parser.add_argument(
        "--password",
        env_var="XOAUTH2_BENCH_PASSWORD",
        is_secret=True,  # not available for the options of a group
        include_in_web_ui=False,
        help="Password or token; the variable keeps it out of the process list.",
    )
    group = parser.add_argument_group("SMTP", "What Sender sends; --host is smtp://… or smtps://…")
    group.add_argument("--scenario", help="Sizes and connection reuse of a named scenario.")
    group.add_argument("--sizes", help="4096, or sizes with weights: 4k:70,100k:25,1m:5.")
    group.add_argument("--recipients", help="Recipients of a message: 3 or 1-5.")
    group.add_argument("--connection", help="kept, per-message, or messages a connection carries.")
    group.add_argument("--pipelined", action="store_true", help="MAIL, RCPT, DATA in one flight.")
    group.add_argument("--mailbox", help="Mailboxes to log in as, separated by commas.")
    group.add_argument("--to", default="recipient@outlook.com", help="Recipient.")
    group.add_argument("--mechanism", choices=[one.value for one in Mechanism], help="To log in.")
    group.add_argument("--no-auth", action="store_true", help="Do not log in.")
    group.add_argument("--use-mock-tokens", action="store_true", help="Log in to the sandbox.")
    group.add_argument("--state-dir", help="The running proxy's, with the mock tokens' key.")
    group.add_argument("--starttls", action="store_true", help="Protect connections by STARTTLS.")
    group.add_argument("--ca-file", help="Certificates to trust, in PEM.")
    group.add_argument("--allow-remote", action="store_true", help="Let traffic leave loopback.")


def _prepare(environment: Environment, **_: object) -> None:
    # gevent's clock did not advance during imports, so --run-time would end early by that time.
    gevent.get_hub().loop.update_now()
    options = environment.parsed_options
    if options is None or isinstance(environment.runner, MasterRunner):
        return  # a master sends nothing
    try:
        request = request_of(_options(options))
        if request.accounts is not None:
            raise typer.BadParameter(
                f"{options.scenario} creates mailboxes, and Locust uses those that there are.",
                param_hint="--scenario",
            )
        _POSTS[environment] = Post(request)
    except typer.BadParameter as error:
        hint = f"{error.param_hint}: " if error.param_hint else ""
        raise SystemExit(f"{hint}{error.message}") from None


def _options(given: Namespace) -> RunOptions:
    return RunOptions(
        **{name: getattr(given, name) for name in _TAKEN},
        from_emails=given.mailbox.split(",") if given.mailbox else None,
        to_email=given.to,
        mechanism=Mechanism(given.mechanism) if given.mechanism else None,
        state_dir=Path(given.state_dir) if given.state_dir else None,
        tls=Tls.STARTTLS if given.starttls else Tls.NONE,
        ca_file=Path(given.ca_file) if given.ca_file else None,
        as_json=True,
    )


def _target(request: RunRequest, host: str) -> TargetRequest:
    """Return the request for the target at Locust's `--host`.

    Raises:
        TargetError: the address is invalid.
    """
    url = urlsplit(host if "//" in host else f"//{host}")
    try:
        port = url.port
    except ValueError:
        port = 0
    if url.scheme not in _TLS_OF_SCHEME or port == 0 or (host and not url.hostname):
        raise TargetError(f"{host} is not a mail server's address: give --host smtp://name:port.")
    tls = _TLS_OF_SCHEME[url.scheme] or request.target.tls
    # All workers must send to the same server, so a worker never starts a private proxy.
    return replace(request.target, host=url.hostname, port=port, tls=tls, may_start_private=False)


events.init_command_line_parser.add_listener(_add_options)
events.init.add_listener(_prepare)
