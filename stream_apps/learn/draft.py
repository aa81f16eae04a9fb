# SPDX-License-Identifier: Apache-2.0
"""A SecurityProfile of what was learned, with the evidence for each of its rules. Pure.

Input: a merged workload and what is to be drafted. Output: a :class:`Draft`: the document as
``schemas.profile`` writes it, and notes by place in it. It allows what was learned and no more: nothing of
tools that are never learned, nothing forbidden, nothing that came after the workload was stable unless it is
asked for. Failure: :class:`DraftError`, when no profile can select the workload.

A rule set of a program allows each of its addresses on each of its ports; that is how profiles are. Names
that were asked for are listed with those that were reached: a question that is refused makes a resolver look
broken, and a name without an address is no way out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING, Any, Final, Literal

from schemas.profile.canonical import to_document, to_record
from schemas.profile.model import API_VERSION, KIND, MAX_PROCESSES, Profile
from schemas.profile.values import PROTOCOLS, WITH_PORTS, program_path, shown
from stream_apps.errors import StreamAppError
from stream_apps.learn.evidence import deed, evidence, moment, number
from stream_apps.learn.folding import network

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_apps.learn.behaviour import Behaviour, Key
    from stream_apps.learn.completeness import Verdict
    from stream_apps.learn.merged import Merged

Place = tuple[str, ...]
IpNetwork = IPv4Network | IPv6Network
_DNS_PORT: Final = 53
_MAX_RESOLVERS: Final = 8
# Of what is not in the draft; the whole list is in `nsp learn WORKLOAD -o json`.
_LISTED: Final = 20
# Networks of one program and direction that are told one by one, each with its evidence.
_READABLE: Final = 16
_PROTOCOL_NAMES: Final = {number: name for name, number in PROTOCOLS.items()}
_NO_NAME: Final = re.compile(r"[^a-z0-9.-]+")


class DraftError(StreamAppError):
    """No profile can be drafted of a workload; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be drafted.

    Attributes:
        action: ``alert`` or ``enforce``.
        dry_run: Nothing is refused, what would be is reported.
        with_drift: Also what came after the workload was stable.
        resolvers: Networks of DNS servers that are trusted: they are named as such, not as destinations.
        forbidden: Networks that no rule may hold.
    """

    action: Literal["alert", "enforce"] = "alert"
    dry_run: bool = True
    with_drift: bool = False
    resolvers: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A drafted profile.

    Attributes:
        document: As ``schemas.profile`` writes it.
        header: Lines above it.
        notes: Evidence by place in the document; a list's element is named by its value.
    """

    document: dict[str, Any]
    header: tuple[str, ...]
    notes: Mapping[Place, str]


@dataclass(slots=True)
class _Direction:
    """Rules of one program and direction, each with its evidence."""

    names: dict[str, Behaviour] = field(default_factory=dict)
    cidrs: dict[IpNetwork, Behaviour] = field(default_factory=dict)
    ports: dict[tuple[int, int, int], Behaviour] = field(default_factory=dict)
    protocols: dict[int, Behaviour] = field(default_factory=dict)

    def document(self) -> dict[str, Any] | None:
        """As a profile has it; None without a rule."""
        if not (self.names or self.cidrs or self.ports or self.protocols):
            return None
        ports: dict[int, list[str]] = {}
        for protocol, first, last in sorted(self.ports):
            ports.setdefault(protocol, []).append(f"{first}-{last}")
        l4 = {
            "protocols": sorted(self.protocols),
            "protocolPorts": [{"protocol": number, "ports": given} for number, given in ports.items()],
        }
        return {
            "fqdns": sorted(self.names),
            "cidr4": [str(each) for each in self.cidrs if each.version == 4],  # noqa: PLR2004 - IP versions
            "cidr6": [str(each) for each in self.cidrs if each.version == 6],  # noqa: PLR2004 - same
            **({"l4": l4} if self.ports or self.protocols else {}),
        }


@dataclass(slots=True)
class _Program:
    """Rules of one program."""

    ran: Behaviour | None = None
    egress: _Direction = field(default_factory=_Direction)
    ingress: _Direction = field(default_factory=_Direction)


