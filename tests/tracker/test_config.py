"""`horde.toml`: defaults that run, and errors that name file, line and key."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.rules import ModelSection, Rules
from tracker.config import ConfigError, check_link_url, load, parse, parse_listen
from tracker.rulebook import NOTES, TABLES, Note, default_toml, keys, row, toml_value

FILE = Path("horde.toml")
DOCUMENT = Path(__file__).parents[2] / "docs" / "rules.md"


def faults_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    return list(caught.value.faults)


def test_an_empty_file_runs():
    config = parse("", FILE)

    assert config.rules == Rules()
    assert (config.settings.host, config.settings.port) == ("127.0.0.1", 7345)


def test_what_init_writes_is_the_defaults():
    assert parse(default_toml(), FILE) == parse("", FILE)


def test_every_default_that_is_shown_as_a_comment_is_the_default():
    uncommented = re.sub(r"(?m)^#(?=\w+ = )", "", default_toml())

    assert uncommented.count("\n[") == default_toml().count("\n[")
    assert parse(uncommented, FILE) == parse("", FILE)


def test_what_init_writes_can_carry_settings():
    config = parse(default_toml({"horde.name": 'Ann\'s "horde"', "server.listen": "[::1]:0"}), FILE)

    assert config.rules.horde.name == 'Ann\'s "horde"'
    assert (config.settings.host, config.settings.port) == ("::1", 0)


def test_values_of_all_forms_are_read():
    config = parse(
        """
        [prices]
        image_sizes = [
            [100, 5],
            [200, 9],
        ]
        image_extras = {upscale = 500}
        [accounts]
        registration = "closed"
        [previews]
        allowed = false
        [models."a model/of v1.5"]
        price = 2000
        [server]
        trusted_proxies = ["10.0.0.0/8", "::1"]
        database = "elsewhere/x.db"
        """,
        Path("folder/horde.toml"),
    )

    assert config.rules.prices.image_sizes == ((100, 5), (200, 9))
    assert config.rules.prices.image_extras == {"upscale": 500}
    assert config.rules.accounts.registration == "closed"
    assert not config.rules.previews.allowed
    assert config.rules.models == {"a model/of v1.5": ModelSection(price=2000)}
    assert [str(network) for network in config.settings.trust.proxies] == ["10.0.0.0/8", "::1/128"]
    assert config.settings.database == Path("folder/elsewhere/x.db")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "[matching]\nevry = 3",
            (
                "horde.toml:2: matching.evry: unknown key (did you mean every?); known are failed_attempts, every,"
                " declines, half_life_days"
            ),
        ),
        (
            '[limits]\n\n# a comment\nmax_pixels = "many"',
            "horde.toml:4: limits.max_pixels: wanted an integer of at least 1, found 'many'",
        ),
        ("[limits]\nmax_steps = 0", "horde.toml:2: limits.max_steps: wanted an integer of at least 1, found 0"),
        ("[limits]\nmax_steps = 1.5", "horde.toml:2: limits.max_steps: wanted an integer of at least 1, found 1.5"),
        ("[limits]\nmax_steps = true", "horde.toml:2: limits.max_steps: wanted an integer of at least 1, found true"),
        (
            "[limits]\nmax_steps = 2000-01-01",
            "horde.toml:2: limits.max_steps: wanted an integer of at least 1, found a date or time (2000-01-01)",
        ),
        ("limits.max_steps = -1", "horde.toml:1: limits.max_steps: wanted an integer of at least 1, found -1"),
        (
            "previews = {every = 5, allowed = 1}",
            "horde.toml:1: previews.allowed: wanted true or false, found 1",
        ),
        (
            '[accounts]\nregistration = "some"',
            "horde.toml:2: accounts.registration: wanted 'closed' or 'invited' or 'open', found 'some'",
        ),
        ('[horde]\nname = ""', "horde.toml:2: horde.name: wanted a text of 1 to 60 characters, found ''"),
        (
            "[mint]\nsteps = [[1]]",
            (
                "horde.toml:2: mint.steps: wanted 1 to 32 of [an integer of at least 0, an integer of at least 0],"
                " found [[1]]"
            ),
        ),
        (
            '[models."x y"]\nprice = 1\nsize = 2',
            'horde.toml:3: models."x y".size: unknown key; known are price, millions',
        ),
        ("[models]\nx = 3", "horde.toml:2: models.x: wanted a table, found 3"),
        ("prices = 3", "horde.toml:1: prices: wanted a table, found 3"),
        (
            "[[times]]\naccept = 3",
            "horde.toml:1: times: wanted a table, found [{'accept': 3}]",
        ),
        (
            "\n[time]\naccept = 3",
            f"horde.toml:2: time: unknown table (did you mean times?); known are {', '.join(TABLES)}",
        ),
        (
            "max_n = 3",
            f"horde.toml:1: max_n: unknown table (did you mean limits.max_n?); known are {', '.join(TABLES)}",
        ),
        (
            "[horde]\nmax_n = 3",
            "horde.toml:2: horde.max_n: unknown key (did you mean limits.max_n?); known are name",
        ),
        (
            "[horde]\nqqq = 3",
            "horde.toml:2: horde.qqq: unknown key; known are name",
        ),
        (
            f"[prices]\ntax = {10**15}",
            "horde.toml:2: prices.tax: wanted numbers of at most 1000000000000, found 1000000000000000",
        ),
        (
            '[prices.image_extras]\nup = 1\ndown = "x"',
            "horde.toml:3: prices.image_extras.down: wanted an integer of at least 0, found 'x'",
        ),
        (
            "[server]\nlisten = '7345'",
            "horde.toml:2: server.listen: wanted host:port such as 127.0.0.1:7345 or [::1]:7345, found '7345'",
        ),
        (
            "[server]\nurl = 'https://x'",
            "horde.toml:2: server.url: wanted ws://host:port or wss://host, found 'https://x'",
        ),
        (
            "[server]\ntrusted_proxies = ['10.0.0.1/8']",
            "horde.toml:2: server.trusted_proxies: wanted networks such as 10.0.0.0/8: 10.0.0.1/8 has host bits set",
        ),
        (
            "[server]\ntrusted_proxies = [3]",
            "horde.toml:2: server.trusted_proxies: wanted a list of a text that is not empty, found [3]",
        ),
        (
            "[roles]\nmoderators = ['" + "a" * 52 + "']",
            "horde.toml:2: roles.moderators: wanted keys as `potluck account` shows them, found '" + "a" * 52 + "': "
            "a key of small order fits many messages with one signature: make a new one",
        ),
        (
            f"[limits]\nmax_steps = {'9' * 5000}",
            f"horde.toml:2: wanted numbers of at most {10**12}, found one of thousands of digits",
        ),
        (
            f"[limits]\nmax_steps = {'[' * 5000}",
            "horde.toml:2: wanted a list of lists at most, found brackets too deep within each other to be read",
        ),
        ("# a\u2028b\x85\n[limits]\nmax_n = 0", "horde.toml:3: limits.max_n: wanted an integer of at least 1, found 0"),
        ("a = [1,", "horde.toml:1: not TOML: Invalid value (at end of document)"),
        ("[times]\naccept = \n", "horde.toml:2: not TOML: Invalid value, column 10"),
        ("[times]\naccept = 1\naccept = 2\n", "horde.toml:3: not TOML: Cannot overwrite a value, column 11"),
    ],
)
def test_a_fault_is_named_by_file_line_key_what_was_found_and_what_was_wanted(text, fault):
    assert faults_of(text) == [fault]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("[prices]\nimage_sizes = [[5, 1], [4, 2]]", "prices.image_sizes", "[[5, 1], [4, 2]]"),
        ("[prices]\nimage_sizes = [[0, 1], [4, 2]]", "prices.image_sizes", "[[0, 1], [4, 2]]"),
        ("[prices]\ntext_sizes = [[5, 9], [6, 2]]", "prices.text_sizes", "[[5, 9], [6, 2]]"),
        ("[mint]\nsteps = [[500, 10], [500, 5]]", "mint.steps", "[[500, 10], [500, 5]]"),
        ("[mint]\nsteps = [[500, 1001]]", "mint.steps", "1001"),
        ("[times]\ncancel = 600", "times.cancel", "600"),
        ("[times]\nimage_lease = 12", "times.image_lease", "12"),
        ("[prices]\nimage_sizes = [[1, 1_000_000_000]]", "prices.image_sizes", ""),
        ("[prices]\ntext_token = 1_000_000_000_000", "prices.text_sizes", ""),
        ("[models.x]\nprice = 1_000_000_000_000", "models.x.price", ""),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused_at_their_line_with_what_was_found(text, key, value):
    for fault in faults_of(text):
        start, _, said = fault.partition(f": {key}: ")
        assert start == ("horde.toml:2" if key.rpartition(".")[2] in text else "horde.toml:1"), "else that of its table"
        assert said.startswith("wanted " if value else "the largest ")
        assert said.endswith(f", found {value}") or not value


def test_all_faults_are_reported_at_once_in_the_order_of_the_file():
    found = faults_of("[server]\nheartbeat = 0\n[times]\naccept = 'x'\nopen = 0\n[limits]\nmax_n = []")

    assert [fault.split(": ")[0] for fault in found] == [f"horde.toml:{line}" for line in (2, 4, 5, 7)]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml")


def test_a_file_of_another_encoding_is_refused_with_the_line(tmp_path):
    (tmp_path / "horde.toml").write_bytes(b"[horde]\nname = 'caf\xe9'\n")

    with pytest.raises(ConfigError, match=r"horde\.toml:2: not UTF-8"):
        load(tmp_path / "horde.toml")


def test_the_mark_that_some_editors_put_first_is_no_fault(tmp_path):
    (tmp_path / "horde.toml").write_bytes(b"\xef\xbb\xbf[horde]\nname = 'x'\n")

    assert load(tmp_path / "horde.toml").rules.horde.name == "x"


@given(st.text(alphabet=st.sampled_from("[]{}=\"'.,#\n xaprices019_-")))
def test_any_text_is_read_or_refused(text):
    try:
        assert parse(text, FILE).path == FILE
    except ConfigError as error:
        faults = error.faults
    else:
        faults = ()

    assert all(fault.startswith("horde.toml:") for fault in faults)


@pytest.mark.parametrize(
    ("text", "place"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::]:80", ("::", 80)), ("example.org:7345", ("example.org", 7345))],
)
def test_places_to_listen(text, place):
    assert parse_listen(text) == place


@pytest.mark.parametrize("text", ["", "7345", "host", ":80", "host:x", "host:99999", "::1:80", "a@b:1", "h:1/x", "h:"])
def test_what_is_no_place_to_listen(text):
    with pytest.raises(ValueError, match="wanted host:port"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("", "ws://127.0.0.1:7345"),
        ("listen = '[::1]:7345'", "ws://[::1]:7345"),
        ("url = 'wss://horde.example/pot/'", "wss://horde.example/pot"),
    ],
)
def test_the_links_address_comes_from_url_or_from_listen(server, url):
    settings = parse(f"[server]\n{server}", FILE).settings

    assert check_link_url(settings) == ""
    assert settings.link_url(settings.port) == url


@pytest.mark.parametrize("listen", ["0.0.0.0:7345", "[::]:7345", "8.8.8.8:80", "horde.example:80"])
def test_listening_where_strangers_come_from_needs_a_url(listen):
    assert "needed" in check_link_url(parse(f"[server]\nlisten = '{listen}'", FILE).settings)


def test_every_key_has_a_note_and_every_note_a_key():
    assert list(NOTES) == [key for key, _ in keys()]
    assert list(TABLES) == list(dict.fromkeys(key.partition(".")[0] for key in NOTES))


@pytest.mark.parametrize(("key", "default"), list(keys()))
def test_every_key_stands_in_the_documents_with_meaning_unit_default_and_effect(key, default):
    assert row(key, default) in DOCUMENT.read_text("utf-8").splitlines()
    assert lacks(NOTES[key], default) == []


def lacks(note, default):
    """What a key's documentation does not say of meaning, unit, default and effect."""
    said = {
        "unit": note.unit,
        "meaning": note.meaning.endswith((".", " ")) and note.meaning,
        "effect": note.effect.endswith(".") and note.effect,
        "default": toml_value(default),
    }
    return [name for name, text in said.items() if not text]


