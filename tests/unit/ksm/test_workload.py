# SPDX-License-Identifier: MIT
from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SamepageError
from harness.ksm import workload
from harness.ksm.plan import plan
from harness.ksm.workload import Synthetic, Tunables

HEAD = 'kind = "synthetic"\ndescription = "x"\nprocesses = 2\n'
ZERO = '[[content]]\nclass = "zero"\npages = 4\n'


@pytest.mark.parametrize("name", workload.available())
def test_every_shipped_workload_is_sound(name: str) -> None:
    loaded = workload.load(name)
    assert loaded.description
    assert 0 < loaded.footprint_mib < ({"vms-long": 16384, "vms-most": 2 << 20}.get(name, 2048))
    if isinstance(loaded, Synthetic):
        assert len(plan(loaded, seed=1)) == loaded.processes


def test_the_issue_s_classes_are_shipped() -> None:
    assert {"mixed", "zero", "same", "groups", "unique", "prefix", "rewritten", "forked", "programs"} <= set(
        workload.available()
    )
    mixed = workload.load("mixed")
    assert isinstance(mixed, Synthetic)
    assert {type(content).__name__ for content in mixed.content} == {
        "Zero", "Same", "Groups", "Unique", "Prefix", "Rewritten", "Forked",
    }  # fmt: skip
    assert {content.thp for content in mixed.content} == {True, False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + '[[content]]\nclass = "zero"\npages = 0\n', "key content[0].pages:"),
        (HEAD + '[[content]]\nclass = "zero"\npages = "many"\n', "key content[0].pages: Expected `int`, got `str`"),
        (HEAD + '[[content]]\nclass = "huge"\npages = 1\n', "key content[0].class: Invalid value 'huge'"),
        (HEAD + '[[content]]\nclass = "zero"\npages = 4\ngroup = 2\n', "unknown field `group`"),
        (HEAD + ZERO + '[[content]]\nclass = "groups"\npages = 4\ngroup = 1\n', "key content[1].group:"),
        (HEAD + '[[content]]\nclass = "rewritten"\npages = 4\n', "required field `per_second`"),
        (HEAD + "content = []\n", "key content:"),
        (HEAD + ZERO + "[ksm]\npages_to_scan = -1\n", "key ksm.pages_to_scan:"),
        (HEAD + ZERO + "[ksm]\nmerge_faster = true\n", "unknown field `merge_faster`"),
        (HEAD + ZERO + "[cow]\nsingle = 1.5\n", "key cow.single:"),
        (HEAD + ZERO + "[merging]\ntimeout = 0\n", "key merging.timeout:"),
        (HEAD + ZERO.replace("4", "100") + "thp = true\n", "key content[0].pages: with thp a multiple of 512"),
        (HEAD + 2 * '[[content]]\nclass = "forked"\npages = 4\n', "at most one of class forked"),
        (HEAD + 2 * '[[content]]\nclass = "rewritten"\npages = 4\nper_second = 1\n', "at most one of class rewritten"),
        (HEAD + '[[content]]\nclass = "forked"\npages = 4\nwritten = 5\n', "key content[0].written:"),
        (HEAD.replace("2", "512") + '[[content]]\nclass = "forked"\npages = 4\n', "1024 processes"),
        (HEAD.replace("synthetic", "real") + ZERO, "key kind: Invalid value 'real'"),
        ("processes = 2\n", "kind"),
        ('kind = "programs"\ndescription = "x"\n[[program]]\nname = "emacs"\ncount = 1\n', "key program[0].name:"),
        ("kind = \n", "Invalid value"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SamepageError) as caught:
        workload.load(str(path))
    assert caught.value.where == str(path)
    assert expected in caught.value.what
    assert caught.value.exit_code == 2


def test_what_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b'kind = "\xff"\n')
    with pytest.raises(SamepageError):
        workload.load(str(path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SamepageError, match=r"mixed, .*programs"):
        workload.load("miked")


def test_processes_can_be_changed_within_bounds() -> None:
    small = workload.load("small")
    assert workload.with_processes(small, 7).processes == 7
    with pytest.raises(SamepageError, match="too many"):
        workload.with_processes(small, 500)
    with pytest.raises(SamepageError, match="synthetic"):
        workload.with_processes(workload.load("programs"), 3)


def test_only_named_tunables_are_written() -> None:
    assert Tunables().files() == {"pages_to_scan": "20000", "sleep_millisecs": "5", "use_zero_pages": "0"}
    chosen = Tunables(use_zero_pages=True, smart_scan=False, advisor_mode="scan-time").files()
    assert (chosen["use_zero_pages"], chosen["smart_scan"], chosen["advisor_mode"]) == ("1", "0", "scan-time")
