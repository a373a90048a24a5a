"""Who may see what: tokens, rights, revocation."""
