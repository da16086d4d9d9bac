"""Serves mail clients: listening sockets, sessions, transactions and logins. RFC 6409, 4954."""
