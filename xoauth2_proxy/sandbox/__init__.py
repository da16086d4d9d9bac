"""A stand-in mail provider: SMTP with XOAUTH2 that verifies really signed tokens, on loopback.

It keeps what it accepts, counts what happens and does on request what providers do wrong.
"""

from xoauth2_proxy.sandbox.app import Sandbox
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.sandbox.office import Counters
from xoauth2_proxy.sandbox.received import Message, Received

__all__ = ["Action", "Counters", "Fault", "Message", "Received", "Sandbox", "Step"]