def test_a_key_without_a_unit_or_an_effect_would_be_seen():
    assert lacks(Note("", "It is.", ""), 3) == ["unit", "effect"]
    assert lacks(Note("jobs", "", "More is more."), "") == ["meaning"]


EVERY = list(keys())


def line_with(key, value):
    """A file that sets just this key, to a value written as TOML, in its third line."""
    table, _, name = key.partition(".")
    return f'[{table}."x"]\n\n{name} = {value}' if table == "models" else f"[{table}]\n\n{name} = {value}"


def wrong_values(default):
    """Values of other types than this one's."""
    match default:
        case bool():
            return ["1", "'true'", "[]"]
        case int():
            return ["'many'", "1.5", "true", "[1]", "2000-01-01"]
        case str():
            return ["3", "true", "['x']"]
        case tuple():
            return ["3", "'x'", "[['x']]", "true"]
        case _:
            return ["3", "'x'", "[1]"]


@pytest.mark.parametrize(("key", "default"), EVERY)
def test_a_wrong_type_of_every_key_is_told_with_file_line_key_what_was_found_and_what_is_allowed(key, default):
    for value in wrong_values(default):
        [fault, *_] = faults_of(line_with(key, value))
        shown = key.replace("models.", "models.x.")
        assert fault.startswith(f"horde.toml:3: {shown}: wanted "), fault
        if not value.startswith("["):
            assert fault.endswith(f"found {value}") or "found a date or time" in fault, fault


