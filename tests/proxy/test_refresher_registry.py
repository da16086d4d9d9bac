"""The registry: refreshers by name, the relay's own and plug-ins, and plug-ins that fail."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.distributions import GOOD, install
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.errors import TokenEndpointRefused
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers import ChecksTokens
from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GRANT = Grant(mailbox="someone@example.com", client=OAuthClient())
GOOD_START = """
from xoauth2_proxy.plug_in import RefresherInfo
class Acme:
    def __init__(self, threads):
        pass
"""
SECRET = "s3cret-" + "x" * 40


OpenRegistry = Callable[[], RefresherRegistry]


class Offer(Protocol):
    def __call__(self, source: str, offers: dict[str, str], distribution: str = ...) -> str: ...


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Offer]:
    """Install a plug-in; `{module}` in what it offers is its module's name."""
    place = tmp_path / "site-packages"
    place.mkdir()
    modules: list[str] = []

    def offer(source: str, offers: dict[str, str], distribution: str = "acme-refreshers") -> str:
        module = f"{distribution.replace('-', '_')}_of_a_test"
        modules.append(module)
        found = {name: what.replace("{module}", module) for name, what in offers.items()}
        install(place, distribution, module, source, found)
        monkeypatch.syspath_prepend(str(place))
        return module

    yield offer
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def open_registry(tmp_path: Path) -> Iterator[OpenRegistry]:
    made: list[RefresherRegistry] = []

    def opened() -> RefresherRegistry:
        made.append(RefresherRegistry(tmp_path))
        return made[-1]

    yield opened
    for one in made:
        one.close()


async def refused(registry: RefresherRegistry, name: str) -> str:
    """Return what the refresher of that name says to every grant."""
    with pytest.raises(TokenEndpointRefused) as caught:
        await registry.refreshers([name])[name].refresh(GRANT)
    return str(caught.value)


# Names.


def test_the_relays_own_refreshers_have_names(open_registry: OpenRegistry) -> None:
    assert set(open_registry()) >= {"gmail", "outlook", "oidc", "command", "mock"}


def test_an_installed_plug_in_has_a_name_before_it_is_loaded(
    open_registry: OpenRegistry, offer: Offer
) -> None:
    module = offer(GOOD, {"acme": "{module}:Acme"})
    assert "acme" in set(open_registry())
    assert module not in sys.modules


# The relay's own.


@pytest.mark.parametrize("name", sorted(BUILT_IN_REFRESHERS))
def test_each_of_the_relays_own_loads(open_registry: OpenRegistry, name: str) -> None:
    registry = open_registry()
    assert registry.refreshers([name]).keys() == {name}
    assert registry.disabled == {}


async def test_mock_tokens_are_signed_and_checked(open_registry: OpenRegistry) -> None:
    mock = open_registry().refreshers(["mock"])["mock"]
    issued = await mock.refresh(GRANT)
    assert isinstance(mock, ChecksTokens)
    mock.check(GRANT.mailbox, issued.access_token)


def test_a_refresher_is_built_once(open_registry: OpenRegistry) -> None:
    registry = open_registry()
    first = registry.refreshers(["oidc", "mock"])
    second = registry.refreshers(["mock", "oidc"])
    assert first == second
    assert registry.refreshers(["oidc"]) == {"oidc": first["oidc"]}


def test_a_name_that_nobody_offers_is_left_out(open_registry: OpenRegistry) -> None:
    assert open_registry().refreshers(["no-such", "mock"]).keys() == {"mock"}


def test_no_library_is_imported_before_it_is_wanted(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry;"
        "registry = RefresherRegistry(Path(sys.argv[1]));"
        "registry.refreshers(['mock', 'command', 'gmail', 'outlook', 'oidc']);"
        "registry.close();"
        "print([one for one in ('msal', 'google.auth', 'authlib', 'requests')"
        " if one in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"


# Plug-ins.


async def test_a_plug_in_is_a_refresher_like_any_other(
    open_registry: OpenRegistry, offer: Offer
) -> None:
    offer(GOOD, {"acme": "{module}:Acme"})
    issued = await open_registry().refreshers(["acme"])["acme"].refresh(GRANT)
    assert issued.access_token == "acme-someone@example.com"


async def test_a_plug_in_is_given_threads_for_work_that_blocks(
    open_registry: OpenRegistry, offer: Offer
) -> None:
    offer(
        """
        import asyncio, threading
        from xoauth2_proxy.oauth.grant import Issued

        class Acme:
            def __init__(self, threads):
                self.threads = threads

            async def refresh(self, grant):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self.threads, self.work)

            def work(self):
                return Issued(access_token=threading.current_thread().name)
        """,
        {"acme": "{module}:Acme"},
    )
    issued = await open_registry().refreshers(["acme"])["acme"].refresh(GRANT)
    assert issued.access_token.startswith("oauth_")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise RuntimeError('first line\\nlast line')", "RuntimeError: last line"),
        (f"raise RuntimeError('the token is {SECRET}')", "RuntimeError: the token is …"),
        ("class Other: pass", "AttributeError: module"),
        ("def Acme(threads): raise ValueError('no licence')", "ValueError: no licence"),
        ("def Acme(): ...", "TypeError: Acme() takes 0 positional arguments"),
        ("def Acme(threads): return None", "NoneType has no `async def refresh`"),
        ("Acme = 7", ":Acme is not callable"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("this is no Python", "SyntaxError: invalid syntax"),
        (
            """
            class Acme:
                def __init__(self, threads): pass
                def refresh(self, grant): pass
            """,
            "Acme has no `async def refresh`",
        ),
    ],
)
async def test_a_plug_in_that_fails_disables_itself(
    open_registry: OpenRegistry,
    offer: Offer,
    source: str,
    reason: str,
) -> None:
    offer(source, {"acme": "{module}:Acme"})
    registry = open_registry()
    assert "mock" in registry.refreshers(["acme", "mock"])
    assert reason in registry.disabled["acme"]
    assert SECRET not in registry.disabled["acme"]
    assert await refused(registry, "acme") == (
        f"the refresher acme is disabled: {registry.disabled['acme']}"
    )
    (told,) = (one for one in registry.all_installed() if one.name == "acme")
    assert told.fault == registry.disabled["acme"]


