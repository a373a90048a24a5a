"""Authentication: from a request to a principal. Tokens, tickets, their keys, and services that decide."""
