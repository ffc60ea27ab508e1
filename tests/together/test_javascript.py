"""The example requester in JavaScript, written from the standard alone, against a real tracker and real workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from peer.certificate import fresh_certificate
from protocol import codec
from protocol.digests import Artifact, output_digest
from protocol.documents import Acknowledgement, Lease, PeerRecord, Receipt, Request, Settlement, sign
from protocol.frames import Final, Frame, OpenBody, Text, encode_frame
from protocol.keys import SigningKey
from protocol.messages import Queued, Withdrawn
from protocol.prices import price
from protocol.work import PublicPart, TextWork
from tests.support.builders import (
    NOW,
    a_checkpoint,
    a_digest,
    a_handle,
    a_key,
    a_lease,
    a_receipt,
    a_salt,
    a_settlement,
    but,
)
from tests.support.horde import PATIENCE_S, Horde, Process, until
from tests.support.proxies import self_signed
from tests.support.raw_peer import RawPeer
from tests.support.raw_worker import PLAIN, Answer, Make, RawWorker, signed_for
from tests.support.scripted_tracker import ScriptedTracker

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "javascript"
VECTORS = ROOT / "tests" / "protocol" / "vectors"
NO_NODE = "no Node.js with npm here"
LOOPBACK = "127.0.0.1"

#: The package comes from the network.
pytestmark = [
    pytest.mark.ci_slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("node") is None or shutil.which("npm") is None, reason=NO_NODE),
]

RULES = """
times.worker_grace = 1
times.restart_grace = 1
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, installed as its README says."""
    folder = tmp_path_factory.mktemp("example") / "javascript"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(example: Path) -> Path:
    code, _, errors = await run(example, "npm", "ci", "--no-audit", "--no-fund")
    assert code == 0, errors
    return example


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    async with Horde.open(tmp_path_factory.mktemp("horde"), RULES) as horde:
        await horde.worker("bob", "--dry-run", "text:model=quick,step_ms=1", "--dry-run", "text:model=slow,step_ms=60")
        yield horde
        assert (await horde.audit())["ok"]


async def run(folder: Path, *command: str, env: dict[str, str] | None = None) -> tuple[int | None, str, str]:
    """Run a command to its end: its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    async with asyncio.timeout(PATIENCE_S):
        out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


@dataclass
class Requester:
    """The program while it runs, and what it has written so far."""

    process: asyncio.subprocess.Process
    out: Path
    errors: Path

    def shown(self) -> list[str]:
        return self.out.read_text("utf-8").split()

    def said(self) -> str:
        return self.errors.read_text("utf-8")

    async def saying(self, what: str) -> None:
        await until(lambda: what in self.said() or self.process.returncode is not None, f"it did not say {what}")
        assert what in self.said()

    async def end(self, code: int = 0) -> dict[str, Any]:
        """Wait for its end; the last line, if it is JSON."""
        async with asyncio.timeout(PATIENCE_S):
            found = await self.process.wait()
        assert found == code, self.said()
        last = self.out.read_text("utf-8").rstrip("\n").rpartition("\n")[2]
        return dict(json.loads(last)) if last.startswith("{") else {}


@asynccontextmanager
async def asking(installed: Path, folder: Path, link: object, *options: str) -> AsyncIterator[Requester]:
    out, errors = folder / "out", folder / "errors"
    with out.open("wb") as to_out, errors.open("wb") as to_errors:
        process = await asyncio.create_subprocess_exec(
            "node",
            "requester.mjs",
            str(link),
            "say something",
            "--json",
            *options,
            cwd=installed,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=to_out,
            stderr=to_errors,
        )
    try:
        yield Requester(process, out, errors)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def check(result: dict[str, Any], words: int) -> None:
    """What it says of a text that came whole and was settled."""
    assert len(result["content"].split()) == words
    assert result["receipt_digest"] == result["acknowledged_digest"]
    assert len(bytes.fromhex(result["settled"]["leaf"])) == 32


async def test_it_agrees_with_the_vectors(installed: Path) -> None:
    code, out, errors = await run(installed, "node", "--test", env={"POTLUCK_VECTORS": str(VECTORS)})

    assert code == 0, out + errors


