"""The listener that a browser is sent back to: what it takes, what it shows, when it ends."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest

from xoauth2_proxy.errors import SignInRefused
from xoauth2_proxy.oauth.loopback import LoopbackRedirect, parse_redirect

if TYPE_CHECKING:
    from collections.abc import Mapping

STATE = "the state"


async def taken(answer: Mapping[str, str]) -> str:
    return answer["code"]


async def get(port: int, *, method: str = "GET", path: str = "/", **query: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{port}{path}"
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, params=query) as response,
    ):
        return response.status, await response.text()


async def test_the_answer_is_taken_and_the_page_says_so() -> None:
    async with LoopbackRedirect() as loopback, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(loopback.result(STATE, taken))
        status, page = await get(loopback.port, state=STATE, code="c1")
    assert waiting.result() == "c1"
    assert status == 200
    assert "Signed in" in page
    assert "c1" not in page


async def test_the_page_waits_for_the_outcome_and_tells_a_refusal() -> None:
    async def refused(answer: Mapping[str, str]) -> None:
        raise SignInRefused("<bob> signed in")

    async with LoopbackRedirect() as loopback:
        waiting = asyncio.create_task(loopback.result(STATE, refused))
        status, page = await get(loopback.port, state=STATE, error="access_denied")
        with pytest.raises(SignInRefused):
            await waiting
    assert status == 400
    assert "&lt;bob&gt; signed in" in page


@pytest.mark.parametrize(
    "query",
    [
        {"state": "another", "code": "c2"},
        {"code": "c2"},
        {"state": STATE},
        {"state": "", "code": "c2"},
    ],
)
async def test_what_does_not_belong_here_is_refused_and_the_wait_goes_on(
    query: dict[str, str],
) -> None:
    async with LoopbackRedirect() as loopback, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(loopback.result(STATE, taken))
        assert (await get(loopback.port, **query))[0] == 400
        assert not waiting.done()
        assert (await get(loopback.port, state=STATE, code="c1"))[0] == 200
    assert waiting.result() == "c1"


async def test_an_answer_that_comes_again_changes_nothing() -> None:
    go_on = asyncio.Event()

    async def slowly(answer: Mapping[str, str]) -> str:
        await go_on.wait()
        return answer["code"]

    async with LoopbackRedirect() as loopback, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(loopback.result(STATE, slowly))
        first = tasks.create_task(get(loopback.port, state=STATE, code="c1"))
        second = tasks.create_task(get(loopback.port, state=STATE, code="c2"))
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        (replayed,) = done
        assert "has come before" in replayed.result()[1]
        go_on.set()
    assert {first.result()[0], second.result()[0]} == {200, 400}
    assert waiting.result() in {"c1", "c2"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/", 405), ("HEAD", "/", 405), ("GET", "/favicon.ico", 404)],
)
async def test_only_its_own_address_is_served(method: str, path: str, status: int) -> None:
    async with LoopbackRedirect() as loopback:
        waiting = asyncio.create_task(loopback.result(STATE, taken))
        answered, _ = await get(loopback.port, method=method, path=path, state=STATE, code="c1")
        assert answered == status
        assert not waiting.done()
        waiting.cancel()


async def test_another_host_name_is_refused() -> None:
    async with LoopbackRedirect() as loopback, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{loopback.port}/?state=x&code=y"
        async with http.get(url, headers={"Host": "rebound.example"}) as response:
            assert response.status == 400


async def test_pages_run_no_script_and_stay_out_of_caches() -> None:
    async with (
        LoopbackRedirect() as loopback,
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{loopback.port}/") as response,
    ):
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "<script" not in await response.text()


async def test_nobody_is_waited_for_without_end() -> None:
    async with LoopbackRedirect() as loopback:
        with pytest.raises(SignInRefused, match="no one signed in"):
            await loopback.result(STATE, taken, wait_seconds=0.01)


async def test_nothing_listens_afterwards() -> None:
    async with LoopbackRedirect() as loopback:
        port = loopback.port
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_both_addresses_of_localhost_are_held() -> None:
    async with LoopbackRedirect(host="localhost") as loopback:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as other:
                try:
                    other.bind((address, 0))
                except OSError:
                    continue  # a machine without IPv6
            with socket.socket(family) as other, pytest.raises(OSError, match="in use"):
                other.bind((address, loopback.port))


async def test_a_port_that_is_taken_is_named() -> None:
    async with LoopbackRedirect() as loopback:
        with pytest.raises(SignInRefused, match=f"port {loopback.port}"):
            async with LoopbackRedirect(port=loopback.port):
                pass


async def test_a_person_who_gives_up_leaves_no_page_waiting() -> None:
    has_begun = asyncio.Event()

    async def never(answer: Mapping[str, str]) -> str:
        has_begun.set()
        await asyncio.Event().wait()
        return ""

    async with LoopbackRedirect() as loopback:
        waiting = asyncio.create_task(loopback.result(STATE, never))
        page = asyncio.create_task(get(loopback.port, state=STATE, code="c1"))
        await has_begun.wait()
        waiting.cancel()
    assert "cancelled" in (await page)[1]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("http://127.0.0.1:4/?code=a%2Fb&state=s\n", {"code": "a/b", "state": "s"}),
        (
            "  <http://localhost:4/?state=s&error=access_denied> ",
            {"state": "s", "error": "access_denied"},
        ),
        ("?code=c&state=s", {"code": "c", "state": "s"}),
        ("code=c&state=s", {"code": "c", "state": "s"}),
        ("4/0AbC-d_e", {"code": "4/0AbC-d_e"}),
        ("bG9uZw==", {"code": "bG9uZw=="}),
        ("\n", {}),
    ],
)
def test_what_a_person_copies_is_understood(text: str, answer: dict[str, str]) -> None:
    assert parse_redirect(text) == answer
