/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Every map, with its bound and the reason for it. The names are the pin names.
 * Maps that user space reads or writes hold the structs of state.h; the structs
 * declared here are the kernel programs' own.
 */
#ifndef NSP_MAPS_H
#define NSP_MAPS_H

#include "events.h"
#include "state.h"

/* 4 MB, the default of sensor/kernel/runtime.py, which says why and passes what it is told. */
#ifndef NSP_RING_PAGES
#define NSP_RING_PAGES 1024
#endif

/* Above the default pid cgroup limits of a full node; preallocated, about 15 MB. */
#ifndef NSP_MAX_PROCESSES
#define NSP_MAX_PROCESSES 65536
#endif

/*
 * Ended processes whose parent is remembered: enough for a daemon's double forks for
 * hours, and a chain that is to be lost on purpose costs as many forks. About 6 MB.
 */
#ifndef NSP_MAX_DEPARTED
#define NSP_MAX_DEPARTED 65536
#endif

/* Each is an incident under response: a thousand at once is already a lost node. */
#ifndef NSP_MAX_QUARANTINES
#define NSP_MAX_QUARANTINES 1024
#endif

/* cgroups of pods, containers and services with their children; a node has hundreds. */
#ifndef NSP_MAX_WORKLOADS
#define NSP_MAX_WORKLOADS 16384
#endif

#ifndef NSP_MAX_BLOCKED_DESTINATIONS
#define NSP_MAX_BLOCKED_DESTINATIONS 16384
#endif

/*
 * Indices of the tail call arrays, which user space fills with the DNS programs. Two
 * arrays: newer kernels allow programs of one attach type only in each.
 */
enum nsp_tail {
	NSP_TAIL_DNS_QUESTION = 0,
	NSP_TAIL_DNS_ANSWER = 1,
	NSP_TAIL_MAX = 8,
};

/* Indices of settings. */
enum nsp_setting {
	/* Sockets stamped by the mark_sockets program, ever: user space reads the difference. */
	NSP_SETTING_SOCKETS_MARKED = 0,
	/* Number of the last finished pass of survey_sockets, which alone writes it. */
	NSP_SETTING_SOCKETS_SURVEYED = 1,
	NSP_SETTING_MAX = 8,
};

#define NSP_SOCKET_OWNED 1 /* owner and cgroup are known */
#define NSP_SOCKET_CALL_REFUSED 2 /* a refused call was reported for last_address */
#define NSP_SOCKET_EGRESS_REFUSED 4 /* PACKET_REFUSED was sent for this direction */
#define NSP_SOCKET_INGRESS_REFUSED 8
#define NSP_SOCKET_LISTENER 16

/*
 * sockets: what a socket remembers, because "current" is wrong in packet hooks and
 * timers. BPF_F_CLONE: an accepted socket starts as a copy of its listener's.
 */
struct nsp_socket {
	struct nsp_process_key owner;
	struct nsp_process_key quarantine_root; /* stamped: the socket is cut whoever holds it */
	__u64 cgroup_id;
	__u64 workload_cgroup_id; /* 0: none known (yet) */
	__u64 since_ns; /* connect or accept */
	__u8 last_address[16]; /* the last destination reported for this socket */
	__u16 last_port;
	__u8 direction;
	__u8 flags; /* NSP_SOCKET_* */
	__u32 survey; /* the last survey pass that saw it in hands that are not quarantined */
};

/*
 * What packet.c found in the headers of a DNS packet, for the tail-called programs.
 * It travels in skb->cb and is completed by packet_recall() (packet.h): a per-CPU
 * buffer could be overwritten when an egress program is preempted.
 */
struct nsp_packet {
	struct nsp_process_key owner;
	__u64 cgroup_id;
	__u64 cookie;
	__u8 local_address[16];
	__u8 remote_address[16];
	__u32 payload_offset; /* of the UDP or TCP payload, from the IP header */
	__u32 payload_bytes;
	__u16 local_port;
	__u16 remote_port;
	__u8 family; /* 4 or 6 */
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad[2];
};

BPF_RINGBUF_OUTPUT(events, NSP_RING_PAGES);
BPF_HASH(processes, u32, struct nsp_process, NSP_MAX_PROCESSES);
BPF_TABLE("lru_hash", struct nsp_process_key, struct nsp_process_key, departed, NSP_MAX_DEPARTED);
BPF_HASH(quarantines, struct nsp_process_key, struct nsp_enforcement, NSP_MAX_QUARANTINES);
BPF_HASH(workload_quarantines, u64, struct nsp_enforcement, NSP_MAX_QUARANTINES);
BPF_HASH(blocked_destinations, struct nsp_destination, struct nsp_enforcement,
	 NSP_MAX_BLOCKED_DESTINATIONS);
BPF_HASH(workloads, u64, struct nsp_workload, NSP_MAX_WORKLOADS);
BPF_HASH(workload_flags, u64, u32, NSP_MAX_WORKLOADS);
BPF_F_TABLE("sk_storage", int, struct nsp_socket, sockets, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE);
BPF_PERCPU_ARRAY(counters, u64, NSP_COUNTER_MAX);
BPF_PERCPU_ARRAY(sequence, u64, 1);
BPF_ARRAY(sensor_state, struct nsp_sensor_state, 1);
BPF_ARRAY(settings, u64, NSP_SETTING_MAX);
BPF_PROG_ARRAY(egress_tail_calls, NSP_TAIL_MAX);
BPF_PROG_ARRAY(ingress_tail_calls, NSP_TAIL_MAX);

#endif
