# SPDX-License-Identifier: Apache-2.0
"""The table of kernel programs: what each is, where it attaches, in the order in which they attach.

Process programs come first, so that whoever connects while the sensor starts is already known.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

# enum bpf_prog_type
_SCHED_CLS: Final = 3
_CGROUP_SKB: Final = 8
_CGROUP_SOCK: Final = 9
_RAW_TRACEPOINT: Final = 17
_CGROUP_SOCK_ADDR: Final = 18
_TRACING: Final = 26

# enum bpf_attach_type
_INET_INGRESS: Final = 0
_INET_EGRESS: Final = 1
_INET_SOCK_CREATE: Final = 2
_INET4_BIND: Final = 8
_INET6_BIND: Final = 9
_INET4_CONNECT: Final = 10
_INET6_CONNECT: Final = 11
_UDP4_SENDMSG: Final = 14
_UDP6_SENDMSG: Final = 15
_TRACE_RAW_TP: Final = 23
TRACE_ITER: Final = 28


class Kind(Enum):
    """How a program gets to run."""

    RAW_TRACEPOINT = "raw tracepoint"
    TP_BTF = "tp_btf"
    CGROUP = "cgroup"
    TAIL_CALL = "tail call"
    ITERATOR = "iterator"
    INTERFACE = "network interface"  # pinned; attached to interfaces later (attach.py)


@dataclass(frozen=True, slots=True)
class Program:
    """One program.

    Args:
        name: Of the C function; also the pin name of its link.
        kind: How it gets to run.
        type: ``enum bpf_prog_type``.
        attach_type: ``enum bpf_attach_type``; 0 where the kind has none.
        target: Tracepoint, iterator function, or prog array map.
        index: In the prog array.
    """

    name: str
    kind: Kind
    type: int
    attach_type: int = 0
    target: str = ""
    index: int = 0


def _raw(name: str, tracepoint: str) -> Program:
    return Program(name, Kind.RAW_TRACEPOINT, _RAW_TRACEPOINT, target=tracepoint)


def _address(name: str, attach_type: int) -> Program:
    return Program(name, Kind.CGROUP, _CGROUP_SOCK_ADDR, attach_type)


def _iterator(name: str, function: str) -> Program:
    return Program(name, Kind.ITERATOR, _TRACING, TRACE_ITER, function)


PROGRAMS: Final = (
    _raw("on_cgroup_mkdir", "cgroup_mkdir"),
    _raw("on_cgroup_rmdir", "cgroup_rmdir"),
    _raw("on_cgroup_attach", "cgroup_attach_task"),
    _raw("on_exit", "sched_process_exit"),
    _raw("on_fork", "sched_process_fork"),
    _raw("on_exec", "sched_process_exec"),
    Program("on_tcp_state", Kind.TP_BTF, _TRACING, _TRACE_RAW_TP, "inet_sock_set_state"),
    Program("dns_question", Kind.TAIL_CALL, _CGROUP_SKB, _INET_EGRESS, "egress_tail_calls", 0),
    Program("dns_answer", Kind.TAIL_CALL, _CGROUP_SKB, _INET_INGRESS, "ingress_tail_calls", 1),
    Program("dns_learn", Kind.TAIL_CALL, _CGROUP_SKB, _INET_INGRESS, "ingress_tail_calls", 3),
    Program("dns_owners", Kind.TAIL_CALL, _CGROUP_SKB, _INET_INGRESS, "ingress_tail_calls", 4),
    Program("dns_believe", Kind.TAIL_CALL, _CGROUP_SKB, _INET_INGRESS, "ingress_tail_calls", 5),
    Program("http_egress", Kind.TAIL_CALL, _CGROUP_SKB, _INET_EGRESS, "egress_tail_calls", 6),
    Program("http_ingress", Kind.TAIL_CALL, _CGROUP_SKB, _INET_INGRESS, "ingress_tail_calls", 6),
    Program("tls_egress", Kind.TAIL_CALL, _CGROUP_SKB, _INET_EGRESS, "egress_tail_calls", 7),
    Program("tls_ingress", Kind.TAIL_CALL, _CGROUP_SKB, _INET_INGRESS, "ingress_tail_calls", 7),
    Program("l7_judge_egress", Kind.TAIL_CALL, _CGROUP_SKB, _INET_EGRESS, "egress_tail_calls", 8),
    Program("l7_judge_ingress", Kind.TAIL_CALL, _CGROUP_SKB, _INET_INGRESS, "ingress_tail_calls", 8),
    Program("l7_egress", Kind.TAIL_CALL, _CGROUP_SKB, _INET_EGRESS, "egress_tail_calls", 2),
    Program("l7_ingress", Kind.TAIL_CALL, _CGROUP_SKB, _INET_INGRESS, "ingress_tail_calls", 2),
    Program("sock_create", Kind.CGROUP, _CGROUP_SOCK, _INET_SOCK_CREATE),
    _address("connect4", _INET4_CONNECT),
    _address("connect6", _INET6_CONNECT),
    _address("sendmsg4", _UDP4_SENDMSG),
    _address("sendmsg6", _UDP6_SENDMSG),
    _address("bind4", _INET4_BIND),
    _address("bind6", _INET6_BIND),
    Program("packet_egress", Kind.CGROUP, _CGROUP_SKB, _INET_EGRESS),
    Program("packet_ingress", Kind.CGROUP, _CGROUP_SKB, _INET_INGRESS),
    _iterator("inventory_tasks", "bpf_iter_task"),
    _iterator("identify_programs", "bpf_iter_task"),
    _iterator("inventory_sockets", "bpf_iter_task_file"),
    _iterator("survey_sockets", "bpf_iter_task_file"),
    _iterator("mark_sockets", "bpf_iter_task_file"),
    Program("link_ingress", Kind.INTERFACE, _SCHED_CLS),
    Program("link_egress", Kind.INTERFACE, _SCHED_CLS),
    Program("link_peer", Kind.INTERFACE, _SCHED_CLS),
)


def of_kind(*kinds: Kind) -> tuple[Program, ...]:
    """The programs of these kinds, in attach order."""
    return tuple(program for program in PROGRAMS if program.kind in kinds)
