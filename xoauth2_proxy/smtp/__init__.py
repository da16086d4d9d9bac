"""Models SMTP without I/O: replies and paths, SASL exchanges, message content."""
