# SPDX-License-Identifier: Apache-2.0
"""What a rule must not alert on: the conditions a person writes, and how they are matched.

All conditions of one exclusion must hold; any exclusion is enough. Conditions on processes and workloads are
matched once a batch and image, conditions on destinations at the event. A name counts only where a
configured resolver said it: else whoever runs a process and a name server could name his way out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.rule import Suspect
    from stream_apps.detect.scene import Scene

# Distinct lists of patterns; each exclusion has a few.
_COMPILED: Final = 1024


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One exclusion. An empty condition holds always. Patterns are shell patterns; ``*`` matches slashes too.

    Attributes:
        reason: Why, for people.
        services: Patterns of the service's executable path.
        actors: Patterns of the executable path of the process that acts.
        launchers: Patterns of the executable path of the process that started the tool.
        argv_prefix: First arguments of the actor.
        workloads: Patterns of the workload id.
        namespaces: Patterns of the pod's namespace.
        labels: Labels the pod must have.
        destinations: Networks.
        dns_names: Patterns of the name asked or behind the destination.
    """

    reason: str
    services: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    launchers: tuple[str, ...] = ()
    argv_prefix: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    destinations: tuple[IPv4Network | IPv6Network, ...] = ()
    dns_names: tuple[str, ...] = ()

    @property
    def depends_on_destination(self) -> bool:
        """Whether only the event can tell."""
        return bool(self.destinations or self.dns_names)

    def covers(self, scene: Scene, suspect: Suspect) -> bool:
        """Whether the conditions on processes and workload hold."""
        view = scene.view
        image = view.processes[suspect.actor]
        if not matches(self.actors, image["executable"]):
            return False
        if self.argv_prefix and tuple(image["argv"][: len(self.argv_prefix)]) != self.argv_prefix:
            return False
        if self.services and not (
            suspect.service and matches(self.services, view.processes[suspect.service]["executable"])
        ):
            return False
        if self.launchers and not self._launcher_matches(scene, suspect):
            return False
        return matches(self.workloads, view.workload_ids[suspect.actor]) and self._pod_matches(scene, suspect)

    def covers_destination(self, address: str | None, dns_name: str | None) -> bool:
        """Whether the conditions on the destination hold; ``dns_name`` is None unless a trusted one."""
        if self.destinations and not _in_networks(address, self.destinations):
            return False
        return not self.dns_names or (dns_name is not None and matches(self.dns_names, dns_name))

    def _launcher_matches(self, scene: Scene, suspect: Suspect) -> bool:
        launcher = scene.view.launcher(suspect.tool or suspect.actor)
        return launcher != 0 and matches(self.launchers, scene.view.processes[launcher]["executable"])

    def _pod_matches(self, scene: Scene, suspect: Suspect) -> bool:
        if not self.namespaces and not self.labels:
            return True
        pod = scene.pod(suspect.actor)
        return (
            pod is not None
            and matches(self.namespaces, pod.namespace)
            and has_labels(pod.labels, self.labels)
        )


def apply_exclusions(
    scene: Scene, suspect: Suspect, exclusions: Sequence[Exclusion]
) -> tuple[Exclusion, ...] | None:
    """Which exclusions remain to be judged by destination; None when one excludes the suspect altogether."""
    remaining = []
    for each in exclusions:
        if each.covers(scene, suspect):
            if not each.depends_on_destination:
                return None
            remaining.append(each)
    return tuple(remaining)


def matches(patterns: tuple[str, ...], text: str) -> bool:
    """Whether a text matches one of the patterns; without patterns, always."""
    return not patterns or _compiled(patterns).match(text) is not None


def has_labels(labels: Mapping[str, str], wanted: tuple[tuple[str, str], ...]) -> bool:
    """Whether all wanted labels are there; ``*`` is any value."""
    return all(key in labels and value in ("*", labels[key]) for key, value in wanted)


@lru_cache(maxsize=_COMPILED)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))


def _in_networks(address: str | None, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    if address is None:
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
