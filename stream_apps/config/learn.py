# SPDX-License-Identifier: Apache-2.0
"""The ``learn`` section of the stream apps' configuration, with what each field means."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from schemas.profile.values import domain_name
from stream_apps.config.basis import Network, Section, Text, Texts


def _wildcard(text: str) -> str:
    found = domain_name(text)
    if not found.startswith("*."):
        raise ValueError("must be a wildcard like *.example.com; single names are learned as they are")
    return found


Wildcard = Annotated[str, AfterValidator(_wildcard)]
Name = Annotated[str, AfterValidator(domain_name)]


class Gate(Section):
    """What must hold before a learned profile should be enforced."""

    min_coverage: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.95
    """Lower 95 % bound of the coverage: the share of what happens that was seen before."""
    max_disagreement: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.05
    """Coverage by hours and by six hours of pods may differ so much; more is called unreliable."""
    quiet_s: Annotated[int, Field(ge=60, le=90 * 86_400)] = 86_400
    """So long nothing new was seen and no event was lost, while the workload was there."""
    min_pods: Annotated[int, Field(ge=1, le=1000)] = 2
    """Pods that were seen."""
    min_nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """The same for services of hosts."""
    min_starts: Annotated[int, Field(ge=0, le=1000)] = 1
    """Starts or restarts that were seen from the first program on: what is done only then is learned too."""


class Bounds(Section):
    """What learning may take. What goes beyond is folded or counted, and said in the state."""

    workloads: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Workloads times the nodes they run on, 40 kB each with 50 behaviours; the one unseen for longest makes
    room, and learns anew."""
    programs: Annotated[int, Field(ge=1, le=512)] = 128
    """Programs of one workload on one node."""
    addresses: Annotated[int, Field(ge=2, le=4096)] = 32
    """Addresses of one program and port; more are folded into networks."""
    names: Annotated[int, Field(ge=1, le=4096)] = 256
    """Names of one program."""
    ephemeral_ports: Annotated[int, Field(ge=1, le=1024)] = 16
    """Ports from 32768 on that are told apart; more become their range."""
    widest_ipv4: Annotated[int, Field(ge=0, le=32)] = 24
    """Shortest prefix that destinations are folded into; what needs a wider one is not learned, and said."""
    widest_ipv6: Annotated[int, Field(ge=0, le=128)] = 64
    """The same for IPv6."""
    widest_source_ipv4: Annotated[int, Field(ge=0, le=32)] = 0
    """The same for who connects to a listening port: 0 lets a public service be one."""
    widest_source_ipv6: Annotated[int, Field(ge=0, le=128)] = 0
    """The same for IPv6."""


class Learn(Section):
    """What workloads do, and when that is known well enough to enforce it."""

    enabled: bool = True
    """Whether anything is learned."""
    warm_up_s: Annotated[int, Field(ge=0, le=86_400)] = 900
    """In this time after the first sight of a workload or image nothing is said of it."""
    unstable_after_s: Annotated[int, Field(ge=3600, le=365 * 86_400)] = 7 * 86_400
    """What still does new things after so long is called unstable."""
    publish_s: Annotated[int, Field(ge=1, le=3600)] = 60
    """New counts of what is known are published so often; what is new is published at once."""
    gate: Gate = Gate()
    """What must hold before a learned profile should be enforced."""
    bounds: Bounds = Bounds()
    """What learning may take."""
    never_programs: Texts = (
        "nc", "nc.openbsd", "nc.traditional", "ncat", "netcat", "socat", "cryptcat", "pwncat", "chisel",
        "ngrok", "frpc", "ligolo-agent", "proxychains4", "nmap", "masscan", "zmap", "hping3", "tcpdump",
        "xmrig", "minerd", "cpuminer", "mimipenguin", "linpeas.sh", "pspy64",
    )  # fmt: skip
    """Basenames of programs that are never learned, whoever starts them."""
    never_below_services: tuple[Text, ...] = ("shell", "downloader", "relay")
    """Roles (correlate.programs) that are never learned when a service started them, nor what they start."""
    never_directories: Texts = ("/dev/shm/", "memfd:", "/proc/", "/tmp/.")  # noqa: S108 - data, nothing is opened
    """Programs below these are never learned; nor are programs whose file was deleted."""
    allow_programs: Texts = ()
    """Patterns of executable paths that are learned although one of the three lists above has them."""
    forbidden_networks: tuple[Network, ...] = ("169.254.169.254/32", "fd00:ec2::254/128")
    """Destinations that are never learned; the default is the cloud's metadata service."""
    forbidden_names: tuple[Name, ...] = ()
    """The same by name; *.suffix is all below."""
    wildcards: tuple[Wildcard, ...] = ("*.in-addr.arpa", "*.ip6.arpa")
    """Names below these are learned as the wildcard. No other wildcard is ever made."""
