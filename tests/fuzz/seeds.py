"""The inputs from which fuzzing starts: the golden vectors, and what peers said in a run that was recorded.

`python -m tests.fuzz.seeds` writes them into the corpus, beside what fuzzers found.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from protocol import codec, frames
from protocol.documents import Lease
from protocol.frames import OpenBody
from protocol.governing import SAYS
from tests.fuzz.governing import ACTS, CHANGES, KINDS
from tests.fuzz.http import LEASE
from tests.fuzz.registry import CORPUS
from tests.fuzz.script import piece, pieces
from tests.support.builders import a_key, a_private_part, a_salt, an_opening, signed
from tests.support.peers import Desk
from tracker.conversation import Conversation

VECTORS = Path(__file__).parents[1] / "protocol" / "vectors"

UPGRADE = (
    b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PAGES = (
    "/",
    "/scrape",
    "/rules",
    "/acts?before=9",
    "/proposals?before=9",
    "/healthz",
    "/peer",
    "/nowhere",
    "/%2e%2e/x?y=1#z",
)


def encoded_in(name: str) -> list[bytes]:
    """Every value under a key `encoded`, `raw` or `body` in one file of vectors."""

    def walk(value: Any) -> Iterator[bytes]:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("encoded", "raw", "body", "envelope") and isinstance(inner, str):
                    yield bytes.fromhex(inner)
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    return list(walk(json.loads((VECTORS / f"{name}.json").read_text("utf-8"))))


async def recorded() -> list[bytes]:
    """All that a worker and a requester say to a tracker until a picture is paid."""
    said: list[bytes] = []
    receive = Conversation.receive

    async def recording(conversation: Conversation, raw: bytes) -> None:
        said.append(raw)
        await receive(conversation, raw)

    with tempfile.TemporaryDirectory() as folder, patch.object(Conversation, "receive", recording):
        async with Desk.open(Path(folder) / "horde.db") as desk:
            worker, requester = await desk.worker(), await desk.requester(account=True)
            await requester.ask()
            lease = await worker.hear(Lease)
            await requester.hear(Lease)
            await worker.deliver(lease)
            await requester.acknowledge(worker.receipts[lease.job, lease.attempt])
            await desk.quiet()
    return said


def web_frame(content: bytes, opcode: int = 2, last: bool = True) -> bytes:
    """A client's WebSocket frame, its mask all zeros."""
    head = bytes([opcode | (0x80 if last else 0)])
    size = len(content)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return head + length + bytes(4) + content


