# SPDX-License-Identifier: Apache-2.0
"""What makes a record of ``nsp.profiles`` unusable, beside bytes that are no Avro. Pure.

``nsp apply`` publishes canonical records only; whoever else may write to the topic may not. What is wrong
here would be refused by every sensor one by one, or mean another thing than it says.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import SubjectError
from schemas.subject import ProfileSubject, parse_profile_subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Namespace of profiles of scope NODE.
HOST_NAMESPACE: Final = "host"
_MAX_PORT: Final = 65_535
_MAX_PROTOCOL: Final = 255


def problem(key: str, record: Mapping[str, Any]) -> str | None:
    """The first thing that is wrong with a profile, None when it can be used.

    Args:
        key: Key of its message.
        record: A decoded ``SecurityProfile``.
    """
    return next(_problems(key, record), None)


def _problems(key: str, record: Mapping[str, Any]) -> Iterator[str]:
    named = f"{record['namespace']}/{record['name']}"
    if key != named:
        yield f"the key says {key!r}, the profile is {named!r}"
    try:
        parse_profile_subject(str(ProfileSubject(record["namespace"], record["name"])))
    except SubjectError as error:
        yield str(error)
    if record["generation"] < 1:
        yield "a generation is above zero"
    if record["expires_at_ns"] < 0:
        yield "expires_at_ns is negative"
    if record["canary_for_ns"] < 0:
        yield "canary_for_ns is negative"
    yield from _scope_problems(record)
    for each in record["resolvers"]:
        if not _is_address(each):
            yield f"resolvers: {each!r} is no address"
    for place, network in _networks(record):
        yield from _network_problems(place, network)


def _scope_problems(record: Mapping[str, Any]) -> Iterator[str]:
    services = record["services"]
    if record["scope"] == "POD":
        if services:
            yield "a profile of scope POD selects no services"
        if record["namespace"] == HOST_NAMESPACE:
            yield f"a profile of scope POD is not in namespace {HOST_NAMESPACE}"
        return
    if record["namespace"] != HOST_NAMESPACE:
        yield f"a profile of scope NODE is in namespace {HOST_NAMESPACE}"
    if not services:
        yield "a profile of scope NODE selects services"
    for number, each in enumerate(services):
        if sum(map(bool, (each["unit"], each["cgroup_path"], each["executable"]))) != 1:
            yield f"services[{number}]: one of unit, cgroup_path and executable is given"


def _networks(record: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if record["default"] is not None:
        yield "default", record["default"]
    for number, process in enumerate(record["processes"]):
        if not process["path"].startswith("/"):
            yield f"processes[{number}].path {process['path']!r}", {}
            continue
        yield f"processes[{number}]", process["network"]


def _network_problems(place: str, network: Mapping[str, Any]) -> Iterator[str]:
    if not network:
        yield f"{place} is no absolute path"
        return
    for way in ("egress", "ingress"):
        rules = network[way]
        if rules is None:
            continue
        for each in rules["cidrs"]:
            if not _is_network(each):
                yield f"{place}.{way}: {each!r} is no CIDR without host bits"
        for each in rules["names"]:
            if each != each.lower() or each.endswith("."):
                yield f"{place}.{way}: the name {each!r} is not canonical"
        yield from _port_problems(f"{place}.{way}", rules["l4"])


def _port_problems(place: str, l4: Mapping[str, Any] | None) -> Iterator[str]:
    for each in l4["ports"] if l4 else ():
        if not 0 <= each["first"] <= each["last"] <= _MAX_PORT or not 0 <= each["protocol"] <= _MAX_PROTOCOL:
            yield f"{place}: no range of ports: {each['protocol']}:{each['first']}-{each['last']}"


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
