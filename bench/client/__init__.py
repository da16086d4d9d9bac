"""An SMTP client that says what each phase took and what was answered."""
