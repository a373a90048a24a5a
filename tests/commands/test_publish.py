"""`natsgate publish`: stored and acknowledged, or a clear word on what is not."""

from __future__ import annotations

import asyncio
import json
import subprocess

import nats

from tests.commands.own_stream import OwnStream
from tests.support.barrier import barrier
from tests.support.command import NATSGATE, environment, natsgate
from tests.support.nats_server import NatsServer


async def fed(own: OwnStream, text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """`natsgate publish <arguments>` with this standard input."""
    return await asyncio.to_thread(
        subprocess.run,
        [NATSGATE, "publish", *arguments],
        env=environment(own.settings),
        input=text,
        capture_output=True,
        timeout=30,
        check=False,
    )


async def stored(own: OwnStream) -> list[bytes]:
    """Every payload of the stream, in order."""
    last = (await own.api("INFO"))["state"]["last_seq"]
    js = own.nc.jetstream()
    return [(await js.get_msg(own.name, seq=seq, direct=True)).data or b"" for seq in range(1, last + 1)]


async def test_an_event_is_stored_as_it_was_written(own: OwnStream) -> None:
    """As an argument and from standard input, byte for byte; the sequence is printed."""
    await own.make()
    first = '{"type": "x",  "n": 1.0}'
    assert (await own.ok("publish", f"{own.a}.1.x", first)).startswith("stored 1 at ")
    for arguments in (("-",), ()):
        done = await fed(own, b'{\n "n": 12345678901234567890123 }\n', f"{own.a}.1.x", *arguments)
        assert done.returncode == 0, done.stderr
    assert await stored(own) == [first.encode()] + [b'{\n "n": 12345678901234567890123 }'] * 2


async def test_the_same_id_is_stored_once(own: OwnStream) -> None:
    """`--id` is the `Nats-Msg-Id`: the second time it is told as a duplicate."""
    await own.make()
    assert (await own.ok("publish", f"{own.a}.1.x", "{}", "--id", "one")).startswith("stored 1 at ")
    assert (await own.ok("publish", f"{own.a}.1.x", "{}", "--id", "one")).startswith("duplicate of 1 at ")
    assert await stored(own) == [b"{}"]


async def test_lines_are_stored_in_order(own: OwnStream) -> None:
    """Two thousand lines, one without an end, CR LF and blank ones between; sent again with its ids, none is added."""
    await own.make()
    texts = [json.dumps({"n": n}) for n in range(2000)]
    text = "\r\n\n".join(texts).encode()
    done = await fed(own, text, f"{own.a}.1.x", "--lines", "--id", "import-1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().startswith("2000 stored, 0 duplicates, 0 failed, up to sequence 2000 at 127.0.0.1:")
    assert (await stored(own))[::100] == [each.encode() for each in texts[::100]]
    again = await fed(own, text, f"{own.a}.1.x", "--lines", "--id", "import-1")
    assert again.stdout.decode().startswith("0 stored, 2000 duplicates, 0 failed")


async def test_bad_lines_are_named_and_the_good_ones_stored(own: OwnStream) -> None:
    """No JSON, no object, not UTF-8: each with its line number, exit code 2; what is good is in the stream."""
    await own.make()
    text = b'{"n":1}\n{"n":\n[2]\n\xff\xfe\n{"n":5}\n'
    done = await fed(own, text, f"{own.a}.1.x", "--lines")
    assert done.returncode == 2
    complaints = done.stderr.decode().splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in complaints] == ["line 2", "line 3", "line 4"]
    assert done.stdout.decode().startswith("2 stored, 0 duplicates, 3 failed")
    assert await stored(own) == [b'{"n":1}', b'{"n":5}']


async def test_a_line_is_sent_while_the_input_is_still_open(own: OwnStream) -> None:
    """A pipe that stays open: what was written is stored at once; SIGINT then ends it, with the count."""
    await own.make()
    subscription = await own.nc.subscribe(f"{own.live}.>")
    await barrier(own.nc)
    process = await asyncio.create_subprocess_exec(
        NATSGATE,
        *("publish", f"{own.a}.1.x", "--lines"),
        env=environment(own.settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b'{"n":1}\n')
    await process.stdin.drain()
    assert (await subscription.next_msg(timeout=10)).data == b'{"n":1}'
    process.send_signal(2)
    out, err = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 2
    assert out.startswith(b"1 stored")
    assert b"Traceback" not in err


async def test_lines_outlive_a_crash_of_nats(own_nats: NatsServer) -> None:
    """nats-server is killed and comes back while lines flow: each is stored once, in order."""
    process = await asyncio.create_subprocess_exec(
        NATSGATE,
        *("publish", "repo.1.x", "--lines"),
        env=environment({"NATS_URL": own_nats.url}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"".join(b'{"n":%d}\n' % n for n in range(500)))
    await asyncio.to_thread(own_nats.restart)
    process.stdin.write(b"".join(b'{"n":%d}\n' % n for n in range(500, 1000)))
    process.stdin.close()
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err
    assert b" 0 failed, up to sequence 1000" in out
    client = await nats.connect(own_nats.url)
    js = client.jetstream()
    payloads = [(await js.get_msg("EVENTS", seq=seq, direct=True)).data for seq in (1, 500, 501, 1000)]
    await client.close()
    assert payloads == [b'{"n":%d}' % n for n in (0, 499, 500, 999)]


async def test_what_cannot_be_stored_is_one_line(own: OwnStream) -> None:
    """A bad event, a subject of no root, a wildcard, no stream: exit code 2 and one line each."""
    wrong = (
        (f"{own.a}.1.x", "{", "not JSON"),
        (f"{own.a}.1.x", "[]", "no JSON object"),
        ("moon.1.x", "{}", "NATSGATE_ROOTS"),
        (f"{own.a}.*.x", "{}", "must be percent-encoded"),
        (f"{own.a}.1.x", "{}", "provision it"),
    )
    all_done = await asyncio.gather(*(own.run("publish", subject, event) for subject, event, _ in wrong))
    for done, (_, _, said) in zip(all_done, wrong, strict=True):
        assert done.returncode == 2, done
        assert said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_nats_that_is_not_there_is_exit_code_3() -> None:
    """Nothing listens: exit code 3, and no password in what is said."""
    settings = {"NATS_URL": "nats://gate:shibboleth@127.0.0.1:1", "START_TIMEOUT_S": "0.5"}
    done = natsgate("publish", "repo.1.x", "{}", settings=settings)
    assert done.returncode == 3, done
    assert "shibboleth" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
