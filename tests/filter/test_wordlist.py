"""A list is followed, or refused with file, line and reason."""

import pytest

from protocol.filter.wordlist import AGES, CATEGORIES, BadWordList, Term, parse, shipped

HEAD = "category: minor\nlanguage: en\n"


def terms(text: str) -> tuple[Term, ...]:
    return parse(text.encode(), "mine.txt").terms


def test_a_list_is_read() -> None:
    read = parse((HEAD + "# remark\n3 Small Fry  # another\n2 fry*\n- french fry\n").encode(), "mine.txt")

    assert (read.name, read.category, read.language, len(read.digest)) == ("mine", "minor", "en", 32)
    assert [(term.pattern, term.weight) for term in read.terms] == [
        (" small fry ", 3),
        (" fry", 2),
        (" french fry ", 0),
    ]


def test_an_age_stands_for_every_age_of_a_minor() -> None:
    numbers = " ".join(f"n{'x' * age}/m{'y' * age}" for age in AGES)
    patterns = {term.pattern for term in terms(HEAD + f"numbers: {numbers}\n3 {{age}} winters\n")}

    assert len(patterns) == 3 * 17
    assert {" 1 winters ", " 17 winters ", " nx winters ", " my winters "} < patterns
    assert " 18 winters " not in patterns


def test_a_number_behind_a_word_for_a_ten_is_no_age() -> None:
    numbers = " ".join(f"n{'x' * age}" for age in AGES)
    found = terms(HEAD + f"numbers: {numbers}\ntens: score two_score\n3 {{age}} winters\n3 aged {{age}}\n")

    assert {" score nx winters ", " two score nxxxxxxxxx winters "} <= {
        one.pattern for one in found if one.is_exception
    }
    assert " score nxxxxxxxxxx winters " not in {term.pattern for term in found}
    assert not [term.pattern for term in found if "score" in term.pattern and "aged" in term.pattern]


def test_terms_are_counted_before_they_are_kept() -> None:
    numbers = " ".join("/".join(f"n{age}x{number}" for number in range(400)) for age in AGES)
    with pytest.raises(BadWordList, match=r"mine\.txt:6: more than 20000 terms, each age counted"):
        terms(HEAD + f"numbers: {numbers}\n" + "3 {age} winters\n" * 1_000)


def test_terms_of_a_script_without_spaces_are_found_within_words() -> None:
    assert [term.pattern for term in terms("category: other\nlanguage: ja\nspaced: no\n3 猫\n")] == ["猫"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("3 word\n", "mine.txt:1: wanted `category:` and `language:` before the terms"),
        ("category: cats\n", "mine.txt:1: category 'cats': wanted one of minor, sexual"),
        ("category: minor\nlanguage: English\n", "mine.txt:2: language 'English': wanted a code such as en"),
        (HEAD + "word\n", "mine.txt:3: 'word': wanted `WEIGHT TERM`"),
        (HEAD + "9 word\n", "mine.txt:3: weight 9: wanted 1 to 6"),
        (HEAD + "3 !!!\n", "mine.txt:3: '!!!': no letter or digit in it"),
        (HEAD + "3 a*\n", "mine.txt:3: 'a*': too short to be found within words"),
        (HEAD + "3 a*b\n", "mine.txt:3: 'a*b': a star stands at the beginning or the end"),
        (HEAD + "3 {size} one\n", "mine.txt:3: '{size} one': the one place-holder is {age}"),
        (HEAD + "3 word\nlanguage: de\n", "mine.txt:4: `language:` after the first term"),
        (HEAD + "numbers: one two\n", "mine.txt:3: 2 numbers: wanted the words for 1 to 17"),
        (HEAD + "colour: red\n", "mine.txt:3: `colour:` is not known"),
        (HEAD + "joined: small\n3 small fry\n", "mine.txt:1: `joined:` names 'small': wanted whole words"),
        ("category: hate\nlanguage: en\njoined: x\n", "mine.txt:3: `joined:` is for lists of category minor or sexual"),
        (HEAD + "joined: " + "x " * 65, "mine.txt:3: 65 words: wanted at most 64"),
        (HEAD + "spaced: maybe\n", "mine.txt:3: spaced 'maybe': wanted yes or no"),
        ("# nothing\n", "mine.txt:1: wanted `category:` and `language:`"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(text: str, fault: str) -> None:
    with pytest.raises(BadWordList) as error:
        terms(text)

    assert str(error.value).startswith(fault)


def test_a_file_in_another_encoding_is_refused_with_its_line() -> None:
    with pytest.raises(BadWordList, match=r"mine\.txt:3: not UTF-8"):
        parse(HEAD.encode() + b"3 caf\xe9\n", "mine.txt")


def test_the_shipped_lists_can_be_followed_and_say_what_they_are() -> None:
    for one in shipped():
        assert one.name == f"{one.category}.{one.language}"
        assert one.terms
    assert {one.category for one in shipped()} == set(CATEGORIES) - {"other"}
    for category in ("minor", "sexual", "context"):
        languages = {one.language for one in shipped() if one.category == category}
        assert languages == {"de", "en", "es", "fr", "it", "ja", "nl", "pl", "pt", "ru", "zh"}
