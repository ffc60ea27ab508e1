"""A worker that sends something else than it signs for is found out, and not paid."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio

from peer import events
from peer.client import system_clock
from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineSpec
from peer.evidence import Evidence
from peer.output import Output
from peer.worker import Settings, Worker
from protocol import frames
from protocol.keys import SigningKey
from tests.support.builders import a_key
from tests.support.horde import Horde

pytestmark = pytest.mark.asyncio(loop_scope="module")

Change = Callable[[frames.Frame], frames.Frame]


class LyingWorker(Worker):
    """Makes and signs what it should, and sends something else."""

    change: Change

    def open_stream(self, body: bytes) -> Output:
        return cast("Output", Lie(super().open_stream(body), self.change))


class Lie:
    """An output whose frames are changed on their way to the reader."""

    def __init__(self, output: Output, change: Change) -> None:
        self._output = output
        self._change = change
        self.spool = SimpleNamespace(frames=output.spool.frames, read=self._read)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)

    def _read(self, number: int, size: int) -> tuple[bytes, int]:
        raw, number = self._output.spool.read(number, size)
        self.spool.is_whole = self._output.spool.is_whole
        return b"".join(frames.encode_frame(self._change(frame)) for frame in frames.FrameReader().feed(raw)), number


def another_text(frame: frames.Frame) -> frames.Frame:
    return frames.Text(frame.number, frame.text.upper()) if isinstance(frame, frames.Text) else frame


def another_picture(frame: frames.Frame) -> frames.Frame:
    if not isinstance(frame, frames.Chunk):
        return frame
    return frames.Chunk(frame.number, frame.content[:-1] + bytes([frame.content[-1] ^ 1]))


def another_receipt(frame: frames.Frame) -> frames.Frame:
    return frames.Final(frame.number, frame.salt, frame.finish, b"x") if isinstance(frame, frames.Final) else frame


def numbers_left_out(frame: frames.Frame) -> frames.Frame:
    return frames.Text(frame.number + 1, frame.text) if isinstance(frame, frames.Text) else frame


def no_end(frame: frames.Frame) -> frames.Frame:
    return frames.Alive() if isinstance(frame, frames.Final) else frame


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    rules = "matching.failed_attempts = 2"
    async with Horde.open(tmp_path_factory.mktemp("horde"), rules) as horde:
        yield horde


@contextlib.asynccontextmanager
async def lying(
    horde: Horde, folder: Path, key: SigningKey, kind: str, change: Change, model: str, **options: int
) -> AsyncIterator[None]:
    """A worker for this kind that lies in this way, until the block ends."""
    assert horde.link is not None
    spec = EngineSpec(engine="dry-run", model=model, options={"kind": kind, "length": 8, **options})
    joined = asyncio.Event()
    worker = LyingWorker(
        horde.link,
        key,
        [ProcessEngine(spec)],
        folder,
        clock=system_clock,
        random=random.Random(1),
        settings=Settings(host="127.0.0.1"),
        on_news=lambda news: joined.set() if news.kind == "joined" else None,
    )
    worker.change = staticmethod(change)
    running = asyncio.create_task(worker.run())
    try:
        await joined.wait()
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    "number, kind, change, reason",
    [
        (70, "text", another_text, "digest_mismatch"),
        (71, "image", another_picture, "digest_mismatch"),
        (72, "text", another_receipt, "bad_receipt"),
    ],
)
async def test_it_is_denied_refunded_and_unpaid(
    horde: Horde, tmp_path: Path, number: int, kind: str, change: Change, reason: str
) -> None:
    key = a_key(number)
    model = f"lies-{number}"
    found: list[events.Event] = []
    async with lying(horde, tmp_path / "worker", key, kind, change, model), horde.client("ann") as ann:
        await ann.register()
        if kind == "text":
            asked = ann.text("tell me", models=[model], max_tokens=16, context=256)
        else:
            asked = ann.image("a circle", models=[model], width=64, height=64, steps=2)
        with pytest.raises(events.Denied) as caught:
            await put_into(found, asked)
        account = await ann.account()

    assert caught.value.reason == reason
    assert not [event for event in found if isinstance(event, events.Picture | events.Received | events.Settled)]
    assert (account.balance, account.held, account.spent) == (0, 0, 0)
    assert Evidence(horde.home("ann").results_folder).unsettled(ann.link.root) == []
    report = await horde.audit()
    assert report["ok"]
    assert report["minted"] == 0


async def put_into(found: list[events.Event], asked: AsyncIterator[events.Event]) -> None:
    async for event in asked:
        found.append(event)  # noqa: PERF401 (what came before an error counts too)


async def test_a_stream_that_breaks_the_standard_is_given_up_and_the_job_goes_to_another_worker(
    horde: Horde, tmp_path: Path
) -> None:
    found: list[events.Event] = []
    liar = lying(horde, tmp_path / "liar", a_key(73), "text", numbers_left_out, "both", length=0, step_ms=500)
    async with liar, horde.client("ann") as ann:
        asked = ann.text("tell me", models=["both"], max_tokens=100, context=256)
        async for event in asked:
            assert not isinstance(event, events.TextPiece)
            if isinstance(event, events.Requeued):
                break
        async with lying(horde, tmp_path / "honest", a_key(74), "text", lambda frame: frame, "both"):
            await put_into(found, asked)

    assert isinstance(found[-1], events.Settled)


async def test_a_worker_that_says_it_is_done_and_withholds_the_end_is_denied(horde: Horde, tmp_path: Path) -> None:
    found: list[events.Event] = []
    async with lying(horde, tmp_path, a_key(75), "text", no_end, "lies"), horde.client("ann") as ann:
        with pytest.raises(events.Denied, match="before the result was whole"):
            await put_into(found, ann.text("tell me", models=["lies"], max_tokens=16, context=256))

    assert [event for event in found if isinstance(event, events.TextPiece)]
