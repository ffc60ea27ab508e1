"""The command `potluck-tracker`, started as people and scripts start it."""

import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from protocol import codec, documents
from protocol.documents import Serving
from protocol.envelope import parse
from protocol.keyfiles import load_key
from protocol.keys import parse_key
from protocol.links import parse_link
from tests.support.builders import a_key
from tests.support.history import ANN, NOBODY, History
from tests.support.proxies import Authority
from tracker.__main__ import cli
from tracker.commands import exits
from tracker.commands.check import check
from tracker.commands.init import init
from tracker.commands.serve import now_ms
from tracker.config import load
from tracker.config import parse as parse_toml
from tracker.tls import make_self_signed, read_certificate

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and file modes of POSIX")
TIME = 1_767_225_600_000

#: Windows has none.
HANG_UP: int = getattr(signal, "SIGHUP", 0)


@dataclass
class Result:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str


def run(*arguments: object, code: int = exits.OK) -> Result:
    """Carry out a command line: in this process where the command leaves it as it was, else in one of its own."""
    words = [str(argument) for argument in arguments]
    if words[0] in ("init", "check", "audit"):
        ended = CliRunner().invoke(cli, words)
        result = Result(ended.exit_code, ended.stdout, ended.stderr)
    else:
        process = subprocess.run([sys.executable, "-m", "tracker", *words], capture_output=True, text=True, timeout=60)
        result = Result(process.returncode, process.stdout, process.stderr)
    assert result.code == code, result
    return result


@pytest.fixture
def horde(tmp_path):
    """A horde's folder, whose port the system chooses."""
    folder = tmp_path / "horde"
    init(folder, {"server.listen": "127.0.0.1:0", "horde.name": "a test"}, TIME)
    return folder


def write_rules(horde: Path, text: str) -> None:
    (horde / "horde.toml").write_text(f'[server]\nlisten = "127.0.0.1:0"\n{text}', "utf-8")


