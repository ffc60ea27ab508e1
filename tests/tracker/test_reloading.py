"""Rules, word lists and catalogue read again: all of it together or nothing of it."""

import logging

import pytest

from protocol.rules import to_json
from tests.support.peers import Desk
from tracker.reloading import Reloading
from tracker.store.base import StoreError
from tracker.word_lists import lists_of

MODELS = """
[models.painter]
kind = "image"
licence = "MIT"
millions = 860
"""
WORDS = "category: other\nlanguage: en\n3 casino\n"


class Folder:
    """A horde's folder, and a tracker that reads it."""

    def __init__(self, place, desk):
        self.place = place
        self.desk = desk
        self.reloading = Reloading(place / "horde.toml", desk.coordinator, lists_of(place))

    def write(self, rules, models="", words=""):
        for name, content in (("horde.toml", rules), ("models.toml", models), ("filter/mine.en.txt", words)):
            (self.place / name).parent.mkdir(exist_ok=True)
            if content:
                (self.place / name).write_text(content, "utf-8")
            else:
                (self.place / name).unlink(missing_ok=True)

    async def read(self):
        """Whatever stands there, put in force."""
        self.reloading.begin()
        await self.reloading.finish()

    @property
    def rules(self):
        return self.desk.coordinator.rules

    def serves(self):
        """Whether what the rules in force name can be had here."""
        rules, listing = self.rules.rules, self.desk.coordinator.listing
        lists = [self.desk.coordinator.content_filter.find(bytes.fromhex(one)) for one in rules.filter.lists.values()]
        return all(lists) and bool(listing.published(rules.catalogue.digest)) is bool(listing.catalogue.models)


@pytest.fixture
async def folder(tmp_path):
    async with Desk.open(tmp_path / "horde.db") as desk:
        yield Folder(tmp_path, desk)


async def test_rules_lists_and_catalogue_are_put_in_force_together_and_what_changed_is_logged(folder, caplog):
    caplog.set_level(logging.INFO, "tracker.reloading")
    folder.write("[limits]\nmax_n = 4\n", MODELS, WORDS)
    await folder.read()
    assert folder.rules.rules.limits.max_n == 4
    assert set(folder.rules.rules.models) == {"painter"}
    assert "mine.en" in " ".join(folder.rules.rules.filter.lists)
    assert folder.serves()
    assert "limits.max_n: 20 -> 4" in caplog.records[-1].changes
    version = folder.rules.version
    await folder.read()
    assert folder.rules.version == version
    assert caplog.records[-1].message == "the rules have not changed"


async def test_who_asks_twice_gets_what_stands_there_the_second_time(folder):
    folder.write("[limits]\nmax_n = 4\n", MODELS)
    folder.reloading.begin()
    folder.write("[limits]\nmax_n = 5\n")
    await folder.read()
    assert folder.rules.rules.limits.max_n == 5
    assert folder.serves()


async def test_a_file_with_a_fault_changes_nothing_and_the_fault_is_logged(folder, caplog):
    before = to_json(folder.rules.rules)
    folder.write("[limits]\nmax_n = 4\n", MODELS.replace("MIT", "mine"))
    await folder.read()
    assert to_json(folder.rules.rules) == before
    assert "models.toml:4: models.painter.licence" in caplog.text
    assert "the rules stay as they are" in caplog.text


async def test_what_cannot_be_stored_changes_nothing_either(folder, caplog, monkeypatch):
    folder.write("[limits]\nmax_n = 4\n", MODELS, WORDS)
    await folder.read()
    before = to_json(folder.rules.rules)

    async def full(rules, now):
        raise StoreError("the disk is full")

    monkeypatch.setattr(folder.desk.store, "publish_rules", full)
    folder.write("[limits]\nmax_n = 5\n", MODELS.replace("860", "861"), WORDS.replace("casino", "lottery"))
    await folder.read()
    assert to_json(folder.rules.rules) == before
    assert folder.serves(), "what they name is still to be had"
    assert folder.desk.coordinator.listing.catalogue.models["painter"].millions == 860
    assert "the disk is full" in caplog.text
    assert "the rules stay as they are" in caplog.text
