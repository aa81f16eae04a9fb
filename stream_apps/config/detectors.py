# SPDX-License-Identifier: Apache-2.0
"""The configuration of the detectors that remember, with what each field means and where its default is from.

Part of :class:`stream_apps.config.sections.Detect`. The descriptions are the documentation, as there.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stream_apps.config.basis import Network, RuleItem, Section, Texts
from stream_apps.detect import (
    beacon,
    bind_shell,
    dns_tunnel,
    drift,
    dropped_program,
    kubernetes_api,
    lateral_movement,
    metadata_service,
    mining,
    networks,
    port_scan,
    self_test,
    sensor_silence,
    unresolved_address,
)

Port = Annotated[int, Field(ge=1, le=65535)]


class MetadataServiceItem(RuleItem):
    """nsp.metadata-service."""

    addresses: Texts = metadata_service.ADDRESSES
    """Addresses of metadata services."""
    names: Texts = metadata_service.NAMES
    """Their names, lower case."""


class MiningItem(RuleItem):
    """nsp.mining."""

    ports: tuple[Port, ...] = mining.PORTS
    """Ports that nothing but pools uses."""
    pools: Texts = mining.POOLS
    """Registered domains of pools, lower case; what is below them counts too."""


class DroppedProgramItem(RuleItem):
    """nsp.dropped-program."""

    within_s: Annotated[int, Field(ge=1, le=86_400)] = dropped_program.WITHIN_S
    """How long after its download a file that is executed counts as staged."""


class UnresolvedAddressItem(RuleItem):
    """nsp.unresolved-address."""

    ignored_networks: tuple[Network, ...] = networks.NOT_PUBLIC
    """Networks in which nobody needs a name; a list given replaces the default, which is all that is not
    public."""
    ignored_ports: tuple[Port, ...] = unresolved_address.IGNORED_PORTS
    """Ports of services that are configured by address."""
    settle_s: Annotated[int, Field(ge=0, le=604_800)] = unresolved_address.SETTLE_S
    """How long what a program contacts that was there before is learned instead of told."""


_SCAN = port_scan.ScanLimits()


class PortScanItem(RuleItem):
    """nsp.port-scan."""

    ports: Annotated[int, Field(ge=2, le=1024)] = _SCAN.ports
    """Distinct ports of one host at which a workload failed within the window. Zeek's scan.zeek has 15."""
    hosts: Annotated[int, Field(ge=2, le=1024)] = _SCAN.hosts
    """Distinct hosts at whose one port a workload failed. Zeek's scan.zeek has 25."""
    datagram_ports: Annotated[int, Field(ge=2, le=1024)] = _SCAN.datagram_ports
    """Distinct ports of one host to which datagrams went, whose outcome nobody sees. Elastic has 100."""
    window_s: Annotated[int, Field(ge=1, le=86_400)] = _SCAN.window_s
    """The window. Zeek's scan.zeek has 5 minutes; a longer one finds slower scans."""


_TUNNEL = dns_tunnel.TunnelLimits()


class DnsTunnelItem(RuleItem):
    """nsp.dns-tunnel."""

    names: Annotated[int, Field(ge=10, le=1000)] = _TUNNEL.names
    """Distinct names below one domain, of one workload in a day, from which on what they carry is judged.
    RITA's lowest band is 100; its further ones, 500, 800 and 1000, are fixed and raise the severity."""
    information_bytes: Annotated[int, Field(ge=0, le=1_000_000)] = _TUNNEL.information_bytes
    """What the names can carry at least, by their compressed size. Paxson et al. 2013 bound it at 4 KiB a
    day."""
    long_name_bytes: Annotated[int, Field(ge=1, le=253)] = _TUNNEL.long_name_bytes
    """A name below its domain that is longer is long. Zeek's anomalous-dns has 90."""
    long_names: Annotated[int, Field(ge=1, le=1000)] = _TUNNEL.long_names
    """Distinct long names that are a tunnel by themselves."""
    odd_names: Annotated[int, Field(ge=0, le=1000)] = _TUNNEL.odd_names
    """More distinct names than this, asked by the types NULL or 65399, are a tunnel. Zeek has 8."""
    ignored_domains: Texts = dns_tunnel.IGNORED_DOMAINS
    """Registered domains that are asked many names for good reason (block lists, virus scanners), where a
    private or trusted resolver is asked."""


class BeaconItem(RuleItem):
    """nsp.beacon."""

    score: Annotated[float, Field(ge=0.1, le=1.3)] = beacon.SCORE
    """From which score on a destination is told. RITA's bands are 0.5, 0.7, 0.9 and 1; below 0.9 it is LOW
    here, then MEDIUM, above 1 (rare or new destinations only) or with all points of Elastic's HIGH."""
    window_s: Annotated[int, Field(ge=600, le=86_400)] = beacon.WINDOW_S
    """Over how long it is scored. Elastic has 6 hours; RITA, which looks once a day, 24. A beacon is told
    after a quarter of it at the earliest (RITA wants six filled bins of 24)."""
    ignored_ports: tuple[Port, ...] = beacon.IGNORED_PORTS
    """Ports of services that are asked at even times."""


