"""The sandbox's SMTP server: sessions, authentication, delivery, limits and injected faults."""
