"""Asking a relay for its health: what comes back, and that no answer is an answer too."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from xoauth2_proxy.commands import health_check

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def serving(status: int, body: bytes) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Run a web server; give its address, and path and authorization of what was asked."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def saying(octets: bytes) -> Iterator[str]:
    """Run a server that says the same to everyone and hangs up, like an SMTP server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(octets)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            thread.join(5)


def test_a_relay_that_is_well() -> None:
    with serving(200, b'{"status": "healthy"}') as (url, asked):
        answer = health_check.ask(url, "")
    assert answer == health_check.Answer(True, '{"status": "healthy"}')
    assert asked == [("/health", None)]


def test_a_relay_that_is_unwell_is_quoted() -> None:
    with serving(503, b'{"status": "draining"}') as (url, _):
        answer = health_check.ask(url, "")
    assert answer == health_check.Answer(False, 'HTTP 503: {"status": "draining"}')


def test_token_goes_as_bearer_token_and_a_slash_at_the_end_does_no_harm() -> None:
    with serving(200, b"") as (url, asked):
        assert health_check.ask(f"{url}/", "let me in").is_well
    assert asked == [("/health", "Bearer let me in")]


def test_an_endless_answer_is_read_in_part() -> None:
    with serving(200, b"x" * 200_000) as (url, _):
        assert len(health_check.ask(url, "").text) == 65_536


def test_octets_that_are_no_text_are_replaced() -> None:
    with serving(200, b"\xff") as (url, _):
        assert health_check.ask(url, "").text == "�"


def test_nobody_listening() -> None:
    with socket.socket() as bound:  # bound and not listening: refuses
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        answer = health_check.ask(url, "")
    assert not answer.is_well
    assert answer.text.startswith(f"{url}/health: ")


@pytest.mark.parametrize("url", ["", "127.0.0.1:9090", "file:///etc/passwd", "ftp://x"])
def test_only_http_addresses(url: str) -> None:
    answer = health_check.ask(url, "")
    assert answer == health_check.Answer(False, f"{url}: not an http address")


def test_a_server_that_hangs_up_is_unwell() -> None:
    with saying(b"") as url:
        assert not health_check.ask(url, "").is_well


def test_a_server_that_speaks_something_else_is_unwell() -> None:
    with saying(b"220 mail.example.com ESMTP\r\n") as url:
        assert not health_check.ask(url, "").is_well


def test_a_port_that_is_none_is_unwell() -> None:
    assert not health_check.ask("http://127.0.0.1:admin", "").is_well


def test_a_token_that_is_no_header_value_is_not_shown() -> None:
    answer = health_check.ask("http://127.0.0.1:1", "hunter2\n")
    assert not answer.is_well
    assert "hunter2" not in answer.text
