"""However a word is written, one reading of it shows it."""

import pytest

from protocol.filter.normalise import STRETCH, Readings, fold, shape, stretches, words
from tests.filter import make_lookalikes


def readings(text: str) -> list[str]:
    found = Readings(stretches(text))
    return [found.plain.text, *(other.text for other in found.others), *(f" {letters} " for _, letters in found.joined)]


@pytest.mark.parametrize(
    "written",
    [
        "teapot",
        "TEAPOT",
        "ｔｅａｐｏｔ",
        "𝓽𝓮𝓪𝓹𝓸𝓽",
        "téàpôt",
        "t\u0335e\u0335a\u0335p\u0335o\u0335t",
        "te\u200bap\u00adot",
        "\u0442\u0435\u0430\u0440\u043e\u0442",  # Cyrillic
        "ᴛᴇᴀᴘᴏᴛ",
        "🅣🅔🅐🅟🅞🅣",
        "🇹🇪🇦🇵🇴🇹",
        "ᎢᎬᎪᏢoᎢ",
        "ꓔꓰꓮꓑꓳꓔ",
        "ⲧⲉⲁⲣⲟⲧ",
        "ŧɇȺpøŧ",
        "t\u064be\u05b0a\u0e49p\u0941o\u3099t",
        "t\U000e0100e\u17b4apot",
        "t\u3164e\u3164a\u3164p\u3164o\u3164t",
        "&#116;&#x65;apot",
        "tea&shy;po&#8203;t",
        "te&zwj;apot",
        "t.e.a.p.o.t",
        "t-e_a*p/o.t",
        "t e a p o t",
        "tea.pot",
        "t3ap0t",
        "734p07",
        "te@p0t",
        "t€apot",
        "teapot2",
        "2teapot",
        "(tea.pot:1.2)",
        "teeeaaaapoooot",
        "te\0apot",
        "te.\u200bap\x01ot",
        "(teapot)",
        "teapot!",
    ],
)
def test_however_a_word_is_written_one_reading_shows_it(written: str) -> None:
    assert any(" teapot " in reading for reading in readings(f"one {written} now")), readings(f"one {written} now")


@pytest.mark.parametrize("written", ["ネネネココココ", "ネコココ", "ねねねねこ"])
def test_repetitions_are_left_out_in_every_script(written: str) -> None:
    word = fold(written[0] + written[-1])

    assert any(word in reading for reading in readings(written)), readings(written)


def test_a_run_is_read_as_one_letter_and_as_two_and_pairs_stay() -> None:
    found = readings("coool " * 300 + "tttteeepot zoo")

    assert any(reading.endswith(" tepot zoo ") and " col " in reading for reading in found)
    assert any(reading.endswith(" tteepot zoo ") and " cool " in reading for reading in found)


def test_a_text_of_separators_alone_has_no_words() -> None:
    for text in ("", " ", "\0", " \0 \0", "...", "  " * STRETCH):
        assert readings(text)[0] == " "


def test_a_letter_that_looks_like_a_space_separates_words() -> None:
    assert any(" tea pot " in reading for reading in readings("tea\u3164pot"))


def test_marks_are_part_of_letters_of_their_own_script() -> None:
    assert fold("ガ") != fold("カ")
    assert "\u0e49" in fold("น้ำ")


def test_digits_are_left_out_only_where_they_stick_to_letters() -> None:
    plain = "12 rivers; 3.5 m "
    texts = [reading.text for reading in Readings(stretches(plain * 100 + "tea2pot " + plain * 100)).others]

    assert not any(" rivers m " in reading.text for reading in Readings(stretches(plain)).others)
    [bare] = [text for text in texts if " teapot " in text and " rivers m " in text]
    assert len(bare) < 2 * STRETCH


def test_another_word_is_not_read_as_that_one() -> None:
    assert not any("teapot" in reading for reading in readings("a tea pot, the potato at eat"))


def test_digits_stay_digits_in_the_plain_reading() -> None:
    assert Readings(["12yo, 3D and 4k!"]).plain.text == " 12yo 3d and 4k "


def test_words_of_other_scripts_are_told_apart() -> None:
    assert len({words(word) for word in ("кот", "код", "кит", "годы", "猫", "犬", "ネコ", "がき", "かき")}) == 9


def test_a_place_in_any_reading_is_near_the_place_in_the_text() -> None:
    text = "w.o.r.d, " * 2_000 + "m.a.r.k.e.r " + "other words! " * 2_000  # left out: half of the text
    found = Readings(stretches(text))
    [reading] = [other for other in found.others if " marker " in other.text]

    assert abs(next(found.places(reading, [reading.text.index("marker")])) - text.index("m.a")) < STRETCH


def test_stretches_are_the_text() -> None:
    for text in ("", "a", "word " * 1_000, "x" * 5_000):
        assert "".join(stretches(text)) == text
        assert all(len(part) <= STRETCH for part in stretches(text))


def test_a_shape_has_a_sign_for_each_character() -> None:
    assert shape(fold("Ab1 $?é猫\n")) == "aa0 0.aa "


def test_no_text_grows_by_much() -> None:
    for character in ("\ufdfa", "㍿", "ﬃ", "⑽", "ß", "ΐ", "𝄞", "\u0344"):
        assert len(fold(character * 1_000)) <= 4_000


def test_the_table_of_lookalikes_is_what_unicode_says() -> None:
    kept = make_lookalikes.FILE.read_text("utf-8").splitlines()

    # Tables of a newer Unicode have more letters.
    assert set(kept) - set(make_lookalikes.text().splitlines()) == set()