class Running:
    """A tracker that runs."""

    def __init__(self, process: subprocess.Popen[str], said: dict[str, str]) -> None:
        self.process = process
        self.said = said

    def get(self, path: str) -> dict[str, object]:
        url = self.said["url"].replace("ws:", "http:") + path
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 (our own tracker's)
            content: dict[str, object] = json.load(answer)
            return content

    def log(self, message: str) -> dict[str, object]:
        """The next log line that says this."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found: dict[str, object] = json.loads(line)
            if found["message"] == message:
                return found
        raise AssertionError(f"never said: {message}")


@contextmanager
def serving(horde: Path, *arguments: str, **more):
    command = [sys.executable, "-m", "tracker", "serve", str(horde), *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield Running(process, json.loads(line))
        finally:
            if process.poll() is None:
                process.kill()


# Help


@pytest.mark.parametrize("arguments", [[], ["init"], ["serve"], ["check"], ["audit"]])
def test_help_comes_without_heavy_libraries(arguments):
    code = f"""
import sys
from tracker.__main__ import main
sys.argv = ["potluck-tracker", *{arguments}, "--help"]
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {{"aiohttp", "torch", "numpy", "rich", "cryptography", "nacl", "msgspec", "uvloop", "sqlite3"}}
print("LOADED", sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert result.stdout.splitlines()[-1] == "LOADED []"
    assert "Usage:" in result.stdout


def test_help_lists_the_exit_codes():
    text = run("--help").stdout

    assert all(f"{code}" in text and meaning[:40] in text for code, meaning in exits.MEANINGS.items())


def test_the_version_is_shown():
    assert run("--version").stdout.startswith("potluck-tracker ")


@pytest.mark.parametrize("arguments", [["nonsense"], ["serve"], ["serve", "x", "--nonsense"], ["audit", "not-there"]])
def test_a_wrong_command_line_is_said(arguments):
    assert "Error: " in run(*arguments, code=exits.BAD_COMMAND_LINE).stderr


# init


def test_init_makes_a_horde_and_says_what_to_do(tmp_path):
    folder = tmp_path / "new" / "horde"
    text = run("init", folder, "--name", "Ann's horde").stdout

    link = parse_link(text.split()[-1])
    assert (link.url, link.name) == ("ws://127.0.0.1:7345", "Ann's horde")
    assert "delete it here" in text
    assert {file.name for file in folder.iterdir()} == {
        "root.key",
        "serving.key",
        "serving.delegation",
        "horde.toml",
        "horde.db",
    }
    assert load_key(folder / "root.key").public == link.root
    delegation = parse((folder / "serving.delegation").read_bytes())
    delegation.verify()
    said = codec.decode(delegation.body, Serving)
    assert (delegation.key, said.serving) == (link.root, load_key(folder / "serving.key").public)
    assert load(folder / "horde.toml").rules.horde.name == "Ann's horde"


@POSIX
def test_secrets_are_for_their_owner_alone(horde):
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in horde.iterdir()}

    assert modes["root.key"] == modes["serving.key"] == modes["horde.db"] == 0o600


def test_init_speaks_to_scripts(tmp_path):
    said = json.loads(run("init", tmp_path / "h", "--url", "wss://horde.example", "--json").stdout)

    assert parse_link(said["link"]).url == "wss://horde.example"
    assert parse_link(said["link"]).root == parse_key(said["root"])
    assert Path(said["root_key"]).exists()


def test_init_makes_a_certificate_whose_digest_the_link_carries(tmp_path):
    folder = tmp_path / "h"
    arguments = ("--self-signed", "--listen", "0.0.0.0:7345", "--url", "wss://203.0.113.7:7345")
    link = parse_link(json.loads(run("init", folder, *arguments, "--json").stdout)["link"])
    found = read_certificate(folder / "tls.crt", folder / "tls.key")

    assert link.url == "wss://203.0.113.7:7345"
    assert link.certificate == found.digest
    if os.name == "posix":
        assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600
    assert f"link: {link}" in run("check", folder).stdout


def test_check_and_serve_name_certificate_files_that_cannot_be_used(tmp_path):
    folder = tmp_path / "h"
    run("init", folder, "--self-signed", "--listen", "127.0.0.1:7345")
    (folder / "tls.key").write_bytes(make_self_signed("127.0.0.1")[1])

    assert "tls.key: is not the key of" in run("check", folder, code=exits.FOUND_FAULTS).stdout
    assert "tls.key: is not the key of" in run("serve", folder, code=exits.BAD_HORDE).stderr


def test_check_says_when_a_certificate_ends(tmp_path):
    folder, authority = tmp_path / "h", Authority.make(tmp_path / "authority")
    run("init", folder, "--listen", "127.0.0.1:7345")
    with (folder / "horde.toml").open("a") as file:
        file.write(f"certificate = '{authority.certificate}'\nprivate_key = '{authority.private_key}'\n")
    now = int(time.time() * 1000)

    def grade(days: int) -> str:
        [found] = [found for found in check(folder, now + days * 86_400_000) if found.what == "certificate"]
        return f"{found.grade}: {found.text}"

    assert grade(0) == "ok: ends in 29 days"
    assert grade(20) == "warning: ends in 9 days: renew it"
    assert grade(40) == "warning: has ended: renew it"
    link = next(found.text for found in check(folder, now) if found.what == "link")
    assert parse_link(link).certificate == b""


def test_without_a_port_there_is_no_link_yet(tmp_path):
    assert json.loads(run("init", tmp_path / "h", "--listen", "127.0.0.1:0", "--json").stdout)["link"] is None


@pytest.mark.parametrize(
    "file", ["root.key", "serving.key", "serving.delegation", "horde.toml", "horde.db", "tls.crt", "tls.key"]
)
def test_init_never_touches_a_horde_that_is_there(tmp_path, file):
    (tmp_path / file).write_text("mine")

    result = run("init", tmp_path, "--self-signed", code=exits.BAD_HORDE)

    assert f"{file}: is there already" in result.stderr
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [(file, "mine")]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--listen", "here"], "server.listen: wanted host:port"),
        (["--url", "https://x"], "server.url: wanted ws://"),
        (["--name", "x" * 61], "horde.name: wanted a text of 1 to 60 characters"),
        (["--listen", "0.0.0.0:7345"], "--url: needed"),
        (["--self-signed", "--url", "ws://127.0.0.1"], "server.url: wanted wss://"),
    ],
)
def test_init_refuses_what_no_horde_can_have(tmp_path, arguments, fault):
    assert fault in run("init", tmp_path / "h", *arguments, code=exits.BAD_COMMAND_LINE).stderr
    assert not (tmp_path / "h").exists()


