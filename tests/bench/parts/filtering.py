"""What the prompt filter takes for a prompt of 200 words, for 100 KB, and for what is made to slow it down."""

from __future__ import annotations

import random
import time

from protocol.filter.doors import Words
from protocol.filter.verdict import Filter
from protocol.filter.wordlist import shipped
from tests.bench.figures import Aim, Figure, at_most
from tests.bench.scale import Bench

PROSE = (
    "The quick brown fox, jumps over the lazy dog. It's a well-known landscape with mountains and 12 rivers; painted in"
    " oil on canvas by old masters while it rained"
)
LARGE = 100_000
TRIES = 20
HOSTILE = {
    "leet": "4a.5b ",
    "stops": ".a",
    "letters": ",x",
    "runs": "aaab",
    "terms": "girl kid teen boy ",
    "light_terms": "sexy underwear ",
    "kanji": "日落时分海边的灯塔，",
    "accents": "é à ü naïve café ",
}


async def measure(bench: Bench) -> list[Figure]:
    """See the module."""
    bench.say("filter: 200 words, 100 KB, hostile texts")
    judge, chance, times = Filter(shipped()), random.Random(3), bench.scale.repetitions
    among = PROSE.split()
    short = " ".join(chance.choice(among) for _ in range(200))
    long = " ".join(chance.choice(among) for _ in range(LARGE // 4))[:LARGE]
    figures = [
        _figure(judge, "filter_ms_200_words", "a prompt of 200 words", short, times, at_most(0.2)),
        _figure(judge, "filter_ms_100_kb", "100 KB of prose", long, times, at_most(5)),
    ]
    for name, piece in HOSTILE.items():
        text = (piece * LARGE).encode()[:LARGE].decode(errors="ignore")
        figures.append(_figure(judge, f"filter_ms_100_kb_{name}", f"100 KB of {piece.strip()!r}", text, times, None))
    return figures


def _figure(judge: Filter, name: str, what: str, text: str, repetitions: int, aim: Aim | None) -> Figure:
    words, samples = Words(text), []
    for _ in range(repetitions):
        best = min(_seconds(judge, words) for _ in range(TRIES))
        samples.append(best * 1000)
    return Figure(name, "ms", f"CPU time, the best of {TRIES}, of {what}", samples, aim)


def _seconds(judge: Filter, words: Words) -> float:
    began = time.thread_time()
    judge.judge(words)
    return time.thread_time() - began
