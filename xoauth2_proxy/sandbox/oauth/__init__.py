"""The sandbox as an authorization server: sign-in, consent, tokens. RFC 6749, OpenID Connect."""