# serve


def test_serve_says_where_and_ends_with_its_parent(horde):
    with serving(horde, "--until-stdin-closes") as tracker:
        link = parse_link(tracker.said["link"])
        assert tracker.said["event"] == "serving"
        assert link.name == "a test"
        assert tracker.get("/healthz") == {"ok": True}
        assert tracker.get("/scrape")["link"] == tracker.said["link"]
        line = tracker.log("serving")
        assert (line["event"], line["link"], line["url"]) == ("serving", tracker.said["link"], tracker.said["url"])
        tracker.process.stdin.close()
        assert tracker.process.wait(60) == exits.OK
        assert tracker.log("ends: standard input was closed")


@POSIX
@pytest.mark.parametrize("arguments", [[], ["--until-stdin-closes"]])
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", exits.OK), ("SIGINT", exits.INTERRUPTED)])
def test_serve_ends_cleanly(horde, number, code, arguments):
    with serving(horde, *arguments) as tracker:
        tracker.process.send_signal(getattr(signal, number))
        assert tracker.process.wait(60) == code
        assert tracker.log("ended")

    assert not list(horde.glob("*-wal"))
    assert "everything is as the evidence says" in run("audit", horde).stdout


@POSIX
def test_sighup_puts_new_rules_in_force_and_a_wrong_file_changes_nothing(horde):
    with serving(horde) as tracker:
        write_rules(horde, "[limits]\nmax_n = 3\n")
        tracker.process.send_signal(HANG_UP)
        assert tracker.log("new rules are in force")["version"] == 2
        assert tracker.get("/rules")["version"] == 2
        write_rules(horde, "[limits]\nmax_n = 0\n")
        tracker.process.send_signal(HANG_UP)
        wrong = f"{horde / 'horde.toml'}:4: limits.max_n: wanted an integer of at least 1, found 0"
        assert tracker.log(wrong)["level"] == "error"
        assert tracker.log("the rules stay as they are")
        assert tracker.get("/rules")["version"] == 2
        write_rules(horde, "[limits]\nmax_n = 3\n")
        tracker.process.send_signal(HANG_UP)
        assert tracker.log("the rules have not changed")


def test_rules_that_changed_meanwhile_are_published_at_the_start(horde):
    write_rules(horde, "[limits]\nmax_n = 3\n")
    with serving(horde) as tracker:
        assert tracker.get("/rules")["version"] == 2


