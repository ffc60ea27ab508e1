"""The catalogue of a horde, with real models: what workers may offer, and what their files have to be."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from peer import shapes
from peer.engines.spec import SMOLLM2_MODEL, find_smollm2
from tests.support.horde import PATIENCE_S, POLL_S, Horde

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def an_entry(horde: Horde, place: Path, name: str, kind: str, licence: str) -> str:
    return await horde.run(
        *("tracker", "models", "entry", str(place), "--name", name, "--kind", kind),
        *("--licence", licence, "--millions", "135"),
    )


async def served(horde: Horde, *models: str) -> None:
    """Wait until workers are known for these models and no others."""
    found: set[str] = set()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while found != set(models):
                await asyncio.sleep(POLL_S)
                found = {swarm["model"] for swarm in (await horde.scrape())["swarms"] if swarm["workers"]}
    except TimeoutError:
        raise AssertionError(f"served are {found}, wanted {models}") from None


async def test_workers_check_their_files_against_the_catalogue_and_only_open_models_are_served(
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch")
    damaged = tmp_path / "painter"
    shutil.copytree(shapes.folder(), damaged)
    async with Horde.open(tmp_path) as horde:
        catalogue = horde.tracker_folder / "models.toml"
        entries = [
            await an_entry(horde, shapes.folder(), shapes.NAME, "image", "MIT"),
            await an_entry(horde, damaged, "painter", "image", "MIT"),
            await an_entry(horde, find_smollm2(), SMOLLM2_MODEL, "text", "Apache-2.0"),
        ]
        index = damaged / "model_index.json"
        index.write_bytes(index.read_bytes() + b"\n")
        catalogue.write_text("\n".join(entries), "utf-8")
        horde.add_rules("catalogue.listed_only = true")
        await horde.read_again()
        models = ("--image", shapes.NAME, "--image", f"painter={damaged}", "--text", SMOLLM2_MODEL)
        worker = await horde.worker("ann", *models, "--dry-run", "image")
        told = await worker.line(lambda line: line.get("event") == "models" and "'painter'" in line["text"])
        assert "model_index.json has SHA-256" in told["text"]
        assert "the catalogue says" in told["text"]
        unlisted = await worker.line(lambda line: line.get("event") == "models" and "'dry-run-image'" in line["text"])
        assert "catalogue.listed_only" in unlisted["text"]
        await served(horde, shapes.NAME, SMOLLM2_MODEL)

        closed = "\n".join(entries).replace('"Apache-2.0"', '"LicenseRef-closed"')
        catalogue.write_text(closed, "utf-8")
        horde.add_rules("catalogue.open_only = true")
        await horde.read_again()
        await served(horde, shapes.NAME)
        refused = await worker.line(lambda line: line.get("event") == "models" and SMOLLM2_MODEL in line["text"])
        assert "its licence LicenseRef-closed is none of catalogue.open_licences" in refused["text"]

        catalogue.unlink()
        horde.add_rules("catalogue.open_only = false\ncatalogue.listed_only = false")
        await horde.read_again()
        await served(horde, shapes.NAME, "painter", SMOLLM2_MODEL, "dry-run-image")
        assert (await horde.audit())["ok"]
