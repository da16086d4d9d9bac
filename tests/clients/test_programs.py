"""Mail programs of the distribution send by the recipes of the guide, and say what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import scan
from tests.support.desk import NO_SUCH_USER, WRONG_PASSWORD
from tests.support.programs import program
from tests.support.recipes import Recipe
from tests.support.sandbox import reply_fault
from xoauth2_proxy.sandbox.faults import Step

if TYPE_CHECKING:
    from tests.clients.conftest import SetUpDesk
    from tests.support.desk import Security
    from tests.support.relay import Relay

pytestmark = pytest.mark.outside


@dataclass(frozen=True, slots=True)
class Client:
    """A program, by its heading in the guide."""

    name: str
    program: str
    composes: bool = False  # it makes the message from its parts, or changes its header
    adds: bytes = b""  # behind the message


CLIENTS = [
    Client("curl", "curl"),
    Client("msmtp", "msmtp"),
    Client("swaks", "swaks", adds=b"\r\n"),
    Client("s-nail", "s-nail", composes=True),
    Client("mutt", "mutt", composes=True),
    Client("git send-email", "git", composes=True),
]
SECURITIES: list[Security] = ["in clear", "STARTTLS"]

every_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


async def mechanism_used(relay: Relay, mechanism: str) -> bool:
    wanted = {"mechanism": mechanism, "result": "ok"}
    return await relay.metric("xoauth2_proxy_auth_attempts_total", **wanted) == 1


@every_client
@pytest.mark.parametrize("security", SECURITIES)
async def test_the_message_arrives_whole(
    set_up: SetUpDesk, client: Client, security: Security
) -> None:
    program(client.program)
    desk = await set_up(security)
    said = await desk.follow(desk.placed(Recipe.of(client.name)))
    assert said.exit_code == 0, said.text
    kept = desk.received()
    if client.composes:
        scan.assert_composed(kept.content or b"")
    else:
        scan.assert_passed_on(kept.content or b"", behind=client.adds)
    assert await mechanism_used(desk.relay, "PLAIN")


@pytest.mark.parametrize(
    "client",
    [one for one in CLIENTS if "LOGIN" in Recipe.of(one.name).points],
    ids=lambda c: c.name,
)
async def test_the_mechanism_login_sends_it_too(set_up: SetUpDesk, client: Client) -> None:
    program(client.program)
    desk = await set_up("STARTTLS")
    said = await desk.follow(desk.placed(Recipe.of(client.name).varied("LOGIN")))
    assert said.exit_code == 0, said.text
    desk.received()
    assert await mechanism_used(desk.relay, "LOGIN")


@every_client
async def test_a_wrong_password_is_told(set_up: SetUpDesk, client: Client) -> None:
    program(client.program)
    desk = await set_up("STARTTLS")
    recipe = Recipe.of(client.name)
    said = await desk.follow(desk.placed(recipe, password="mistyped"))
    assert said.exit_code != 0, said.text
    assert recipe.shown("Wrong password", WRONG_PASSWORD) in said.text
    assert desk.relay.sandbox.received.total == 0


@every_client
async def test_a_refused_recipient_is_told(set_up: SetUpDesk, client: Client) -> None:
    program(client.program)
    desk = await set_up("STARTTLS")
    desk.relay.sandbox.add_fault(reply_fault(Step.RCPT, f"550 {NO_SUCH_USER}", nth=None))
    recipe = Recipe.of(client.name)
    said = await desk.follow(desk.placed(recipe))
    assert said.exit_code != 0, said.text
    assert recipe.shown("Refused recipient", NO_SUCH_USER) in said.text
    assert desk.relay.sandbox.received.total == 0
