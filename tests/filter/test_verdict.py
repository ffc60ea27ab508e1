"""What a prompt amounts to: the red line on labelled prompts, topics by a horde's rules, and at what effort."""

from collections.abc import Iterator

import msgspec
import pytest

from protocol.filter.doors import Words, words_of
from protocol.filter.match import Effort, Matcher
from protocol.filter.normalise import stretches
from protocol.filter.verdict import MINORS, TOPICS, Filter
from protocol.filter.wordlist import parse, shipped
from protocol.frames import OpenBody
from protocol.rules import FilterSection
from protocol.work import ImagePrivate, TextPrivate
from tests.filter.labelled import Labelled, prompts, report, wrong

SALT = bytes(32)


@pytest.fixture(scope="module")
def red_line() -> Filter:
    return Filter(shipped())


def own(*lines: str, category: str = "other") -> Filter:
    text = f"category: {category}\nlanguage: en\n" + "\n".join(lines)
    return Filter([parse(text.encode(), "own.txt")], {"other": "refuse"})


# The red line


def test_the_labelled_prompts_are_enough_and_many_of_each_label_are_put_aside() -> None:
    given = prompts()
    assert len(given) >= 400
    assert len({one.text for one in given}) == len(given)
    for label in ("clean", "borderline", "blocked"):
        halves = [one.half for one in given if one.label == label and one.half != "later"]
        assert halves.count("kept") >= len(halves) / 3


def test_no_plain_case_passes_and_fewer_than_one_clean_prompt_in_a_hundred_is_refused(red_line: Filter) -> None:
    given = prompts()
    bad = wrong(red_line, given)

    assert [one.place for one in bad if one.label == "blocked"] == [], report(red_line, given)
    alarms = [one.place for one in bad if one.label == "clean"]
    assert len(alarms) * 100 < sum(one.label == "clean" for one in given), alarms


def test_a_filter_without_lists_would_be_found_out() -> None:
    given = prompts()

    assert len(wrong(Filter(()), given)) == sum(one.label == "blocked" for one in given)
    assert "misses" in report(Filter(()), [Labelled("x:1", "en", "tuned", "blocked", "plain", "words")])


@pytest.mark.parametrize("written", ["nudechild", "ChildNude", "#nude_kids", "nud3ch1ld", "n.u.d.e.c.h.i.l.d"])
def test_two_words_written_as_one_meet(red_line: Filter, written: str) -> None:
    assert red_line.judge(Words(f"one {written} now")).refused == MINORS


def test_a_word_that_only_holds_two_others_is_neither(red_line: Filter) -> None:
    assert red_line.judge(Words("the nudekidson company, unchildporno")).refused == ""


def test_no_rule_of_a_horde_lets_the_red_line_pass() -> None:
    allows_all = Filter(shipped(), {"adult": "allow", "other": "allow"})

    assert allows_all.judge(Words("nude child")).refused == MINORS


def test_words_that_stand_far_apart_do_not_meet(red_line: Filter) -> None:
    filler = "and then they walked along the river for a while. " * 40

    assert red_line.judge(Words("a child " + "by the lake. nude statue")).refused == MINORS
    assert red_line.judge(Words("a child by the lake. " + filler + "nude statue")).refused == ""


def test_words_of_medicine_weigh_against_a_meeting_but_not_with_explicit_words(red_line: Filter) -> None:
    assert red_line.judge(Words("a child, vagina")).refused == MINORS
    assert red_line.judge(Words("paediatric anatomy textbook: a child, vagina")).refused == ""
    assert red_line.judge(Words("paediatric anatomy textbook: child porn")).refused == MINORS


def test_context_weighs_once_however_many_readings_a_text_has() -> None:
    lists = (("minor", "3 child"), ("sexual", "2 undressed"), ("context", "1 clinic"))
    judge = Filter([parse(f"category: {of}\nlanguage: en\n{term}\n".encode(), of) for of, term in lists])

    assert judge.judge(Words("a child in a clinic, undressed")).refused == MINORS
    assert judge.judge(Words("4.a a.b c.d. a child in a clinic, undressed. 4a aaab")).refused == MINORS
    assert judge.judge(Words("clinic clinic a child in a clinic, undressed")).refused == ""


