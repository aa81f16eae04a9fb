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

/* Sixteen flows for each quarantine: resolvers and probes, in two families. */
#define NSP_MAX_QUARANTINE_ALLOWED 16384

/* cgroups of pods, containers and services with their children; a node has hundreds. */
#ifndef NSP_MAX_WORKLOADS
#define NSP_MAX_WORKLOADS 16384
#endif

#ifndef NSP_MAX_BLOCKED_DESTINATIONS
#define NSP_MAX_BLOCKED_DESTINATIONS 16384
#endif

/*
 * Profiles. A node runs a few hundred workloads; identical rule sets are one, and what
 * is replaced stays for a moment, so there is room for twice what is in force.
 */
#ifndef NSP_MAX_RULESETS
#define NSP_MAX_RULESETS 8192
#endif
#ifndef NSP_MAX_POLICIES
#define NSP_MAX_POLICIES 4096
#endif
#ifndef NSP_MAX_POLICY_SLOTS
#define NSP_MAX_POLICY_SLOTS 4096
#endif
#ifndef NSP_MAX_PROGRAMS
#define NSP_MAX_PROGRAMS 4096
#endif
#ifndef NSP_MAX_PROGRAM_RULES
#define NSP_MAX_PROGRAM_RULES 16384
#endif
/* Addresses of allowed names. */
#ifndef NSP_MAX_LEARNED
#define NSP_MAX_LEARNED 65536
#endif
/* What one workload may have of them, so that it cannot take the others' places. */
#define NSP_LEARNED_SHARE 8192
/* Questions of forwarders; a stub resolver's are kept with its socket. */
#define NSP_MAX_ASKED 16384
#ifndef NSP_MAX_LEARNED_NAMES
#define NSP_MAX_LEARNED_NAMES 8192
#endif
#ifndef NSP_MAX_RESOLVERS
#define NSP_MAX_RESOLVERS 8192
#endif
/* An emergency exit is a short list of 256, or it is a second policy; each may need a bind. */
#define NSP_MAX_BREAK_GLASS 512
#define NSP_MAX_EXEMPT 64
/* Two or three for each pod, and the node's own. */
#ifndef NSP_MAX_INTERFACES
#define NSP_MAX_INTERFACES 4096
#endif
/* One or two addresses and a gateway for each of them. */
#ifndef NSP_MAX_INTERFACE_ADDRESSES
#define NSP_MAX_INTERFACE_ADDRESSES 16384
#endif
/*
 * Neighbours of all interfaces; the least used goes first. binding.h bounds how fast one
 * interface may add to it, so that nobody pushes out what he wants to contradict.
 */
#ifndef NSP_MAX_BINDINGS
#define NSP_MAX_BINDINGS 32768
#endif

/*
 * Indices of the tail call arrays, which user space fills with the DNS programs. Two
 * arrays: newer kernels allow programs of one attach type only in each.
 */
enum nsp_tail {
	NSP_TAIL_DNS_QUESTION = 0,
	NSP_TAIL_DNS_ANSWER = 1,
	NSP_TAIL_L7 = 2, /* egress_tail_calls: l7_egress; ingress_tail_calls: l7_ingress */
	NSP_TAIL_DNS_LEARN = 3,
	NSP_TAIL_DNS_OWNERS = 4,
	NSP_TAIL_DNS_BELIEVE = 5,
	NSP_TAIL_HTTP = 6, /* what l7_egress and l7_ingress go on with */
	NSP_TAIL_TLS = 7,
	NSP_TAIL_L7_JUDGE = 8,
	NSP_TAIL_MAX = 16,
};

