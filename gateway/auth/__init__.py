"""Authentication: from a request to a principal. Tokens, tickets, the keys that prove them, and services that decide."""
