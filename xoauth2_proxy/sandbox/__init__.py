"""A stand-in mail provider: SMTP with XOAUTH2 that verifies really signed tokens, on loopback.

It keeps what it accepts, counts what happens, has the limits and the words of real providers where
that is asked for, and does on request what providers do wrong.
"""

from xoauth2_proxy.sandbox.app import Sandbox
from xoauth2_proxy.sandbox.behaviour import PROFILES, Behaviour, Point, Profile
from xoauth2_proxy.sandbox.counters import Counters
from xoauth2_proxy.sandbox.faults import Action, Fault, Step, TokenAction, TokenFault
from xoauth2_proxy.sandbox.minting import PLAIN_REFRESH_TOKEN, Kind, explain
from xoauth2_proxy.sandbox.provider_settings import (
    OVERRIDES,
    ProviderSettings,
    Rotation,
    TokenEndpointSettings,
    document_schema,
    fault_from,
)
from xoauth2_proxy.sandbox.received import Message, Received
from xoauth2_proxy.sandbox.refusals import Refusal, Refusals
from xoauth2_proxy.sandbox.spelling import FAULT_FORM, fault_document, fault_words, override

__all__ = [
    "FAULT_FORM",
    "OVERRIDES",
    "PLAIN_REFRESH_TOKEN",
    "PROFILES",
    "Action",
    "Behaviour",
    "Counters",
    "Fault",
    "Kind",
    "Message",
    "Point",
    "Profile",
    "ProviderSettings",
    "Received",
    "Refusal",
    "Refusals",
    "Rotation",
    "Sandbox",
    "Step",
    "TokenAction",
    "TokenEndpointSettings",
    "TokenFault",
    "document_schema",
    "explain",
    "fault_document",
    "fault_from",
    "fault_words",
    "override",
]
