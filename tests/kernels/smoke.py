# SPDX-License-Identifier: Apache-2.0
"""One pass over the kernel part on the kernel that runs here: does it load, see and cut?

Input: root, the cgroup v2 hierarchy, nothing else; run.sh starts it in virtual machines, and by hand it is
``python -m tests.kernels.smoke``. Output: lines behind a mark, so that a console log can be searched; the
last one is "passed", or the first failure ends it with status 1.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from sensor.kernel import EnforcementValue, Kernel, KernelError, KernelOptions, ProcessKey
from sensor.kernel.interfaces import kernel_has_tcx
from sensor.kernel.programs import PROGRAMS
from tests.kernels.content_checks import check_contents
from tests.kernels.outcome import SmokeError, check, say
from tests.kernels.profile_checks import check_profiles
from tests.support import dns_messages as dns
from tests.support.dns_exchange import Exchange
from tests.support.dns_lab import DnsLab
from tests.support.kernel_lab import (
    ROOT,
    Cgroup,
    RawEvent,
    events_of,
    make_cgroup,
    make_pin_directory,
    remove_pins,
)
from tests.support.kernel_watch import Watch
from tests.support.loaded_programs import loaded_programs
from tests.support.wire_lab import ENFORCE, Wire, announcement, datagram

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import Popen

_EXEC: Final = 1
_CONNECT: Final = 4
_PROCESS_INVENTORY: Final = 16
_REFUSED_OFFSET: Final = 48 + 8 + 8 + 32 + 4 + 2  # nsp_flow_event.verdict
_QUARANTINE_NS: Final = 120 * 10**9
_NAME_BYTES: Final = 15
REASON_RAW_SOCKET: Final = 13
REASON_ARP_SPOOFING: Final = 14
# A connection a line, to a listener of its own on a loopback of its own; answers with the error number.
_VICTIM: Final = """
import socket, sys
from tests.support.dns_exchange import enter_own_network
enter_own_network()
listener = socket.create_server(("127.0.0.1", 0))
for line in sys.stdin:
    with socket.socket() as client:
        print(client.connect_ex(listener.getsockname()), flush=True)
"""


def report_programs(before: set[int]) -> None:
    """Print each of our programs with the verifier's work; all of them have to be there."""
    # Several programs may share a name: the one that does the work is the longest.
    verified: dict[str, int] = {}
    for program in loaded_programs():
        if program.id not in before:
            verified[program.name] = max(program.verified_instructions, verified.get(program.name, 0))
    for name, instructions in verified.items():
        say(f"  {name:<16} {instructions:>7} instructions verified")
    missing = {each.name[:_NAME_BYTES] for each in PROGRAMS} - verified.keys()
    check(not missing, f"{len(PROGRAMS)} programs loaded" + (f", but not {missing}" if missing else ""))


def drain(kernel: Kernel) -> list[RawEvent]:
    """Every event that is on the ring."""
    found: list[RawEvent] = []
    while (chunk := kernel.ring.read(1 << 18)) is not None:
        found += events_of(chunk)
        kernel.ring.release(chunk.end)
    return found


def connect(victim: Popen[str]) -> int:
    """Have the victim connect; returns its error number."""
    if victim.stdin is None or victim.stdout is None:
        raise SmokeError("the victim has no pipes")
    victim.stdin.write("\n")
    victim.stdin.flush()
    return int(victim.stdout.readline() or errno.EPIPE)


def check_processes_and_flows(kernel: Kernel, victim: Popen[str]) -> ProcessKey:
    """An exec and a connect are seen, of the same process; returns it."""
    check(connect(victim) == 0, "connect, not quarantined")
    events = [event for event in drain(kernel) if event.tgid == victim.pid]
    programs = [event for event in events if event.type == _EXEC]
    check(bool(programs) and b"python" in programs[-1].data, "exec event with its path")
    key = ProcessKey(victim.pid, programs[-1].start_ns)
    flows = [event for event in events if event.type == _CONNECT]
    check([event.start_ns for event in flows] == [key.start_ns], "connect event of the same process")
    return key


def check_quarantine(kernel: Kernel, victim: Popen[str], key: ProcessKey) -> None:
    """A quarantine is EPERM for the process, reported and counted, and ends when it is dropped."""
    expires_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + _QUARANTINE_NS
    kernel.state.set_quarantine(key, EnforcementValue(generation=1, expires_ns=expires_ns))
    kernel.state.mark_process(key.tgid, key.start_ns, key)
    check(connect(victim) == errno.EPERM, "quarantined: connect is told EPERM")
    refused = [event.data[_REFUSED_OFFSET] for event in drain(kernel) if event.type == _CONNECT]
    check(refused == [1], "refused connect reported")
    check(dict(kernel.state.quarantines())[key].refused_calls == 1, "refused connect counted")
    kernel.state.drop_quarantine(key)
    kernel.state.mark_process(key.tgid, key.start_ns, None)
    check(connect(victim) == 0, "released: connect works")