/* Indices of settings. */
enum nsp_setting {
	/* Sockets stamped by the mark_sockets program, ever: user space reads the difference. */
	NSP_SETTING_SOCKETS_MARKED = 0,
	/* Number of the last finished pass of survey_sockets, which alone writes it. */
	NSP_SETTING_SOCKETS_SURVEYED = 1,
	/* A learned address lives for its TTL, at least the floor, and then the grace. */
	NSP_SETTING_LEARNED_FLOOR_NS = 2,
	NSP_SETTING_LEARNED_GRACE_NS = 3,
	/*
	 * Not zero while quarantines or workload_flags have an entry: on most nodes at most
	 * times they have none, and a call or a packet is spared four lookups.
	 */
	NSP_SETTING_ENFORCEMENTS = 4,
	/* A silent neighbour's binding is held against nobody after this; 0: NSP_BINDING_AGE_NS. */
	NSP_SETTING_BINDING_AGE_NS = 5,
	/* Inode number of the node's network namespace, whose own addresses may have resolvers. */
	NSP_SETTING_NODE_NETWORK = 6,
	/* Not zero once a cgroup found no place in workloads: an ancestor of its may have one. */
	NSP_SETTING_WORKLOADS_FULL = 7,
	NSP_SETTING_MAX = 8,
};

#define NSP_SOCKET_OWNED 1 /* owner and cgroup are known */
#define NSP_SOCKET_CALL_REFUSED 2 /* a refused call was reported for last_address */
#define NSP_SOCKET_EGRESS_REFUSED 4 /* PACKET_REFUSED was sent for this direction */
#define NSP_SOCKET_INGRESS_REFUSED 8
#define NSP_SOCKET_LISTENER 16
#define NSP_SOCKET_SENT 32 /* it has sent: what comes in may be an answer */
#define NSP_SOCKET_L7 64 /* payloads are still to be judged: tail call NSP_TAIL_L7 */
#define NSP_SOCKET_RAW 128

#define NSP_ASKED 4 /* a power of two */

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
	/* The last decision by profile (profile.h), for the packets of the same flow. */
	__u32 policy_slot;
	__u64 policy_tag; /* of the slot at that time; 0: not decided */
	__u64 name_id; /* by which learned name the address was allowed; 0: by none */
	__u32 program; /* of the owner when it took the socket */
	__u32 script;
	__u8 decided_address[16];
	__u16 decided_port; /* of the remote end */
	__u8 verdict; /* enum nsp_verdict */
	__u8 grants; /* bit n: the n-th rule set passed the flow below layer 7 */
	__u8 asked_elsewhere; /* more questions were open than fit here: asked_questions has them */
	__u8 came_in; /* of grants, those that passed it as what comes in */
	__u16 dns_length; /* over TCP: of the message whose length came in a segment of its own */
	/* Open DNS questions (dns_name.h): a stub resolver has two, A and AAAA. 0: free. */
	__u64 asked[NSP_ASKED];
	__u64 asked_count;
};

/* asked_questions: this -> 1. Questions that a forwarder has open beyond NSP_ASKED. */
struct nsp_asked_question {
	__u64 cookie; /* of the socket */
	__u64 question;
};

BPF_RINGBUF_OUTPUT(events, NSP_RING_PAGES);
BPF_HASH(processes, u32, struct nsp_process, NSP_MAX_PROCESSES);
BPF_TABLE("lru_hash", struct nsp_process_key, struct nsp_process_key, departed, NSP_MAX_DEPARTED);
BPF_HASH(quarantines, struct nsp_process_key, struct nsp_enforcement, NSP_MAX_QUARANTINES);
BPF_HASH(workload_quarantines, u64, struct nsp_enforcement, NSP_MAX_QUARANTINES);
BPF_HASH(blocked_destinations, struct nsp_destination, struct nsp_enforcement,
	 NSP_MAX_BLOCKED_DESTINATIONS);
BPF_F_TABLE("lpm_trie", struct nsp_allowed_flow, u64, quarantine_allowed,
	    NSP_MAX_QUARANTINE_ALLOWED, BPF_F_NO_PREALLOC);
