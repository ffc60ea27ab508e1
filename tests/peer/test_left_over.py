"""Statements that an earlier program left behind, when the tracker does not take them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from peer import client as client_module
from peer.client import Client
from peer.evidence import Evidence, Unsettled
from peer.home import Home
from protocol.documents import Acknowledgement, sign
from protocol.errors import Busy, TooLate
from protocol.messages import Refused
from tests.support.builders import JOB_KEY, NOW, an_acknowledgement
from tests.support.horde import until
from tests.support.scripted_tracker import ScriptedTracker

PATIENCE_S = 60.0


def left_over(home: Home, root: bytes) -> bytes:
    """An acknowledgement that this home has kept and nobody has answered; its digest."""
    said = an_acknowledgement()
    envelope = sign(said, JOB_KEY, root)
    Evidence(home.results_folder).await_settlement(
        root, Unsettled(job=said.job, attempt=said.attempt, document=envelope.raw, contents=())
    )
    return envelope.digest


async def test_one_that_the_tracker_has_no_room_for_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "AGAIN_SECONDS", (0.0, 0.0))
    home = Home(tmp_path)
    home.key()
    async with asyncio.timeout(PATIENCE_S), ScriptedTracker().serving() as tracker:
        digest = left_over(home, tracker.link.root)
        async with Client(tracker.link, home=home, clock=lambda: NOW):
            for _ in range(2):
                assert (await tracker.gets(Acknowledgement))[0].digest == digest
                await tracker.says(Refused(code=Busy.code, text="no room", about=digest))
            assert (await tracker.gets(Acknowledgement))[0].digest == digest
        assert Evidence(home.results_folder).unsettled(tracker.link.root)


async def test_one_that_comes_too_late_is_forgotten(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.key()
    async with asyncio.timeout(PATIENCE_S), ScriptedTracker().serving() as tracker:
        digest = left_over(home, tracker.link.root)
        evidence = Evidence(home.results_folder)
        async with Client(tracker.link, home=home, clock=lambda: NOW):
            await tracker.gets(Acknowledgement)
            await tracker.says(Refused(code=TooLate.code, text="it has ended", about=digest))
            await until(lambda: not evidence.unsettled(tracker.link.root), "it was not forgotten")
