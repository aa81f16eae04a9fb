# SPDX-License-Identifier: Apache-2.0
"""The sections of the stream apps' configuration, with what each field means.

Input of :mod:`stream_apps.config`, which reads the file. The descriptions are the documentation: they are in
the published JSON Schema, and editors show them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stream_apps.config.basis import Address, Network, RuleItem, Section, Text, Texts
from stream_apps.config.detectors import StatefulDetect
from stream_apps.config.sigma import SigmaItem
from stream_apps.correlate import programs


class Kafka(Section):
    """Where Kafka is and how to be let in."""

    brokers: Annotated[tuple[Address, ...], Field(min_length=1)] = ("localhost:9092",)
    """Brokers to ask first, each host:port."""
    group: Text = "nsp-stream"
    """Consumer group; all processes of one installation share it."""
    instance: Text | None = None
    """A name of this process that outlives restarts (static membership), or null."""
    properties: dict[Text, str] = Field(default_factory=dict)
    """Security settings by librdkafka's names: security.protocol, ssl.ca.location, ssl.certificate.location,
    ssl.key.location."""


class Signing(Section):
    """What enforcement is signed with."""

    key_file: Annotated[Path, Field(strict=False)] = Path("/etc/nsp/enforcement.key.pem")
    """Ed25519 private key, PEM (nsp keys generate). Sensors have the public one."""


class Service(Section):
    """The process itself."""

    metrics_address: Address | None = "127.0.0.1:9465"
    """Address of /metrics and /healthz, or null for none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on is logged."""
    log_format: Literal["json", "console"] = "json"
    """One line of JSON an event, or lines for people."""


class ProgramNames(Section):
    """Programs by role: basenames of executables, without versions (python, not python3.11)."""

    shells: Texts = programs.SHELLS
    """Take commands."""
    interpreters: Texts = programs.INTERPRETERS
    """Run code given to them."""
    downloaders: Texts = programs.DOWNLOADERS
    """Fetch files."""
    relays: Texts = programs.RELAYS
    """Join a connection to something, or ask the network."""


class Names(Section):
    """What is remembered of DNS answers."""

    trusted_resolvers: tuple[Network, ...] = ()
    """Networks of the resolvers whose answers may excuse a destination (exclusions by dns_names). Other
    answers are shown in alerts and excuse nothing: anybody can run a name server."""
    grace_s: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long a name outlives its TTL, because programs hold on to addresses."""
    max_workloads: Annotated[int, Field(ge=1, le=100_000)] = 4096
    """Workloads with names at once; beyond it the one silent for longest is forgotten, and counted."""
    max_addresses: Annotated[int, Field(ge=1, le=10_000)] = 512
    """Addresses remembered of one workload."""


class Correlate(Section):
    """What belongs together."""

    programs: ProgramNames = ProgramNames()
    """Programs by role."""
    never_services: Texts = (
        "sshd", "sshd-session", "sshd-auth", "dropbear", "login", "telnetd", "in.telnetd", "in.rlogind",
        "in.rshd", "inetd", "xinetd", "systemd", "init", "supervisord", "circusd", "s6-svscan",
        "s6-supervise",
        "runsv", "runsvdir", "tini", "dumb-init", "docker-init", "catatonit", "containerd", "containerd-shim",
        "containerd-shim-runc-v2", "dockerd", "docker-proxy", "crio", "conmon", "podman", "buildkitd", "runc",
        "crun", "kubelet", "k3s", "rke2", "cron", "crond", "atd", "anacron", "cockpit-ws",
    )  # fmt: skip
    """Basenames of login services, container runtimes and process managers: what they start stands for
    itself, whatever they listen on. For a script, its own name."""
    worker_arguments: Texts = (
        "from multiprocessing.", "from joblib.", "from loky.", "-m ipykernel_launcher", "-m multiprocessing.",
    )  # fmt: skip
    """Beginnings of the code, module or script by which a service in an interpreter starts its workers."""
    start_grace_s: Annotated[int, Field(ge=0, le=3600)] = 30
    """A serving program started by a serving program's script within this time of its start is a service of
    its own (entry points); later, it is what an intruder's listener would look like."""
    names: Names = Names()
    """DNS."""


class Detect(StatefulDetect):
    """What is wrong."""

    rce_egress: RuleItem = Field(default=RuleItem(), alias="nsp.rce-egress")
    """A service started a shell, interpreter or downloader, which goes out to the network."""
    reverse_shell: RuleItem = Field(default=RuleItem(), alias="nsp.reverse-shell")
    """A shell takes its commands from the network."""
    arp_spoofing: RuleItem = Field(default=RuleItem(), alias="nsp.arp-spoofing")
    """Somebody claims another's address on the wire. ``destinations`` are the addresses claimed."""
    profile_violation: RuleItem = Field(default=RuleItem(), alias="nsp.profile-violation")
    """A workload did what its SecurityProfile does not allow."""
    dns_trace: RuleItem = Field(default=RuleItem(), alias="nsp.dns-trace")
    """Each resolution of workloads whose SecurityProfile asks for it; informational."""
    enforcement_refused: RuleItem = Field(default=RuleItem(), alias="nsp.enforcement-refused")
    """A sensor refused a command. Exclusions do not apply: no process is behind it."""
    sigma: SigmaItem = SigmaItem()
    """Rules in Sigma's format."""
    repeat_after_s: Annotated[int, Field(ge=1, le=86_400)] = 600
    """One alert for a process tree and rule; still going on after this, the next."""