def draft(workload: Merged, verdict: Verdict, wanted: Wanted) -> Draft:
    """Draft a profile.

    Raises:
        DraftError: Nothing could select the workload, or it is more than a profile may hold.
    """
    learned = {key: each for key, each in workload.learned().items() if wanted.with_drift or not each.drift}
    resolvers = _Resolvers(wanted.resolvers)
    forbidden = _forbidden(workload, wanted)
    programs: dict[str, _Program] = {}
    for key, behaviour in sorted(learned.items()):
        _add(programs.setdefault(key.path, _Program()), key, behaviour, resolvers)
    for each in programs.values():
        each.egress.cidrs = _without(_collapsed(each.egress.cidrs), forbidden)
        each.ingress.cidrs = _collapsed(each.ingress.cidrs)
    unnameable = sorted(path for path in programs if not _can_be_named(path))
    processes = {path: each for path, each in programs.items() if path not in unnameable and _network(each)}
    if len(processes) > MAX_PROCESSES:
        raise DraftError(f"{workload.key} has {len(processes)} programs; a profile holds {MAX_PROCESSES}")
    spec = {
        "actions": [wanted.action],
        "dryRun": wanted.dry_run,
        **_selection(workload),
        "resolvers": resolvers.listed(),
        "processes": [{"path": path, "network": _network(each)} for path, each in processes.items()],
    }
    document = _canonical(
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": _metadata(workload), "spec": spec}
    )
    idle = sorted(programs.keys() - processes.keys() - set(unnameable))
    without = {
        "Programs that ran and have no network": idle,
        "Left out, no profile can name it": [shown(path) for path in unnameable],
    }
    header = tuple(_header(workload, verdict, learned, without))
    return Draft(document, header, dict(_notes(document, processes)))


def _can_be_named(path: str) -> bool:
    try:
        program_path(path)
    except ValueError:
        return False
    return True


def _add(program: _Program, key: Key, behaviour: Behaviour, resolvers: _Resolvers) -> None:
    program.ran = _sum(program.ran, behaviour)
    if key.kind == "QUESTION":
        program.egress.names[key.peer] = _sum(program.egress.names.get(key.peer), behaviour)
        return
    if key.kind not in {"EGRESS", "LISTEN", "INGRESS"}:
        return
    direction = program.egress if key.kind == "EGRESS" else program.ingress
    found = ip_network(key.peer, strict=False) if network(key.peer) else None
    if key.kind == "EGRESS" and found is not None and key.port == _DNS_PORT and resolvers.take(found):
        return
    if found is not None:
        direction.cidrs[found] = _sum(direction.cidrs.get(found), behaviour)
    elif key.kind == "EGRESS":
        direction.names[key.peer] = _sum(direction.names.get(key.peer), behaviour)
    if key.protocol in WITH_PORTS:
        ports = key.protocol, key.port, key.last_port
        direction.ports[ports] = _sum(direction.ports.get(ports), behaviour)
    else:
        direction.protocols[key.protocol] = _sum(direction.protocols.get(key.protocol), behaviour)


def _sum(one: Behaviour | None, other: Behaviour) -> Behaviour:
    """Evidence for the same rule."""
    return other if one is None else one.beside(other)


