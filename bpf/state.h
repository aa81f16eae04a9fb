/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What the pinned maps hold, as user space writes and reads it. The maps themselves
 * are declared in maps.h; the Python side is sensor/kernel/state.py. All times are
 * CLOCK_BOOTTIME nanoseconds, addresses 16 bytes with IPv4 mapped.
 */
#ifndef NSP_STATE_H
#define NSP_STATE_H

/* A process for ever: a tgid alone is reused. Hash key, so the padding is zero. */
struct nsp_process_key {
	__u64 start_ns;
	__u32 tgid;
	__u32 pad;
};

/*
 * How many ancestors a process remembers. They outlive the ancestors themselves: a
 * quarantine of an exited process must still find what it left behind. Where all of
 * them are gone, departed (ended process -> its parent) leads on from the last.
 */
#define NSP_ANCESTORS 8

/* processes: tgid -> this. Written by the fork, exec and inventory programs. */
struct nsp_process {
	__u64 start_ns;
	__u64 inode;
	struct nsp_process_key quarantine_root; /* zero: not quarantined; inherited on fork */
	struct nsp_process_key ancestors[NSP_ANCESTORS]; /* nearest first */
	__u32 dev;
	__u32 flags;
	__u32 program; /* id in program_ids of the executable's path, 0: no profile names it */
	__u32 script; /* likewise of the script an interpreter was started for */
};

/*
 * quarantines: nsp_process_key -> this; workload_quarantines: workload cgroup id -> this;
 * blocked_destinations: nsp_destination -> this. In force while expires_ns is in the
 * future, whatever user space does. The counters are the kernel's, by atomic add.
 */
struct nsp_enforcement {
	__u64 generation;
	__u64 expires_ns;
	__u64 first_refused_ns;
	__u64 refused_calls; /* connect, sendmsg, bind told EPERM */
	__u64 refused_packets;
	__u64 refused_bytes;
};

#define NSP_WORKLOAD_HAS_BLOCKS 1 /* look into blocked_destinations */
#define NSP_WORKLOAD_HAS_QUARANTINE 2 /* look into workload_quarantines */
#define NSP_WORKLOAD_HAS_ALLOWED 4 /* and into quarantine_allowed */

/*
 * quarantine_allowed: this -> u64 generation: flows that pass the quarantine of a workload,
 * DNS and probes, if the generation is the quarantine's or a later one: what an earlier
 * order allowed is void at once, what the next one allows is there before it.
 * prefixlen counts what follows it: NSP_ALLOWED_FLOW_BITS, then those of the address.
 */
#define NSP_ALLOWED_FLOW_BITS 96
struct nsp_allowed_flow {
	__u32 prefixlen;
	__u8 protocol;
	__u8 direction; /* enum nsp_direction: who opens it */
	__u8 port[2]; /* network order, never 0: remote going out, local coming in */
	__u64 workload_cgroup_id;
	__u8 address[16]; /* of the remote end */
};

/*
 * workloads: cgroup id -> this. User space registers the workload's own cgroup; the
 * mkdir program copies the parent's entry to each child, so a child cgroup has its
 * workload before the first process is in it.
 */
struct nsp_workload {
	__u64 workload_cgroup_id; /* 0: no workload is known, only a policy slot */
	__u32 policy_slot; /* index in policy_slots */
	__u32 pad;
};

/* Slot of what has no entry in workloads: the host's own processes. */
#define NSP_SLOT_HOST 0
/* Slot of cgroups that look like workloads' and are not known yet: unknownWorkload. */
#define NSP_SLOT_UNKNOWN 1

/*
 * expected_workloads: a cgroup's own name (its last path component, zero padded) ->
 * u32 policy slot. A cgroup of that name outside every known workload becomes a
 * workload of its own with that slot at mkdir, before a process can be in it: a pod's
 * profile is known before the pod's cgroup is. With NSP_SLOT_UNKNOWN it is where unknown
 * workloads appear, and none itself.
 */
#define NSP_CGROUP_NAME_BYTES 128
struct nsp_cgroup_name {
	__u8 name[NSP_CGROUP_NAME_BYTES];
};

/* workload_flags: workload cgroup id -> u32 NSP_WORKLOAD_*; absent means none. */

struct nsp_destination {
	__u64 workload_cgroup_id;
	__u8 address[16];
	__u16 port; /* host order; 0: any */
	__u8 protocol; /* IPPROTO_*; 0: any, then port is 0 too */
	__u8 pad[5];
};

/*
 * Profiles. policy_slots[slot] is a tag: low 32 bits the policy (index in policies, 0:
 * none), high 32 bits a number that grows with each switch. Writing it is the one step
 * by which a policy takes force; everything it leads to is complete by then and never
 * changed afterwards: a changed rule set gets a new index. Sockets keep the tag under
 * which they were decided; a packet that finds another one is decided anew.
 */