class BindShellItem(RuleItem):
    """nsp.bind-shell."""

    within_s: Annotated[int, Field(ge=1, le=3600)] = bind_shell.WITHIN_S
    """How long after a connection a shell that begins is its shell. Elastic's rules have 5 seconds."""


class KubernetesApiItem(RuleItem):
    """nsp.kubernetes-api."""

    addresses: Texts = kubernetes_api.ADDRESSES
    """Addresses of the API, beside what kubernetes.default.svc is answered; the defaults are those of the
    usual distributions."""
    ports: tuple[Port, ...] = kubernetes_api.PORTS
    """Ports of the API."""


class LateralMovementItem(RuleItem):
    """nsp.lateral-movement."""

    admin_ports: tuple[Port, ...] = tuple(lateral_movement.ADMIN_PORTS)
    """Ports by which machines are administered."""


class DriftItem(RuleItem):
    """nsp.drift. Only for workloads that were learned."""

    ephemeral_ports: Annotated[int, Field(ge=1, le=65_536)] = drift.EPHEMERAL_PORTS
    """From this port on, listening is no behaviour: the kernel gives these to whoever wants any."""


_SILENCE = sensor_silence.SilenceLimits()


class SensorSilenceItem(RuleItem):
    """nsp.sensor-silence. Exclusions do not apply: no process is behind it."""

    silent_s: Annotated[int, Field(ge=10, le=86_400)] = _SILENCE.silent_s
    """Nothing from a node for so long, while others go on. Longer than the pauses of a quiet node."""
    lost_events: Annotated[int, Field(ge=1, le=1_000_000_000)] = _SILENCE.lost_events
    """Events that a sensor counted as lost within a minute."""
    lost_share: Annotated[float, Field(ge=0, le=1)] = _SILENCE.lost_share
    """And of all events of that minute."""


_SELF_TEST = self_test.SelfTestLimits()


class SelfTestItem(RuleItem):
    """nsp.self-test. Exclusions do not apply: no process is behind it."""

    missed_intervals: Annotated[int, Field(ge=2, le=1000)] = _SELF_TEST.missed_intervals
    """A node that tested itself and has not for so many of its intervals, while it goes on sending."""
    repeat_s: Annotated[int, Field(ge=0, le=604_800)] = _SELF_TEST.repeat_s
    """The same of a node is told once within so long; each test is counted."""


class StatefulDetect(Section):
    """The detectors that look at all events and remember."""

    metadata_service: MetadataServiceItem = Field(default=MetadataServiceItem(), alias="nsp.metadata-service")
    """An unexpected process asks the cloud's metadata service."""
    mining: MiningItem = Field(default=MiningItem(), alias="nsp.mining")
    """A program mines for a pool."""
    dropped_program: DroppedProgramItem = Field(default=DroppedProgramItem(), alias="nsp.dropped-program")
    """A program that nobody installed uses the network."""
    unresolved_address: UnresolvedAddressItem = Field(
        default=UnresolvedAddressItem(), alias="nsp.unresolved-address"
    )
    """A connection to an address that no name server gave."""
    port_scan: PortScanItem = Field(default=PortScanItem(), alias="nsp.port-scan")
    """A workload looks for open ports."""
    dns_tunnel: DnsTunnelItem = Field(default=DnsTunnelItem(), alias="nsp.dns-tunnel")
    """A workload carries data in DNS questions."""
    beacon: BeaconItem = Field(default=BeaconItem(), alias="nsp.beacon")
    """A program calls outside at even times."""
    bind_shell: BindShellItem = Field(default=BindShellItem(), alias="nsp.bind-shell")
    """A shell begins for whoever connected."""
    kubernetes_api: KubernetesApiItem = Field(default=KubernetesApiItem(), alias="nsp.kubernetes-api")
    """An unexpected process talks to the Kubernetes API."""
    lateral_movement: LateralMovementItem = Field(default=LateralMovementItem(), alias="nsp.lateral-movement")
    """A process reaches for another workload."""
    drift: DriftItem = Field(default=DriftItem(), alias="nsp.drift")
    """A workload does what it never did while it was learned."""
    sensor_silence: SensorSilenceItem = Field(default=SensorSilenceItem(), alias="nsp.sensor-silence")
    """A node is not, or not fully, seen."""
    self_test: SelfTestItem = Field(default=SelfTestItem(), alias="nsp.self-test")
    """A sensor does not see, or not refuse, what it did itself."""
