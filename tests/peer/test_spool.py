"""The spool: what a reader gets, what a crash leaves, and what has no room."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.spool import Attempt, Spool, SpoolError, limit_for, reopen_all
from protocol.digests import Artifact, output_digest
from protocol.frames import CHUNK_BYTES, Chunk, Final, Frame, FrameReader, Start, Text
from tests.support.builders import (
    a_lease,
    a_public_part,
    a_receipt,
    a_request,
    a_salt,
    a_text_work,
    an_image_work,
    but,
    signed,
)

IMAGE = signed(a_lease())
TEXT = signed(a_lease(a_request(a_public_part(a_text_work()))))
RECEIPT = signed(a_receipt())
SALT = a_salt()


def frames_from(spool: Spool, number: int = 0, most: int = 1) -> list[Frame]:
    """What a reader that asks for `most` bytes at a time gets."""
    reader = FrameReader()
    frames: list[Frame] = []
    while True:
        raw, number = spool.read(number, most)
        if not raw:
            return frames
        frames += reader.feed(raw)


def a_whole_text(root: Path, *pieces: str) -> Spool:
    spool = Spool.create(root, TEXT)
    for piece in pieces:
        spool.add_text(piece)
    spool.sync()
    spool.keep_receipt(RECEIPT, SALT, "stop")
    spool.finish(RECEIPT, SALT, "stop")
    return spool


def test_a_picture_becomes_start_and_chunks_and_a_final_frame(tmp_path: Path) -> None:
    content = os.urandom(CHUNK_BYTES + 10)
    spool = Spool.create(tmp_path, signed(a_lease(a_request(a_public_part(an_image_work(512, 512))))))
    spool.add_artifact("image/png", content)
    assert spool.output_digest(SALT) == output_digest(SALT, [Artifact.of("image/png", content)])
    assert not spool.is_whole
    spool.keep_receipt(RECEIPT, SALT, "stop")
    spool.finish(RECEIPT, SALT, "stop")

    assert frames_from(spool) == [
        Start(0, "image/png", len(content)),
        Chunk(1, content[:CHUNK_BYTES]),
        Chunk(2, content[CHUNK_BYTES:]),
        Final(3, SALT, "stop", RECEIPT.raw),
    ]
    assert spool.is_whole


def test_a_text_is_one_artifact_with_its_prefix_at_the_beginning(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, TEXT, prefix="Once ")
    for piece in ("upon ", "", "a tïme"):
        spool.add_text(piece)

    whole = Artifact.of("text/plain; charset=utf-8", "Once upon a tïme".encode())
    assert spool.output_digest(SALT) == output_digest(SALT, [whole])
    assert frames_from(spool) == [Text(0, "upon "), Text(1, "a tïme")]
    spool.close()


def test_a_text_of_nothing_is_an_empty_artifact(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, TEXT)

    assert spool.output_digest(SALT) == output_digest(SALT, [Artifact.of("text/plain; charset=utf-8", b"")])
    spool.close()


def test_readers_follow_while_the_engine_writes(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, TEXT)
    assert spool.read(0, 1000) == (b"", 0)
    spool.add_text("one")
    first, after = spool.read(0, 1000)
    spool.add_text("two")
    second, end = spool.read(after, 1000)

    assert list(FrameReader().feed(first + second)) == [Text(0, "one"), Text(1, "two")]
    assert (after, end) == (1, 2)
    spool.close()


@pytest.mark.parametrize("most", [1, 40, 100_000])
@pytest.mark.parametrize("number", [0, 3, 10])
def test_reading_from_any_number_gives_whole_frames_from_there(tmp_path: Path, number: int, most: int) -> None:
    spool = a_whole_text(tmp_path, *(f"piece {n}" for n in range(10)))

    frames = frames_from(spool, number, most)

    assert [frame.number for frame in frames if isinstance(frame, Text | Final)] == list(range(number, 11))


def test_the_folder_is_for_its_owner_alone_and_holds_frames_and_meta(tmp_path: Path) -> None:
    spool = a_whole_text(tmp_path, "x")

    assert sorted(path.name for path in spool.folder.iterdir()) == ["frames", "meta"]
    assert spool.folder.name == str(Attempt(a_lease().job, 1))
    if os.name == "posix":
        assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700


@given(st.integers(0, 400), st.binary(max_size=60))
def test_after_a_crash_a_broken_tail_is_cut_and_the_whole_result_served_again(
    tmp_path_factory: pytest.TempPathFactory, lost: int, garbage: bytes
) -> None:
    root = tmp_path_factory.mktemp("spool")
    spool = a_whole_text(root, "one", "two")
    before = frames_from(spool)
    written = (spool.folder / "frames").read_bytes()
    final = len(written) - len(b"".join(spool.read(number, 1)[0] for number in range(2)))
    (spool.folder / "frames").write_bytes(written[: len(written) - min(lost, final)] + garbage)

    [again] = reopen_all(root)

    assert frames_from(again) == before
    assert (again.folder / "frames").read_bytes() == written
    assert (again.lease.raw, again.receipt) == (TEXT.raw, RECEIPT)
    assert again.attempt == spool.attempt


def test_a_crash_before_the_receipt_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, TEXT)
    spool.add_text("one")
    spool.close()

    assert reopen_all(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_lost_signed_frames_is_of_no_use(tmp_path: Path) -> None:
    spool = a_whole_text(tmp_path, "one", "two")
    os.truncate(spool.folder / "frames", 3)

    with pytest.raises(SpoolError, match="0 of 2 frames"):
        Spool.reopen(spool.folder)
    assert reopen_all(tmp_path) == []


def test_a_spool_with_broken_meta_is_removed_and_stray_files_are_too(tmp_path: Path) -> None:
    spool = a_whole_text(tmp_path, "one")
    (spool.folder / "meta").write_bytes(b"\x81")
    (tmp_path / "empty").mkdir()

    assert reopen_all(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_spool_root_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert reopen_all(tmp_path / "none") == []


def test_a_result_larger_than_its_request_allows_is_stopped(tmp_path: Path) -> None:
    work = an_image_work(16, 16)
    spool = Spool.create(tmp_path, signed(but(a_lease(), public=a_public_part(work))))

    with pytest.raises(SpoolError, match="request allows"):
        spool.add_artifact("image/png", bytes(limit_for(work)))
    spool.close()


def test_what_does_not_belong_to_the_kind_is_refused(tmp_path: Path) -> None:
    image = Spool.create(tmp_path / "image", IMAGE)
    with pytest.raises(SpoolError):
        image.add_text("one")
    image.close()
    text = Spool.create(tmp_path / "text", TEXT)
    with pytest.raises(SpoolError):
        text.add_artifact("image/png", b"")
    text.close()
    with pytest.raises(SpoolError):
        text.add_text("late")


def test_a_spool_is_made_anew_where_an_old_one_lay_and_removed_whole(tmp_path: Path) -> None:
    a_whole_text(tmp_path, "old")
    spool = Spool.create(tmp_path, TEXT)
    assert frames_from(spool) == []

    spool.remove()

    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(tmp_path)
    spool.remove()
