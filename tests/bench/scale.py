"""How much is measured: in full, or just enough to see that each figure comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scale:
    """repetitions: of every measurement. window_s, warm_up_s: of each load. idle_s: watched while nothing happens.
    few_waiting, many_waiting: jobs in the queue. idle_peers: connections that say nothing. in_flight: jobs of each
    requester at once, below full queues too. slots: of each worker. stream_slots: the same with real engines.
    large_side: of the picture whose bytes are streamed, in pixels. small_results: in a row on reused connections.
    first_bytes: jobs of each path, one after the other. pictures: in a row. texts, tokens: in a row, and of each.
    calls, short_texts: of the gateway, many at once."""

    repetitions: int = 3
    window_s: float = 6.0
    warm_up_s: float = 2.0
    idle_s: float = 10.0
    few_waiting: int = 1_000
    many_waiting: int = 100_000
    idle_peers: int = 1_000
    in_flight: int = 10
    slots: int = 12
    stream_slots: int = 2
    large_side: int = 4_096
    small_results: int = 3_000
    first_bytes: int = 10
    pictures: int = 8
    texts: int = 5
    tokens: int = 128
    calls: int = 3_000
    short_texts: int = 300


FULL = Scale()
QUICK = Scale(
    repetitions=2,
    window_s=0.5,
    warm_up_s=0.3,
    idle_s=0.5,
    few_waiting=100,
    many_waiting=1_000,
    idle_peers=40,
    in_flight=4,
    slots=6,
    stream_slots=1,
    large_side=512,
    small_results=40,
    first_bytes=2,
    pictures=1,
    texts=1,
    tokens=16,
    calls=40,
    short_texts=8,
)


@dataclass(frozen=True)
class Bench:
    """One run. folder: for whatever the parts write; it is on the disk that is measured. say: a line on progress."""

    scale: Scale
    folder: Path
    say: Callable[[str], None]
