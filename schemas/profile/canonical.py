# SPDX-License-Identifier: Apache-2.0
"""Between a validated profile and the ``SecurityProfile`` record that Kafka carries. Pure.

The record is canonical: sorted, without duplicates, ports merged. Two documents that mean the same give the
same record, but for the generation; :func:`to_document` gives a document that gives the record again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from schemas.profile import values
from schemas.profile.model import API_VERSION, KIND, L4, L7, Egress, Ingress, Network, Profile
from schemas.profile.selection import HOST_NAMESPACE, Selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schemas.profile.model import Icmp, Icmpv6
    from schemas.profile.selection import ServiceSection

_STRICTNESS: Final = ("ignore", "alert", "enforce")
_OPERATORS: Final = {"In": "IN", "NotIn": "NOT_IN", "Exists": "EXISTS", "DoesNotExist": "DOES_NOT_EXIST"}
_SECOND_NS: Final = 1_000_000_000
_ICMP, _ICMPV6 = 1, 58
_EMPTY: Final[Mapping[str, Any]] = {"match_labels": {}, "match_expressions": []}


def to_record(profile: Profile, generation: int) -> dict[str, Any]:
    """The record of a profile.

    Args:
        profile: Validated.
        generation: Wall ns of the apply; grows with each change.
    """
    spec, metadata = profile.spec, profile.metadata
    node_scope = spec.scope == "Node"
    given = spec.selector or spec.label_selector
    labels = Selector.model_validate({"matchLabels": metadata.labels})
    return {
        "namespace": HOST_NAMESPACE if node_scope else metadata.namespace,
        "name": metadata.name,
        "generation": generation,
        "scope": "NODE" if node_scope else "POD",
        "pod_selector": dict(_EMPTY) if node_scope else _selector(given or labels),
        "node_selector": _selector(spec.node_selector),
        "services": _services(spec.services),
        "mode": max(
            (each for each in spec.actions if each != "trace-dns"), key=_STRICTNESS.index, default="ignore"
        ).upper(),
        "trace_dns": "trace-dns" in spec.actions,
        "dry_run": spec.dry_run,
        "arp_spoofing": "arp-spoofing" in spec.attacks,
        "expires_at_ns": int(spec.expires_at or 0),
        "canary_for_ns": int(spec.canary_for or 0),
        "resolvers": sorted(set(spec.resolvers)),
        "default": _network(spec.default.rules()) if spec.default else None,
        "processes": [
            {
                "path": each.path,
                "script": each.script,
                "mode": each.action.upper() if each.action else None,
                "network": _network(each.network),
            }
            for each in sorted(spec.processes, key=lambda each: (each.path, each.script))
        ],
    }


def _services(given: Iterable[ServiceSection]) -> list[dict[str, str]]:
    found = {(each.unit, each.cgroup_path, each.executable) for each in given}
    return [
        {"unit": unit, "cgroup_path": path, "executable": executable}
        for path, executable, unit in sorted((path, executable, unit) for unit, path, executable in found)
    ]


def _selector(selector: Selector) -> dict[str, Any]:
    expressions = [
        {"key": each.key, "operator": _OPERATORS[each.operator], "values": sorted(set(each.values))}
        for each in selector.match_expressions
    ]
    return {
        "match_labels": dict(sorted(selector.match_labels.items())),
        "match_expressions": sorted(
            expressions, key=lambda each: (each["key"], each["operator"], each["values"])
        ),
    }


def _network(network: Network) -> dict[str, Any]:
    return {
        "raw_sockets": network.raw_sockets == "allow",
        "egress": _traffic(network.egress) if network.egress else None,
        "ingress": _traffic(network.ingress) if network.ingress else None,
    }


def _traffic(rules: Egress | Ingress) -> dict[str, Any]:
    return {
        "names": sorted(set(rules.fqdns)) if isinstance(rules, Egress) else [],
        "cidrs": [*_sorted_networks(rules.cidr4), *_sorted_networks(rules.cidr6)],
        "l3": sorted({each.upper() for each in rules.l3.protocols}) if rules.l3 else None,
        "l4": _l4(rules.l4) if rules.l4 else None,
        "l7": _l7(rules.l7) if rules.l7 else None,
    }


def _sorted_networks(cidrs: Iterable[str]) -> list[str]:
    return sorted(set(cidrs), key=lambda each: ((found := ip_network(each)).network_address, found.prefixlen))


def _l4(rules: L4) -> dict[str, Any]:
    ranges: dict[int, list[tuple[int, int]]] = {}
    for each in rules.protocol_ports:
        ranges.setdefault(int(each.protocol), []).extend(each.ranges())
    return {
        "protocols": sorted({int(each) for each in rules.protocols}),
        "ports": [
            {"protocol": protocol, "first": first, "last": last}
            for protocol, given in sorted(ranges.items())
            for first, last in _merged(given)
        ],
        "icmp": [*_icmp(rules.icmp, _ICMP), *_icmp(rules.icmpv6, _ICMPV6)],
    }


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged


def _icmp(given: Iterable[Icmp | Icmpv6], protocol: int) -> list[dict[str, int]]:
    found = {(int(each.type), -1 if each.code is None else each.code) for each in given}
    return [{"protocol": protocol, "type": kind, "code": code} for kind, code in sorted(found)]


def _l7(rules: L7) -> dict[str, Any]:
    requests = {(each.method if each.method != "*" else "", each.uri) for each in rules.http}
    return {
        "protocols": None if rules.protocols is None else sorted({each.upper() for each in rules.protocols}),
        "dns": sorted(set(rules.dns)),
        "http": [{"method": method, "uri": uri} for method, uri in sorted(requests)],
        "sni": sorted(set(rules.tls.sni)),
        "opaque": rules.opaque == "allow",
    }


def to_document(record: Mapping[str, Any]) -> dict[str, Any]:
    """A document of which :func:`to_record` makes the record again, but for the generation."""
    node_scope = record["scope"] == "NODE"
    actions = [record["mode"].lower(), *(["trace-dns"] if record["trace_dns"] else [])]
    spec: dict[str, Any] = {"actions": actions}
    if node_scope:
        services = [_without_empty({
            "unit": each["unit"], "cgroupPath": each["cgroup_path"], "executable": each["executable"],
        }) for each in record["services"]]  # fmt: skip
        spec |= {
            "scope": "Node",
            "nodeSelector": _selector_document(record["node_selector"]),
            "services": services,
        }
    else:
        spec["selector"] = _selector_document(record["pod_selector"])
    if record["arp_spoofing"]:
        spec["attacks"] = ["arp-spoofing"]
    if record["dry_run"]:
        spec["dryRun"] = True
    if record["canary_for_ns"]:
        spec["canaryFor"] = values.duration_text(record["canary_for_ns"])
    if record["expires_at_ns"]:
        moment = datetime.fromtimestamp(record["expires_at_ns"] // _SECOND_NS, UTC)
        spec["expiresAt"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    if record["resolvers"]:
        spec["resolvers"] = list(record["resolvers"])
    if record["default"] is not None:
        spec["default"] = {"network": _network_document(record["default"])}
    if record["processes"]:
        spec["processes"] = [_process_document(each) for each in record["processes"]]
    metadata = (
        {"name": record["name"]} if node_scope else {"name": record["name"], "namespace": record["namespace"]}
    )
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _process_document(process: Mapping[str, Any]) -> dict[str, Any]:
    document = {"path": process["path"], "network": _network_document(process["network"])}
    if process["script"]:
        document["script"] = process["script"]
    if process["mode"]:
        document["action"] = process["mode"].lower()
    return document


def _selector_document(selector: Mapping[str, Any]) -> dict[str, Any]:
    names = {record: written for written, record in _OPERATORS.items()}
    expressions = [
        {
            "key": each["key"],
            "operator": names[each["operator"]],
            **({"values": each["values"]} if each["values"] else {}),
        }
        for each in selector["match_expressions"]
    ]
    return _without_empty({"matchLabels": dict(selector["match_labels"]), "matchExpressions": expressions})


def _network_document(network: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {"rawSockets": "allow"} if network["raw_sockets"] else {}
    for direction in ("egress", "ingress"):
        if network[direction] is not None:
            document[direction] = _traffic_document(network[direction])
    return document


def _traffic_document(rules: Mapping[str, Any]) -> dict[str, Any]:
    document = _without_empty(
        {
            "fqdns": list(rules["names"]),
            "cidr4": [each for each in rules["cidrs"] if ":" not in each],
            "cidr6": [each for each in rules["cidrs"] if ":" in each],
        }
    )
    if rules["l3"] is not None:
        document["l3"] = {"protocols": [each.lower() for each in rules["l3"]]}
    if rules["l4"] is not None:
        document["l4"] = _l4_document(rules["l4"])
    if rules["l7"] is not None:
        document["l7"] = _l7_document(rules["l7"])
    return document


def _l4_document(rules: Mapping[str, Any]) -> dict[str, Any]:
    names = {number: name for name, number in values.PROTOCOLS.items()}
    ports: dict[int, list[Any]] = {}
    for each in rules["ports"]:
        first, last = each["first"], each["last"]
        ports.setdefault(each["protocol"], []).append(first if first == last else f"{first}-{last}")
    document: dict[str, Any] = _without_empty(
        {
            "protocols": [names.get(each, each) for each in rules["protocols"]],
            "protocolPorts": [
                {"protocol": names.get(protocol, protocol), "ports": given}
                for protocol, given in ports.items()
            ],
        }
    )
    for name, protocol in (("icmp", _ICMP), ("icmpv6", _ICMPV6)):
        given = [each for each in rules["icmp"] if each["protocol"] == protocol]
        if given:
            document[name] = [
                {"type": each["type"], **({"code": each["code"]} if each["code"] >= 0 else {})}
                for each in given
            ]
    return document


def _l7_document(rules: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if rules["protocols"] is not None:
        document["protocols"] = [each.lower() for each in rules["protocols"]]
    document |= _without_empty(
        {
            "dns": list(rules["dns"]),
            "http": [{"method": each["method"] or "*", "uri": each["uri"]} for each in rules["http"]],
            "tls": {"sni": list(rules["sni"])} if rules["sni"] else {},
        }
    )
    return document | {"opaque": "allow"} if rules["opaque"] else document


def _without_empty(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value}