def test_the_log_file_gets_everything(horde, tmp_path):
    with serving(horde, "--until-stdin-closes", "--log", str(tmp_path / "log"), "--log-level", "error") as tracker:
        tracker.process.stdin.close()
        tracker.process.wait(60)
        assert tracker.process.stderr.read() == ""

    lines = [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    assert [line["message"] for line in lines if line["message"] in ("serving", "ended")] == ["serving", "ended"]


def test_a_horde_is_served_by_one_process_at_a_time(horde):
    with serving(horde) as tracker:
        assert "another process serves" in run("serve", horde, code=exits.BAD_HORDE).stderr
        tracker.process.kill()
        tracker.process.wait(60)
    with serving(horde):
        pass


def test_an_address_that_is_taken_is_said(horde, tmp_path):
    init(tmp_path / "other", {"server.listen": "127.0.0.1:0"}, TIME)
    with serving(horde) as tracker:
        place = tracker.said["url"].removeprefix("ws://")
        result = run("serve", tmp_path / "other", "--listen", place, code=exits.CANNOT_LISTEN)
    assert "error: cannot listen on 127.0.0.1" in result.stderr


@pytest.mark.parametrize(
    ("damage", "code", "fault"),
    [
        (lambda horde: write_rules(horde, "x = 1"), exits.BAD_CONFIG, "horde.toml:3: server.x: unknown key"),
        (lambda horde: (horde / "horde.toml").unlink(), exits.BAD_CONFIG, "holds no horde.toml"),
        (lambda horde: write_rules(horde, "url = ''\nlisten = '0.0.0.0:0'"), exits.BAD_CONFIG, "not TOML"),
        (
            lambda horde: (horde / "horde.toml").write_text("[server]\nlisten = '0.0.0.0:0'"),
            exits.BAD_CONFIG,
            "server.url: needed",
        ),
        (lambda horde: (horde / "serving.key").unlink(), exits.BAD_HORDE, "serving.key: cannot be read"),
        (lambda horde: (horde / "serving.delegation").unlink(), exits.BAD_HORDE, "serving.delegation: cannot be read"),
        (
            lambda horde: (horde / "serving.delegation").write_bytes(b"x"),
            exits.BAD_HORDE,
            "no delegation by a root key",
        ),
        (lambda horde: (horde / "horde.db").unlink(), exits.BAD_HORDE, "there is no database"),
        (lambda horde: (horde / "horde.db").write_bytes(b"x" * 5000), exits.BAD_HORDE, "horde.db: "),
    ],
)
def test_serve_says_what_is_wrong_with_a_folder(horde, damage, code, fault):
    damage(horde)

    result = run("serve", horde, code=code)

    assert fault in result.stderr
    assert "Traceback" not in result.stderr


@POSIX
def test_a_key_that_others_can_read_is_not_used(horde):
    (horde / "serving.key").chmod(0o644)

    assert "chmod 600" in run("serve", horde, code=exits.BAD_HORDE).stderr


def replace_delegation(horde: Path, serving: bytes = b"", expires: int = 0) -> None:
    root = load_key(horde / "root.key")
    said = Serving(serving=serving or load_key(horde / "serving.key").public, version=2, expires=expires)
    (horde / "serving.delegation").write_bytes(documents.sign(said, root, root.public).raw)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"serving": a_key(9).public}, "the delegation appoints"), ({"expires": 1}, "the delegation has expired")],
)
def test_a_key_that_is_not_appointed_does_not_serve(horde, changes, fault):
    replace_delegation(horde, **changes)

    assert fault in run("serve", horde, code=exits.BAD_HORDE).stderr
    assert fault in run("check", horde, code=exits.FOUND_FAULTS).stdout


def test_a_newer_delegation_of_the_same_key_is_shown_to_peers(horde):
    replace_delegation(horde, expires=now_ms() + 3_600_000)

    with serving(horde) as tracker:
        assert tracker.get("/healthz") == {"ok": True}


def test_serve_runs_without_the_root_key(horde):
    (horde / "root.key").unlink()
    with serving(horde) as tracker:
        assert tracker.get("/healthz") == {"ok": True}


# check


def test_a_folder_that_is_fit_is_said_to_be(horde):
    lines = run("check", horde).stdout.splitlines()

    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    assert any(line.startswith("warning root key") for line in lines)
    (horde / "root.key").unlink()
    said = json.loads(run("check", horde, "--json").stdout)
    assert said["ok"]
    assert {finding["what"] for finding in said["findings"]} >= {"settings", "delegation", "database", "rules", "disk"}