#define NSP_POLICY_OF_TAG(tag) ((__u32)(tag))

/*
 * settling[slot]: CLOCK_BOOTTIME until when an address without a rule still passes where
 * names are listed, for a workload that runs and gets its first policy: what it was
 * answered a moment before is not learned yet. Written before the tag; 0 for what has no process yet.
 */

/* Rule sets of one program or workload: one for each profile that selects it. */
#define NSP_GRANTS 8

/* What is done with what no rule set allows. */
enum nsp_mode {
	NSP_MODE_NONE = 0, /* no profile governs it */
	NSP_MODE_ALERT = 1, /* allowed, and reported as NSP_VERDICT_ALERTED */
	NSP_MODE_ENFORCE = 2,
};

/* A flow passes when one of the rule sets passes it in every layer. */
struct nsp_grants {
	__u32 rulesets[NSP_GRANTS]; /* indices in rulesets, 0 ends the list */
	__u8 mode; /* enum nsp_mode */
	__u8 pad[7];
};

#define NSP_POLICY_PROGRAMS 1 /* program_rules has entries for this policy */
#define NSP_POLICY_UNKNOWN_WORKLOAD 2 /* what it refuses is NSP_REASON_UNKNOWN_WORKLOAD */
#define NSP_POLICY_LOOPBACK 4 /* addresses of the loopback are subject to it too */
#define NSP_POLICY_ARP_SPOOFING 8 /* spec.attacks has arp-spoofing; what to do: grants.mode */
#define NSP_POLICY_TRACE_DNS 16

/* policies[index] */
struct nsp_policy {
	struct nsp_grants grants; /* of programs without rules of their own */
	__u8 content[16]; /* start of the SHA-256 of what it was compiled from */
	__u64 generation; /* reported with what it refuses */
	__u32 flags; /* NSP_POLICY_* */
	__u32 pad;
};

/*
 * program_ids: a path, zero padded -> u32 id, only of paths that a profile names. An
 * executable's path is written as the kernel walks it: components leaf first, each
 * with its NUL; a script's as text, which begins with a slash, so the two never meet.
 */
#define NSP_PROGRAM_PATH_BYTES 256
struct nsp_program_path {
	__u8 path[NSP_PROGRAM_PATH_BYTES];
};

/* program_rules: this -> nsp_grants. With a script first, then without. */
struct nsp_program_key {
	__u32 policy;
	__u32 program;
	__u32 script; /* 0: whatever it runs */
	__u32 pad;
};

#define NSP_RULESET_L3_IPV4 1 /* shifted by 8 for ingress: NSP_RULESET_INGRESS_SHIFT */
#define NSP_RULESET_L3_IPV6 2
#define NSP_RULESET_L3_ARP 4
#define NSP_RULESET_ANY_IPV4 8 /* 0.0.0.0/0 is a rule: address_rules need not be asked */
#define NSP_RULESET_ANY_IPV6 16
#define NSP_RULESET_PORTS 32 /* port_rules has entries for this direction */
#define NSP_RULESET_L7 64 /* payloads are judged: l7 of struct nsp_ruleset */
#define NSP_RULESET_INGRESS_SHIFT 8
/* Of the rule set as a whole. */
#define NSP_RULESET_NAMES (1 << 16) /* name_rules has names that may be asked or reached */
#define NSP_RULESET_DNS_ANY (1 << 17) /* any name may be asked */
#define NSP_RULESET_RAW_SOCKETS (1 << 18) /* SOCK_RAW and AF_PACKET are allowed */

/* Bits of nsp_ruleset.l7[direction]. */
#define NSP_L7_DNS 1 /* the protocols that may be spoken */
#define NSP_L7_HTTP 2
#define NSP_L7_TLS 4
#define NSP_L7_OPAQUE 8 /* what is none of these, or cannot be read, passes */
#define NSP_L7_HTTP_RULES 16 /* http_rules decides about requests */
#define NSP_L7_SNI_RULES 32 /* name_rules (NSP_NAME_SNI, _IN) decides about server names */

/*
 * So many versions back what was learned counts on. A place whose rules are gone may be
 * kept for it: it has no content then, and leads on.
 */
#define NSP_RULESET_HISTORY 3

/* rulesets[index]: the layers of one profile's rules for one program, or for the rest. */
struct nsp_ruleset {
	__u64 protocols[2][4]; /* [enum nsp_direction]: bit n: IP protocol n on all its ports */
	__u8 content[16]; /* start of the SHA-256 of its canonical text */
	__u32 flags; /* NSP_RULESET_* */
	__u32 previous; /* rule set it replaced: what that learned counts on; 0: none */
	__u8 l7[2]; /* [enum nsp_direction]: NSP_L7_*, when NSP_RULESET_L7 is set */
	__u8 pad[6];
};

