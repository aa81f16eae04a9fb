# SPDX-License-Identifier: Apache-2.0
"""A SecurityProfile as people write it: the fields, what each may be, and what belongs together.

The document is checked as JSON would be: numbers are numbers, text is text, and what is not known is refused.
Values are canonical after validation (values.py). The fields of the 2020 probe have its spelling, also where
it had two; docs/profiles.md says what each means.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.profile import values
from schemas.profile.selection import HOST_NAMESPACE, Metadata, Section, Selector, ServiceSection

API_VERSION: Final = "nsp.security/v1alpha1"
KIND: Final = "SecurityProfile"

# Beyond this a profile fits no message, and no node should spend so much on one program.
MAX_RULES: Final = 300_000
MAX_PROCESSES: Final = 512
MAX_HTTP_RULES: Final = 10_000


def _cidr4(text: str) -> str:
    return values.network(text, 4)


def _cidr6(text: str) -> str:
    return values.network(text, 6)


def _one_port(number: int) -> int:
    return values.port_range(number)[0]


def _icmp_type(value: str | int) -> int:
    return values.icmp_type(value, 4)


def _icmpv6_type(value: str | int) -> int:
    return values.icmp_type(value, 6)


Name = Annotated[str, AfterValidator(values.domain_name)]
Cidr4 = Annotated[str, AfterValidator(_cidr4)]
Cidr6 = Annotated[str, AfterValidator(_cidr6)]
Protocol = Annotated[str | int, AfterValidator(values.protocol_number)]
ProgramPath = Annotated[str, AfterValidator(values.program_path)]
Permission = Literal["allow", "deny"]
Action = Literal["ignore", "alert", "enforce"]


class L3(Section):
    """``l3``."""

    protocols: list[Literal["ipv4", "ipv6", "arp"]]


class ProtocolPorts(Section):
    """One of ``l4.protocolPorts``; ``port`` as the 2020 probe has it, or ``ports``."""

    protocol: Protocol
    port: Annotated[int, AfterValidator(_one_port)] | None = None
    ports: list[Annotated[int | str, AfterValidator(values.port_range)]] = []

    @model_validator(mode="after")
    def _has_ports(self) -> Self:
        if self.protocol not in values.WITH_PORTS:
            raise ValueError("this protocol has no ports; list it in l4.protocols instead")
        if (self.port is None) == (not self.ports):
            raise ValueError("give port, or ports, and not both")
        return self

    def ranges(self) -> list[tuple[int, int]]:
        """First and last port of each."""
        # After validation the elements are pairs.
        pairs: Any = self.ports
        return [(self.port, self.port)] if self.port is not None else list(pairs)


class Icmp(Section):
    """One of ``l4.icmp``."""

    type: Annotated[str | int, AfterValidator(_icmp_type)]
    code: Annotated[int, Field(ge=0, le=255)] | None = None


class Icmpv6(Section):
    """One of ``l4.icmpv6``."""

    type: Annotated[str | int, AfterValidator(_icmpv6_type)]
    code: Annotated[int, Field(ge=0, le=255)] | None = None


class L4(Section):
    """``l4``: what is in one of its lists passes."""

    protocols: list[Protocol] = []
    protocol_ports: list[ProtocolPorts] = []
    icmp: list[Icmp] = []
    icmpv6: list[Icmpv6] = []


class Http(Section):
    """One of ``l7.http``."""

    method: Annotated[str, AfterValidator(values.http_method)] = "*"
    uri: Annotated[str, AfterValidator(values.http_uri)]


class Tls(Section):
    """``l7.tls``."""

    sni: list[Name] = []


class L7(Section):
    """``l7``."""

    protocols: list[Literal["dns", "http", "https"]] | None = None
    dns: list[Name] = []
    http: Annotated[list[Http], Field(max_length=MAX_HTTP_RULES)] = []
    tls: Tls = Tls()
    opaque: Permission = "deny"

    @model_validator(mode="after")
    def _rules_are_of_listed_protocols(self) -> Self:
        rules = {"dns": self.dns, "http": self.http, "https": self.tls.sni}
        for protocol, given in rules.items():
            if given and self.protocols is not None and protocol not in self.protocols:
                raise ValueError(f"there are rules for {protocol}, and protocols does not list it; add it")
        return self


class Egress(Section):
    """``egress``."""

    fqdns: list[Name] = []
    cidr4: list[Cidr4] = []
    cidr6: list[Cidr6] = []
    l3: L3 | None = None
    l4: L4 | None = None
    l7: L7 | None = None


class Ingress(Section):
    """``ingress``: as ``egress``, without names."""

    cidr4: list[Cidr4] = []
    cidr6: list[Cidr6] = []
    l3: L3 | None = None
    l4: L4 | None = None
    l7: L7 | None = None

    @model_validator(mode="after")
    def _asks_nothing(self) -> Self:
        if self.l7 and self.l7.dns:
            raise ValueError("l7.dns is for names that are asked, which go out; put it into egress")
        return self


class Network(Section):
    """``network``."""

    egress: Egress | None = None
    ingress: Ingress | None = None
    raw_sockets: Permission = "deny"


class Default(Network):
    """``default``: with ``network``, or as the 2020 probe's examples have it, without that level."""

    network: Network | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.network and (self.egress or self.ingress):
            raise ValueError("give network, or egress and ingress themselves, and not both")
        return self

    def rules(self) -> Network:
        """The rules, wherever they were."""
        return self.network or self


