"""An SMTP relay: passwords or tokens from mail clients in, XOAUTH2 to mail providers out."""

__version__ = "0.1.0"
