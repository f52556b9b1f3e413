# SPDX-License-Identifier: MIT
"""Finding the kernel's complaints in logs of real kernels: logs/README.md says where each is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.guest.splats import MAX_LINES, classify, find_splats, is_dropped, message

LOGS = Path(__file__).parent / "logs"

EXPECTED: dict[str, list[tuple[str, str, str]]] = {
    # log: (kind, in the line that names the fault, in the report's last line)
    "bad-page": [("bad page", "BUG: Bad page state in process samepage-agent", "</TASK>")],
    "boot-6.12": [],
    "boot-6.12-kaslr": [],
    "boot-6.12-numa": [],
    "general-protection": [("Oops", "Oops: general protection fault", "PKRU")],
    "hung-task": [("hung task", "blocked for more than", "</TASK>")] * 3,
    "kasan": [("KASAN", "slab-use-after-free in provoke_use_after_free", "======")],
    "kcsan": [("KCSAN", "data-race in test_kernel_read", "======")],
    "kernel-bug": [("kernel BUG", "splat.c:", "PKRU")],
    "kfence": [("KFENCE", "use-after-free write", "======")],
    "kmemleak": [("kmemleak", "1 new suspected memory leaks", "1 new suspected memory leaks")],
    "list-corruption": [("kernel BUG", "lib/list_debug.c", "PKRU")],
    "lockdep-circular": [("lockdep", "possible circular locking dependency", "</TASK>")],
    "memcg-oom": [("OOM killer", "tail invoked oom-killer", "Memory cgroup out of memory: Killed process")],
    "null-pointer": [("BUG", "kernel NULL pointer dereference", "exited with irqs disabled")],
    "oom": [("OOM killer", "tail invoked oom-killer", "Out of memory: Killed process")],
    "panic": [("panic", "a panic on purpose", "Kernel Offset")],
    "refcount": [("refcount", "addition on 0; use-after-free", "end trace")],
    "scheduling-while-atomic": [("BUG", "scheduling while atomic", "</TASK>")] * 2,
    "slab-poison": [("slab corruption", "BUG kmalloc-64", "lock debugging"), ("WARNING", "object_err", "end trace")],
    "stall": [("RCU stall", "self-detected stall on CPU", "</TASK>"), ("soft lockup", "stuck for 8s", "</TASK>")],
    "suspicious-rcu": [("lockdep", "suspicious RCU usage", "</TASK>")],
    "sysfs-duplicate": [
        ("sysfs", "cannot create duplicate filename", "</TASK>"),
        ("kobject", "kobject_add_internal failed", "-EEXIST"),
    ],
    "ubsan": [("UBSAN", "shift-out-of-bounds in", "end trace")],
    "warn": [("WARNING", "provoke_warn", "end trace")],
}


def read(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text("utf-8").splitlines()


def test_every_log_has_an_expectation() -> None:
    assert sorted(path.stem for path in LOGS.glob("*.log")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_reports_of_a_log(name: str) -> None:
    splats, _ = find_splats(read(name))
    assert [splat.kind for splat in splats] == [kind for kind, _, _ in EXPECTED[name]]
    for splat, (_, title, last) in zip(splats, EXPECTED[name], strict=True):
        assert title in splat.title
        assert last in splat.lines[-1]


@pytest.mark.parametrize("name", [name for name, reports in EXPECTED.items() if reports])
def test_a_report_after_a_whole_boot_is_the_same(name: str) -> None:
    alone, _ = find_splats(read(name))
    within, _ = find_splats([*read("boot-6.12"), *read(name), *read("boot-6.12")])
    assert [splat.title for splat in within] == [splat.title for splat in alone]
    assert within[0].lines[: len(alone[0].lines)] == alone[0].lines


@pytest.mark.parametrize("name", ["warn", "kernel-bug", "kasan", "lockdep-circular", "hung-task"])
def test_a_report_that_is_cut_off_is_unfinished(name: str) -> None:
    lines = read(name)
    start = next(i for i, line in enumerate(lines) if classify(message(line)) is not None)
    splats, unfinished = find_splats(lines[: start + 8])
    assert splats
    assert unfinished
    assert find_splats(lines)[1] is False


def test_a_report_without_end_is_bounded() -> None:
    lines = [*read("warn")[:10], *["[    1.000000]  and so on"] * 5000]
    (splat,), unfinished = find_splats(lines)
    assert len(splat.lines) == MAX_LINES
    assert unfinished


@pytest.mark.parametrize(
    "line",
    [
        "[    0.412345] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible!",
        "[    0.000000] [Firmware Bug]: TSC doesn't count with P0 frequency!",
        "[    0.100000] ACPI BIOS Warning (bug): 32/64X length mismatch in FADT/Gpe0Block",
        "[    0.200000] ..MP-BIOS bug: 8254 timer not connected to IO-APIC",
        "[    0.300000] x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'",
        "[    2.000000] systemd[1]: Listening on a socket named BUG: or so.",
        "[    0.500000] RAS: Correctable Errors collector initialized.",
        "[    0.600000] rcu: Hierarchical RCU implementation.",
        "[    0.700000] NMI watchdog: Perf NMI watchdog permanently disabled",
        "[    3.000000] splat: loading out-of-tree module taints kernel.",
        "[    3.000000] livepatch: enabling patch 'samepage'",
        "[    4.000000] Memory failure: 0x1234: recovery action for dirty swapcache page: Recovered",
        "root@samepage:~# grep WARNING: /var/log/x",
        "[    5.000000] samepage-mark 0011-3: sh -c echo BUG: in a command",
    ],
)
def test_no_report(line: str) -> None:
    assert find_splats([line]) == ([], False)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[    1.000000][  T123] BUG: sleeping function called from invalid context at mm/slab.h:1", "BUG"),
        ("[    1.000000] WARNING: bad unlock balance detected!", "lockdep"),
        ("[    1.000000] WARNING: inconsistent lock state", "lockdep"),
        ("[    1.000000] [ BUG: Invalid wait context ]", "lockdep"),
        ("[    1.000000] WARNING: possible recursive locking detected", "lockdep"),
        ("[    1.000000] WARNING: possible irq lock inversion dependency detected", "lockdep"),
        ("[    1.000000] WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected", "lockdep"),
        ("[    1.000000] WARNING: held lock freed!", "lockdep"),
        ("[    1.000000] WARNING: lock held when returning to user space!", "lockdep"),
        ("[    1.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "RCU stall"),
        ("[    1.000000] rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: {", "RCU stall"),
        ("[    1.000000] rcu: rcu_preempt kthread starved for 5251 jiffies!", "RCU stall"),
        ("[    1.000000] INFO: rcu_tasks detected stalls on tasks:", "RCU stall"),
        ("[    1.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [x:1]", "soft lockup"),
        ("[    1.000000] watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 0", "hard lockup"),
        ("[    1.000000] NMI watchdog: Watchdog detected hard LOCKUP on cpu 0", "hard lockup"),
        ("[    1.000000] BUG: Bad rss-counter state mm:0 type:MM_ANONPAGES val:1", "bad page"),
        ("[    1.000000] BUG: Bad page map in process x  pte:0 pmd:0", "bad page"),
        ("[    1.000000] list_del corruption. prev->next should be 0, but was 1.", "list corruption"),
        ("[    1.000000] traps: PANIC: double fault, error_code: 0x0", "Oops"),
        ("[    1.000000] BUG: unable to handle page fault for address: ffff", "BUG"),
        ("[    1.000000] stack segment: 0000 [#1] SMP", "Oops"),
        ("[    1.000000] sh: page allocation failure: order:9, mode:0x40dc0(GFP_KERNEL)", "allocation failure"),
        ("[    1.000000] sh: vmalloc error: size 212992, failed to allocate pages", "allocation failure"),
        ("root@samepage:~# [    1.000000] BUG: behind a prompt", "BUG"),
        ("Kernel panic - not syncing: without a time", "panic"),
        ("[    1.000000] Call Trace:", "call trace"),
    ],
)
def test_one_line(line: str, kind: str) -> None:
    splats, _ = find_splats([line])
    assert [splat.kind for splat in splats] == [kind]


def test_dropped_messages() -> None:
    assert is_dropped("[    9.000000] ** 37 printk messages dropped **")
    assert is_dropped("** 37 printk messages dropped **")
    assert not is_dropped("[    9.000000] printk messages dropped the ball")