async def test_a_text_is_streamed_verified_and_settled(installed: Path, horde: Horde, tmp_path: Path) -> None:
    before = await horde.audit()
    async with asking(installed, tmp_path, horde.link, "--model", "quick", "--max-tokens", "16") as requester:
        result = await requester.end()

    check(result, 16)
    assert " ".join(requester.shown()).startswith(result["content"])
    async with horde.client() as client:
        cost = price(client.rules, TextWork(max_tokens=16), "quick")
    settled = result["settled"]
    assert (settled["attempt"], settled["paid"], settled["minted"], settled["burned"]) == (1, 0, cost, 0)
    assert not settled["partial"]
    after = await horde.audit()
    assert after["ok"]
    assert (after["jobs"], after["minted"]) == (before["jobs"] + 1, before["minted"] + cost)


async def test_it_talks_to_no_other_horde_than_that_of_the_link(installed: Path, horde: Horde, tmp_path: Path) -> None:
    assert horde.link is not None
    other = replace(horde.link, root=SigningKey.generate().public)
    async with asking(installed, tmp_path, other) as requester:
        await requester.end(code=1)

    assert "\nwrong_horde:" in requester.said()
    assert not requester.shown()


async def test_a_self_signed_horde_is_known_by_its_link(installed: Path, tmp_path: Path) -> None:
    async with self_signed(tmp_path) as horde:
        assert horde.link is not None
        await horde.worker("quick", "--dry-run", "text:model=quick")
        async with asking(installed, tmp_path, horde.link, "--max-tokens", "16") as requester:
            check(await requester.end(), 16)
        async with asking(installed, tmp_path, replace(horde.link, certificate=a_digest())) as requester:
            await requester.end(code=1)
            assert "wrong_certificate" in requester.said()
        async with asking(installed, tmp_path, replace(horde.link, certificate=b"")) as requester:
            await requester.saying("self-signed certificate")
            requester.process.terminate()


async def test_a_refusal_is_told_with_its_code(installed: Path, horde: Horde, tmp_path: Path) -> None:
    async with asking(installed, tmp_path, horde.link, "--max-tokens", "32768") as requester:
        await requester.end(code=1)

    assert "\nover_limit:" in requester.said()


async def test_a_tracker_that_starts_again_is_found_again(installed: Path, horde: Horde, tmp_path: Path) -> None:
    async with asking(installed, tmp_path, horde.link, "--model", "slow", "--max-tokens", "30") as requester:
        await until(lambda: len(requester.shown()) >= 3, "no text came")
        assert horde.tracker is not None
        await horde.tracker.kill()
        await horde.serve()
        result = await requester.end()

    check(result, 30)
    assert result["settled"]["attempt"] == 1
    assert requester.said().count("- joined") == 2


async def test_ctrl_c_cancels_and_what_was_made_is_paid(installed: Path, horde: Horde, tmp_path: Path) -> None:
    async with asking(installed, tmp_path, horde.link, "--model", "slow", "--max-tokens", "400") as requester:
        await until(lambda: len(requester.shown()) >= 3, "no text came")
        requester.process.send_signal(signal.SIGINT)
        result = await requester.end()

    assert result["settled"]["partial"]
    assert 3 <= len(result["content"].split()) < 400
    assert result["receipt_digest"] == result["acknowledged_digest"]


async def test_rules_that_change_while_a_job_waits_are_told(installed: Path, horde: Horde, tmp_path: Path) -> None:
    async with asking(installed, tmp_path, horde.link, "--model", "not-here-yet", "--max-tokens", "3") as requester:
        await requester.saying("- queued")
        horde.add_rules("limits.max_n = 4")
        await horde.read_again()
        await requester.saying("- rules 2 are in force")
        worker = await horde.worker("late", "--dry-run", "text:model=not-here-yet,step_ms=1", ready=0)
        check(await requester.end(), 3)
        await worker.stop()


async def test_a_job_that_waits_is_cancelled(installed: Path, horde: Horde, tmp_path: Path) -> None:
    async with asking(installed, tmp_path, horde.link, "--model", "nobody-has-it") as requester:
        await requester.saying("- queued")
        requester.process.send_signal(signal.SIGINT)
        await requester.end(code=1)

    assert "\ncancelled:" in requester.said()