class Process(Section):
    """One of ``processes``."""

    path: ProgramPath
    script: Annotated[str, AfterValidator(lambda text: text and values.program_path(text))] = ""
    action: Action | None = None
    network: Network


class Spec(Section):
    """``spec``."""

    actions: Annotated[list[Literal["ignore", "alert", "enforce", "trace-dns"]], Field(min_length=1)]
    attacks: list[Literal["arp-spoofing"]] = []
    processes: Annotated[list[Process], Field(max_length=MAX_PROCESSES)] = []
    default: Default | None = None
    selector: Selector | None = None
    label_selector: Selector | None = None
    scope: Literal["Pod", "Node"] = "Pod"
    node_selector: Selector = Selector()
    services: list[ServiceSection] = []
    resolvers: Annotated[list[Annotated[str, AfterValidator(values.address)]], Field(max_length=8)] = []
    dry_run: bool = False
    canary_for: Annotated[str, AfterValidator(lambda text: text and str(values.duration_ns(text)))] = ""
    expires_at: Annotated[str, AfterValidator(lambda text: text and str(values.wall_ns(text)))] = ""

    @model_validator(mode="after")
    def _selects_what_its_scope_has(self) -> Self:
        if self.scope == "Node":
            if self.selector or self.label_selector:
                raise ValueError("scope Node selects host services; use nodeSelector and services")
            if not self.services:
                raise ValueError("scope Node without services selects nothing; add spec.services")
        elif self.services or self.node_selector != Selector():
            raise ValueError("services and nodeSelector are for scope: Node; remove them, or set it")
        if self.selector and self.label_selector:
            raise ValueError("selector and labelSelector are the same; keep selector")
        return self

    @model_validator(mode="after")
    def _has_something_to_try(self) -> Self:
        modes = {*self.actions, *(each.action for each in self.processes)}
        if self.canary_for and self.dry_run:
            raise ValueError("canaryFor enforces by itself when it is over, and dryRun never; keep one")
        if self.canary_for and "enforce" not in modes:
            raise ValueError(
                "canaryFor is for what is enforced afterwards; add enforce to actions, or remove it"
            )
        return self

    @model_validator(mode="after")
    def _names_each_program_once(self) -> Self:
        seen: set[tuple[str, str]] = set()
        for each in self.processes:
            if (each.path, each.script) in seen:
                raise ValueError(f"{values.shown(each.path)} has rules twice; put them into one entry")
            seen.add((each.path, each.script))
        return self


class Profile(Section):
    """The document."""

    api_version: Literal["nsp.security/v1alpha1"]
    kind: Literal["SecurityProfile"]
    metadata: Metadata
    spec: Spec

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        spec = self.spec
        if spec.scope == "Pod" and self.metadata.namespace == HOST_NAMESPACE:
            raise ValueError(
                f"profiles of nodes are kept as {HOST_NAMESPACE}/NAME, so pods of a namespace of that name "
                "can have none; give scope: Node, or another metadata.namespace"
            )
        if spec.scope == "Pod" and not (spec.selector or spec.label_selector or self.metadata.labels):
            raise ValueError(
                "it selects no pod; give spec.selector, or metadata.labels (selector: {} is every pod of the "
                "namespace)"
            )
        return self
