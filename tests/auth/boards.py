"""Routes of boards: WebSockets of one project, each on a path of its own."""

from __future__ import annotations

BOARD = (
    'name = "board"',
    'path = "/boards/{project_id}"',
    'transports = ["ws"]',
    'subjects = ["project.{project_id}.>"]',
)
RAW_BOARD = (*BOARD, 'framing = "raw"', 'publish = "inbox.project.{project_id}.{type}"')
"""One that takes messages."""
