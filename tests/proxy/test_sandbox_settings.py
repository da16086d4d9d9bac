"""A provider as a document describes it."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from bench.options.fault_syntax import FAULT_FORM, fault_document, override
from tests.support.sandbox import reply_fault
from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.behaviour import Behaviour, ProviderProfile, RefusalPoint
from xoauth2_proxy.sandbox.faults import (
    Action,
    Fault,
    Step,
    TokenAction,
    TokenFault,
)
from xoauth2_proxy.sandbox.profiles import PROFILES
from xoauth2_proxy.sandbox.provider_settings import ProviderSettings, Rotation
from xoauth2_proxy.sandbox.settings_document import (
    OVERRIDES,
    document_schema,
    fault_from,
    read_settings,
)

read = read_settings


def test_nothing_said_is_the_unlimited_provider() -> None:
    assert read({}) == ProviderSettings()
    assert read({}).behaviour == PROFILES[ProviderProfile.UNLIMITED]


def test_a_profile_with_what_differs_from_it() -> None:
    settings = read(
        {
            "profile": "outlook",
            "overrides": {"messages_per_minute": 5, "withhold": ["CHUNKING"], "tls": "none"},
            "faults": [
                {"step": "end", "action": "drop", "rate": 0.25, "mailbox": "a@b"},
                {"step": "mail", "action": "reply", "text": "451 4.3.0 no", "nth": None},
                {"step": "token", "action": "429", "retry_after_seconds": 7},
            ],
            "token_endpoint": {"ttl_seconds": 5, "rotation": "strict", "clients": {"me": "s"}},
            "seed": 4,
        }
    )
    behaviour = settings.behaviour
    assert (behaviour.messages_per_minute, behaviour.tls) == (5, TlsMode.NONE)
    assert behaviour.withhold == {"CHUNKING"}
    assert behaviour.connections_refused_at is RefusalPoint.END
    assert behaviour.max_connections_per_mailbox == 3
    assert settings.faults == (
        Fault(Step.END, Action.DROP, rate=0.25, mailbox="a@b"),
        reply_fault(Step.MAIL, "451 4.3.0 no", nth=None),
        TokenFault(TokenAction.RATE_LIMITED, retry_after_seconds=7),
    )
    assert settings.token_endpoint.rotation is Rotation.STRICT
    assert settings.seed == 4
    assert "'s'" not in repr(settings), "a client's secret"


def test_an_override_may_be_the_general_default() -> None:
    document = {"profile": "outlook", "overrides": {"messages_per_minute": 0}}
    assert read(document).behaviour.messages_per_minute == 0


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (None, "here: Input should be an object"),
        ([], "here: Input should be an object"),
        ({"profil": "gmail"}, "here.profil: there is no such key"),
        ({"profile": "hotmail"}, "here.profile: Input should be 'unlimited', 'gmail' or"),
        ({"seed": -1}, "here.seed: "),
        ({"seed": "1"}, "here.seed: "),
        ({"overrides": {"rtt": 1}}, "here.overrides.rtt: there is no such key"),
        ({"overrides": {"rtt_seconds": "1"}}, "here.overrides.rtt_seconds: "),
        ({"overrides": {"rtt_seconds": float("nan")}}, "here.overrides.rtt_seconds: "),
        ({"overrides": {"rtt_seconds": -1.0}}, "here.overrides.rtt_seconds: "),
        ({"overrides": {"max_recipients": 1.5}}, "here.overrides.max_recipients: "),
        ({"overrides": {"accept_p99_seconds": 1.0}}, "here.overrides: accept_p99_seconds needs"),
        (
            {"overrides": {"accept_seconds": 2.0, "accept_p99_seconds": 1.0}},
            "here.overrides: accept_p99_seconds is smaller",
        ),
        ({"faults": {}}, "here.faults: "),
        ({"faults": [{"step": "end"}]}, "here.faults[0].action: "),
        ({"faults": [{"step": "top", "action": "drop"}]}, "here.faults[0].step: "),
        ({"faults": [7]}, "here.faults[0]: "),
        (
            {"faults": [{"step": "end", "action": "drop"}, {"step": "mail", "action": "reply"}]},
            "here.faults[1]: the action reply needs a text",
        ),
        (
            {"faults": [{"step": "end", "action": "drop", "rate": 0.1, "nth": 2}]},
            "here.faults[0]: nth and rate exclude each other",
        ),
        (
            {"faults": [{"step": "end", "action": "drop", "matching": "("}]},
            "here.faults[0]: matching is no regular expression",
        ),
        ({"faults": [{"step": "token", "action": "drip"}]}, "here.faults[0].action: "),
        ({"faults": [{"step": "token", "action": "429", "text": ""}]}, "here.faults[0].text: "),
        ({"token_endpoint": {"ttl_seconds": 0}}, "here.token_endpoint.ttl_seconds: "),
        ({"token_endpoint": {"rotation": "x"}}, "here.token_endpoint.rotation: "),
        ({"seed": {1, 2}}, "here: Object of type set"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(document: object, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        read(document, "here")
    assert caught.type is ValueError
    assert "\n" not in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"seed: .*; x: ") as caught:
        read({"seed": -1, "x": 1})
    assert not str(caught.value).startswith(".")


def test_there_are_only_so_many_faults() -> None:
    with pytest.raises(ValueError, match="faults: "):
        read({"faults": [{"step": "end", "action": "drop"}] * 1001})


def test_settings_are_checked_in_programs_too() -> None:
    with pytest.raises(ValueError, match="rtt_seconds"):
        Behaviour(rtt_seconds=-1.0)


def test_the_schema_names_and_explains_every_override() -> None:
    schema = document_schema()
    overrides = schema["$defs"]["Behaviour"]["properties"]
    assert set(overrides) == set(OVERRIDES) == {field.name for field in fields(Behaviour)}
    assert all(each["description"] for each in overrides.values())
    assert set(schema["properties"]) == {
        *("profile", "overrides", "faults", "token_endpoint", "seed"),
    }
    assert schema["additionalProperties"] is False


# As they are spelt on a command line.


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("end:drop", Fault(Step.END, Action.DROP)),
        ("end:drop:rate=0.01", Fault(Step.END, Action.DROP, rate=0.01)),
        ("connect:421:every", Fault(Step.CONNECT, Action.SHUT_DOWN, nth=None)),
        (
            "rcpt:reply:nth=3:mailbox=a@b:matching=c@d:text=451-a:b\n451 c",
            Fault(
                Step.RCPT,
                Action.REPLY,
                nth=3,
                mailbox="a@b",
                matching="c@d",
                text="451-a:b\n451 c",
            ),
        ),
        ("data:delay:seconds=1.5", Fault(Step.DATA, Action.DELAY, seconds=1.5)),
        ("token:hang", TokenFault(TokenAction.HANG)),
        (
            "token:503:retry_after_seconds=7",
            TokenFault(TokenAction.UNAVAILABLE, retry_after_seconds=7),
        ),
    ],
)
def test_a_fault_is_spelt_in_words(text: str, fault: Fault | TokenFault) -> None:
    assert fault_from(fault_document(text)) == fault


@pytest.mark.parametrize("text", ["", "end", "end:", ":drop", "end:drop:x", "end:drop:nth="])
def test_what_is_not_spelt_like_a_fault_is_told_how(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(FAULT_FORM)):
        fault_document(text)


def test_a_number_must_be_one() -> None:
    with pytest.raises(ValueError, match="rate=much is no number"):
        fault_document("end:drop:rate=much")


def test_a_wrong_fault_is_told_without_a_place_in_a_list() -> None:
    with pytest.raises(ValueError, match=r"^step: "):
        fault_from({"step": "top", "action": "drop"})
    with pytest.raises(ValueError, match=r"^fault: the action reply needs"):
        fault_from({"step": "mail", "action": "reply"})


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("rtt_seconds=0.5", ("rtt_seconds", 0.5)),
        ("is_excess_delayed=true", ("is_excess_delayed", True)),
        ('withhold=["DSN"]', ("withhold", ["DSN"])),
        ("tls=none", ("tls", "none")),
        ("greeting=a=b", ("greeting", "a=b")),
    ],
)
def test_an_override_is_spelt_as_an_equation(text: str, pair: tuple[str, object]) -> None:
    assert override(text) == pair


@pytest.mark.parametrize("text", ["rtt_seconds", "=5", ""])
def test_what_is_no_equation_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="setting=value"):
        override(text)
