"""The sandbox's tokens: how they are signed, issued by its token endpoint, and revoked."""
