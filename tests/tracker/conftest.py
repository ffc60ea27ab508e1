"""A tracker in memory over the real store, for every test that asks for a `desk`."""

import pytest

from protocol.rules import Rules
from tests.support.books import check_books
from tests.support.peers import Desk


@pytest.fixture
def path(tmp_path):
    return tmp_path / "horde.db"


@pytest.fixture
def rules():
    return Rules()


@pytest.fixture
async def desk(path, rules):
    """A tracker; when the test is over, the books must be right."""
    async with Desk.open(path, rules) as desk:
        yield desk
        await desk.quiet()
    check_books(path)
