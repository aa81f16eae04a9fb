# SPDX-License-Identifier: Apache-2.0
"""SecurityProfile records, written short; and random ones, small enough to collide with random flows."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58

NAMES = st.sampled_from(
    ["example.com", "www.example.com", "a.www.example.com", "example.org", "com", "b.com", "xample.com"]
)
NAME_RULES = st.one_of(NAMES, NAMES.map("*.{}".format), st.just("*"))
ADDRESSES = st.sampled_from(
    ["10.0.0.1", "10.0.0.2", "10.1.2.3", "192.0.2.7", "2001:db8::1", "2001:db8:1::1", "fe80::1", "::2"]
)
PORTS = st.sampled_from([0, 22, 53, 80, 443, 8080, 8443, 65535])
PROTOCOLS = st.sampled_from([ICMP, TCP, UDP, ICMPV6, 132])
URIS = st.sampled_from(["/", "/a", "/a/b", "/a?x=1", "/*", "/a*", "*"])


def random_policies(usual: int) -> settings:
    """So many random policies, the same ones in each run; NSP_RANDOM_POLICIES=2000 for a long run.

    The answer names what differs; smaller policies would take minutes to find.
    """
    return settings(
        max_examples=int(os.environ.get("NSP_RANDOM_POLICIES", usual)),
        deadline=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def cidrs() -> st.SearchStrategy[str]:
    """An address with any prefix length that it has; host bits may be set."""

    def cut(address: str) -> st.SearchStrategy[str]:
        most = 128 if ":" in address else 32
        return st.integers(0, most).map(lambda bits: f"{address}/{bits}")

    return ADDRESSES.flatmap(cut)


@st.composite
def port_ranges(draw: st.DrawFn) -> dict[str, int]:
    """A range between two ports."""
    first, last = sorted((draw(PORTS), draw(PORTS)))
    return {"protocol": draw(PROTOCOLS), "first": first, "last": last}


def lists(of: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    """A few of something."""
    return st.lists(of, max_size=most)


def l4() -> st.SearchStrategy[dict[str, Any]]:
    """L4Rules."""
    codes = st.sampled_from([-1, 0, 3])
    icmp = st.fixed_dictionaries(
        {"protocol": st.just(ICMP), "type": st.sampled_from([0, 8]), "code": codes}
    ) | st.fixed_dictionaries(
        {"protocol": st.just(ICMPV6), "type": st.sampled_from([128, 129]), "code": codes}
    )
    return st.fixed_dictionaries(
        {"protocols": lists(PROTOCOLS, 2), "ports": lists(port_ranges()), "icmp": lists(icmp, 2)}
    )


def l7(*, names: bool) -> st.SearchStrategy[dict[str, Any]]:
    """L7Rules; only those of egress have names."""
    request = st.fixed_dictionaries({"method": st.sampled_from(["", "GET", "POST"]), "uri": URIS})
    protocols = st.none() | lists(st.sampled_from(["DNS", "HTTP", "HTTPS"]))
    return st.fixed_dictionaries(
        {
            "protocols": protocols,
            "dns": lists(NAME_RULES) if names else st.just([]),
            "http": lists(request),
            "sni": lists(NAME_RULES) if names else st.just([]),
            "opaque": st.booleans(),
        }
    )


def traffic(*, names: bool) -> st.SearchStrategy[dict[str, Any] | None]:
    """TrafficRules or nothing."""
    return st.none() | st.fixed_dictionaries(
        {
            "names": lists(NAME_RULES) if names else st.just([]),
            "cidrs": lists(cidrs()),
            "l3": st.none() | lists(st.sampled_from(["IPV4", "IPV6", "ARP"])),
            "l4": st.none() | l4(),
            "l7": st.none() | l7(names=names),
        }
    )


def networks() -> st.SearchStrategy[dict[str, Any]]:
    """NetworkRules."""
    return st.fixed_dictionaries(
        {"raw_sockets": st.booleans(), "egress": traffic(names=True), "ingress": traffic(names=False)}
    )


def rules(
    *cidrs_given: str,
    names: tuple[str, ...] = (),
    ports: tuple[tuple[int, int, int], ...] | None = None,
    l7_given: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """TrafficRules; ports are (protocol, first, last)."""
    layer4 = None
    if ports is not None:
        ranges = [{"protocol": number, "first": first, "last": last} for number, first, last in ports]
        layer4 = {"protocols": [], "ports": ranges, "icmp": []}
    return {"names": list(names), "cidrs": list(cidrs_given), "l3": None, "l4": layer4, "l7": l7_given}


def application(*protocols: str, **given: Any) -> dict[str, Any]:
    """L7Rules; without protocols any."""
    empty = {"protocols": list(protocols) or None, "dns": [], "http": [], "sni": [], "opaque": False}
    return empty | given


def network(
    egress: dict[str, Any] | None = None, ingress: dict[str, Any] | None = None, *, raw_sockets: bool = False
) -> dict[str, Any]:
    """NetworkRules."""
    return {"raw_sockets": raw_sockets, "egress": egress, "ingress": ingress}


def process(
    path: str, given: dict[str, Any] | None = None, *, script: str = "", mode: str | None = None
) -> dict[str, Any]:
    """ProcessRules."""
    return {"path": path, "script": script, "mode": mode, "network": given or network()}


def service(unit: str = "", cgroup_path: str = "", executable: str = "") -> dict[str, str]:
    """ServiceSelector."""
    return {"unit": unit, "cgroup_path": cgroup_path, "executable": executable}


def profile(name: str = "web", **changed: Any) -> dict[str, Any]:
    """A SecurityProfile that lets nothing pass, and what is different about this one."""
    selector: dict[str, Any] = {"match_labels": {}, "match_expressions": []}
    record = {
        "namespace": "default",
        "name": name,
        "generation": 1,
        "scope": "POD",
        "pod_selector": selector,
        "node_selector": selector,
        "services": [],
        "mode": "ENFORCE",
        "trace_dns": False,
        "dry_run": False,
        "arp_spoofing": False,
        "expires_at_ns": 0,
        "canary_for_ns": 0,
        "resolvers": [],
        "default": None,
        "processes": [],
    }
    unknown = changed.keys() - record.keys()
    if unknown:
        raise ValueError(f"a profile has no {unknown}")
    return record | changed
