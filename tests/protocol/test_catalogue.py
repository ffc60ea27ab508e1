"""The catalogue as it is published, licences that are open, and files that are those of the catalogue or not."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.catalogue import (
    BadCatalogue,
    Catalogue,
    Model,
    differing,
    digest,
    files_at,
    is_loadable,
    read,
    sha256_of,
    to_json,
    why_not,
)
from protocol.licences import OPEN, BadExpression, is_open
from protocol.rules import CatalogueSection

ONE, OTHER = "1" * 64, "2" * 64
PAINTER = Model(kind="image", licence="Apache-2.0", millions=860, files={"unet/a.safetensors": ONE, "x.json": OTHER})
CATALOGUE = Catalogue({"painter": PAINTER, "closed": Model(kind="text", licence="LicenseRef-closed")})


def test_a_catalogue_is_read_back_as_published_and_always_published_alike() -> None:
    raw = to_json(CATALOGUE)

    assert read(raw, digest(raw)) == CATALOGUE
    assert raw == to_json(Catalogue(dict(reversed(CATALOGUE.models.items()))))


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"models": 3}'])
def test_another_catalogue_than_the_rules_name_is_refused(raw: bytes) -> None:
    with pytest.raises(BadCatalogue, match="another catalogue"):
        read(raw, digest(to_json(CATALOGUE)))


def test_a_catalogue_that_cannot_be_understood_is_refused() -> None:
    with pytest.raises(BadCatalogue, match="does not understand"):
        read(b'{"models": 3}', digest(b'{"models": 3}'))


@pytest.mark.parametrize(
    ("licence", "answer"),
    [
        ("Apache-2.0", True),
        ("apache-2.0", True),
        ("LicenseRef-closed", False),
        ("MIT OR LicenseRef-closed", True),
        ("LicenseRef-closed or MIT", True),
        ("MIT AND LicenseRef-closed", False),
        ("MIT AND Apache-2.0", True),
        ("LicenseRef-a AND LicenseRef-b OR MIT", True),
        ("LicenseRef-a AND (LicenseRef-b OR MIT)", False),
        ("(MIT)", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0 AND LicenseRef-b", False),
    ],
)
def test_a_licence_is_open_by_either_side_of_an_or_and_by_both_of_an_and(licence: str, answer: bool) -> None:
    assert is_open(licence, OPEN) is answer


@pytest.mark.parametrize("licence", ["", "AND", "MIT OR", "MIT MIT", "(MIT", "MIT)", "()", "MIT WITH", "MIT " * 65])
def test_what_is_no_expression_is_told(licence: str) -> None:
    with pytest.raises(BadExpression):
        is_open(licence, OPEN)


@given(st.lists(st.sampled_from(["MIT", "x", "AND", "OR", "WITH", "(", ")"]), max_size=12).map(" ".join))
def test_any_words_are_an_expression_or_told(licence: str) -> None:
    try:
        found = is_open(licence, OPEN)
    except BadExpression:
        return
    assert isinstance(found, bool)
    assert is_open(licence, ("MIT", "x")), "open if every licence is"


def test_what_is_open_by_default_are_ids_that_spdx_knows() -> None:
    licenses = pytest.importorskip("packaging.licenses")

    assert [licenses.canonicalize_license_expression(licence) for licence in OPEN] == list(OPEN)


def test_what_may_be_offered_follows_from_the_rules() -> None:
    free, listed = CatalogueSection(), CatalogueSection(listed_only=True)
    only_open = CatalogueSection(open_only=True)

    assert why_not("nobody's", "image", CATALOGUE, free) == ""
    assert "rule catalogue.listed_only" in why_not("nobody's", "image", CATALOGUE, listed)
    assert "rule catalogue.open_only" in why_not("nobody's", "image", CATALOGUE, only_open)
    assert why_not("closed", "text", CATALOGUE, listed) == ""
    assert "its licence LicenseRef-closed is none of" in why_not("closed", "text", CATALOGUE, only_open)
    assert why_not("painter", "image", CATALOGUE, only_open) == ""
    assert "as a model for image" in why_not("painter", "text", CATALOGUE, free)
    closed = CatalogueSection(open_only=True, open_licences=("LicenseRef-closed",))
    assert why_not("closed", "text", CATALOGUE, closed) == ""


def test_files_are_those_of_the_catalogue_or_it_is_told_which_is_not() -> None:
    assert differing(PAINTER, {"unet/a.safetensors": ONE, "x.json": OTHER}) == ""
    assert differing(PAINTER, {"unet/a.safetensors": ONE}) == ""
    assert differing(PAINTER, {"any name": ONE}) == ""
    wrong = differing(PAINTER, {"unet/a.safetensors": OTHER, "x.json": OTHER})
    assert wrong.startswith(f"unet/a.safetensors has SHA-256 {OTHER}, and the catalogue says {ONE}")
    assert "b.json is here and not in the catalogue" in differing(PAINTER, {"x.json": OTHER, "b.json": ONE})
    assert differing(PAINTER, {"x.json": "3" * 64}).startswith("x.json has SHA-256 333")
    assert differing(PAINTER, {}) == "nothing is here that could be loaded"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("unet/a.safetensors", True),
        ("tokenizer/merges.txt", True),
        ("pytorch_model.bin", True),
        ("README.md", False),
        ("LICENSE", False),
        (".gitattributes", False),
        (".cache/x.json", False),
        ("picture.PNG", False),
    ],
)
def test_what_could_be_loaded_has_to_be_in_the_catalogue(path: str, answer: bool) -> None:
    assert is_loadable(PurePosixPath(path)) is answer


def test_files_behind_a_link_to_a_folder_are_looked_at_too_and_links_in_a_circle_end(tmp_path: Path) -> None:
    model, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    (elsewhere / "deeper").mkdir(parents=True)
    model.mkdir()
    for name in ("a.safetensors", "deeper/b.bin"):
        (elsewhere / name).write_bytes(b"weights")
    (model / "unet").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "deeper" / "back").symlink_to(elsewhere, target_is_directory=True)
    (model / "self").symlink_to(model, target_is_directory=True)
    assert list(files_at(model)) == ["unet/a.safetensors", "unet/deeper/b.bin"]


def test_the_files_of_a_folder_of_a_file_and_of_a_file_in_parts(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for name in ("unet/a.safetensors", "README.md", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n.gguf"):
        (tmp_path / name).write_bytes(name.encode())

    assert sorted(files_at(tmp_path)) == [
        "m-00001-of-00002.gguf",
        "m-00002-of-00002.gguf",
        "n.gguf",
        "unet/a.safetensors",
    ]
    assert sorted(files_at(tmp_path / "n.gguf")) == ["n.gguf"]
    assert sorted(files_at(tmp_path / "m-00001-of-00002.gguf")) == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert sha256_of(tmp_path / "n.gguf") == digest(b"n.gguf")
