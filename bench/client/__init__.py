"""An SMTP client that reports the duration of each phase and the server's replies."""
