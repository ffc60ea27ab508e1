"""The engine that a contract's tests share: loading can take seconds."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineSpec


@pytest.fixture(scope="class")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine") / "engine.log"


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def engine(spec: EngineSpec, log: Path) -> AsyncIterator[ProcessEngine]:
    async with ProcessEngine(spec, log=log) as engine:
        yield engine
