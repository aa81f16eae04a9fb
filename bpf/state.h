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

/*
 * workloads: cgroup id -> this. User space registers the workload's own cgroup; the
 * mkdir program copies the parent's entry to each child, so a child cgroup has its
 * workload before the first process is in it.
 */
struct nsp_workload {
	__u64 workload_cgroup_id;
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
	NSP_COUNTER_SOCKET_STORAGE = 4, /* sk_storage_get failed: an owner is unknown */
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
	NSP_COUNTER_MAX = 32,
};

#endif
