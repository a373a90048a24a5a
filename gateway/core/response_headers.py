"""Headers that every answer which is no stream carries, whoever writes it."""

from __future__ import annotations

OF_DATA = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
"""An answer is data, never a page: nothing in it is to be run, framed, guessed at or kept, and no URL (which may hold a
ticket) goes on to anybody else."""
