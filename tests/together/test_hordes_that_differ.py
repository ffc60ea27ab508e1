"""docs/hordes: three hordes with different rules, each typed as its page says."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from peer.scrape import http_url
from protocol.links import parse_link
from tests.support.horde import Horde, Process, add_rules, until

HANG_UP: int = getattr(signal, "SIGHUP", 0)

pytestmark = pytest.mark.timeout(300)

PAGES = Path(__file__).parents[2] / "docs" / "hordes"
FOLDER = "/var/lib/potluck"
REFUSED = re.compile(r" +# refused: (\w+)$")
EXIT_REFUSED = 4


def blocks(page: str) -> list[tuple[str, list[str]]]:
    """Who types something, and what, in order."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", (PAGES / page).read_text("utf-8"), re.DOTALL):
        who, *commands = block.splitlines()
        found.append((who.removeprefix("# "), commands))
    return found


class Page:
    """One page, typed block by block."""

    def __init__(self, horde: Horde, page: str) -> None:
        self.horde = horde
        self.codes: list[str] = []
        self.said: defaultdict[str, list[str]] = defaultdict(list)
        self._blocks = iter(blocks(page))

    async def go_on(self, who: str) -> list[str]:
        """Type the next block, which has to be this person's; what was said to it."""
        typist, commands = next(self._blocks)
        assert typist == who
        return [await self.type(who, command) for command in commands]

    async def type(self, who: str, command: str) -> str:
        """One command; what is refused has to be, with that code."""
        expected = REFUSED.search(command)
        program, *words = shlex.split(REFUSED.sub("", command))
        if program == "systemctl":
            assert self.horde.tracker is not None
            self.horde.tracker.process.send_signal(HANG_UP)
            return ""
        if program == "potluck-tracker":
            words = [str(self.horde.tracker_folder) if word == FOLDER else word for word in words]
            listen = ["--listen", "127.0.0.1:0"] if words[0] == "init" else []
            said = await self.horde.run("tracker", *words, *listen)
            if "invite" in words:
                self.codes = said.split()
            return said
        words = [
            self.codes.pop() if word == "CODE" else str(self.horde.link) if word == "LINK" else word for word in words
        ]
        words = [str(self.horde.folder / word) if word.endswith(".png") else word for word in words]
        words += ["--home", str(self.home(who))]
        if expected is None:
            return await self.horde.run("peer", *words)
        answer = json.loads((await self.horde.run("peer", *words, "--json", code=EXIT_REFUSED)).splitlines()[-1])
        assert answer["error"] == expected[1], answer
        return str(answer["text"])

    def home(self, who: str) -> Path:
        return self.horde.folder / who.replace(" ", "-")

    async def serve(self, who: str) -> Process:
        """What the page says in prose: this person serves."""
        words = ("peer", "worker", "--home", str(self.home(who)), "--dry-run", "image", "--json")
        process = await Process.start(who.replace(" ", "-"), self.horde.folder / "logs", *words)
        self.horde.processes.append(process)
        await self.horde.workers(1)
        return process

    def ended(self) -> bool:
        """Whether every block was typed."""
        return next(self._blocks, None) is None and not self.codes


@asynccontextmanager
async def typed(folder: Path, page: str, host: str) -> AsyncIterator[Page]:
    """The horde of a page, made by its first block and served."""
    horde = Horde(folder)
    walk = Page(horde, page)
    await walk.go_on(host)
    try:
        await horde.serve()
        yield walk
        assert walk.ended()
        assert (await horde.audit())["ok"]
    finally:
        for process in horde.processes:
            await process.end()


async def front_page(horde: Horde) -> str:
    assert horde.link is not None
    async with aiohttp.ClientSession() as session, session.get(http_url(horde.link)) as answer:
        return await answer.text()


