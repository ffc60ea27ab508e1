"""A browser: a chat component of others at an origin that the user named, and pages that nobody asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients.frame import (
    CHROMIUM,
    Place,
    a_gateway,
    a_place,
    standing,
    steps,
    the,
    told,
    until_halted,
    with_chromium,
    with_clients,
)
from tests.clients.sites import Site, folder_of

pytestmark = [
    pytest.mark.clients,
    pytest.mark.asyncio(loop_scope="module"),
    with_clients,
    with_chromium,
    pytest.mark.timeout(300),
]

NAMED, STRANGER, REBOUND = "front-end.example", "hostile.example", "rebound.example"
#: A busy machine takes its time with a browser.
PATIENCE_S = 240.0


class Web:
    """A gateway that knows one page, and pages."""

    def __init__(self, place: Place, named: Site, others: list[Site]) -> None:
        self.place = place
        self.named = named
        self.others = others

    def config(self, *, key: bool) -> dict[str, Any]:
        return {"gateway": self.place.gateway.url, "key": self.place.gateway.key if key else ""}

    async def state(self) -> tuple[Any, ...]:
        """What a page could have changed: jobs, kudos, what waits, what was ever begun."""
        audit = await self.place.horde.audit()
        kinds = (await self.place.horde.scrape())["kinds"]
        waiting = {kind: counts["waiting"] for kind, counts in kinds.items()}
        balance = (await standing(self.place.horde, "alice")).balance
        begun = sum(line.get("event") == "accepted" for line in self.place.worker.lines())
        return audit["jobs"], audit["entries"], balance, waiting, begun


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def web(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Web]:
    async with AsyncExitStack() as stack:
        named, *others = [await stack.enter_async_context(Site.open()) for _ in range(5)]
        folder = tmp_path_factory.mktemp("browser")
        yield Web(await stack.enter_async_context(a_place(folder, "--origin", named.at(NAMED))), named, others)


async def browse(folder: Path, *pages: str, env: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """What the tries of each page have come to."""
    said = await told(folder, "hostile_in_browser", str(CHROMIUM), *pages, env=env, patience_s=PATIENCE_S)
    return {line["page"]: line["tries"] for line in steps(said, "found")}


@pytest.mark.ci_slow
async def test_a_chat_component_of_others_shows_words_as_they_come_and_a_picture(web: Web, tmp_path: Path) -> None:
    web.named.config = {**web.config(key=True), "text": "slow", "image": "paint"}
    page, shot = f"{web.named.at(NAMED)}/chat.html", tmp_path / "chat.png"
    said = await told(tmp_path, "chat_in_browser", str(CHROMIUM), page, str(shot), patience_s=PATIENCE_S)

    counts = the(said, "grows")["counts"]
    assert sorted(set(counts)) == counts
    assert counts[-1] < 2_000
    assert len(the(said, "stopped")["text"].split()) >= counts[-1]
    assert counts[-1] <= await until_halted(web.place.worker, 2_000)
    assert the(said, "drawn")["size"] == [64, 64]
    assert the(said, "errors")["counts"] == [0, 0]
    assert shot.stat().st_size > 1_000


@pytest.mark.ci_slow
async def test_pages_that_nobody_named_get_nothing_start_nothing_and_spend_nothing(web: Web, tmp_path: Path) -> None:
    """Some have even got hold of the key."""
    cross, cross_with_key, near, near_with_key = web.others
    for site, key in ((cross, False), (cross_with_key, True), (near, False), (near_with_key, True)):
        site.config = web.config(key=key)
    port = web.place.gateway.url.rpartition(":")[2]
    pages = {
        "stranger": cross.at(STRANGER),
        "stranger with the key": cross_with_key.at(STRANGER),
        "another port of this machine": near.at("localhost"),
        "another port of this address, with the key": near_with_key.at("127.0.0.1"),
        "a name that leads here now": f"http://{REBOUND}:{port}",
    }
    env = {"PAGES": folder_of({"gateway": "", "key": web.place.gateway.key}, tmp_path)}
    before = await web.state()
    found = await browse(tmp_path, *(f"{name}={origin}/hostile.html" for name, origin in pages.items()), env=env)

    assert found.keys() == pages.keys()
    assert all(len(tries) > 120 for tries in found.values())
    got = {page: {name: what for name, what in tries.items() if what["text"]} for page, tries in found.items()}
    assert got == {page: {} for page in pages}
    assert await web.state() == before


@pytest.mark.ci_slow
async def test_the_same_tries_succeed_where_the_user_named_the_page(web: Web, tmp_path: Path) -> None:
    """The control: nothing but the gateway had kept the others away."""
    before = await web.state()
    web.named.config = web.config(key=False)
    page = f"named={web.named.at(NAMED)}/hostile.html"
    without = (await browse(tmp_path, page))["named"]
    between = await web.state()
    web.named.config = web.config(key=True)
    having = (await browse(tmp_path, page))["named"]
    after = await web.state()

    assert without["json /api/v2/generate/async"]["status"] == 202
    assert without["json /v1/chat/completions"]["status"] == 401
    assert not without["json /v1/chat/completions"]["text"]
    readable = [name for name, what in without.items() if what["status"] == 202]
    assert len(readable) >= 6
    # And those whose answers no page can read have been served as well.
    assert between[0] - before[0] >= 2 * len(readable)
    assert between[2] == before[2]
    wanted = ("json /v1/chat/completions", "json /v1/images/generations", "json /sdapi/v1/txt2img", "get /v1/models")
    assert {name: having[name]["status"] for name in wanted} == dict.fromkeys(wanted, 200)
    assert after[0] > between[0]
    assert after[2] < between[2]


async def test_a_name_that_leads_here_gets_everything_where_the_user_gave_that_name(web: Web, tmp_path: Path) -> None:
    """The other control: it is the name in `Host` alone that kept such a page away."""
    async with a_gateway(web.place.horde, "alice", "--host-name", REBOUND) as gateway:
        env = {"PAGES": folder_of({"gateway": "", "key": gateway.key}, tmp_path)}
        port = gateway.url.rpartition(":")[2]
        found = (await browse(tmp_path, f"rebound=http://{REBOUND}:{port}/hostile.html", env=env))["rebound"]

    assert found["get /v1/models"]["status"] == 200
    assert "slow-paint" in found["get /v1/models"]["text"]
    # What is sent has an origin, which was not named.
    assert found["json /v1/chat/completions"] == {"status": 403, "text": ""}
