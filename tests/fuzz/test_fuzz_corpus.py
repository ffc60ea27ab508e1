"""All that fuzzers found worth keeping, again and changed at random, without a fuzzer: in every run of the tests."""

import hashlib
import random
import sqlite3
import tracemalloc
from contextlib import closing
from itertools import cycle, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.governing import SAYS
from protocol.messages import Register
from tests.fuzz import registry
from tests.fuzz.governing import Governing
from tests.fuzz.http import TrackerWeb, WorkerWeb
from tests.fuzz.pure import Planted
from tests.fuzz.registry import CORPUS, TARGETS, corpus, feed, opened
from tests.fuzz.script import pieces
from tests.fuzz.seeds import of_conversation, of_governing
from tests.fuzz.sessions import STRANGER, Caller, Conversing, Stranger
from tests.fuzz.target import LOOK, WARM_UP, Fault, LoopTarget, Target

KIB = 1024


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_is_kept_does_harm(name, tmp_path):
    kept = corpus(name)
    assert kept
    # So many at least that memory can be compared with what was in use after the first inputs.
    feed(TARGETS[name](tmp_path), islice(cycle(kept), max(len(kept), WARM_UP + LOOK)))


def changed(raw: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """An input with bytes flipped, cut out, put in, or put together with another one."""
    for _ in range(chance.randint(0, 4)):
        at = chance.randint(0, len(raw))
        match chance.randint(0, 3):
            case 0:
                raw = raw[:at] + bytes([chance.randint(0, 255)]) + raw[at + 1 :]
            case 1:
                raw = raw[:at] + raw[at + chance.randint(1, 32) :]
            case 2:
                raw = raw[:at] + chance.randbytes(chance.randint(1, 8)) + raw[at:]
            case _:
                raw = raw[:at] + chance.choice(others)[at:]
    return raw


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_is_like_it_does_harm(name, tmp_path):
    kept = corpus(name)

    with opened(TARGETS[name](tmp_path)) as target:

        @settings(max_examples=150)
        @given(raw=st.binary(max_size=300) | st.builds(changed, st.sampled_from(kept), st.randoms(), st.just(kept)))
        def takes(raw):
            target.feed(raw)

        takes()
        target.check()


def test_the_corpus_is_small_and_named_by_what_is_in_it():
    files = [path for name in TARGETS for path in (CORPUS / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 512 * KIB
    for path in files:
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.name)
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


def test_conversations_of_the_corpus_get_as_far_as_payment(tmp_path):
    paid = next(of_conversation())
    assert paid in corpus(Conversing.name)
    feed(Conversing(tmp_path), [paid])
    with closing(sqlite3.connect(tmp_path / "horde.db")) as connection:
        entries = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
    assert entries


def test_what_is_kept_for_moderators_and_votes_brings_about_every_kind_of_act_and_an_answer(tmp_path):
    assert set(of_governing()) <= set(corpus(Governing.name))
    feed(Governing(tmp_path), corpus(Governing.name))
    with closing(sqlite3.connect(tmp_path / "horde.db")) as connection:
        acts = {act for (act,) in connection.execute("SELECT act FROM acts WHERE since > 0")}
        [answered] = connection.execute(
            "SELECT count(*) FROM proposals WHERE outcome <> x'' AND answer <> x''"
        ).fetchone()
        [voted] = connection.execute("SELECT count(*) FROM voices WHERE version > 0").fetchone()
    assert acts == {*SAYS, "award"}
    assert answered
    assert voted


# What is looked for is found


class Keeps(Target):
    """Keeps what it gets."""

    name = "keeps"

    def open(self):
        self.kept = []

    def feed(self, raw):
        self.kept.append(bytearray(64 * KIB))


def test_memory_that_grows_is_found(tmp_path):
    with pytest.raises(Fault, match="memory grew"):
        feed(Keeps(tmp_path), [b""] * (WARM_UP + 3 * LOOK))
    assert not tracemalloc.is_tracing()


def test_memory_that_does_not_grow_is_none(tmp_path):
    assert feed(Planted(tmp_path), [b"?"] * (WARM_UP + 3 * LOOK)).growth < KIB


class Tells(Stranger):
    """Lets in something that is truly signed."""

    async def take(self, raw):
        caller = Caller(self.desk, STRANGER, 1)
        await caller.greet()
        await caller.say(Register())
        await caller.finish()


def test_a_change_of_the_database_is_found(tmp_path):
    with pytest.raises(Fault, match="changed the database"):
        feed(Tells(tmp_path), [b""])


class Complains(LoopTarget):
    """Fails out of sight."""

    async def take(self, raw):
        def fail():
            raise ValueError("out of sight")

        self.loop.call_soon(fail)


def test_a_fault_out_of_sight_is_found(tmp_path):
    with pytest.raises(Fault, match="out of sight"):
        feed(Complains(tmp_path), [b""])


def test_a_fault_behind_an_answer_is_found(tmp_path, monkeypatch):
    def broken(self, body):
        raise ValueError("broken")

    monkeypatch.setattr(WorkerWeb, "open_stream", broken)
    head = b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(Fault, match="broken"):
        feed(WorkerWeb(tmp_path), [pieces([head])])


def test_a_fault_of_a_page_is_found(tmp_path, monkeypatch):
    def broken(self):
        raise ValueError("broken")

    monkeypatch.setattr("tracker.coordinator.Coordinator.scrape", broken)
    with pytest.raises(Fault, match="broken"):
        feed(TrackerWeb(tmp_path), [pieces([b"GET /scrape HTTP/1.1\r\nHost: x\r\n\r\n"])])


def test_every_target_has_a_corpus_and_a_name_of_its_own():
    assert len(registry.EVERY) == len(TARGETS) + 1
