"""What `potluck gateway` refuses to begin with, and how it reads its words."""

from __future__ import annotations

import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from peer.__main__ import main
from peer.commands.exits import Exit
from peer.commands.gateway import Options, _access, _links, _tls
from peer.gateway.key import key_file
from peer.home import Home, UnknownHorde
from protocol.keys import SigningKey, show_key
from protocol.links import Link, parse_link


def link(name: str) -> Link:
    root = show_key(SigningKey.generate().public)
    return parse_link(f"potluck:?tr=ws%3A%2F%2F127.0.0.1%3A9&id={root}&name={name}")


def options(**said: object) -> Options:
    usual: dict[str, object] = {
        "hordes": (),
        "listen": "127.0.0.1:0",
        "origins": (),
        "host_names": (),
        "anonymous": True,
        "new_key": False,
        "tls": False,
        "certificate": None,
        "private_key": None,
        "without_tls": False,
    }
    return Options(**{**usual, **said})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        ["--listen", "0.0.0.0:0"],
        ["--listen", ":0"],
        ["--listen", "[::]:0"],
        ["--listen", "nas.example:0"],
        ["--listen", "127.0.0.1"],
        ["--certificate", "a.pem"],
        ["--private-key", "a.pem"],
        ["--tls", "--certificate", "a.pem", "--private-key", "b.pem"],
        ["--certificate", "a.pem", "--private-key", "b.pem"],
        ["--origin", "null"],
        ["--origin", "*"],
        ["--host-name", "http://nas.example"],
        ["--host-name", "nas.example:80"],
        ["--horde", "unheard-of"],
    ],
)
def test_what_cannot_be_served_safely_or_at_all_is_refused(tmp_path: Path, words: list[str]) -> None:
    home = Home(tmp_path)
    home.join(link("one"))

    result = CliRunner().invoke(main, ["gateway", "--home", str(tmp_path), *words])

    assert result.exit_code == Exit.USAGE, result.output


def test_without_a_horde_there_is_nothing_to_serve(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["gateway", "--home", str(tmp_path), "--listen", "127.0.0.1:0"])

    assert result.exit_code == Exit.USAGE
    assert "potluck join" in result.output
    assert not key_file(tmp_path).exists()


def test_a_key_that_nobody_was_shown_is_not_kept(tmp_path: Path) -> None:
    Home(tmp_path).join(link("one"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(main, ["gateway", "--home", str(tmp_path), "--listen", listen])

    assert result.exit_code == Exit.USAGE
    assert "cannot listen" in result.output
    assert not key_file(tmp_path).exists()


def test_all_hordes_are_asked_the_default_one_first_or_those_that_are_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for name in ("one", "two", "three"):
        home.join(link(name), default=name == "two")

    assert list(_links(home, ())) == ["two", "one", "three"]
    assert list(_links(home, ("three", "one", "three"))) == ["three", "one"]
    with pytest.raises(UnknownHorde):
        _links(home, ("four",))


def test_names_and_pages_are_read_as_they_come_in_requests() -> None:
    access = _access(
        options(listen="192.168.0.7:1", host_names=("NAS.example", "fd00::1"), origins=("http://Chat.example:80/",))
    )

    assert access.hosts == {"nas.example", "fd00::1", "192.168.0.7"}
    assert access.origins == {"http://chat.example"}
    assert not access.any_local
    assert _access(options(listen=":1")).any_local
    with pytest.raises(click.UsageError):
        _access(options(origins=("chat.example",)))


def test_a_certificate_is_made_for_the_names_that_were_given(tmp_path: Path) -> None:
    home = Home(tmp_path)

    made = _tls(home, options(tls=True, host_names=("nas.example",)))
    assert made is not None
    assert made.made
    again = _tls(home, options(tls=True, listen="0.0.0.0:1"))
    assert again is not None
    own = _tls(home, options(certificate=made.certificate, private_key=tmp_path / "gateway" / "certificate-key.pem"))
    assert own is not None
    assert made.sha256 == again.sha256 == own.sha256
    assert _tls(home, options()) is None
