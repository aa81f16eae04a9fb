# SPDX-License-Identifier: Apache-2.0
"""All observers, and the exclusions each comes with.

Input: the ``detect`` section of the configuration, and what was learned of workloads, if anything. Output:
the observers that run. A new one is entered in :func:`build_observers` and gets a field in
``stream_apps.detector_sections.StatefulDetect``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_apps.detect import (
    beacon,
    bind_shell,
    dns_tunnel,
    dropped_program,
    metadata_service,
    mining,
    port_scan,
    unresolved_address,
)
from stream_apps.detect.exclusions import Exclusion
from stream_apps.detect.registry import exclusions_of

if TYPE_CHECKING:
    from stream_apps.config_sections import Detect
    from stream_apps.detect.baseline import Baseline
    from stream_apps.detect.observer import Observer

OBSERVER_IDS: Final = (
    metadata_service.RULE.id,
    mining.RULE.id,
    dropped_program.RULE.id,
    unresolved_address.RULE.id,
    port_scan.RULE.id,
    dns_tunnel.RULE.id,
    beacon.RULE.id,
    bind_shell.RULE.id,
)

NAME_SERVERS: Final = Exclusion(
    reason="name servers forward what others ask; who asked is judged where it asks",
    actors=(
        "*/coredns", "*/dnsmasq", "*/unbound", "*/named", "*/systemd-resolved", "*/pdns_recursor",
        "*/kresd", "*/node-cache", "*/dnsdist", "*/k8s-dns-*", "*/kube-dns", "*/nscd", "*/sssd_be",
        "*/AdGuardHome", "*/pihole-FTL",
    ),
)  # fmt: skip
_HANDS_OUT_SHELLS: Final = Exclusion(
    reason="login services, container runtimes and web terminals hand out shells by design",
    launchers=(
        "*/sshd", "*/sshd-session", "*/dropbear", "*/login", "*/telnetd", "*/in.telnetd", "*/mosh-server",
        "*/tmux*", "*/screen", "*/inetd", "*/xinetd", "*/systemd", "*/containerd-shim*", "*/runc", "*/crun",
        "*/conmon", "*/ttyd", "*/gotty", "*/wetty", "*/cockpit-*", "*/shellinaboxd", "*/code-server*",
        "*/tailscaled", "*/teleport", "*/amazon-ssm-agent", "*/ssm-session-worker",
    ),
)  # fmt: skip
_TEST_RUNS: Final = Exclusion(
    reason="go builds tests in /tmp and runs them there", launchers=("*/go/bin/go", "/usr/bin/go")
)
_CLOUD_AGENTS: Final = Exclusion(
    reason="the cloud's own agents configure the machine by its metadata",
    workloads=(
        "host/*cloud-*.service", "host/*google-*.service", "host/*walinuxagent.service",
        "host/*amazon-*.service", "host/*ec2-*.service", "host/*oracle-cloud-agent*.service",
        "host/*aliyun.service", "host/*kubelet.service",
    ),
)  # fmt: skip


def build_observers(config: Detect, baseline: Baseline | None = None) -> list[Observer]:
    """The observers a configuration wants, in the order in which they see an event."""
    found: list[Observer] = []
    metadata = config.metadata_service
    if metadata.enabled:
        found.append(
            metadata_service.MetadataService(
                exclusions_of(metadata, (_CLOUD_AGENTS,)), metadata.severity,
                addresses=metadata.addresses, names=metadata.names, baseline=baseline,
            )
        )  # fmt: skip
    pool = config.mining
    if pool.enabled:
        exclusions = exclusions_of(pool, (NAME_SERVERS,))
        found.append(mining.Mining(exclusions, pool.severity, ports=pool.ports, pools=pool.pools))
    dropped = config.dropped_program
    if dropped.enabled:
        exclusions = exclusions_of(dropped, (_TEST_RUNS,))
        found.append(dropped_program.DroppedProgram(exclusions, dropped.severity, within_s=dropped.within_s))
    unresolved = config.unresolved_address
    if unresolved.enabled:
        found.append(
            unresolved_address.UnresolvedAddress(
                exclusions_of(unresolved, ()), unresolved.severity,
                ignored_networks=unresolved.ignored_networks, ignored_ports=unresolved.ignored_ports,
                settle_s=unresolved.settle_s,
            )
        )  # fmt: skip
    scan = config.port_scan
    if scan.enabled:
        limits = port_scan.ScanLimits(scan.ports, scan.hosts, scan.datagram_ports, scan.window_s)
        found.append(port_scan.PortScan(exclusions_of(scan, ()), scan.severity, limits))
    tunnel = config.dns_tunnel
    if tunnel.enabled:
        sizes = dns_tunnel.TunnelLimits(
            tunnel.names, tunnel.information_bytes, tunnel.long_name_bytes, tunnel.long_names,
            tunnel.odd_names,
        )  # fmt: skip
        exclusions = exclusions_of(tunnel, (NAME_SERVERS,))
        found.append(dns_tunnel.DnsTunnel(exclusions, tunnel.severity, sizes, tunnel.ignored_domains))
    calls = config.beacon
    if calls.enabled:
        exclusions = exclusions_of(calls, (NAME_SERVERS,))
        found.append(
            beacon.Beacon(
                exclusions, calls.severity,
                score=calls.score, window_s=calls.window_s, ignored_ports=calls.ignored_ports,
            )
        )  # fmt: skip
    bind = config.bind_shell
    if bind.enabled:
        exclusions = exclusions_of(bind, (_HANDS_OUT_SHELLS,))
        found.append(bind_shell.BindShell(exclusions, bind.severity, within_s=bind.within_s))
    return found
