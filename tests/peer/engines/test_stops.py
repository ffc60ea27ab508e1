"""Stop texts, however the text is cut into pieces."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peer.engines.stops import StopFilter

LETTERS = "ab\u00e9"
WORDS = st.text(LETTERS, min_size=1, max_size=4)


def filtered(stops: list[str], pieces: list[str], shown: str = "") -> tuple[str, bool]:
    stop_filter = StopFilter(stops, shown)
    out = "".join(stop_filter.feed(piece) for piece in pieces)
    return out + stop_filter.rest(), stop_filter.stopped


def answer(stops: list[str], whole: str) -> tuple[str, bool]:
    """The definition: the answer ends before the stop text that is complete first, the longest of those."""
    for end in range(1, len(whole) + 1):
        found = [end - len(stop) for stop in stops if whole[:end].endswith(stop)]
        if found:
            return whole[: min(found)], True
    return whole, False


@given(st.lists(WORDS, max_size=4), st.lists(st.text(LETTERS, max_size=3), max_size=8))
def test_the_answer_does_not_depend_on_how_the_text_was_cut(stops, pieces):
    assert filtered(stops, pieces) == answer(stops, "".join(pieces))


@given(st.lists(WORDS, max_size=4), st.lists(st.text(LETTERS, max_size=3), max_size=8))
def test_what_was_shown_is_never_part_of_a_stop_text(stops, pieces):
    stop_filter = StopFilter(stops)
    shown = ""
    for piece in pieces:
        shown += stop_filter.feed(piece)

        assert not any(stop in shown for stop in stops)


@given(st.lists(WORDS, max_size=4), st.text(LETTERS, max_size=6), st.lists(st.text(LETTERS, max_size=3), max_size=6))
@example(stops=["abb", "aaaa"], prefix="ab", pieces=["b"])  # the prefix is shorter than the longest stop text
def test_a_stop_text_that_begins_in_the_prefix_is_found(stops, prefix, pieces):
    told, stopped = answer(stops, prefix)
    rest, stopped_later = filtered(stops, pieces, prefix)
    whole, stopped_whole = answer(stops, prefix + "".join(pieces))

    if not stopped:
        assert stopped_later == stopped_whole
        # What was shown cannot be taken back.
        assert told + rest == (whole if len(whole) >= len(prefix) else prefix)


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        (["END"], ["the E", "N", "D of"], "the "),
        (["END"], ["the E", "N", "T"], "the ENT"),
        (["\n\n", "User:"], ["one\n", "two\nUs", "er: x"], "one\ntwo\n"),
        ([], ["a", "b"], "ab"),
    ],
)
def test_examples(stops, pieces, shown):
    assert filtered(stops, pieces)[0] == shown