/*
 * The tries of a rule set: address_rules, port_rules, name_rules and http_rules are
 * arrays of maps, index as in rulesets, each entry an LPM trie of u32 values made by
 * user space. A rule set without rules of a kind has no trie in that array.
 */

/* address_rules: value 1. prefixlen counts the first four bytes: 32 + 96 + 24 is an IPv4 /24. */
struct nsp_address_rule {
	__u32 prefixlen;
	__u8 direction; /* enum nsp_direction */
	__u8 pad[3];
	__u8 address[16];
};

/* port_rules: value 1. A range of ports is several prefixes. */
struct nsp_port_rule {
	__u32 prefixlen;
	__u8 direction;
	__u8 protocol;
	__u8 port[2]; /* network order; for ICMP type, then code */
};

#define NSP_NAME_ASK 1 /* may be asked for */
#define NSP_NAME_REACH 2 /* its addresses are learned and may be reached */
#define NSP_NAME_SNI 4 /* may be a TLS server name of a connection that goes out */
#define NSP_NAME_SNI_IN 8 /* and of one that comes in */

/*
 * name_rules: value NSP_NAME_*, those of every shorter rule that matches included. The
 * name is the wire name in lower case, reversed byte by byte without the root label, so
 * that each label is followed by its length byte. A name itself ends in a NUL, which is
 * counted; what matches every name below ends in the length byte of the suffix's first
 * label, and does not match the suffix itself. 250 bytes of name: longer ones pass no rule.
 */
#define NSP_NAME_BYTES 252
struct nsp_name_rule {
	__u32 prefixlen;
	__u8 name[NSP_NAME_BYTES];
};

/* http_rules: value 1. An exact URI ends in a blank, which is counted; a prefix does not. */
#define NSP_HTTP_METHOD_BYTES 15
#define NSP_HTTP_URI_BYTES 236
struct nsp_http_rule {
	__u32 prefixlen;
	__u8 direction;
	__u8 method[NSP_HTTP_METHOD_BYTES]; /* zero padded; all zero: any method, asked second */
	__u8 uri[NSP_HTTP_URI_BYTES];
};

/*
 * learned: this -> nsp_learned_value. Written by the kernel when an allowed name is
 * answered by a listed resolver, before the application sees the answer.
 */
struct nsp_learned_key {
	__u64 workload_cgroup_id;
	__u32 ruleset;
	__u32 pad;
	__u8 address[16];
};

struct nsp_learned_value {
	__u64 expires_ns; /* floor and grace are in it */
	__u64 name_id; /* key in learned_names */
};

/*
 * learned_added: workload cgroup id -> u64, by the kernel: addresses that took a place in
 * learned. learned_removed: likewise, by user space, those it took out again. Two maps,
 * because a map update by either would undo the other's; the difference is the workload's
 * share in use.
 */

/* learned_names: u64 id (a hash of it) -> the reversed name, as in struct nsp_name_rule. */
struct nsp_learned_name {
	__u32 bits; /* prefixlen with the NUL */
	__u8 name[NSP_NAME_BYTES];
};

/*
 * resolvers: this -> u32 1. Only what they answer is learned, and DNS to them on port
 * 53 passes without an address rule where names may be asked. Workload 0: of every one,
 * but an address of the loopback then only of what is no workload: it is each network's own.
 */
struct nsp_resolver_key {
	__u64 workload_cgroup_id;
	__u8 address[16];
};

/* policy_counters[slot]: by atomic add, of calls and packets under that slot. */
struct nsp_policy_counters {
	__u64 refused_calls;
	__u64 refused_packets;
	__u64 alerted;
	__u64 first_refused_ns;
	__u64 by_reason[16]; /* enum nsp_reason, refused or alerted */
	__u64 tokens_ns; /* of the bucket that bounds reports: time up to which they are spent */
};

/*
 * exempt: u32 tgid -> u64 start_ns: neither profile nor order cuts these (the sensor itself).
 * break_glass: nsp_break_glass -> u32 1: no profile cuts this either, whoever it is.
 */
enum nsp_break_glass_way {
	NSP_BREAK_GLASS_OUT = 0, /* port is the remote one */
	NSP_BREAK_GLASS_IN = 1, /* the local one */
	NSP_BREAK_GLASS_BIND = 2, /* likewise; there is no remote end yet */
};

struct nsp_break_glass {
	__u32 prefixlen;
	__u8 protocol;
	__u8 direction; /* enum nsp_break_glass_way */
	__u8 port[2]; /* network order */
	__u8 address[16]; /* of the remote end */
};

/*
 * Network interfaces. interfaces: nsp_interface_key -> nsp_interface, written by user
 * space for every interface it attached to; what is not in it passes unjudged.
 */
struct nsp_interface_key {
	__u32 netns; /* inode number of the network namespace */
	__u32 ifindex;
};

