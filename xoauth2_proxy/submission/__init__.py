"""The client's side: listening sockets, sessions, transactions and logins. RFC 6409, 4954."""
