"""Origins: keyed hashes of address blocks, under a key that lasts a day of one process and is written nowhere."""

import pickle

from tests.support.builders import DAY, HOUR, NOW
from tracker.addresses import MARK, Blocks

BLOCK = "203.0.113.0/24"


def test_a_block_has_one_origin_within_a_day_and_others_have_others():
    blocks = Blocks()
    assert blocks.origin(BLOCK, NOW) == blocks.origin(BLOCK, NOW + 23 * HOUR)
    assert blocks.origin(BLOCK, NOW) != blocks.origin("198.51.100.0/24", NOW)


def test_it_has_another_one_on_the_next_day_and_in_another_process():
    blocks = Blocks()
    first = blocks.origin(BLOCK, NOW)
    assert blocks.origin(BLOCK, NOW + DAY) != first
    assert Blocks().origin(BLOCK, NOW) != first
    assert blocks.origin(BLOCK, NOW) != first, "a day that is over does not come back"


def test_an_origin_is_no_account_and_shows_nothing_of_the_block():
    origin = Blocks().origin(BLOCK, NOW)
    assert origin.startswith(MARK)
    assert "203" not in origin or "113" not in origin
    assert len(origin) == len(Blocks().origin("::1", NOW))


def test_what_is_kept_of_a_block_is_its_hash_alone():
    blocks = Blocks()
    blocks.origin(BLOCK, NOW)
    assert BLOCK.encode() not in pickle.dumps(vars(blocks))
