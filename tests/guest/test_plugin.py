# SPDX-License-Identifier: MIT
"""The pytest plugin, by a pytest of its own: the test that caused a complaint fails, the others get a fresh guest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from harness.config import PACKAGE_PARENT

SPLAT = Path(__file__).parent / "modules/splat"

TESTS = f"""
import pytest
from pathlib import Path
from harness.module.build import build_module

boots = []

def boot(guest):
    return guest.read("/proc/sys/kernel/random/boot_id")

def provoke(config, guest, background=""):
    guest.insmod(build_module(config, Path({str(SPLAT)!r}), config.kernel).ko)
    guest.run(["sh", "-c", f"(sleep 0.5; echo warn > /sys/kernel/debug/splat/provoke) {{background}}"])

def test_first(guest):
    boots.append(boot(guest))

def test_shares_it(guest):
    assert boot(guest) == boots[0]

def test_complains(config, guest):
    provoke(config, guest)

def test_has_a_new_one(guest):
    boots.append(boot(guest))
    assert boots[0] != boots[1]

def test_complains_after_its_last_command(config, guest):
    provoke(config, guest, "> /dev/null 2>&1 & sleep 0.1")
    import time
    time.sleep(1.5)

def test_swallows_a_complaint(config, guest):
    with pytest.raises(Exception):
        provoke(config, guest)

def test_expects_it(config, guest):
    with guest.log.expect("provoke_warn"):
        provoke(config, guest)

@pytest.mark.guest(memory_mib=512, cpus=1)
def test_a_size(guest):
    assert guest.run(["nproc"]).text == "1\\n"

def test_fails_by_itself(guest):
    assert False
"""


def test_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    report = tmp_path / "report.xml"
    options = ["-p", "no:cacheprovider", f"--rootdir={PACKAGE_PARENT}", "--timeout=300", f"--junit-xml={report}"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--basetemp={tmp_path / 'temp'}", str(tmp_path / "test_it.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE_PARENT,
    )
    outcomes = {
        case.get("name"): "".join(
            f"{child.tag}: {child.get('message')}\n" for child in case if child.tag != "system-out"
        )
        for case in ElementTree.parse(report).iter("testcase")
    }
    assert result.returncode == 1, result.stdout + result.stderr
    assert "the kernel reported WARNING" in outcomes.pop("test_complains")
    after = outcomes.pop("test_complains_after_its_last_command")
    assert "the end of test_complains_after_its_last_command: the kernel reported WARNING" in after
    assert "the test passed although the kernel complained" in outcomes.pop("test_swallows_a_complaint")
    assert "assert False" in outcomes.pop("test_fails_by_itself")
    assert set(outcomes.values()) == {""}, outcomes
    assert "Console of the guest, whole in" in result.stdout
