"""Relays mail: accepts passwords or tokens from mail clients and sends with XOAUTH2."""

__version__ = "0.1.0"