def expecting(method: bytes) -> Iterator[bytes]:
    """Requests that expect something, by name and by no name at all, and for everywhere."""
    for first in (method, b"GET /nowhere", b"OPTIONS *", b"PUT /stream", b"CONNECT x:1"):
        for what in (b"100-continue", b"\x8a"):
            yield pieces([first + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: " + what + b"\r\n\r\n"])


def of_tracker_web(said: list[bytes]) -> Iterator[bytes]:
    """Requests for each page, and conversations."""
    for page in PAGES:
        yield pieces([f"GET {page} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n".encode()])
    yield pieces([b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"])
    yield from expecting(b"GET /rules")
    yield pieces([UPGRADE, web_frame(said[0])])
    yield pieces([UPGRADE, web_frame(said[0])[:20], web_frame(said[0])[20:]])
    yield pieces([UPGRADE, web_frame(said[0], last=False), web_frame(b"ping", 9), web_frame(b"", 0)])
    yield pieces([UPGRADE, web_frame(b"\x03\xe8bye", 8)])
    yield pieces([UPGRADE, web_frame(b"text", 1)])
    for name in (b"dGhl", b"13", b": websocket", b": Upgrade"):
        yield pieces([UPGRADE.replace(name, b": \xa6\xff")])
    yield pieces([UPGRADE[:40], UPGRADE[40:], web_frame(bytes(5000))])


def of_worker_web() -> Iterator[bytes]:
    """Openings: a true one, one of another's, parts of one."""
    for key in (None, a_key(1)):
        opening = signed(an_opening(LEASE), key)
        body = codec.encode(OpenBody(opening.raw, codec.encode(a_private_part()), "so far"))
        for after in ("", "?after=0", "?after=x"):
            head = f"POST /stream{after} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            yield pieces([head, body[:100], body[100:]])
    yield pieces([b"POST /stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"])
    yield pieces([b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"])
    yield pieces([b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" * 3])
    yield from expecting(b"POST /stream")


def of_stream() -> Iterator[bytes]:
    """A text, a picture, and each frame of the vectors."""
    final = frames.Final(1, a_salt(), "stop", b"receipt")
    text = b"".join(frames.encode_frame(frame) for frame in (frames.Text(0, "a text"), frames.Alive(), final))
    shown = (frames.Start(0, "image/png", 3), frames.Chunk(1, b"png"), frames.Final(2, a_salt(), "stop", b"r"))
    picture = b"".join(frames.encode_frame(frame) for frame in shown)
    for kind, whole in ((b"\x01", text), (b"\x00", picture)):
        yield kind + piece(whole)
        yield kind + pieces([whole[:5], whole[5:30], whole[30:]])
    for encoded in encoded_in("stream"):
        yield b"\x01" + piece(encoded)


def of_conversation() -> Iterator[bytes]:
    """Scripts of `Conversing`: a request that is paid, then with a byte changed here and there."""
    asked = b"\x01\x01\x01\x03\x01\x00\x00\x00\x0b"
    yield asked + b"\x05\x00\x06\x00\x0b"
    yield asked + b"\x05\x00\x06\x00\x06\x00\x05\x00\x06\x00"
    for state in range(4):
        yield asked + bytes([7, state, 0, 11]) + b"\x05\x00\x06\x00"
    for end in (b"\x08\x01\x00", b"\x08\x00\x00", b"\x09\x00\x00", b"\x0a\x1d\x0a\x1d"):
        yield asked + b"\x05\x00" + end + b"\x06\x00"
        yield asked + end + b"\x05\x00\x06\x00"
    for change in range(6):
        changed = b"\x01" + bytes([0, 40 * change, 0, change])
        asked = b"\x01\x01\x01\x03\x01\x00\x00" + changed + b"\x03\x02\x00\x00\x00"
        yield asked + b"\x05" + changed + b"\x06" + changed
    for kind in range(10):
        yield b"\x01\x01\x01" + bytes([1, 0, kind, 0, 1, 1, kind, 1, 0, 5, 0, 9])
    for kind in range(6):
        yield b"\x01\x01\x01" + bytes([2, kind, kind % 3]) + piece(b"\x81\xa3job\xc4\x10" + bytes(16))


def of_governing() -> Iterator[bytes]:
    """Scripts of `Governing`: acts of each kind, agreed to, appealed against, lifted; a vote from its proposal to its
    answer; then with a byte changed here and there."""

    def act(who: int, what: str, *choices: int, changed: bytes = b"\0") -> bytes:
        return bytes([who, 1, ACTS.index(what), *choices]) + changed

    for what in ACTS:
        optional = sum(name in ("until", "to") for name in SAYS[what][1])
        first = act(0, what, 0, 3, 2, *[1] * optional)
        rest = b"".join(act(who, word, 0, 0, 0, 0) for who, word in ((1, "agree"), (2, "uphold"), (1, "lift")))
        yield first + b"\x03\x03\x00\x00" + rest + act(2, "agree", 0, 0, 0, 3)
        yield first + act(0, "agree", 0, 0, 0, 0) + b"\x03\x06\x00\x02\x00"
        yield act(0, what, 0, 3, 2, *[0] * optional, changed=b"\x01\x00\x28\x00\x05") + b"\x02\x06\x00\x00\x00"
    proposed = b"\x03\x04\x00\x00" + b"\x03\x07\x00"
    votes = b"".join(bytes([who, 5, 0, yes, yes, 0]) for who, yes in ((3, 1), (0, 0), (3, 0)))
    yield proposed + votes + b"\x00\x07\x3d\x00\x07\x3d\x02\x06\x00\x01\x00\x00"
    for change in range(len(CHANGES)):
        yield bytes([3, 4, change, 0, 3, 4, change, 1, 0, 30, 0, 7, 3, 7, 0]) + votes
    for kind in range(len(KINDS)):
        yield bytes([kind % 5, 0, kind]) + piece(b"\x81\xa5nonce\xc4\x10" + bytes(16))
    for other in range(7):
        yield bytes([3, 6, 0, other, 0, 0, 0, 3, 6, 2, other, 1, 0])


def of_peer_session() -> Iterator[bytes]:
    """Scripts of `AtPeer`: each message and each document, as it is and with a byte changed."""
    for step in (2, 4):
        for kind in range(12):
            yield bytes([kind % 2, 0, 1, 1, step, kind, 0, step, kind, 1, 0, 9, 0, 7])


def of_session(said: list[bytes]) -> Iterator[bytes]:
    """Scripts of `Stranger`: what was recorded, word for word, and true messages with a byte changed."""
    for raw in said:
        yield b"\x00\x01\x00" + piece(raw)
    for kind in range(10):
        yield b"\x01\x01\x01" + bytes([kind, 1, 0, 60 + kind, 0, 1]) + b"\x02\x01\x00\x50\x02\x03"


def write() -> None:
    """Add all of this to the corpus."""
    said = asyncio.run(recorded())
    seeds = {
        "codec": [
            *encoded_in("bodies"),
            *encoded_in("strictness"),
            *encoded_in("refusals"),
            b"potluck:?tr=ws://x&id=y",
        ],
        "envelope": [*encoded_in("envelopes"), *said],
        "heads": [pieces([web_frame(b"abc", 2, False)[:4], web_frame(b"", 9), web_frame(b"x" * 300, 0)])],
        "stream": of_stream(),
        "session": of_session(said),
        "conversation": of_conversation(),
        "governing": of_governing(),
        "peer-session": of_peer_session(),
        "tracker-web": of_tracker_web(said),
        "worker-web": of_worker_web(),
    }
    for name, inputs in seeds.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for raw in inputs:
            (folder / hashlib.sha256(raw).hexdigest()[:12]).write_bytes(raw)


if __name__ == "__main__":
    write()
