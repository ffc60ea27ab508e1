"""All targets by name, and how one is fed without a fuzzer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.governing import Governing
from tests.fuzz.http import TrackerWeb, WorkerWeb
from tests.fuzz.pure import Codec, Envelopes, Heading, Planted, Stream
from tests.fuzz.sessions import AtPeer, Conversing, Stranger
from tests.fuzz.target import Memory, Target, traced

TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (Codec, Envelopes, Stream, Heading, Stranger, Conversing, Governing, AtPeer, TrackerWeb, WorkerWeb)
}
#: With the one that has a fault, so that it can be tried out whether faults are found.
EVERY = {**TARGETS, Planted.name: Planted}
CORPUS = Path(__file__).with_name("corpus")


def corpus(name: str) -> list[bytes]:
    """The inputs that are kept for a target, in an order that is always the same."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


@contextmanager
def opened(target: Target) -> Iterator[Target]:
    """A target that takes inputs until the block ends."""
    target.open()
    try:
        yield target
    finally:
        target.close()


def feed(target: Target, inputs: Iterable[bytes], memory: Memory | None = None) -> Memory:
    """Feed all inputs, looking at memory now and then, and at everything in the end."""
    memory = memory or Memory()
    with traced(), opened(target):
        for raw in inputs:
            target.feed(raw)
            if memory.look():
                target.check()
        memory.measure()
        target.check()
    return memory