def test_check_says_what_serve_would_publish(horde):
    write_rules(horde, "[limits]\nmax_n = 3\n")

    assert "publishes version 2" in run("check", horde).stdout


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda horde: write_rules(horde, "x = 1\ny = 2"), "server.y: unknown key"),
        (lambda horde: (horde / "serving.key").unlink(), "serving.key: cannot be read"),
        (lambda horde: (horde / "serving.delegation").unlink(), "serving.delegation: cannot be read"),
        (lambda horde: (horde / "horde.db").unlink(), "there is no database"),
        (lambda horde: change(horde, "PRAGMA user_version = 99"), "has version 99"),
        (lambda horde: change(horde, "UPDATE horde SET root = zeroblob(32)"), "belongs to horde aaaa"),
        (lambda horde: change(horde, "DELETE FROM rules"), "holds no rules"),
    ],
)
def test_check_names_what_is_wrong(horde, damage, fault):
    damage(horde)

    result = run("check", horde, code=exits.FOUND_FAULTS)

    assert fault in result.stdout
    assert "error" in result.stdout
    assert not result.stderr


def change(horde: Path, statement: str) -> None:
    with closing(sqlite3.connect(horde / "horde.db")) as connection:
        connection.execute(statement)
        connection.commit()


# audit


def test_a_new_horde_passes(horde):
    assert "everything is as the evidence says" in run("audit", horde).stdout
    said = json.loads(run("audit", horde / "horde.db", "--json").stdout)
    assert (said["ok"], said["entries"], said["sum"], said["findings"]) == (True, 0, 0, [])


def test_it_passes_while_the_tracker_serves(horde):
    with serving(horde):
        assert json.loads(run("audit", horde, "--json").stdout)["ok"]


def test_a_fault_is_named_and_told_by_the_exit_code(horde):
    change(horde, "UPDATE accounts SET balance = 5 WHERE account = 4")

    assert "FAULT account 4: stored balance: found 5, wanted 0" in run("audit", horde, code=exits.FOUND_FAULTS).stdout
    said = json.loads(run("audit", horde, "--json", code=exits.FOUND_FAULTS).stdout)
    assert not said["ok"]
    assert said["findings"] == [{"entry": None, "what": "account 4: stored balance", "found": "5", "wanted": "0"}]


async def test_a_settlement_that_was_kept_is_compared(tmp_path):
    async with History.open(tmp_path / "horde.db") as history:
        (tmp_path / "head").write_bytes(await history.serve(NOBODY, ANN))
    async with History.open(tmp_path / "other.db"):
        pass

    head = tmp_path / "head"
    assert json.loads(run("audit", tmp_path / "horde.db", "--head", head, "--json").stdout)["head"]
    text = run("audit", tmp_path / "other.db", "--head", head, code=exits.FOUND_FAULTS).stdout
    assert "FAULT entry 0: the ledger's tail was cut" in text


def test_what_cannot_be_audited_is_said(horde, tmp_path):
    (tmp_path / "head").write_bytes(b"x")

    assert "no settlement" in run("audit", horde, "--head", tmp_path / "head", code=exits.BAD_HORDE).stderr
    assert "no tracker's database" in run("audit", tmp_path / "head", code=exits.BAD_HORDE).stderr
    assert "holds no horde.toml" in run("audit", tmp_path, code=exits.BAD_CONFIG).stderr


def test_another_hordes_database_does_not_pass_under_this_ones_delegation(horde, tmp_path):
    init(tmp_path / "other", {}, TIME)
    (tmp_path / "other" / "horde.db").replace(horde / "horde.db")

    assert "delegation" in run("audit", horde, code=exits.BAD_HORDE).stderr


# Documents

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_exit_codes_is_documented():
    rows = (DOCS / "commands.md").read_text("utf-8").splitlines()

    assert [row for code, meaning in exits.MEANINGS.items() if (row := f"| {code} | {meaning} |") not in rows] == []


def test_the_settings_in_the_guide_to_proxies_are_understood():
    blocks = re.findall(r"```toml\n(\[server\].*?)```", (DOCS / "reverse-proxies.md").read_text("utf-8"), re.DOTALL)
    found = [parse_toml(block, Path("horde.toml")).settings for block in blocks]

    assert {urlsplit(settings.url).hostname for settings in found} == {"horde.example.org"}
    assert [(bool(settings.trust.proxies), bool(settings.private_key)) for settings in found] == [
        (True, False),
        (False, True),
        (True, True),
    ]
