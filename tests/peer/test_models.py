"""What a worker may offer by the horde's catalogue, and the files that it looks at first."""

import os
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from peer import models as models_module
from peer.engines.spec import EngineSpec
from peer.models import Digests, Models, place_of
from peer.news import News
from protocol.catalogue import Catalogue, Model, digest, files_at, sha256_of, to_json
from protocol.links import Link
from protocol.messages import Offer
from protocol.rules import CatalogueSection, Rules
from tests.support.builders import ROOT

PAINTER = Offer(kind="image", model="painter", engine="e")
UNLISTED = Offer(kind="image", model="unlisted", engine="e")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder."""
    place = tmp_path / "painter"
    place.mkdir()
    (place / "weights.safetensors").write_bytes(b"weights")
    (place / "README.md").write_bytes(b"words")
    return place


class Scene:
    """A worker's models, and what a tracker answers for its catalogue."""

    def __init__(self, link: Link, place: Path, tmp_path: Path) -> None:
        self.news: list[News] = []
        self.fetched = 0
        files = {name: sha256_of(path) for name, path in files_at(place).items()}
        self.raw = to_json(Catalogue({"painter": Model(licence="MIT", files=files)}))
        spec = EngineSpec(engine="diffusers", model="painter", options={"path": str(place)})
        self.models = Models(link, tmp_path / "worker", [spec], self.news.append)

    def under(self, *, listed_only: bool = False) -> Rules:
        return Rules(catalogue=CatalogueSection(digest=digest(self.raw), listed_only=listed_only))

    async def judge(self, rules: Rules) -> list[str]:
        """The models that may be offered then."""
        await self.models.judge(rules.catalogue, (PAINTER, UNLISTED))
        return [one.model for one in (PAINTER, UNLISTED) if self.models.may(one, rules)]


@pytest.fixture
async def scene(tmp_path: Path, folder: Path):
    app = web.Application()
    scene: list[Scene] = []

    async def answer(request: web.Request) -> web.Response:
        scene[0].fetched += 1
        return web.Response(body=scene[0].raw)

    app.add_routes([web.get("/models/{digest}", answer)])
    async with TestServer(app) as server:
        scene.append(Scene(Link(f"ws://127.0.0.1:{server.port}", ROOT.public), folder, tmp_path))
        yield scene[0]


async def test_where_the_rules_say_nothing_everything_is_offered_at_once(scene):
    assert scene.models.may(PAINTER, Rules())
    assert scene.models.may(PAINTER, None)


async def test_nothing_is_offered_before_its_files_were_looked_at(scene):
    rules = scene.under()
    assert not scene.models.may(PAINTER, rules)
    assert await scene.judge(rules) == ["painter", "unlisted"]
    assert scene.news == []


async def test_what_is_not_in_the_catalogue_is_not_offered_where_the_rules_say_so(scene):
    assert await scene.judge(scene.under(listed_only=True)) == ["painter"]
    assert [news.text for news in scene.news] == [
        "'unlisted' is not offered: it is not in the horde's catalogue (rule catalogue.listed_only): see /models"
    ]


async def test_a_file_that_is_another_one_keeps_its_model_back_and_says_which(scene, folder):
    (folder / "weights.safetensors").write_bytes(b"weighty")
    assert await scene.judge(scene.under()) == ["unlisted"]
    assert "weights.safetensors has SHA-256" in scene.news[0].text


async def test_a_file_that_might_be_loaded_instead_keeps_it_back_too(scene, folder):
    (folder / "weights.bin").write_bytes(b"something else")
    assert await scene.judge(scene.under()) == ["unlisted"]
    assert "weights.bin is here and not in the catalogue" in scene.news[0].text


async def test_another_catalogue_than_the_rules_name_is_not_used(scene):
    rules = scene.under()
    scene.raw = to_json(Catalogue())
    assert await scene.judge(rules) == []
    assert "another catalogue than its rules name" in scene.news[0].text


async def test_an_engine_that_does_not_say_what_it_loads_offers_nothing_whose_files_are_named(scene, tmp_path):
    models = Models(scene.models._link, tmp_path, [], scene.news.append)
    rules = scene.under()
    await models.judge(rules.catalogue, (PAINTER,))
    assert not models.may(PAINTER, rules)
    assert "does not say which it loads" in scene.news[0].text


async def test_when_the_rules_change_the_models_are_looked_at_and_announced_again(scene):
    offered: list[bool] = []
    rules = scene.under()

    class Enough(Exception):
        pass

    def announce() -> None:
        offered.append(scene.models.may(PAINTER, rules))
        raise Enough

    with pytest.raises(Enough):
        await scene.models.keep(lambda: rules, lambda: (PAINTER,), announce)
    assert offered == [True]


async def test_files_that_change_while_it_is_offered_are_seen_and_told_once(scene, folder, monkeypatch):
    monkeypatch.setattr(models_module, "LOOK_SECONDS", 0.001)
    rules, seen = scene.under(), []

    class Enough(Exception):
        pass

    def announce() -> None:
        seen.append(scene.models.may(PAINTER, rules))
        weights = folder / "weights.safetensors"
        if len(seen) == 3:
            raise Enough
        weights.write_bytes(b"weighty" if len(seen) == 1 else b"weights")
        os.utime(weights, ns=(0, len(seen) * 1_000_000_000))

    with pytest.raises(Enough):
        await scene.models.keep(lambda: rules, lambda: (PAINTER,), announce)
    assert seen == [True, False, True]
    assert len(scene.news) == 1
    assert scene.fetched == 1, "the catalogue that is named is the same"


async def test_a_model_that_an_engine_serves_later_is_looked_at_before_it_is_offered(scene):
    offers, seen = [PAINTER], []
    rules = scene.under(listed_only=True)

    class Enough(Exception):
        pass

    def announce() -> None:
        seen.append([scene.models.may(offer, rules) for offer in (PAINTER, UNLISTED)])
        if len(seen) == 2:
            raise Enough
        offers.append(UNLISTED)

    with pytest.raises(Enough):
        await scene.models.keep(lambda: rules, lambda: offers, announce)
    assert seen == [[True, False], [True, False]], "neither before it was looked at, nor after"
    assert [news.text for news in scene.news if "'painter'" in news.text] == []
    assert len([news for news in scene.news if "'unlisted'" in news.text]) == 1


def test_a_digest_is_computed_again_only_for_a_file_that_changed(tmp_path, folder):
    file, kept = folder / "weights.safetensors", tmp_path / "digests.json"
    first = Digests(kept).of({"w": file})
    before = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Digests(kept).of({"w": file}) == first, "size and time are what is compared"
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    assert Digests(kept).of({"w": file}) == {"w": digest(b"WEIGHTS")} != first


@pytest.mark.parametrize("content", [b"", b"{", b'{"x": 3}'])
def test_digests_that_cannot_be_read_are_computed_again(tmp_path, folder, content):
    kept = tmp_path / "digests.json"
    kept.write_bytes(content)
    assert Digests(kept).of({"w": folder / "weights.safetensors"}) == {"w": digest(b"weights")}


def test_where_files_lie_is_what_the_engine_was_told(tmp_path):
    assert place_of(EngineSpec(engine="text", model="x", options={"path": "/a/b.gguf"})) == Path("/a/b.gguf")
    assert place_of(EngineSpec(engine="dry-run", model="x")) is None