@pytest.mark.parametrize("continues", ["true", "false"])
async def test_another_worker_goes_on_or_begins_anew(
    installed: Path, horde: Horde, tmp_path: Path, continues: str
) -> None:
    model = f"continues-{continues}"
    dry_run = f"text:step_ms=1,model={model},continues={continues}"
    first = await horde.worker(f"{model}-first", "--dry-run", f"{dry_run},hang_at=4")
    async with asking(installed, tmp_path, horde.link, "--model", model, "--max-tokens", "12") as requester:
        await until(lambda: len(requester.shown()) == 3, "no text came")
        shown = requester.shown()
        await first.kill()
        second = await horde.worker(f"{model}-second", "--dry-run", dry_run, ready=0)
        result = await requester.end()
        await second.stop()

    check(result, 12)
    assert result["settled"]["attempt"] == 2
    assert ("begins anew" in requester.said()) == (continues == "false")
    if continues == "true":
        assert result["content"].split()[:3] == shown


class Door:
    """A TCP port in front of a worker: passes bytes on, and cuts the first connections after some of the answer."""

    def __init__(self, port: int, behind: int, cuts: list[int]) -> None:
        self.port = port
        self.behind = behind
        self.cuts = cuts
        self.connections = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        server = await asyncio.start_server(self._came, LOOPBACK, self.port)
        try:
            yield self
        finally:
            server.close()

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        most = self.cuts.pop(0) if self.cuts else 1 << 40
        up_reader, up_writer = await asyncio.open_connection(LOOPBACK, self.behind)
        pumps = [
            asyncio.ensure_future(self._pump(reader, up_writer, 1 << 40)),
            asyncio.ensure_future(self._pump(up_reader, writer, most)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        writer.transport.abort()
        up_writer.transport.abort()

    @staticmethod
    async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: int) -> None:
        with contextlib.suppress(ConnectionError):
            while most > 0 and (content := await source.read(min(most, 4096))):
                most -= len(content)
                sink.write(content)
                await sink.drain()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


async def behind_a_door(horde: Horde, model: str, outside: int, inside: int) -> Process:
    """A worker whose peer record leads to the door."""
    return await horde.worker(
        model,
        *("--dry-run", f"text:model={model},step_ms=20"),
        *("--listen", f"{LOOPBACK}:{inside}", "--address", f"{LOOPBACK}:{outside}"),
    )


async def test_after_a_cut_the_stream_goes_on_behind_the_last_frame(
    installed: Path, horde: Horde, tmp_path: Path
) -> None:
    outside, inside = free_ports(2)
    worker = await behind_a_door(horde, "cut", outside, inside)
    # The handshake alone takes about a thousand bytes, a frame some dozens.
    async with (
        Door(outside, inside, [2500, 1800, 1400]).open() as door,
        asking(installed, tmp_path, horde.link, "--model", "cut", "--max-tokens", "60") as requester,
    ):
        result = await requester.end()
    await worker.stop()

    check(result, 60)
    assert result["settled"]["attempt"] == 1
    assert door.connections == 4


TEXT = b"what was written"


def by_a_stranger(peer: RawPeer, lease: Lease) -> Answer:
    answer = signed_for(TEXT, media_type=PLAIN)(peer, lease)
    return replace(answer, receipt=sign(answer.receipt.open(Receipt), SigningKey.generate(), peer.root))


#: Why it is denied, whether the tracker takes the receipt, and what the worker serves.
LIES: dict[str, tuple[str, bool, Make]] = {
    "another text": ("digest_mismatch", True, signed_for(TEXT, b"what was not", PLAIN)),
    "a receipt by a stranger": ("bad_receipt", False, by_a_stranger),
    "a receipt for another attempt": ("bad_receipt", False, signed_for(TEXT, media_type=PLAIN, attempt=2)),
    "more tokens than leased": ("over_lease", False, signed_for(TEXT, media_type=PLAIN, used=17)),
    "partial without a cancel": ("partial", False, signed_for(TEXT, media_type=PLAIN, partial=True)),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_worker_is_denied_and_not_paid(installed: Path, horde: Horde, tmp_path: Path, lie: str) -> None:
    reason, delivers, make = LIES[lie]
    assert horde.link is not None
    async with (
        RawWorker.open(horde.link, lie, tmp_path / "worker", make, kind="text", delivers=delivers) as worker,
        asking(installed, tmp_path, horde.link, "--model", lie, "--max-tokens", "16") as requester,
    ):
        await requester.end(code=1)
        assert (await worker.peer.expect(Withdrawn)).reason == "refunded"

    assert f"- denied ({reason})" in requester.said()
    assert "\nrefunded:" in requester.said()


class Endless(Answer):
    def frames(self) -> Sequence[Frame]:
        return super().frames()[:-1]


def without_end(peer: RawPeer, lease: Lease) -> Answer:
    return Endless(**vars(signed_for(TEXT, media_type=PLAIN)(peer, lease)))


async def test_a_worker_that_says_it_is_done_and_withholds_the_end_is_denied(
    installed: Path, horde: Horde, tmp_path: Path
) -> None:
    """The tracker has a receipt, so a report that the worker cannot be reached would change nothing."""
    assert horde.link is not None
    kept: list[Answer] = []

    def once(peer: RawPeer, lease: Lease) -> Answer:
        kept[:] = kept or [without_end(peer, lease)]
        return kept[0]

    async with (
        RawWorker.open(horde.link, "withheld", tmp_path / "worker", once, kind="text"),
        asking(installed, tmp_path, horde.link, "--model", "withheld", "--max-tokens", "16") as requester,
    ):
        await requester.end(code=1)

    assert "- denied (no_connection)" in requester.said()
    assert "\nrefunded:" in requester.said()


async def test_the_same_worker_is_paid_when_it_does_not_lie(installed: Path, horde: Horde, tmp_path: Path) -> None:
    assert horde.link is not None
    make = signed_for(TEXT, media_type=PLAIN)
    async with (
        RawWorker.open(horde.link, "true", tmp_path / "worker", make, kind="text") as worker,
        asking(installed, tmp_path, horde.link, "--model", "true", "--max-tokens", "16") as requester,
    ):
        result = await requester.end()
        settlement = (await worker.peer.envelope("settlement")).open(Settlement)

    check(result, 3)
    assert result["content"] == TEXT.decode()
    assert result["settled"]["leaf"] == settlement.leaf.hex()


#: With what code the requester leaves, and what of a right lease and settlement is changed.
TRACKERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a lease for another job key": ("wrong_lease", {"job_key": a_key(90).public}, {}),
    "a lease for another private part": ("wrong_lease", {"private_digest": a_digest()}, {}),
    "a lease for another model": ("wrong_lease", {"model": "another"}, {}),
    "a lease for more than was asked": (
        "wrong_lease",
        {"public": PublicPart(work=TextWork(max_tokens=17), models=("m",))},
        {},
    ),
    "a lease that is over": ("wrong_lease", {"deadline": NOW - 1}, {}),
    "a lease of another job": ("unknown_job", {"job": a_handle(91)}, {}),
    "a lease of a worker without a peer record": ("out_of_turn", {"worker": a_key(92).public}, {}),
    "a settlement of another job": ("unknown_job", {}, {"job": a_handle(91)}),
    "a settlement of another attempt": ("wrong_lease", {}, {"attempt": 2}),
    "a settlement of more than the lease says": ("over_lease", {}, {"paid": 7_601}),
    "a settlement after its checkpoint": ("bad_body", {}, {"entry": 0}),
}


@pytest.mark.parametrize("lie", TRACKERS)
async def test_a_lying_tracker_is_found_out(installed: Path, tmp_path: Path, lie: str) -> None:
    code, of_lease, of_settlement = TRACKERS[lie]
    async with (
        ScriptedTracker().serving() as tracker,
        asking(installed, tmp_path, tracker.link, "--model", "m", "--max-tokens", "16") as requester,
        asyncio.timeout(PATIENCE_S),
    ):
        envelope, request = await tracker.gets(Request)
        await tracker.says(Queued(request=envelope.digest, jobs=(a_handle(),), held=0))
        record = PeerRecord(version=1, certificate=a_digest(), addresses=(f"{LOOPBACK}:{free_ports(1)[0]}",))
        await tracker.hands(record)  # which it signs itself, so that it is the worker as well
        await tracker.hands(but(a_lease(request, job=a_handle(), worker=tracker.horde.serving_key), **of_lease))
        if of_settlement:
            checkpoint = tracker.horde.sign(a_checkpoint(size=1))
            fields = {"job": a_handle(), "entry": 1, "checkpoint": checkpoint.raw} | of_settlement
            await tracker.hands(but(a_settlement(), **fields))
        await requester.end(code=1)

    assert f"\n{code}:" in requester.said()


@pytest.mark.parametrize("kind", ["lease", "settlement"])
async def test_documents_by_another_key_than_the_serving_key_are_refused(
    installed: Path, tmp_path: Path, kind: str
) -> None:
    async with (
        ScriptedTracker().serving() as tracker,
        asking(installed, tmp_path, tracker.link) as requester,
        asyncio.timeout(PATIENCE_S),
    ):
        envelope, request = await tracker.gets(Request)
        await tracker.says(Queued(request=envelope.digest, jobs=(a_handle(),), held=0))
        tracker.horde.serving_key = SigningKey.generate()
        await tracker.hands(
            a_lease(request, job=a_handle()) if kind == "lease" else but(a_settlement(), job=a_handle())
        )
        await requester.end(code=1)

    assert "\nwrong_signer:" in requester.said()


class Stage:
    """A stream that sends some frames and then only keeps the connection. openings: what came with each of them."""

    def __init__(self, port: int, certificate: bytes) -> None:
        self.record = PeerRecord(version=1, certificate=certificate, addresses=(f"{LOOPBACK}:{port}",))
        self.frames: list[Frame] = []
        self.openings: list[tuple[str, bool]] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[Stage]:
        shown = fresh_certificate(folder)
        (port,) = free_ports(1)
        stage = cls(port, shown.digest)
        app = web.Application()
        app.router.add_post("/stream", stage.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, port, ssl_context=shown.context).start()
            yield stage
        finally:
            await runner.cleanup()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = codec.decode(await request.read(), OpenBody)
        self.openings.append((request.query_string, bool(body.private)))
        response = web.StreamResponse()
        await response.prepare(request)
        for frame in self.frames:
            await response.write(encode_frame(frame))
        await asyncio.Event().wait()
        return response


async def test_a_worker_that_moved_is_read_on_where_it_is_now(installed: Path, tmp_path: Path) -> None:
    """The tracker hands peer record and lease again; what was shown already is not asked for again."""
    async with (
        Stage.open(tmp_path / "before") as before,
        Stage.open(tmp_path / "after") as after,
        ScriptedTracker().serving() as tracker,
        asking(installed, tmp_path, tracker.link) as requester,
        asyncio.timeout(PATIENCE_S),
    ):
        envelope, request = await tracker.gets(Request)
        await tracker.says(Queued(request=envelope.digest, jobs=(a_handle(),), held=0))
        worker = tracker.horde.serving_key
        lease = a_lease(request, job=a_handle(), worker=worker)
        salt, content = a_salt(), b"what was written"
        output = output_digest(salt, [Artifact.of(PLAIN, content)])
        receipt = tracker.horde.sign(a_receipt(lease, output=output, used=3))
        before.frames = [Text(0, "what "), Text(1, "was ")]
        after.frames = [Text(2, "written"), Final(3, salt, "stop", receipt.raw)]
        await tracker.hands(before.record)
        await tracker.hands(lease)
        await until(lambda: len(requester.shown()) == 2, "no text came")
        await tracker.hands(but(after.record, version=2))
        await tracker.hands(lease)
        _, acknowledgement = await tracker.gets(Acknowledgement)
        checkpoint = tracker.horde.sign(a_checkpoint())
        await tracker.hands(but(a_settlement(lease), checkpoint=checkpoint.raw))
        result = await requester.end()

    assert acknowledgement.output_digest == output
    assert result["content"] == content.decode()
    assert before.openings == [("", True)]
    assert after.openings == [("after=1", False)]


async def test_nothing_is_said_to_who_shows_another_certificate(installed: Path, horde: Horde, tmp_path: Path) -> None:
    outside, inside = free_ports(2)
    heard = bytearray()

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(4096):
                heard.extend(content)
        writer.transport.abort()

    tls = fresh_certificate(tmp_path / "impostor").context
    server = await asyncio.start_server(impostor, LOOPBACK, outside, ssl=tls)
    worker = await behind_a_door(horde, "hidden", outside, inside)
    async with asking(installed, tmp_path, horde.link, "--model", "hidden", "--max-tokens", "10") as requester:
        await requester.saying("(wrong_certificate)")
        await requester.saying("- attempt 1 ended (unreachable)")
        honest = await horde.worker("honest", "--dry-run", "text:model=hidden", ready=0)
        result = await requester.end()
        await honest.stop()
    await worker.stop()

    check(result, 10)
    assert result["settled"]["attempt"] > 1
    assert not heard
    await say_to_anybody(outside, b"who is not careful is heard")
    await until(lambda: heard, "the impostor does not hear")
    server.close()


async def say_to_anybody(port: int, content: bytes) -> None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(LOOPBACK, port, ssl=careless)
    writer.write(content)
    await writer.drain()
    writer.close()
