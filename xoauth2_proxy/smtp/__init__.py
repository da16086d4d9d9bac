"""SMTP as pure values: replies and paths, SASL exchanges, message content. No I/O."""
