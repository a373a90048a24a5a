"""Limits: each with its refusal, its metric and its default."""
