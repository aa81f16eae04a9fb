# SPDX-License-Identifier: Apache-2.0
"""From the configuration to the parts of the pipeline. Pure: nothing is opened or started."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.lineage import LineageRules
from stream_apps.correlate.names import NameLimits, NameTable
from stream_apps.correlate.pods import PodTable
from stream_apps.correlate.programs import ProgramLists, Programs, program_name
from stream_apps.detect.registry import RULE_IDS
from stream_apps.detect.self_test import SelfTestLimits, SelfTests
from stream_apps.detect.sensor_silence import SensorSilence, SilenceLimits
from stream_apps.learn.completeness import Thresholds
from stream_apps.learn.conduct import Mistrust
from stream_apps.learn.folding import network
from stream_apps.learn.learner import Learner
from stream_apps.learn.peer_names import PeerNames
from stream_apps.learn.peers import PeerLimits
from stream_apps.learn.shard import ShardLimits
from stream_apps.learn.shelf import Settings
from stream_apps.respond.desired import DesiredStates
from stream_apps.respond.desk import ResponseDesk, Tuning
from stream_apps.respond.disarmer import DisarmerLimits
from stream_apps.respond.limits import Allowance, Limits, Rate
from stream_apps.respond.never_cut import NeverCut
from stream_apps.respond.plans import Blocking, Planner
from stream_apps.respond.policy import Match, Policy, PolicyBook
from stream_apps.respond.replicas import Replicas
from stream_apps.respond.responder import Pauses, Responder, Situation
from stream_apps.respond.times import Times
from stream_apps.respond.waiting import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_apps.config.document import StreamConfig
    from stream_apps.config.learn import Learn
    from stream_apps.config.responses import (
        BlockingItem,
        DisarmerItem,
        Doing,
        NeverCutItem,
        PolicyItem,
        Respond,
    )
    from stream_apps.config.sections import Correlate
    from stream_apps.detect.rule import Destination

NS_PER_S: Final = 1_000_000_000
# A correlation may look back for a day; a start that reads a day of events would take an hour.
LONGEST_READ_BACK_S: Final = 3600
_PROTOCOLS: Final = {"tcp": 6, "udp": 17}


def read_back_s(config: StreamConfig, rules_remember_s: float) -> float:
    """How far back whoever begins midway reads, so that it knows what one that was there would know."""
    return max(
        config.detect.repeat_after_s,
        config.correlate.names.grace_s,
        min(rules_remember_s, LONGEST_READ_BACK_S),
    )


def build_programs(config: Correlate) -> Programs:
    """Roles of programs."""
    names = config.programs
    return Programs(ProgramLists(names.shells, names.interpreters, names.downloaders, names.relays))


def build_lineage_rules(config: Correlate) -> LineageRules:
    """What is a service."""
    never = frozenset(config.never_services)

    def never_service(image: Mapping[str, Any]) -> bool:
        if program_name(image["executable"]) in never:
            return True
        # A manager that is a script runs in an interpreter: `python3 /usr/bin/supervisord`.
        argv = image["argv"]
        return len(argv) > 1 and program_name(argv[1]) in never

    return LineageRules(never_service, config.worker_arguments, config.start_grace_s * NS_PER_S)


def build_names(config: Correlate) -> NameTable:
    """The table of names."""
    return NameTable(name_limits(config), config.names.trusted_resolvers)


def name_limits(config: Correlate) -> NameLimits:
    """Bounds of the table of names."""
    names = config.names
    return NameLimits(names.max_workloads, names.max_addresses, names.grace_s)


def build_silence(config: StreamConfig, pods: PodTable) -> SensorSilence | None:
    """Who watches the nodes; None where the configuration wants nobody to."""
    item = config.detect.sensor_silence
    if not item.enabled:
        return None
    limits = SilenceLimits(item.silent_s, item.lost_events, item.lost_share, config.detect.repeat_after_s)
    return SensorSilence(limits, item.severity, pods.on_node)


def build_self_tests(config: StreamConfig) -> SelfTests:
    """Who judges the sensors' tests of themselves; what they do is left out also where nobody is told."""
    item = config.detect.self_test
    limits = SelfTestLimits(item.missed_intervals, item.repeat_s)
    return SelfTests(limits, item.severity, tells=item.enabled)


def build_response(config: StreamConfig, pods: PodTable) -> ResponseDesk:
    """Who decides, by what limits, with nothing in force yet."""
    states = DesiredStates(allowed=allowed_flows(config.respond))
    responder, situation = build_responder(config, states, pods)
    return ResponseDesk(responder, situation, Times(), pods)


def build_responder(
    config: StreamConfig, states: DesiredStates, pods: PodTable | None = None
) -> tuple[Responder, Situation]:
    """Who decides, and what is looked at for it."""
    tuning = build_tuning(config.respond)
    pods = pods if pods is not None else PodTable()
    limits = Limits(tuning.per_node, tuning.fleet)
    situation = Situation(states, limits, WaitingRoom(), Replicas(pods, states))
    return Responder(tuning.book, tuning.planner, situation, tuning.pauses), situation


