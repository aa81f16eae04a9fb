# SPDX-License-Identifier: Apache-2.0
"""The ``respond`` section of the stream apps' configuration, with what each field means.

Input of :mod:`stream_apps.config`, which reads the file. The descriptions are the documentation: they are in
the published JSON Schema, and editors show them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from stream_apps.config.basis import Network, Section, Text, Texts
from stream_apps.detect.rule import Severity
from stream_apps.respond.threat import ActionName

# Beyond these a limit is no limit any more.
_LONGEST_TTL_S: Final = 30 * 24 * 3600
# The sensor's share of one workload's kernel table (bpf/maps.h: NSP_MAX_QUARANTINE_ALLOWED).
_MOST_ALLOWED: Final = 64

Count = Annotated[int, Field(ge=1, le=10_000)]
PerMinute = Annotated[int, Field(ge=1, le=100_000)]


class ActionItem(Section):
    """One response."""

    action: ActionName
    """alert: nothing more. none: not even what other policies say. quarantine-process: the process tree below
    the service is off the network, the service lives on. block-destination: the workload cannot reach the
    address. quarantine-pod: the whole workload is off the network but for quarantine_pod.allow. kill: the
    process tree is quarantined at once, and ended by the sensor when nothing spoke against it for
    kill_after_s."""
    ttl_s: Annotated[int, Field(ge=1, le=_LONGEST_TTL_S)] = 3600
    """How long it lasts from the evidence on. Evidence older than this is recorded, not acted on."""


class DisarmerItem(Section):
    """How much is more than a person would believe."""

    max_workloads: Count = 20
    """More distinct workloads within the window disarm."""
    max_executables: Count = 20
    """More distinct executables of what would be cut disarm."""
    max_trees: Count = 300
    """More distinct process trees disarm."""
    window_s: Annotated[int, Field(ge=1, le=86_400)] = 60
    """The window. Armed again when it is empty: so long without an attempt."""
    new_for_s: Annotated[int, Field(ge=0, le=30 * 86_400)] = 0
    """A rule is new for so long after its first attempt since the process was started. A new rule that
    is disarmed is dismantled: it stays so until the configuration is loaded again, and is new again then. 0:
    no rule is new."""


class Doing(Section):
    """What is done, and how much of it."""

    actions: tuple[ActionItem, ...] = (ActionItem(action="quarantine-process"),)
    """What to do; the first is the one an alert names. Several may be given."""
    min_severity: Severity = "HIGH"
    """Below it, only an alert."""
    dry_run: bool = False
    """Only say what would be done."""
    approval: tuple[Literal["quarantine-process", "quarantine-pod", "block-destination", "kill"], ...] = ()
    """Actions that wait for a person (nsp responses pending, approve, reject)."""
    min_healthy_replicas: Annotated[int, Field(ge=0, le=1000)] = 0
    """quarantine-pod and kill leave at least so many healthy pods of the same owner; 0: do not look."""
    per_minute: PerMinute = 600
    """Responses a minute."""
    burst: PerMinute = 200
    """Responses at once."""

    @model_validator(mode="after")
    def _each_once(self) -> Doing:
        names = [each.action for each in self.actions]
        if len(set(names)) != len(names):
            raise ValueError("each action may be given once")
        if {"quarantine-process", "kill"} <= set(names):
            raise ValueError("kill quarantines the process first: give one of the two")
        unused = [each for each in self.approval if each not in names]
        if unused:
            raise ValueError(f"approval of {unused[0]}, which is not among the actions")
        return self


class RuleResponse(Doing):
    """What one rule may do where no policy says otherwise."""

    max_workloads_per_minute: Count = 20
    """More distinct workloads within a minute disarm the rule until a minute without an attempt."""
    max_trees_per_minute: Count = 300
    """More distinct process trees within a minute disarm the rule likewise."""


class PolicyItem(Doing):
    """What is done about the alerts it fits; of several, the first. All conditions given must hold."""

    name: Text
    """What alerts and nsp config explain call it."""
    rules: Texts = ("*",)
    """Patterns of rule ids, e.g. nsp.rce-egress or nsp.*."""
    severities: tuple[Severity, ...] = ()
    """Severities it is for; none: all."""
    namespaces: Texts = ()
    """Patterns of pod namespaces."""
    workloads: Texts = ()
    """Patterns of workload ids (pod uid, or host/<node>/<unit>)."""
    labels: dict[Text, Text] = Field(default_factory=dict)
    """Labels the pod must have; * is any value."""
    disarmer: DisarmerItem = DisarmerItem(new_for_s=3600)
    """When a rule that this policy lets act is disarmed; each rule is counted by itself."""


class NeverCutItem(Section):
    """What is never cut, whatever a rule says."""

    executables: Texts = (
        "*/sshd", "*/sshd-session", "*/kubelet", "*/containerd", "*/containerd-shim*", "*/dockerd", "*/crio",
        "*/conmon", "*/runc", "*/crun", "*/systemd", "*/systemd-*", "*/dbus-daemon", "*/init", "*/k3s",
    )  # fmt: skip
    """Patterns of executable paths, as the kernel walked them."""
    argv_prefixes: tuple[Texts, ...] = (("nsp", "sensor"),)
    """First arguments, for programs in an interpreter."""
    workloads: Texts = ("host/*/nsp-sensor.service",)
    """Patterns of workload ids: the sensor's own, beside yours."""
    namespaces: Texts = ("kube-system",)
    """Patterns of namespaces."""
    labels: dict[Text, Text] = Field(default_factory=lambda: {"app.kubernetes.io/name": "nsp-sensor"})
    """Pods with one of these labels; * is any value."""


