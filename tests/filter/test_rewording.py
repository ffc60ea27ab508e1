"""Words that a horde wants dropped are left out, all of them and no others, or nothing is changed at all."""

import pytest

from protocol.filter.rewording import Reworded, reworded
from protocol.filter.verdict import Filter
from protocol.filter.wordlist import parse, shipped
from protocol.rules import Treatment

LISTS = (
    b"category: other\nlanguage: en\n3 casino*\n3 slot machine\n1 dice\n- casino royale\n",
    b"category: violence\nlanguage: en\n3 gore\n",
    "category: other\nlanguage: ja\nspaced: no\n3 賭博\n".encode(),
)


def without(*texts: str, violence: Treatment = "allow") -> Reworded | None:
    judge = Filter([*shipped(), *(parse(raw, f"{number}.txt") for number, raw in enumerate(LISTS))])
    return reworded(texts, judge, {"other": "replace", "violence": violence})


@pytest.mark.parametrize(
    ("text", "left", "dropped"),
    [
        ("a casino by night, oil on canvas", "a by night, oil on canvas", ("casino",)),
        ("a Slot  machine\nand a cat", "a and a cat", ("Slot", "machine")),
        ("two c4sinos, c.a.s.i.n.o and CASINOOOO! a cat", "two and a cat", ("c4sinos,", "c.a.s.i.n.o", "CASINOOOO!")),
        ("casino royale, a casino, dice", "casino royale, a ", ("casino,", "dice")),
        ("夜の賭博の猫", "夜のの猫", ("賭", "博")),
    ],
)
def test_words_of_the_topic_are_left_out_and_named(text: str, left: str, dropped: tuple[str, ...]) -> None:
    assert without(text) == Reworded((left,), ("other",), dropped)


def test_every_text_is_gone_through_and_may_end_up_empty_but_for_the_first() -> None:
    assert without("a cat", "casino") == Reworded(("a cat", ""), ("other",), ("casino",))
    assert without("casino", "a cat") is None


def test_what_would_be_refused_all_the_same_is_left_as_it_is() -> None:
    assert without("a casino full of gore", violence="refuse") is None
    assert without("a nude child in a casino") is None
    assert without("a cat") is None
    assert without("a slot", "machine") is None


def test_topics_that_are_not_to_be_dropped_stay() -> None:
    assert without("gore in a casino", violence="label") == Reworded(("gore in a ",), ("other",), ("casino",))
