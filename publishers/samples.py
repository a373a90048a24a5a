"""Sample events of four kinds of system, each in its own shape: endless, seeded, and without any input or output.

* `repository`: a repository is analysed; canonical envelopes on `repo.<id>.<type>`.
* `pipeline`: a CI run from `task:start` to `compile:complete`, in GitHub's `repository_dispatch` shape on
  `ci.<task id>.<event type>`.
* `document`: a document is translated; `{type, data}` on `task.<id>.status_update` and
  `user.<id>.notification`.
* `board`: a task board; `{type, project_id, data, timestamp}` on `project.<id>.<type>`.
"""

from __future__ import annotations

import datetime
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from publishers import wire

USERS = ("alice", "bob")
PROJECTS = ("9", "10")


class Sample(NamedTuple):
    """One event and where it belongs."""

    subject: str
    event: dict[str, Any]


class Source:
    """What the generators draw from: a seeded random generator, a clock, and a name that makes ids unique.

    Args:
        seed: the same seed gives the same events.
        run: part of every event id, so that a second run's events are no duplicates of the first one's.
        now_ms: the clock, ms since the epoch.
    """

    def __init__(self, seed: int, *, run: str, now_ms: Callable[[], int]) -> None:
        self.random = random.Random(seed)
        self.run = run
        self.now_ms = now_ms
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """1, 2, 3..."""
        return next(self._numbers)

    def timestamp(self) -> str:
        """The clock as RFC 3339."""
        return datetime.datetime.fromtimestamp(self.now_ms() / 1000, datetime.UTC).isoformat()


def samples(source: Source, repos: int) -> Iterator[Sample]:
    """All four systems at once, in a random but seeded mixture; `repos` repositories with ids from 1."""
    analyses = [repository(source, str(number)) for number in range(1, repos + 1)]
    others = [pipeline(source), document(source), board(source)]
    while True:
        kind = source.random.choice(analyses) if source.random.random() < 0.5 else source.random.choice(others)
        yield next(kind)


def repository(source: Source, repo_id: str) -> Iterator[Sample]:
    """One repository that is cloned and analysed again and again; now and then a task fails."""
    status = "cloning"
    while True:
        request_id = f"{source.run}-request-{source.number()}"

        def event(
            type: str, payload: dict[str, Any], task_id: str | None = None, request_id: str = request_id
        ) -> Sample:
            body = wire.envelope(
                type,
                payload,
                ts=source.now_ms(),
                id=f"{source.run}-{source.number()}",
                repo_id=repo_id,
                task_id=task_id,
                request_id=request_id,
            )
            return Sample(wire.subject("repo", repo_id, type), body)

        def repo_status(to: str, **more: str) -> Iterator[Sample]:
            nonlocal status
            if to != status:
                yield event("repo.status_changed", {"from": status, "to": to, **more})
                status = to

        yield from repo_status("ready")
        yield from repo_status("analyzing")
        failed = False
        for title in source.random.sample(["Overview", "Architecture", "API", "Database", "Deployment"], 3):
            task_id = str(source.number())
            started = source.timestamp()
            yield event("task.status_changed", {"from": "pending", "to": "running", "started_at": started}, task_id)
            yield event("log.append", {"level": "info", "message": f"{title}: reading sources"}, task_id)
            for phase, percent in (("static_analysis", 20), ("llm", 60), ("save_document", 90)):
                progress = {"phase": phase, "percent": percent, "message": f"{title}: {phase}"}
                yield event("task.progress", progress, task_id)
            if failed := source.random.random() < 0.1:
                error = "the model did not answer"
                yield event("log.append", {"level": "error", "message": f"{title}: {error}"}, task_id)
                change = {"from": "running", "to": "failed", "error_msg": error}
                yield event("task.status_changed", change, task_id)
                yield from repo_status("error", error_msg=error)
                break
            document_id = source.number()
            created = {"doc_id": document_id, "title": title, "filename": f"{title.lower()}.md"}
            yield event("doc.created", created, task_id)
            done = {"from": "running", "to": "succeeded", "completed_at": source.timestamp()}
            yield event("task.status_changed", done, task_id)
        if not failed:
            yield from repo_status("completed")


def pipeline(source: Source) -> Iterator[Sample]:
    """CI runs one after the other; an agent sometimes fails and is started again."""
    while True:
        task_id = f"ci-{source.number()}"

        def event(event_type: str, task_id: str = task_id, **more: Any) -> Sample:
            body = {"event_type": event_type, "client_payload": {"task_id": task_id, **more}}
            return Sample(wire.subject("ci", task_id, event_type), body)

        branch = f"feature/{source.random.choice(['login', 'search', 'export'])}"
        retries = 0
        yield event("task:start", branch=branch, description="sample run", retry_count=retries)
        while retries < 3 and source.random.random() < 0.2:
            yield event("agent:complete", status="failure", result="tests failed")
            retries += 1
            yield event("task:start", branch=branch, description="sample run", retry_count=retries)
        yield event("agent:complete", status="success", result=f"{branch} is pushed")
        yield event("compile:complete", status="success", result="build is green")


def document(source: Source) -> Iterator[Sample]:
    """Documents that are translated for users, who are notified at the end."""
    while True:
        task_id = f"doc-{source.number()}"
        user = source.random.choice(USERS)
        steps = [("pending", 0, "queued"), ("processing", 0, "started"), ("processing", 50, "translating")]
        if source.random.random() < 0.1:
            steps.append(("failed", 50, "the file cannot be read"))
        else:
            steps += [("processing", 90, "saving"), ("completed", 100, "done")]
        for status, progress, text in steps:
            data = {"taskId": task_id, "status": status, "progress": progress, "message": text}
            yield Sample(wire.subject("task", task_id, "status_update"), {"type": "status_update", "data": data})
        told = {"taskId": task_id, "level": "error" if status == "failed" else "info", "message": text}
        yield Sample(wire.subject("user", user, "notification"), {"type": "notification", "data": told})


def board(source: Source) -> Iterator[Sample]:
    """Task boards on which tasks come, are worked on by agents, and go."""
    while True:
        project_id = source.random.choice(PROJECTS)
        task_id = f"t-{source.number()}"
        agent_id = f"agent-{source.random.randint(1, 3)}"

        def event(type: str, data: dict[str, Any], project_id: str = project_id) -> Sample:
            body = {"type": type, "project_id": project_id, "data": data, "timestamp": source.timestamp()}
            return Sample(wire.subject("project", project_id, type), body)

        yield event("task_created", {"task": {"id": task_id, "title": "Sample task", "status": "todo"}})
        yield event("agent_spawned", {"agent_id": agent_id, "task_id": task_id})
        yield event("task_status_changed", {"task_id": task_id, "from": "todo", "to": "in_progress"})
        yield event("agent_status_update", {"agent_id": agent_id, "status": "working", "task_id": task_id})
        yield event("log", {"level": "info", "message": f"{agent_id} works on {task_id}"})
        yield event("task_updated", {"task": {"id": task_id, "title": "Sample task, renamed"}})
        yield event("task_status_changed", {"task_id": task_id, "from": "in_progress", "to": "done"})
        yield event("notification", {"level": "info", "message": f"{task_id} is done"})
        if source.random.random() < 0.3:
            yield event("task_deleted", {"task_id": task_id})