@pytest.mark.parametrize(("key", "default"), EVERY)
def test_what_is_out_of_range_for_any_key_is_told_with_its_bounds(key, default):
    if isinstance(default, bool) or not isinstance(default, int | tuple | str) or key.startswith("server."):
        return
    is_points = isinstance(default, tuple) and default and isinstance(default[0], tuple)
    too_much = {int: "-1", str: "'" + "x" * 400 + "'", tuple: "[]" if is_points else "['']"}[type(default)]
    fault = next((fault for fault in faults_of(line_with(key, too_much)) if key.split(".")[-1] in fault), "")
    assert fault.startswith("horde.toml:3: ")
    assert ": wanted " in fault
    assert ", found " in fault
    if isinstance(default, int):
        [huge, *_] = faults_of(line_with(key, str(10**15)))
        assert huge.startswith("horde.toml:3: ")
        assert "wanted" in huge


@pytest.mark.parametrize(("key", "default"), EVERY)
def test_a_slip_in_any_key_is_told_with_the_key_that_was_meant(key, default):
    table, _, name = key.partition(".")
    slip = f"{name}x"
    fault = faults_of(line_with(f"{table}.{slip}", toml_value(default)))[0]
    assert fault.startswith("horde.toml:3: ")
    assert f".{slip}: unknown key (did you mean {name}?); known are " in fault


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["private_key = 'k'"], "server.private_key: wanted server.certificate too: the file with the certificate"),
        (["certificate = 'c'"], "server.certificate: wanted server.private_key too, or server.url, the address of"),
        (
            ["certificate = 'c'", "private_key = 'k'", "url = 'ws://10.0.0.1'"],
            "server.url: wanted wss://, since server.certificate is set, found 'ws://10.0.0.1'",
        ),
        (["proxy_protocol = true"], "server.proxy_protocol: wanted the proxies in server.trusted_proxies"),
        (
            ["forwarded_header = 'X-Real-IP'"],
            "server.forwarded_header: wanted 'Forwarded' or 'X-Forwarded-For', found 'X-Real-IP'",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(lines, fault):
    [found] = faults_of("\n".join(["[server]", *lines]))

    assert fault in found


def test_with_a_key_links_are_of_tls_and_need_no_private_network():
    settings = parse("[server]\nlisten = '203.0.113.7:1'\ncertificate = 'c'\nprivate_key = '/k'", FILE).settings

    assert (settings.certificate, settings.private_key) == (Path("c"), Path("/k"))
    assert settings.link_url(7) == "wss://203.0.113.7:7"
    assert check_link_url(settings) == ""


def test_proxies_are_trusted_by_the_header_that_the_file_names():
    settings = parse("[server]\ntrusted_proxies = ['::1']\nforwarded_header = 'Forwarded'", FILE).settings

    assert settings.trust.header == "Forwarded"
    assert [str(network) for network in settings.trust.proxies] == ["::1/128"]