#define NSP_INTERFACE_ETHERNET 1 /* frames begin with an Ethernet header */
#define NSP_INTERFACE_WORKLOAD 2 /* in a network namespace of a workload */
#define NSP_INTERFACE_PEER 4 /* the host's end of a workload's interface (subject) */

struct nsp_interface {
	__u64 workload_cgroup_id; /* 0: the host's */
	__u64 learn_tokens_ns; /* the kernel's own: bounds new bindings, see binding.h */
	__u64 ask_tokens_ns;
	__u64 ask_spared_ns; /* when a question was last not noted */
	struct nsp_interface_key subject; /* whose bindings count: itself, or the far end */
	__u32 flags; /* NSP_INTERFACE_* */
	__u8 mac[6];
	__u8 pad[6];
};

#define NSP_BINDING_OWN 1 /* an address of the interface itself */
#define NSP_BINDING_GATEWAY 2
#define NSP_BINDING_CONFIRMED 4 /* it answered a question: not merely heard first */

/* Keys of interface_addresses, and with the VLAN of bindings. */
struct nsp_binding_key {
	struct nsp_interface_key interface;
	__u32 vlan; /* 0 in interface_addresses */
	__u32 pad;
	__u8 address[16];
};

/*
 * interface_addresses: own addresses and gateways, entered by user space, which only
 * sets flags; bindings: all others. The rest is the kernel's.
 */
struct nsp_binding {
	__u64 seen_ns; /* the MAC was last heard under this address */
	__u64 asked_ns; /* the last question for this address left */
	__u64 probed_ns; /* the kernel's first question that is still without an answer */
	__u8 mac[6]; /* zero: not known */
	__u8 flags; /* NSP_BINDING_* */
	__u8 pad;
};

/*
 * sensor_state[0]: what a new sensor resumes from. Written by user space after the
 * broker acknowledged a batch; the kernel never looks at it.
 */
struct nsp_sensor_state {
	__u64 batch_sequence; /* of the last acknowledged batch */
	__u64 ring_position; /* end of that batch, as published: on the ring plus the load's base */
};

/* counters[]: per CPU, cumulative. Each is a loss or a limit reached; none is silent. */
enum nsp_counter {
	NSP_COUNTER_RING_FULL = 0, /* reserve or output failed: an event is lost */
	NSP_COUNTER_SCRATCH_MISSING = 1, /* per-CPU scratch lookup failed: an event is lost */
	NSP_COUNTER_PROCESS_MAP_FULL = 2,
	NSP_COUNTER_WORKLOAD_MAP_FULL = 3,
	NSP_COUNTER_SOCKET_STORAGE = 4, /* sk_storage_get failed: a workload's call is refused */
	NSP_COUNTER_OWNER_UNKNOWN = 5, /* a packet or TCP state change without an owner */
	NSP_COUNTER_PROCESS_UNKNOWN = 6, /* a process the maps did not know: filled from the task */
	NSP_COUNTER_READ_FAILED = 7, /* probe_read of kernel or user memory failed */
	NSP_COUNTER_DNS_MALFORMED = 8,
	NSP_COUNTER_DNS_TCP_SEGMENTED = 9, /* a DNS message over TCP that is not one segment */
	NSP_COUNTER_DNS_TOO_LONG = 10, /* longer than NSP_DNS_MESSAGE_MAX_BYTES: cut */
	NSP_COUNTER_PATH_TRUNCATED = 11,
	NSP_COUNTER_PACKET_UNPARSED =
		12, /* IP header or extension headers beyond what is followed */
	NSP_COUNTER_TAIL_CALL = 13, /* a tail call did not happen */
	NSP_COUNTER_LEARNED_FULL = 14, /* an answered address could not be learned */
	NSP_COUNTER_LEARNED_UNSOLICITED = 15, /* answer without its question, or from no resolver */
	NSP_COUNTER_LEARNED_OTHER_OWNER = 16, /* record that is not of the asked name's chain */
	NSP_COUNTER_NAME_TOO_LONG = 17, /* a name longer than rules can be */
	NSP_COUNTER_POLICY_REPORTS_SPARED = 18, /* refusals counted, not reported: a flood */
	NSP_COUNTER_L7_TOO_LONG = 19, /* request or hello beyond what is followed */
	NSP_COUNTER_L7_OPAQUE = 20, /* payload that is not understood where rules ask for it */
	NSP_COUNTER_L7_REORDERED = 21, /* segment out of order within what is judged */
	NSP_COUNTER_ARP_MALFORMED = 22,
	NSP_COUNTER_ARP_TABLE_FULL = 23,
	NSP_COUNTER_PACKET_SOCKET = 24, /* packet sent past every socket hook (AF_PACKET) */
	NSP_COUNTER_MAX = 32,
};

#endif
