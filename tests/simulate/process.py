"""One world in a process of its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import msgspec

from protocol.rules import Rules
from tests.simulate.attacks import ATTACKS
from tests.simulate.run import play
from tests.simulate.world import World

#: Attack, seed, world, rules as JSON, and where the result is kept.
Task = tuple[str, int, World, str, Path]


def quiet() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends them


def play_one(task: Task) -> tuple[str, int, float]:
    name, seed, world, text, path = task
    rules = msgspec.json.decode(text, type=Rules)
    found = play(world, seed, rules, ATTACKS.get(name))
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found), "utf-8")
    beside.replace(path)
    return name, seed, found["cpu"]
