# SPDX-License-Identifier: Apache-2.0
"""All detectors, and the exclusions each comes with.

Input: the ``detect`` section of the configuration. Output: the detectors that run. A new detector is entered
in :func:`build_detectors` and gets a field in ``stream_apps.config.sections.Detect``.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from stream_apps.detect import (
    arp_spoofing,
    dns_trace,
    enforcement_refused,
    profile_violation,
    rce_egress,
    reverse_shell,
)
from stream_apps.detect.exclusions import Exclusion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_apps.config.basis import ExclusionItem, RuleItem
    from stream_apps.config.sections import Detect
    from stream_apps.detect.rule import Detector
    from stream_apps.profiles.desk import ProfileDesk

_NS_PER_S: Final = 1_000_000_000
RULE_IDS: Final = (
    rce_egress.RULE.id,
    reverse_shell.RULE.id,
    arp_spoofing.RULE.id,
    profile_violation.RULE.id,
    dns_trace.RULE.id,
    enforcement_refused.RULE.id,
)

RCE_EGRESS_DEFAULTS: Final = (
    Exclusion(
        reason="package managers fetch packages; management services start them",
        actors=(
            "/usr/lib/apt/methods/*", "/usr/bin/apt", "/usr/bin/apt-get", "/usr/bin/dpkg", "/usr/bin/rpm",
            "/sbin/apk", "/usr/bin/dnf5", "/usr/bin/microdnf", "/usr/bin/zypper", "/usr/bin/pacman",
        ),
    ),
)  # fmt: skip
REVERSE_SHELL_DEFAULTS: Final = (
    Exclusion(
        reason="inetd and login services hand the client's connection to what they start, by design",
        launchers=(
            "*/inetd", "*/inetd.openbsd", "*/xinetd", "*/tcpd", "*/tcpsvd", "*/tcpserver", "*/systemd",
            "*/sshd",
            "*/sshd-session", "*/in.telnetd", "*/telnetd", "*/in.rshd", "*/in.rlogind", "*/login",
            "*/dropbear",
            "*/s6-tcpserver*", "*/rshd",
        ),
    ),
)  # fmt: skip


def build_detectors(config: Detect, profiles: ProfileDesk) -> list[Detector]:
    """The detectors a configuration wants, in the order in which they judge an event."""
    found: list[Detector] = []
    item = config.rce_egress
    if item.enabled:
        severity = item.severity or rce_egress.RULE.severity
        found.append(rce_egress.RceEgress(exclusions_of(item, RCE_EGRESS_DEFAULTS), severity))
    item = config.reverse_shell
    if item.enabled:
        severity = item.severity or reverse_shell.RULE.severity
        found.append(reverse_shell.ReverseShell(exclusions_of(item, REVERSE_SHELL_DEFAULTS), severity))
    item = config.arp_spoofing
    if item.enabled:
        severity = item.severity or arp_spoofing.RULE.severity
        found.append(arp_spoofing.ArpSpoofing(exclusions_of(item, ()), severity))
    item = config.profile_violation
    if item.enabled:
        severity = item.severity or profile_violation.RULE.severity
        window_ns = config.repeat_after_s * _NS_PER_S
        exclusions = exclusions_of(item, ())
        found.append(profile_violation.ProfileViolation(profiles, exclusions, severity, window_ns))
    item = config.dns_trace
    if item.enabled:
        severity = item.severity or dns_trace.RULE.severity
        found.append(dns_trace.DnsTrace(profiles, exclusions_of(item, ()), severity))
    item = config.enforcement_refused
    if item.enabled:
        found.append(
            enforcement_refused.EnforcementRefused(item.severity or enforcement_refused.RULE.severity)
        )
    return found


def exclusions_of(item: RuleItem, defaults: Sequence[Exclusion]) -> list[Exclusion]:
    """A rule's exclusions: those it comes with, unless they are switched off, and a person's own."""
    own = [exclusion_of(each) for each in item.exclusions]
    return [*defaults, *own] if item.default_exclusions else own


def exclusion_of(item: ExclusionItem) -> Exclusion:
    """An exclusion as it is matched."""
    return Exclusion(
        reason=item.reason,
        services=item.services,
        actors=item.actors,
        launchers=item.launchers,
        argv_prefix=item.argv_prefix,
        workloads=item.workloads,
        namespaces=item.namespaces,
        labels=tuple(item.labels.items()),
        destinations=tuple(ip_network(each, strict=False) for each in item.destinations),
        dns_names=item.dns_names,
    )