class _Resolvers:
    """DNS servers that are trusted."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ip_network(each, strict=False) for each in networks]
        self._found: set[str] = set()

    def take(self, server: IpNetwork) -> bool:
        """Whether a server is one of them, and fits in the profile."""
        address = str(server.network_address)
        trusted = server.num_addresses == 1 and any(server.network_address in each for each in self._networks)
        if not trusted or (len(self._found) >= _MAX_RESOLVERS and address not in self._found):
            return False
        self._found.add(address)
        return True

    def listed(self) -> list[str]:
        """Those that were asked."""
        return sorted(self._found)


def _forbidden(workload: Merged, wanted: Wanted) -> list[IpNetwork]:
    refused = [key.peer for key in workload.behaviours if key.standing == "FORBIDDEN" and network(key.peer)]
    return [ip_network(each, strict=False) for each in (*wanted.forbidden, *refused)]


def _collapsed(cidrs: Mapping[IpNetwork, Behaviour]) -> dict[IpNetwork, Behaviour]:
    """A long list as the fewest networks that are exactly the same."""
    if len(cidrs) <= _READABLE:
        return dict(cidrs)
    found: dict[IpNetwork, Behaviour] = {}
    for version in (4, 6):
        same: Any = [each for each in cidrs if each.version == version]
        for wide in collapse_addresses(same):
            total: Behaviour | None = None
            for each in same:
                if each.subnet_of(wide):
                    total = _sum(total, cidrs[each])
            if total:
                found[wide] = total
    return found


def _without(
    cidrs: Mapping[IpNetwork, Behaviour], forbidden: Iterable[IpNetwork]
) -> dict[IpNetwork, Behaviour]:
    """The networks without what is forbidden within them."""
    left = dict(cidrs)
    for each in forbidden:
        for cidr in [known for known in left if known.version == each.version and known.overlaps(each)]:
            behaviour = left.pop(cidr)
            if cidr != each and cidr.prefixlen < each.prefixlen:
                left |= dict.fromkeys(cidr.address_exclude(each), behaviour)  # type: ignore[arg-type]
    return left


def _network(program: _Program) -> dict[str, Any]:
    directions = {"egress": program.egress.document(), "ingress": program.ingress.document()}
    if directions["ingress"]:
        del directions["ingress"]["fqdns"]
    return {name: each for name, each in directions.items() if each}


def _selection(workload: Merged) -> dict[str, Any]:
    if workload.kind == "POD":
        if not workload.namespace:
            raise DraftError(
                f"{workload.key}: nsp.pods does not tell this pod; `nsp inventory` publishes them"
            )
        if not workload.labels:
            raise DraftError(
                f"{workload.key}: its pods share no label, so no selector finds them; label them"
            )
        return {"selector": {"matchLabels": workload.labels}}
    if workload.kind == "HOST_SERVICE" and workload.unit and not workload.unit.endswith(".scope"):
        return {"scope": "Node", "services": [{"unit": workload.unit}]}
    if workload.kind in {"HOST_SERVICE", "CONTAINER"} and workload.cgroup_path.strip("/"):
        return {"scope": "Node", "services": [{"cgroupPath": workload.cgroup_path}]}
    raise DraftError(f"{workload.key}: a profile selects services of a host, not all that is beside them")


def _metadata(workload: Merged) -> dict[str, str]:
    parts = workload.key.split("/")[1:]
    name = _NO_NAME.sub("-", "-".join(parts).lower()).strip("-.")[:200].rstrip("-.") or "workload"
    return {"name": name, **({"namespace": workload.namespace} if workload.namespace else {})}


def _canonical(document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return to_document(to_record(Profile.model_validate(document), 0))
    except ValueError as error:
        raise DraftError(f"what was learned is no profile: {error}") from error


def _header(
    workload: Merged,
    verdict: Verdict,
    learned: Mapping[Key, Behaviour],
    without: Mapping[str, Sequence[str]],
) -> Iterable[str]:
    yield f"Learned of {workload.key}: {verdict.state} ({verdict.reason})"
    yield verdict.statement()
    yield (
        f"Seen from {moment(workload.first_ns)} to {moment(workload.last_ns)}: "
        f"{number(workload.pods, 'pod')} on {number(len(workload.nodes), 'node')}, "
        f"{number(workload.starts, 'start')} seen whole"
    )
    yield "May be enforced." if verdict.may_enforce else "Not to be enforced yet:"
    yield from (f"  {part.name}: {part.text}" for part in verdict.gate if not part.met)
    for title, paths in without.items():
        yield from _listed(title, paths)
    rest = {key: each for key, each in workload.behaviours.items() if key not in learned}
    groups: dict[str, list[str]] = {}
    for key, each in sorted(rest.items()):
        title = _NOT_IN[key.standing] if key.standing != "LEARNED" else "Left out: new since it was stable"
        groups.setdefault(title, []).append(f"{deed(key)}: {evidence(each)}")
    for title, lines in groups.items():
        yield from _listed(title, lines)
    said = [
        f"{deed(key)}: {evidence(each)}"
        for key, each in sorted(learned.items())
        if key.kind in {"REQUEST", "SERVER_NAME"}
    ]
    yield from _listed("Said on its connections, for l7 rules", said)


_NOT_IN: Final = {
    "KNOWN_BAD": "Never learned, by tools that no profile should allow",
    "FORBIDDEN": "Never learned, refused or forbidden",
}


def _listed(title: str, lines: Sequence[str]) -> Iterable[str]:
    if lines:
        yield f"{title}:"
        yield from (f"  {each}" for each in lines[:_LISTED])
        if len(lines) > _LISTED:
            yield f"  and {len(lines) - _LISTED} more"


def _notes(document: Mapping[str, Any], programs: Mapping[str, _Program]) -> Iterable[tuple[Place, str]]:
    """Evidence by place; ports that were merged into a range have that of all of them."""
    for process in document["spec"].get("processes", ()):
        path = process["path"]
        program = programs[path]
        place: Place = ("spec", "processes", path)
        if program.ran:
            yield place, evidence(program.ran)
        for name, rules in process["network"].items():
            direction = program.egress if name == "egress" else program.ingress
            yield from _direction_notes((*place, "network", name), rules, direction)


def _direction_notes(
    place: Place, rules: Mapping[str, Any], direction: _Direction
) -> Iterable[tuple[Place, str]]:
    for name, each in direction.names.items():
        yield (*place, "fqdns", name), evidence(each)
    for cidr, each in direction.cidrs.items():
        yield (*place, f"cidr{cidr.version}", str(cidr)), evidence(each)
    l4 = rules.get("l4", {})
    for protocol, each in direction.protocols.items():
        yield (*place, "l4", "protocols", str(_PROTOCOL_NAMES.get(protocol, protocol))), evidence(each)
    for given in l4.get("protocolPorts", ()):
        for ports in given["ports"]:
            first, _, last = str(ports).partition("-")
            inside = [
                each
                for (protocol, low, high), each in direction.ports.items()
                if _PROTOCOL_NAMES.get(protocol, protocol) == given["protocol"]
                and low <= int(last or first)
                and high >= int(first)
            ]
            total: Behaviour | None = None
            for each in inside:
                total = _sum(total, each)
            if total:
                at = (*place, "l4", "protocolPorts", str(given["protocol"]), "ports", str(ports))
                yield at, evidence(total)
