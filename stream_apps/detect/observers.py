# SPDX-License-Identifier: Apache-2.0
"""All observers, and the exclusions each comes with.

Input: the ``detect`` section of the configuration, and what was learned of workloads, if anything. Output:
the observers that run. A new one is entered in the table and gets a field in
``stream_apps.config.detectors.StatefulDetect``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stream_apps.detect.baseline import Baseline
from stream_apps.detect.beacon import RULE as BEACON
from stream_apps.detect.beacon import Beacon
from stream_apps.detect.bind_shell import RULE as BIND_SHELL
from stream_apps.detect.bind_shell import BindShell
from stream_apps.detect.dns_tunnel import RULE as DNS_TUNNEL
from stream_apps.detect.dns_tunnel import DnsTunnel, TunnelLimits
from stream_apps.detect.drift import RULE as DRIFT
from stream_apps.detect.drift import Drift
from stream_apps.detect.dropped_program import RULE as DROPPED_PROGRAM
from stream_apps.detect.dropped_program import DroppedProgram
from stream_apps.detect.exclusions import Exclusion
from stream_apps.detect.kubernetes_api import RULE as KUBERNETES_API
from stream_apps.detect.kubernetes_api import KubernetesApi
from stream_apps.detect.lateral_movement import RULE as LATERAL_MOVEMENT
from stream_apps.detect.lateral_movement import LateralMovement
from stream_apps.detect.metadata_service import RULE as METADATA_SERVICE
from stream_apps.detect.metadata_service import MetadataService
from stream_apps.detect.mining import RULE as MINING
from stream_apps.detect.mining import Mining
from stream_apps.detect.observer import Observer
from stream_apps.detect.port_scan import RULE as PORT_SCAN
from stream_apps.detect.port_scan import PortScan, ScanLimits
from stream_apps.detect.registry import exclusions_of
from stream_apps.detect.unresolved_address import RULE as UNRESOLVED_ADDRESS
from stream_apps.detect.unresolved_address import UnresolvedAddress

if TYPE_CHECKING:
    from stream_apps.config.basis import RuleItem
    from stream_apps.config.sections import Detect

NAME_SERVERS: Final = Exclusion(
    reason="name servers forward what others ask; who asked is judged where it asks",
    actors=(
        "*/coredns", "*/dnsmasq", "*/unbound", "*/named", "*/systemd-resolved", "*/pdns_recursor", "*/kresd",
        "*/node-cache", "*/dnsdist", "*/k8s-dns-*", "*/kube-dns", "*/nscd", "*/sssd_be", "*/AdGuardHome",
        "*/pihole-FTL",
    ),
)  # fmt: skip
_CLOUD_AGENTS: Final = Exclusion(
    reason="the cloud's own agents configure the machine by its metadata",
    workloads=(
        "host/*cloud-*.service", "host/*google-*.service", "host/*walinuxagent.service",
        "host/*amazon-*.service", "host/*ec2-*.service", "host/*oracle-cloud-agent*.service",
        "host/*aliyun.service", "host/*kubelet.service",
    ),
)  # fmt: skip
_TEST_RUNS: Final = Exclusion(
    reason="go builds tests in /tmp and runs them there", launchers=("*/go/bin/go", "/usr/bin/go")
)
_HANDS_OUT_SHELLS: Final = Exclusion(
    reason="login services, container runtimes and web terminals hand out shells by design",
    launchers=(
        "*/sshd", "*/sshd-session", "*/dropbear", "*/login", "*/telnetd", "*/in.telnetd", "*/mosh-server",
        "*/tmux*", "*/screen", "*/inetd", "*/xinetd", "*/systemd", "*/containerd-shim*", "*/runc", "*/crun",
        "*/conmon", "*/ttyd", "*/gotty", "*/wetty", "*/cockpit-*", "*/shellinaboxd", "*/code-server*",
        "*/tailscaled", "*/teleport", "*/amazon-ssm-agent", "*/ssm-session-worker",
    ),
)  # fmt: skip


def _metadata_service(config: Detect, baseline: Baseline | None) -> Observer:
    item = config.metadata_service
    exclusions = exclusions_of(item, (_CLOUD_AGENTS,))
    return MetadataService(
        exclusions, item.severity, addresses=item.addresses, names=item.names, baseline=baseline
    )


def _mining(config: Detect, _: Baseline | None) -> Observer:
    item = config.mining
    return Mining(
        exclusions_of(item, (NAME_SERVERS,)), item.severity, ports=item.ports, pools=item.pools
    )  # fmt: skip


def _dropped_program(config: Detect, _: Baseline | None) -> Observer:
    item = config.dropped_program
    return DroppedProgram(exclusions_of(item, (_TEST_RUNS,)), item.severity, within_s=item.within_s)


def _unresolved_address(config: Detect, _: Baseline | None) -> Observer:
    item = config.unresolved_address
    return UnresolvedAddress(
        exclusions_of(item, ()),
        item.severity,
        ignored_networks=item.ignored_networks,
        ignored_ports=item.ignored_ports,
        settle_s=item.settle_s,
    )


def _port_scan(config: Detect, _: Baseline | None) -> Observer:
    item = config.port_scan
    limits = ScanLimits(item.ports, item.hosts, item.datagram_ports, item.window_s)
    return PortScan(exclusions_of(item, ()), item.severity, limits)


def _dns_tunnel(config: Detect, _: Baseline | None) -> Observer:
    item = config.dns_tunnel
    limits = TunnelLimits(
        item.names, item.information_bytes, item.long_name_bytes, item.long_names, item.odd_names
    )
    return DnsTunnel(exclusions_of(item, (NAME_SERVERS,)), item.severity, limits, item.ignored_domains)


def _beacon(config: Detect, _: Baseline | None) -> Observer:
    item = config.beacon
    exclusions = exclusions_of(item, (NAME_SERVERS,))
    return Beacon(
        exclusions, item.severity, score=item.score, window_s=item.window_s, ignored_ports=item.ignored_ports
    )


def _bind_shell(config: Detect, _: Baseline | None) -> Observer:
    item = config.bind_shell
    return BindShell(exclusions_of(item, (_HANDS_OUT_SHELLS,)), item.severity, within_s=item.within_s)


def _kubernetes_api(config: Detect, baseline: Baseline | None) -> Observer:
    item = config.kubernetes_api
    return KubernetesApi(
        exclusions_of(item, ()), item.severity, addresses=item.addresses, ports=item.ports, baseline=baseline
    )


def _lateral_movement(config: Detect, baseline: Baseline | None) -> Observer:
    item = config.lateral_movement
    return LateralMovement(
        exclusions_of(item, ()), item.severity, admin_ports=item.admin_ports, baseline=baseline
    )


def _drift(config: Detect, baseline: Baseline | None) -> Observer:
    item = config.drift
    return Drift(
        exclusions_of(item, ()), item.severity, ephemeral_ports=item.ephemeral_ports, baseline=baseline
    )


Make = Callable[["Detect", Baseline | None], Observer]

# In the order in which they see an event.
_TABLE: Final[dict[str, tuple[Callable[[Detect], RuleItem], Make]]] = {
    METADATA_SERVICE.id: (lambda detect: detect.metadata_service, _metadata_service),
    MINING.id: (lambda detect: detect.mining, _mining),
    DROPPED_PROGRAM.id: (lambda detect: detect.dropped_program, _dropped_program),
    UNRESOLVED_ADDRESS.id: (lambda detect: detect.unresolved_address, _unresolved_address),
    PORT_SCAN.id: (lambda detect: detect.port_scan, _port_scan),
    DNS_TUNNEL.id: (lambda detect: detect.dns_tunnel, _dns_tunnel),
    BEACON.id: (lambda detect: detect.beacon, _beacon),
    BIND_SHELL.id: (lambda detect: detect.bind_shell, _bind_shell),
    KUBERNETES_API.id: (lambda detect: detect.kubernetes_api, _kubernetes_api),
    LATERAL_MOVEMENT.id: (lambda detect: detect.lateral_movement, _lateral_movement),
    DRIFT.id: (lambda detect: detect.drift, _drift),
}
OBSERVER_IDS: Final = tuple(_TABLE)


def build_observers(config: Detect, baseline: Baseline | None = None) -> list[Observer]:
    """The observers a configuration wants, in the order in which they see an event."""
    return [make(config, baseline) for item, make in _TABLE.values() if item(config).enabled]