async def test_a_plug_in_that_is_never_loaded_disables_itself(
    open_registry: OpenRegistry, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xoauth2_proxy.oauth.refreshers.registry._LOAD_SECONDS", 0.05)
    offer(
        "import threading\nWAITS = threading.Event()\n"
        "class Acme:\n    def __init__(self, threads):\n        WAITS.wait()\n",
        {"acme": "{module}:Acme"},
    )
    assert "was not loaded within" in open_registry()["acme"].fault


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ("display_name=5", "must be text"),
        ("scopes='send mail'", "scopes must be a tuple"),
        ("uses_pkce='no'", "uses_pkce must be True or False"),
        ("options=dict", "options must be a class derived from Options"),
        ("options={'a': str}", "options must be a class derived from Options"),
    ],
)
async def test_a_declaration_of_the_wrong_type_disables_its_plug_in(
    open_registry: OpenRegistry, offer: Offer, declared: str, reason: str
) -> None:
    declaration = f"info = RefresherInfo({declared})"
    source = f"{GOOD_START}    {declaration}\n    async def refresh(self, grant):\n        pass\n"
    offer(source, {"acme": "{module}:Acme"})
    assert reason in open_registry()["acme"].fault


async def test_a_plug_in_that_nobody_wants_is_not_loaded(
    open_registry: OpenRegistry, offer: Offer
) -> None:
    module = offer("raise RuntimeError", {"acme": "{module}:Acme"})
    registry = open_registry()
    registry.refreshers(["mock"])
    assert registry.disabled == {}
    assert module not in sys.modules


async def test_a_plug_in_cannot_take_a_name_of_the_relays_own(
    open_registry: OpenRegistry, offer: Offer
) -> None:
    module = offer(GOOD, {"mock": "{module}:Acme", "acme": "{module}:Acme"})
    registry = open_registry()
    issued = await registry.refreshers(["mock"])["mock"].refresh(GRANT)
    assert not issued.access_token.startswith("acme-")
    (told,) = registry.unusable
    assert (told.name, told.fault) == ("mock", "the name is built in")
    assert told.origin == "acme-refreshers"
    assert module not in sys.modules


async def test_two_plug_ins_of_one_name_are_both_left_alone(
    open_registry: OpenRegistry, offer: Offer
) -> None:
    offer(GOOD, {"acme": "{module}:Acme"})
    offer(GOOD, {"acme": "{module}:Acme"}, "evil-acme")
    assert "acme-refreshers and evil-acme both offer the name" in (
        await refused(open_registry(), "acme")
    )


# The end.


async def test_closing_does_not_wait_for_what_runs_or_waits(
    open_registry: OpenRegistry, offer: Offer
) -> None:
    module = offer(
        """
        import asyncio, threading
        gate, started = threading.Event(), threading.Barrier(9)

        class Acme:
            def __init__(self, threads):
                self.threads = threads

            async def refresh(self, grant):
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self.threads, self.work)

            def work(self):
                started.wait(100)
                gate.wait(100)
        """,
        {"acme": "{module}:Acme"},
    )
    registry = open_registry()
    acme = registry.refreshers(["acme"])["acme"]
    refreshes = [asyncio.ensure_future(acme.refresh(GRANT)) for _ in range(9)]
    await asyncio.to_thread(
        sys.modules[module].started.wait, PATIENCE_SECONDS
    )  # eight and this one
    registry.close()
    try:
        ended, _ = await asyncio.wait(
            refreshes, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_SECONDS
        )
        assert [one.cancelled() for one in ended] == [True]  # the one that had no thread yet
    finally:
        sys.modules[module].gate.set()
        await asyncio.gather(*refreshes, return_exceptions=True)