BPF_HASH(workloads, u64, struct nsp_workload, NSP_MAX_WORKLOADS);
BPF_HASH(workload_flags, u64, u32, NSP_MAX_WORKLOADS);
BPF_F_TABLE("sk_storage", int, struct nsp_socket, sockets, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE);

BPF_TABLE("array", u32, u64, policy_slots, NSP_MAX_POLICY_SLOTS);
BPF_TABLE("array", u32, u64, settling, NSP_MAX_POLICY_SLOTS);
BPF_TABLE("array", u32, struct nsp_policy, policies, NSP_MAX_POLICIES);
BPF_TABLE("array", u32, struct nsp_ruleset, rulesets, NSP_MAX_RULESETS);
BPF_TABLE("array", u32, struct nsp_policy_counters, policy_counters, NSP_MAX_POLICY_SLOTS);
BPF_HASH(expected_workloads, struct nsp_cgroup_name, u32, NSP_MAX_WORKLOADS);
BPF_HASH(program_ids, struct nsp_program_path, u32, NSP_MAX_PROGRAMS);
BPF_HASH(program_rules, struct nsp_program_key, struct nsp_grants, NSP_MAX_PROGRAM_RULES);
BPF_HASH(learned, struct nsp_learned_key, struct nsp_learned_value, NSP_MAX_LEARNED);
BPF_TABLE("lru_hash", u64, struct nsp_learned_name, learned_names, NSP_MAX_LEARNED_NAMES);
BPF_HASH(learned_added, u64, u64, NSP_MAX_WORKLOADS);
BPF_HASH(learned_removed, u64, u64, NSP_MAX_WORKLOADS);
BPF_TABLE("lru_hash", struct nsp_asked_question, u32, asked_questions, NSP_MAX_ASKED);
BPF_HASH(resolvers, struct nsp_resolver_key, u32, NSP_MAX_RESOLVERS);
BPF_HASH(exempt, u32, u64, NSP_MAX_EXEMPT);
BPF_F_TABLE("lpm_trie", struct nsp_break_glass, u32, break_glass, NSP_MAX_BREAK_GLASS,
	    BPF_F_NO_PREALLOC);

BPF_HASH(interfaces, struct nsp_interface_key, struct nsp_interface, NSP_MAX_INTERFACES);
BPF_HASH(interface_addresses, struct nsp_binding_key, struct nsp_binding,
	 NSP_MAX_INTERFACE_ADDRESSES);
BPF_TABLE("lru_hash", struct nsp_binding_key, struct nsp_binding, bindings, NSP_MAX_BINDINGS);

/* The shapes of what user space puts into the arrays of maps; themselves they stay empty. */
BPF_F_TABLE("lpm_trie", struct nsp_address_rule, u32, address_shape_scratch, 1, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct nsp_port_rule, u32, port_shape_scratch, 1, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct nsp_name_rule, u32, name_shape_scratch, 1, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct nsp_http_rule, u32, http_shape_scratch, 1, BPF_F_NO_PREALLOC);
BPF_ARRAY_OF_MAPS(address_rules, "address_shape_scratch", NSP_MAX_RULESETS);
BPF_ARRAY_OF_MAPS(port_rules, "port_shape_scratch", NSP_MAX_RULESETS);
BPF_ARRAY_OF_MAPS(name_rules, "name_shape_scratch", NSP_MAX_RULESETS);
BPF_ARRAY_OF_MAPS(http_rules, "http_shape_scratch", NSP_MAX_RULESETS);

BPF_PERCPU_ARRAY(counters, u64, NSP_COUNTER_MAX);
BPF_PERCPU_ARRAY(sequence, u64, 1);
BPF_ARRAY(sensor_state, struct nsp_sensor_state, 1);
BPF_ARRAY(settings, u64, NSP_SETTING_MAX);
BPF_PROG_ARRAY(egress_tail_calls, NSP_TAIL_MAX);
BPF_PROG_ARRAY(ingress_tail_calls, NSP_TAIL_MAX);

#endif