def check_dns(kernel: Kernel, cgroup: Cgroup) -> None:
    """A question and its answer arrive, decoded."""
    question = dns.message("www.example.com", flags=dns.QUERY)
    records = (dns.record(dns.TO_QUESTION, dns.A, bytes((192, 0, 2, 7))),) * dns.MAX_RECORDS
    answer = dns.message("www.example.com", records)
    command = cgroup.command(sys.executable, "-m", "tests.support.dns_exchange")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        seen = DnsLab(kernel, process).exchange(Exchange((question,), (answer,)))
        process.communicate()
    check([event["name"] for event in seen.questions] == ["www.example.com"], "DNS question")
    answers = [[record["data"] for record in event["records"]] for event in seen.answers]
    check(answers == [["192.0.2.7"] * dns.MAX_RECORDS], "DNS answer with 32 records")


def check_inventory(kernel: Kernel) -> None:
    """The iterators run and tell of this process."""
    kernel.run_inventory()
    tgids = {event.tgid for event in drain(kernel) if event.type == _PROCESS_INVENTORY}
    check(os.getpid() in tgids, "inventory of processes")
    check(kernel.state.mark_sockets() == 0, "walk over open sockets")


def check_interfaces(kernel: Kernel, cgroup: Cgroup, pins: Path) -> None:
    """A lie about an address, and a packet socket, are stopped: by TCX links, or classifiers before 6.6."""
    with Wire(kernel, cgroup, pins, tcx=kernel_has_tcx()) as wire:
        victim, attacker = wire.add("victim", 10), wire.add("attacker", 0x66)
        reply = wire.attach()
        check(reply.attached > 0, f"{reply.attached} programs on {reply.interfaces} interfaces")
        wire.govern(victim, ENFORCE)
        attacker.send(announcement(victim.address, attacker.mac))
        [claim] = wire.events(1) or [{}]
        check(claim.get("reason") == REASON_ARP_SPOOFING, "ARP claim of another's address refused")
        wire.govern(attacker, ENFORCE, flags=0, ruleset=0)
        refused = attacker.send(datagram(attacker, victim), kind=0x0800)
        attacker.send(datagram(attacker, victim), kind=0x0800, bypass=True)
        told = [each["reason"] for each in wire.refusals(2)]
        check(refused == 1, "packet socket refused")
        check(told == [REASON_RAW_SOCKET] * 2, "both told, with and without the queueing discipline")


@contextlib.contextmanager
def started() -> Iterator[tuple[Kernel, Cgroup, Path]]:
    """The kernel part over a cgroup of its own; nothing of it stays."""
    cgroup, pins = make_cgroup(), make_pin_directory()
    try:
        options = KernelOptions(
            pin_directory=pins,
            cgroup_root=cgroup.path,
            ring_bytes=1 << 22,
            max_processes=8192,
            cache_directory=None,  # compiled for this kernel, and nothing left behind
        )
        with contextlib.closing(Kernel.start(options)) as kernel:
            yield kernel, cgroup, pins
    finally:
        remove_pins(pins)
        cgroup.remove()


def run() -> None:
    """All steps."""
    before = {program.id for program in loaded_programs()}
    begin = time.monotonic()
    with started() as (kernel, cgroup, pins):
        say(f"{os.uname().release}: loaded and attached in {time.monotonic() - begin:.0f} s")
        report_programs(before)
        with cgroup.python(_VICTIM) as victim:
            check_quarantine(kernel, victim, check_processes_and_flows(kernel, victim))
            victim.communicate()
        check_dns(kernel, cgroup)
        check_inventory(kernel)
        watch = Watch(kernel, cgroup)
        check_profiles(watch)
        check_contents(watch)
        check_interfaces(kernel, cgroup, pins)
        counters = {name: value for name, value in kernel.counters().items() if value}
        say(f"  counters {json.dumps(counters)}")
        lost = {"ring_full", "scratch_missing", "tail_call"} & counters.keys()
        check(not lost, "no event lost, no tail call missed")


def main() -> int:
    """Run; the status for the shell."""
    try:
        run()
    except (SmokeError, KernelError) as failure:
        say(f"FAILED: {failure}")
        return 1
    say("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