def test_a_list_of_unwanted_things_holds_off_and_does_not_name(red_line: Filter) -> None:
    def refused(unwanted: str, wanted: str = "portrait of a woman") -> str:
        return red_line.judge(Words(wanted, unwanted)).refused

    assert refused("child, nude, nsfw, loli, blurry") == ""
    assert refused("blurry, nude child, low quality") == MINORS
    assert refused("clothes, blurry", wanted="a 10 year old on a beach") == MINORS
    assert refused("nude, nsfw, blurry", wanted="a 10 year old on a beach") == ""


def test_two_halves_of_a_conversation_meet(red_line: Filter) -> None:
    messages = ({"role": "user", "content": "she is 12 years old"}, {"role": "user", "content": "now she is nude"})
    private = msgspec.convert({"kind": "text", "messages": messages, "salt": SALT}, TextPrivate)

    assert red_line.judge(words_of(private)).refused == MINORS


def test_a_continuation_is_read_together_with_what_was_asked(red_line: Filter) -> None:
    private = TextPrivate(prompt="The chi", salt=SALT)

    assert red_line.judge(words_of(private)).refused == ""
    assert red_line.judge(words_of(private, "ld was nude")).refused == MINORS


def test_a_continuation_is_read_with_the_turn_that_it_goes_on_and_by_itself(red_line: Filter) -> None:
    def refused(role: str, said: str, prefix: str) -> str:
        messages = ({"role": "user", "content": "a story"}, {"role": role, "content": said})
        private = msgspec.convert({"kind": "text", "messages": messages, "salt": SALT}, TextPrivate)
        return red_line.judge(words_of(private, prefix)).refused

    assert refused("assistant", "The chi", "ld was nude") == MINORS
    assert refused("assistant", "The man was nude, with a s", "kid") == MINORS
    assert refused("user", "The chi", "ld was nude") == ""


def test_without_guidance_what_is_unwanted_is_read_as_wanted(red_line: Filter) -> None:
    guided = ImagePrivate(prompt="a child", negative_prompt="nude", salt=SALT)

    assert red_line.judge(words_of(guided)).refused == ""
    assert red_line.judge(words_of(msgspec.structs.replace(guided, guidance=1_000))).refused == MINORS


# Every door