def build_tuning(respond: Respond) -> Tuning:
    """By what limits is decided."""
    return Tuning(
        book=build_policies(respond),
        planner=Planner(_never_cut(respond.never_cut), _blocking(respond.blocking)),
        pauses=Pauses(respond.kill_after_s * NS_PER_S, respond.approval_for_s * NS_PER_S),
        per_node=Rate(respond.node_per_minute, respond.node_burst),
        fleet=_disarmer(respond.fleet),
        allowed=allowed_flows(respond),
    )


def build_learner(config: StreamConfig, names: NameTable) -> Learner | None:
    """Who learns; None when nobody is to."""
    return Learner(*learning(config, names)) if config.learn.enabled else None


def learning(config: StreamConfig, names: NameTable) -> tuple[Settings, Mistrust, PeerNames]:
    """By what is learned."""
    learn = config.learn
    settings = Settings(
        shard=shard_limits(learn),
        workloads=learn.bounds.workloads,
        thresholds=build_thresholds(learn),
        publish_ns=learn.publish_s * NS_PER_S,
    )
    mistrust = Mistrust(
        never_programs=frozenset(learn.never_programs),
        never_roles=frozenset(learn.never_below_services),
        never_directories=learn.never_directories,
        allow_programs=learn.allow_programs,
    )
    peers = PeerNames(
        names,
        trust_all=not config.correlate.names.trusted_resolvers,
        wildcards=learn.wildcards,
        forbidden_networks=learn.forbidden_networks,
        forbidden_names=learn.forbidden_names,
    )
    return settings, mistrust, peers


def shard_limits(learn: Learn) -> ShardLimits:
    """Bounds of one workload on one node."""
    bounds = learn.bounds
    peers = PeerLimits(
        addresses=bounds.addresses,
        names=bounds.names,
        ephemeral_ports=bounds.ephemeral_ports,
        widest=(bounds.widest_ipv4, bounds.widest_ipv6),
        widest_sources=(bounds.widest_source_ipv4, bounds.widest_source_ipv6),
    )
    never = tuple(found for each in learn.forbidden_networks if (found := network(each)))
    return ShardLimits(bounds.programs, bounds.names, peers, never)


def build_thresholds(learn: Learn) -> Thresholds:
    """When learning is complete."""
    gate = learn.gate
    return Thresholds(
        warm_up_s=learn.warm_up_s,
        quiet_s=gate.quiet_s,
        unstable_after_s=learn.unstable_after_s,
        min_coverage=gate.min_coverage,
        max_disagreement=gate.max_disagreement,
        min_pods=gate.min_pods,
        min_nodes=gate.min_nodes,
        min_starts=gate.min_starts,
    )


def build_policies(respond: Respond) -> PolicyBook:
    """The policies in their order, then those of single rules."""
    own = [
        _policy(respond, each.name, each, _match(each), _disarmer(each.disarmer)) for each in respond.policies
    ]
    by_rule = dict(zip(RULE_IDS, (respond.rce_egress, respond.reverse_shell), strict=False))
    for rule, item in by_rule.items():
        disarmer = DisarmerLimits(item.max_workloads_per_minute, item.max_trees_per_minute)
        own.append(_policy(respond, rule, item, Match(rules=(rule,)), disarmer))
    return PolicyBook(own)


def allowed_flows(respond: Respond) -> list[dict[str, Any]]:
    """What passes the quarantine of a workload, as ``AllowedFlow`` records."""
    return [
        {
            "network": str(ip_network(each.network, strict=False)),
            "port": each.port,
            "protocol": _PROTOCOLS[each.protocol],
            "incoming": each.direction == "in",
        }
        for each in respond.quarantine_pod.allow
    ]


def _policy(respond: Respond, name: str, item: Doing, match: Match, disarmer: DisarmerLimits) -> Policy:
    return Policy(
        name=name,
        match=match,
        actions=tuple((each.action, each.ttl_s * NS_PER_S) for each in item.actions),
        min_severity=item.min_severity,
        dry_run=respond.dry_run or item.dry_run,
        approval=frozenset(item.approval),
        min_healthy_replicas=item.min_healthy_replicas,
        allowance=Allowance(name, Rate(item.per_minute, item.burst), disarmer),
    )


def _match(item: PolicyItem) -> Match:
    return Match(item.rules, item.severities, item.namespaces, item.workloads, tuple(item.labels.items()))


def _disarmer(item: DisarmerItem) -> DisarmerLimits:
    return DisarmerLimits(
        max_workloads=item.max_workloads,
        max_trees=item.max_trees,
        max_executables=item.max_executables,
        window_ns=item.window_s * NS_PER_S,
        new_for_ns=item.new_for_s * NS_PER_S,
    )


def _never_cut(item: NeverCutItem) -> NeverCut:
    return NeverCut(
        executables=item.executables,
        argv_prefixes=item.argv_prefixes,
        workloads=item.workloads,
        namespaces=item.namespaces,
        labels=tuple(item.labels.items()),
    )


def _blocking(item: BlockingItem) -> Blocking:
    return Blocking(item.whole_address, _never_blocked(item))


def _never_blocked(item: BlockingItem) -> Callable[[Destination], bool]:
    networks = tuple(ip_network(each, strict=False) for each in item.never)
    ports = frozenset(item.never_ports)

    def never(destination: Destination) -> bool:
        try:
            address = ip_address(destination.address)
        except ValueError:
            return True
        return destination.port in ports or any(address in network for network in networks)

    return never
