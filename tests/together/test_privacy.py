"""No result passes the tracker, and no prompt rests there."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from peer.client import Client
from peer.connection import Connection
from peer.events import JobExpired, JobFailed, Picture, Queued, Settled, TextPiece
from protocol import documents
from protocol.codec import encode
from protocol.digests import new_salt, private_digest
from protocol.documents import Denial, Lease, Request, open_document
from protocol.envelope import Envelope
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import Ended, Private, SessionMessage
from protocol.work import ImagePrivate, ImageWork, PublicPart
from tests.support.horde import Horde
from tests.support.tap import leaked, tapped

PROMPT = "a teapot of rare green porcelain beside the unmistakable window 4711"


@pytest.mark.ci_slow
async def test_no_result_passes_the_tracker(tmp_path: Path) -> None:
    async with Horde.open(tmp_path) as horde:
        assert horde.link is not None
        async with tapped(horde.link) as tap:
            horde.link = tap.link
            await horde.worker("ann", "--dry-run", "image")
            await horde.worker("bob", "--dry-run", "text")
            picture, text = b"", ""
            async with horde.client() as anonymous:
                async for event in anonymous.image(PROMPT, width=64, height=64, steps=3):
                    picture = event.content if isinstance(event, Picture) else picture
                async for event in anonymous.text(PROMPT, max_tokens=80, context=256):
                    text += event.text if isinstance(event, TextPiece) else ""
            assert len(text) >= 200
            for content in (picture, text.encode()):
                found, looked_for = leaked(content, tap.everything, known=PROMPT.encode())
                assert looked_for > (len(content) - 15) / 2, "most windows remain when those of the prompt are aside"
                assert found == 0
            assert leaked(PROMPT.encode(), tap.everything)[0], "the tap does hear what is said: the prompt's one visit"

            # The control: a picture that is sent through is found.
            async with aiohttp.ClientSession() as session, session.ws_connect(tap.link.url + "/peer") as socket:
                await socket.send_bytes(picture)
                await socket.receive()
                await socket.receive()
            assert leaked(picture, tap.everything)[0] == leaked(picture, picture)[1]


async def test_no_prompt_rests_at_the_tracker(tmp_path: Path) -> None:
    rules = "times.waiting = 1\nmatching.failed_attempts = 1"
    async with Horde.open(tmp_path, rules) as horde:
        await horde.worker("ann", "--dry-run", "image")
        await horde.worker("bob", "--dry-run", "text:fail_at=1")
        async with horde.client() as client:
            await _settled(client)
            await _cancelled(client)
            with pytest.raises(JobExpired):
                await _last(client.image(PROMPT, models=["nobody-has-it"]))
            with pytest.raises(JobFailed):
                await _last(client.text(PROMPT, max_tokens=16, context=256))
        assert horde.link is not None
        await _refunded(horde.link)
        ended = (await horde.scrape())["since_start"]
        assert {"settled", "cancelled", "expired", "failed", "refunded"} <= set(ended)
        tracker = horde.tracker
        assert tracker is not None
        places = [horde.tracker_folder, tracker.output.parent]
        assert not _files_with(PROMPT, places, but=("ann", "bob"))
        assert any(path.name.endswith("-wal") for path in horde.tracker_folder.iterdir())
        await tracker.stop()
        assert not _files_with(PROMPT, places, but=("ann", "bob"))

        # The control: a prompt that does lie there is found.
        (horde.tracker_folder / "planted").write_bytes(b"\x00" + PROMPT.encode() + b"\x00")
        assert _files_with(PROMPT, places) == ["planted"]


def _files_with(text: str, places: list[Path], but: tuple[str, ...] = ()) -> list[str]:
    """The files that hold a run of 16 bytes of `text`, whatever lies around it."""
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if path.stem not in but and leaked(text.encode(), path.read_bytes())[0]]


async def _last(events: Any) -> Any:
    return [event async for event in events][-1]


async def _settled(client: Client) -> None:
    assert isinstance(await _last(client.image(PROMPT, width=64, height=64, steps=3)), Settled)


async def _cancelled(client: Client) -> None:
    async for event in client.image(PROMPT, models=["nobody-has-it"]):
        if isinstance(event, Queued):
            break


async def _refunded(link: Link) -> None:
    """A requester that denies everything."""
    requester = _Denier(link)
    running = asyncio.create_task(requester.connection.run())
    try:
        async with asyncio.timeout(60):
            await requester.connection.wait_ready()
            await requester.ask()
            await requester.ended.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class _Denier:
    """Asks for a picture and denies it as soon as it is leased."""

    def __init__(self, link: Link) -> None:
        self.ended = asyncio.Event()
        self.key, self.job_key = SigningKey.generate(), SigningKey.generate()
        self.connection = Connection(
            link, self.key, self, clock=lambda: time.time_ns() // 1_000_000, random=random.Random(1)
        )

    async def ask(self) -> None:
        private = encode(ImagePrivate(prompt=PROMPT, salt=new_salt()))
        await self.connection.say(Private(private=private))
        request = Request(
            nonce=new_salt()[:16],
            valid_until=self.connection.now() + 60_000,
            public=PublicPart(work=ImageWork(width=64, height=64)),
            private_digest=private_digest(private),
            job_key=self.job_key.public,
        )
        await self.connection.send_document(documents.sign(request, self.key, self.connection.root))

    def holding(self) -> tuple[()]:
        return ()

    async def welcomed(self, welcome: object) -> None:
        pass

    async def reconciled(self, theirs: object) -> None:
        pass

    async def lost(self) -> None:
        pass

    async def received(self, message: SessionMessage) -> None:
        if isinstance(message, Ended):
            assert message.state == "refunded"
            self.ended.set()

    async def received_document(self, envelope: Envelope) -> None:
        if envelope.kind == "lease":
            lease = open_document(envelope, Lease)
            denial = Denial(job=lease.job, attempt=lease.attempt, reason="nothing_came")
            await self.connection.send_document(documents.sign(denial, self.job_key, self.connection.root))