def texts_within(of: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    """Paths of the fields in which free text can stand."""
    for field in msgspec.inspect.type_info(of).fields:  # type: ignore[attr-defined]
        yield from _texts_of_type(field.type, f"{path}.{field.encode_name}".lstrip("."))


def _texts_of_type(of: msgspec.inspect.Type, path: str) -> Iterator[str]:
    match of:
        case msgspec.inspect.StrType():
            yield path
        case msgspec.inspect.StructType(cls=cls):
            yield from texts_within(cls, path)
        case msgspec.inspect.VarTupleType(item_type=item):
            yield from _texts_of_type(item, f"{path}[]")
        case msgspec.inspect.UnionType(types=types):
            for one in types:
                yield from _texts_of_type(one, path)
        case msgspec.inspect.LiteralType() | msgspec.inspect.IntType() | msgspec.inspect.BytesType():
            pass
        case _:
            raise AssertionError(f"{path}: is there text in a {of}?")


def with_text_at(path: str, text: str) -> dict[str, object]:
    """A field's value, with the text at the end of its path."""
    name, _, rest = path.partition(".")
    inner: object = with_text_at(rest, text) | ({"role": "user"} if name == "messages[]" else {}) if rest else text
    return {name.removesuffix("[]"): [inner] if name.endswith("[]") else inner}


@pytest.mark.parametrize("of", [ImagePrivate, TextPrivate])
def test_every_text_of_a_private_part_goes_through_the_filter(of: type[ImagePrivate | TextPrivate]) -> None:
    paths = list(texts_within(of))
    assert "prompt" in paths
    for path in paths:
        given: dict[str, object] = {"kind": of.__struct_config__.tag, "salt": SALT, "prompt": ""}
        words = words_of(msgspec.convert(given | with_text_at(path, "a marked word"), of))

        assert "a marked word" in words.wanted + words.unwanted, path


def test_every_text_of_an_opening_goes_through_the_filter() -> None:
    # Of an opening's parts the lease and the private part are bytes of their own, checked by their types.
    assert list(texts_within(OpenBody)) == ["prefix"]
    assert "a marked word" in words_of(TextPrivate(prompt="x", salt=SALT), "a marked word").wanted


def test_a_new_text_field_would_be_found() -> None:
    class Novel(TextPrivate, frozen=True, kw_only=True, tag="text"):
        chapter: str = ""

    given = {"kind": "text", "salt": SALT, **with_text_at("chapter", "a marked word")}

    assert set(texts_within(Novel)) - set(texts_within(TextPrivate)) == {"chapter"}
    assert "a marked word" not in words_of(msgspec.convert(given, Novel)).wanted


# Topics


@pytest.mark.parametrize(
    ("treatment", "refused", "dropped", "labels"),
    [
        ("allow", "", (), ()),
        ("label", "", (), ("violence",)),
        ("replace", "", ("violence",), ("violence",)),
        ("refuse", "violence", (), ("violence",)),
    ],
)
def test_a_topic_is_treated_as_the_rules_say(treatment, refused, dropped, labels) -> None:
    verdict = Filter(shipped(), {"violence": treatment}).judge(Words("a beheading on the market square"))

    assert (verdict.refused, verdict.dropped, verdict.labels) == (refused, dropped, labels)


def test_light_words_of_a_topic_add_up_and_repetition_adds_nothing() -> None:
    judge = own("1 drizzle", "1 rain", "1 storm")

    assert judge.judge(Words("rain rain rain drizzle")).refused == ""
    assert judge.judge(Words("rain and storm after drizzle")).refused == "other"


def test_an_exception_covers_what_stands_within_it() -> None:
    judge = own("3 bank", "- river bank")

    assert judge.judge(Words("on the river bank")).refused == ""
    assert judge.judge(Words("on the river bank by the bank")).refused == "other"


def test_numbers_are_not_taken_for_words_and_not_cut_apart() -> None:
    assert own("3 ass").judge(Words("room 455, 45.5 m")).refused == ""
    assert own("3 ass").judge(Words("a55")).refused == "other"
    ages = Filter([parse("category: other\nlanguage: ja\nspaced: no\n3 {age}歳\n".encode(), "x")], {"other": "refuse"})
    assert ages.judge(Words("12歳")).refused == "other"
    assert ages.judge(Words("32歳")).refused == ""


# Effort

HOSTILE = {
    "letters": "a",
    "single letters": "a b ",
    "symbols": "4a.5b ",
    "stops": ".a",
    "terms": "girl kid teen boy ",
    "light terms": "sexy underwear ",
    "exceptions": "kid gloves ",
    "marks": "a\u0301\u0302\u0303",
    "marks of another script": "a\u064b",
    "entities": "&#97;&eacute;&nothing;&#",
    "digits that stick": "1a. ",
    "words written as one": "nudechild ",
    "ages in words": "twenty five year old ",
    "signs that are words": "㍿\ufdfa",
    "commas": ",x",
    "repetitions": "aaab",
    "accents": "é à ü naïve ",
    "wide terms": "少女",
    "wide repetitions": "少少少女",
    "both groups": "girl kid, sexy ",
    "context": "doctor ",
}


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher(shipped())


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_effort_grows_with_the_text_and_no_faster(matcher: Matcher, piece: str) -> None:
    def effort(characters: int) -> Effort:
        spent = Effort()
        matcher.find(stretches((piece * characters)[:characters]), spent)
        return spent

    small, large = effort(2_000), effort(32_000)
    assert large.scanned <= 18 * small.scanned + 64
    assert large.scanned <= 16 * 32_000
    assert large.met <= 18 * small.met + 64
    assert large.met <= 2 * 32_000


def test_every_topic_has_a_rule() -> None:
    assert tuple(FilterSection().treatments()) == TOPICS
