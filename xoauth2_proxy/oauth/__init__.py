"""Access tokens: `token_for(account)` and what stands behind it."""