class BlockingItem(Section):
    """How block-destination blocks."""

    whole_address: bool = True
    """All ports of an address, not only the one that was used."""
    never: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")
    """Networks that are never blocked: your resolvers, API server, broker, monitoring, service networks."""
    never_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (53,)
    """Destinations reached on these ports are never blocked: a resolver serves the whole workload."""


class AllowedItem(Section):
    """What a quarantined workload may still do."""

    network: Network
    """The remote end: a resolver, or the node's probes."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Remote port going out, local port coming in."""
    protocol: Literal["tcp", "udp"] = "tcp"
    """Of the flow."""
    direction: Literal["in", "out"] = "in"
    """Who opens it: the network (in, for probes) or the workload (out, for DNS)."""


class QuarantinePodItem(Section):
    """How quarantine-pod cuts."""

    allow: Annotated[tuple[AllowedItem, ...], Field(max_length=_MOST_ALLOWED)] = ()
    """What passes all the same, so that the pod is not restarted while somebody looks. A resolver on this
    list is also a way out for a DNS tunnel."""


class Respond(Section):
    """What is done about it."""

    dry_run: bool = True
    """Only say what would be done, for all rules. The default: nobody is cut before somebody says so."""
    policies: tuple[PolicyItem, ...] = ()
    """Who does what, where: the first that fits an alert decides. Where none fits, what is given for the rule
    below."""
    rce_egress: RuleResponse = Field(default=RuleResponse(), alias="nsp.rce-egress")
    """Response to nsp.rce-egress."""
    reverse_shell: RuleResponse = Field(default=RuleResponse(), alias="nsp.reverse-shell")
    """Response to nsp.reverse-shell."""
    never_cut: NeverCutItem = NeverCutItem()
    """What is never cut."""
    blocking: BlockingItem = BlockingItem()
    """How block-destination blocks."""
    quarantine_pod: QuarantinePodItem = QuarantinePodItem()
    """How quarantine-pod cuts."""
    kill_after_s: Annotated[int, Field(ge=0, le=3600)] = 5
    """How long a kill waits, with the tree off the network, for the disarmer to object."""
    approval_for_s: Annotated[int, Field(ge=1, le=86_400)] = 3600
    """How long a response waits for a person before it is given up."""
    fleet: DisarmerItem = DisarmerItem(max_workloads=100, max_executables=100, max_trees=1000)
    """The same over all rules together: beyond it no rule responds."""
    node_per_minute: PerMinute = 240
    """Responses a minute and node."""
    node_burst: PerMinute = 120
    """Responses at once and node."""

    @model_validator(mode="after")
    def _names_differ(self) -> Respond:
        names = [each.name for each in self.policies]
        if len(set(names)) != len(names):
            raise ValueError("two policies have the same name")
        return self
