"""docs/gateway-aihorde.md names every path that the door answers and every word that it says in errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from peer.gateway import aihorde
from peer.gateway.aihorde import wrong

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "gateway-aihorde.md").read_text("utf-8")


def words() -> Iterator[str]:
    """Every `rc` that the code can say."""
    yield from (rc for rc, _ in wrong._OF_KIND.values())
    yield from (rc for rc, _ in wrong._TOO_LARGE.values())
    yield from wrong.STATUSES
    for file in Path(aihorde.__file__).parent.glob("*.py"):
        source = file.read_text("utf-8")
        yield from re.findall(r"Wrong\(\s*\"(\w+)\"", source)
        yield from re.findall(r"\(\"\w+\", \"([A-Z]\w+)\", \"", source)
        yield from re.findall(r"_\w+\": \"([A-Z][A-Za-z]+)\"", source)


def named(word: str) -> bool:
    return f"`{word}`" in PAGE


def test_every_word_is_documented() -> None:
    found = set(words())
    assert {"MissingPrompt", "TilingMismatch", "KudosTransferNotEnough", "InvalidAPIKey"} <= found
    assert not {word for word in found if not named(word)}


def test_an_undocumented_word_is_found() -> None:
    assert not named("NoSuchWord")


def test_every_path_is_documented() -> None:
    for route in aihorde.routes():
        path = route.path  # type: ignore[attr-defined]
        if not path.startswith("/v2/"):
            continue
        plain = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path.removeprefix("/v2/"))
        first = {"stats/{kind}/models": "stats/img/models", "documents/{name}": "documents/terms"}.get(plain, plain)
        assert first in PAGE, first