@pytest.mark.slow
async def test_a_school_serves_members_only_without_adult_content_and_says_so_in_its_link_and_on_its_page(
    tmp_path: Path,
) -> None:
    async with typed(tmp_path, "school.md", "the teacher") as page:
        horde = page.horde
        assert horde.link is not None
        assert horde.link.members
        assert "members=1" in str(horde.link)
        assert "Members only" in await front_page(horde)
        assert (await horde.scrape())["members_only"] is True
        joined, _ = await page.go_on("the computer room")
        assert "serves its members only: with a code of its operator, `potluck account --register" in joined
        await page.serve("the computer room")
        said = await page.go_on("Ada")
        assert "serves its members" in said[2]
        assert "potluck account --register --invite CODE" in said[1]
        assert "adult" in said[5]
        made = sorted(path.name for path in tmp_path.glob("*.png"))
        assert made == ["circle.png"]


@pytest.mark.slow
async def test_friends_serve_each_other_without_tax_and_give_kudos_away(tmp_path: Path) -> None:
    async with typed(tmp_path, "friends.md", "the host") as page:
        horde = page.horde
        assert horde.link is not None
        assert horde.link.members
        await page.go_on("Ann")
        worker = await page.serve("Ann")
        await page.go_on("Ben")
        await worker.line(lambda line: line.get("event") == "settled")
        [gave] = await page.go_on("Ann")
        assert "gave 7.6 kudos to account 101" in gave
        await page.go_on("Ben")
        await until(lambda: worker.text().count('"event": "settled"') == 2, "the second picture is paid")
        [rules] = await page.go_on("Ben")
        assert re.search(r"^prices\.tax +0$", rules, re.MULTILINE)
        assert re.search(r"^accounts\.anonymous +false$", rules, re.MULTILINE)
        account = json.loads(await horde.run("peer", "account", "--json", "--home", str(page.home("Ben"))))
        assert (account["balance"], account["held"], account["spent"]) == (0, 0, 7_600)
        assert (await horde.audit())["burned"] == 0


@pytest.mark.ci_slow
async def test_a_public_horde_serves_everybody_and_changes_its_rules_in_the_open(tmp_path: Path) -> None:
    async with typed(tmp_path, "public.md", "the operator") as page:
        horde = page.horde
        assert horde.link is not None
        assert horde.tracker is not None
        assert not horde.link.members
        assert parse_link(str(horde.link)) == horde.link
        assert "Members only" not in await front_page(horde)
        [joined] = await page.go_on("Ann")
        assert "members" not in joined
        worker = await page.serve("Ann")
        await page.go_on("nobody")
        add_rules(horde.tracker_folder, "limits.max_n = 4")
        checked, _ = await page.go_on("the operator")
        assert "version 2 (limits.max_n: 20 -> 4)" in checked
        in_force = await horde.tracker.line(lambda line: line.get("message") == "new rules are in force")
        assert (in_force["version"], in_force["changes"]) == (2, "limits.max_n: 20 -> 4")
        told = await worker.line(lambda line: line.get("event") == "rules" and "->" in line["text"])
        assert told["text"] == "version 2: limits.max_n: 20 -> 4"
        [shown] = await page.go_on("nobody")
        assert shown.splitlines()[1:] == ["limits.max_n: 20 -> 4"]
        await history_is_as_it_was(horde, page.home("nobody"))


async def history_is_as_it_was(horde: Horde, home: Path) -> None:
    """What was published is to be read, version by version, and what is no version is told."""
    assert horde.link is not None
    url = f"{http_url(horde.link)}/rules"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/history") as answer:
            newest, first = (await answer.json())["versions"]
        assert newest["changes"] == [{"key": "limits.max_n", "before": 20, "after": 4}]
        assert (first["version"], first["changes"], newest["previous"]) == (1, [], first["digest"])
        async with session.get(f"{url}?version=1") as answer:
            assert (await answer.json())["rules"]["limits"]["max_n"] == 20
        for wrong, status in (("3", 404), ("0", 404), ("x", 400), ("-1", 400)):
            async with session.get(f"{url}?version={wrong}") as answer:
                assert answer.status == status
    words = ("peer", "rules", "--version", "1", "--json", "--home", str(home))
    assert json.loads(await horde.run(*words))["rules"]["limits"]["max_n"] == 20
    await horde.run("peer", "rules", "--version", "3", "--home", str(home), code=3)
