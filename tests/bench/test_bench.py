"""The bench works: with small numbers, which measure nothing, every figure is produced."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.figures import Figure, at_least, at_most, missing, ratios, table
from tests.bench.parts import PARTS
from tests.nat.namespaces import NO_NAMESPACES

FIGURES = {
    "jobs": {
        "jobs_per_s",
        "tracker_cpu_ms_per_job",
        "signature_floor_jobs_per_s",
        "tracker_cpu_to_signatures",
        "request_to_lease_ms_p50",
        "request_to_lease_ms_p99",
        "tracker_rss_mib",
        "jobs_per_s_with_stream",
        "tracker_cpu_ms_per_job_with_stream",
    },
    "queues": {
        *(
            f"{figure}_{queue}"
            for figure in ("jobs_per_s", "tracker_cpu_ms_per_job", "slowdown", "cpu_ratio")
            for queue in ("waiting_1k", "waiting_100k", "unservable_100k", "any_model_100k")
        ),
        "idle_cores_100k",
        "idle_cores_unservable_100k",
        "tracker_rss_mib_100k",
        "start_s_100k",
    },
    "memory": {"tracker_rss_mib_fresh", "tracker_rss_mib_1k_peers", "rss_kib_per_peer"},
    "streams": {
        "stream_mb_per_s",
        "bare_download_mb_per_s",
        "kept_download_mb_per_s",
        "stream_ratio",
        "stream_ratio_kept",
        "small_results_per_s",
        "small_results_handshakes",
    },
    "paths": {
        "paths_bare_mb_per_s",
        *(f"{path}_ratio{kept}" for path in ("direct", "punched", "relayed", "volunteer") for kept in ("", "_kept")),
        *(f"{relay}_cpu_ms_per_mb" for relay in ("relayed", "volunteer")),
        *(f"first_byte_ms_{which}_{path}" for which in ("p50", "p99") for path in ("direct", "punched", "relayed")),
    },
    "pictures": {"pictures_per_min", "bare_pictures_per_min", "pictures_ratio"},
    "texts": {"first_token_ms", "tokens_per_s", "bare_tokens_per_s", "tokens_ratio"},
    "gateway": {
        "gateway_first_token_ms",
        "gateway_own_first_token_ms",
        "gateway_tokens_per_s",
        "server_tokens_per_s",
        "gateway_tokens_ratio",
        "gateway_own_tokens_ratio",
        "gateway_cpu_ms_per_token",
        "gateway_calls_per_s",
        "gateway_texts_per_s",
        "client_texts_per_s",
        "gateway_texts_ratio",
    },
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_every_figure_of_a_part_is_produced(part: str, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", part, "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    found = json.loads(out.read_text("utf-8"))
    assert found["conditions"]["quick"]
    assert set(found["figures"]) == FIGURES[part]
    for name, figure in found["figures"].items():
        assert figure["median"] is not None or (figure["note"] == NO_NAMESPACES and name.endswith("punched")), figure
        assert name in ended.stdout


def test_the_table_names_aim_and_result() -> None:
    found = table(
        [
            Figure("fast", "jobs/s", "how fast", [900.0, 1100.0, 1200.0], at_least(1000)),
            Figure("large", "MiB", "how large", [90.0], at_most(80)),
            missing("gone", "times", "of nothing", "not installed: it", at_least(1)),
        ]
    ).splitlines()

    assert found[2].split() == ["fast", "1,100", "900", "to", "1,200", "jobs/s", ">=", "1,000", "met", "how", "fast"]
    assert "missed" in found[3]
    assert "not measured" in found[4]
    assert "not installed: it" in found[4]


def test_ratios_pair_what_was_measured_one_after_the_other() -> None:
    assert ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]
