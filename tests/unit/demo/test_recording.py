# SPDX-License-Identifier: Apache-2.0
"""The recorded run that is played where the kernel part cannot run: `make demo`'s way out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
RECORDING = ROOT / "examples" / "recordings" / "demo.avro.gz"
RUN_S = 120


def test_the_recording_goes_through_the_stream_apps_of_today(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo", "--build", str(tmp_path), "--recording", str(RECORDING)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (report,) = tmp_path.glob("*.json")
    figures = json.loads(report.read_text())
    assert {"nsp.rce-egress", "nsp.reverse-shell", "nsp.profile-violation"} <= set(figures["rules"])
    assert figures["recorded"]
    assert figures["events_unaccounted"] == 0
