/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The order of decisions, for calls (socket.c) and packets (packet.c) alike: quarantine
 * of the process, quarantine of the workload with what passes it all the same, blocked
 * destination (decide(), here);
 * then the profile: rules of the program, else of the workload, else what holds for
 * unknown workloads (profile.h).
 */
#ifndef NSP_POLICY_H
#define NSP_POLICY_H

#include "emit.h"
#include "profile.h"
#include "task.h"

/*
 * Refusals past the first so many of one enforcement are reported as one event in so
 * many: a process that loops over refused calls cannot fill the ring, and every
 * refusal is in the enforcement's counters.
 */
#define NSP_REFUSALS_REPORTED_EACH 256
#define NSP_REFUSALS_REPORTED_ONE_IN 1024

/* Expiry is judged here, so an enforcement ends on time even when user space is dead. */
static __always_inline struct nsp_enforcement *in_force(struct nsp_enforcement *enforcement)
{
	if (!enforcement || enforcement->expires_ns <= bpf_ktime_get_boot_ns())
		return 0;
	return enforcement;
}

/* User space says so before it writes the first entry, and unsays it after the last is gone. */
static __always_inline int something_is_enforced(void)
{
	int index = NSP_SETTING_ENFORCEMENTS;
	u64 *enforced = settings.lookup(&index);

	return !enforced || *enforced;
}

static __always_inline struct nsp_enforcement *quarantine_of(const struct nsp_process_key *root)
{
	struct nsp_process_key key = *root;

	if (!key.tgid)
		return 0;
	return in_force(quarantines.lookup(&key));
}

/* The block of exactly this destination, or else of the whole address. */
static __always_inline struct nsp_enforcement *block_of(u64 workload_cgroup_id, const u8 *address,
							u16 port, u8 protocol)
{
	struct nsp_destination destination = {};
	struct nsp_enforcement *block;

	destination.workload_cgroup_id = workload_cgroup_id;
	__builtin_memcpy(destination.address, address, sizeof(destination.address));
	destination.port = port;
	destination.protocol = protocol;
	block = in_force(blocked_destinations.lookup(&destination));
	if (block)
		return block;
	destination.port = 0;
	destination.protocol = 0;
	return in_force(blocked_destinations.lookup(&destination));
}

static __always_inline u32 workload_policy(u64 workload_cgroup_id)
{
	u32 *flags;

	if (!workload_cgroup_id)
		return 0;
	flags = workload_flags.lookup(&workload_cgroup_id);
	return flags ? *flags : 0;
}

/*
 * The ends of a flow as decide() is asked about them. local_port is 0 where what is opened
 * to the workload is not the question: a call that opens a flow, or a flow it has opened.
 */
struct nsp_ends {
	const u8 *address;
	u16 remote_port;
	u16 local_port;
	u8 protocol;
};

static __always_inline int is_allowed_flow(struct nsp_allowed_flow *flow, u8 direction, u16 port,
					   u64 generation)
{
	u64 *since;

	if (!port)
		return 0;
	flow->direction = direction;
	flow->port[0] = port >> 8;
	flow->port[1] = port;
	since = quarantine_allowed.lookup(flow);
	return since && *since >= generation;
}

/* DNS out and probes in, as the order that quarantined the workload says. */
static __always_inline int passes_quarantine(const struct nsp_enforcement *quarantine,
					     u64 workload_cgroup_id, const struct nsp_ends *ends)
{
	struct nsp_allowed_flow flow = {};

	flow.prefixlen = NSP_ALLOWED_FLOW_BITS + 128;
	flow.protocol = ends->protocol;
	flow.workload_cgroup_id = workload_cgroup_id;
	__builtin_memcpy(flow.address, ends->address, sizeof(flow.address));
	return is_allowed_flow(&flow, NSP_DIRECTION_OUT, ends->remote_port,
			       quarantine->generation) ||
	       is_allowed_flow(&flow, NSP_DIRECTION_IN, ends->local_port, quarantine->generation);
}

/*
 * What refuses this flow, with the reason, or NULL: allowed. The workload maps are
 * only looked into when its flags say that something is there.
 */
static __always_inline struct nsp_enforcement *refusal_of(const struct nsp_process_key *root,
							  u64 workload_cgroup_id,
							  const struct nsp_ends *ends, u8 *reason)
{
	struct nsp_enforcement *refused_by;
	u32 policy;

	*reason = NSP_REASON_NONE;
	if (!something_is_enforced())
		return 0;
	*reason = NSP_REASON_QUARANTINED_PROCESS;
	refused_by = quarantine_of(root);
	if (refused_by)
		return refused_by;
	policy = workload_policy(workload_cgroup_id);
	if (policy & NSP_WORKLOAD_HAS_QUARANTINE) {
		*reason = NSP_REASON_QUARANTINED_WORKLOAD;
		refused_by = in_force(workload_quarantines.lookup(&workload_cgroup_id));
		if (refused_by && !(policy & NSP_WORKLOAD_HAS_ALLOWED &&
				    passes_quarantine(refused_by, workload_cgroup_id, ends)))
			return refused_by;
	}
	if (policy & NSP_WORKLOAD_HAS_BLOCKS) {
		*reason = NSP_REASON_BLOCKED_DESTINATION;
		refused_by = block_of(workload_cgroup_id, ends->address, ends->remote_port,
				      ends->protocol);
		if (refused_by)
			return refused_by;
	}
	*reason = NSP_REASON_NONE;
	return 0;
}

/*
 * The same for a known process. The sensor is never cut: the order that would end it could
 * not reach it.
 */
static __always_inline struct nsp_enforcement *decide(const struct nsp_process_key *process,
						      const struct nsp_process_key *root,
						      u64 workload_cgroup_id,
						      const struct nsp_ends *ends, u8 *reason)
{
	struct nsp_enforcement *refused_by = refusal_of(root, workload_cgroup_id, ends, reason);

	if (!refused_by || !is_exempt(process))
		return refused_by;
	*reason = NSP_REASON_NONE;
	return 0;
}

static __always_inline void mark_first_refusal(struct nsp_enforcement *enforcement)
{
	if (!enforcement->first_refused_ns)
		__sync_val_compare_and_swap(&enforcement->first_refused_ns, 0,
					    bpf_ktime_get_boot_ns());
}

static __always_inline int refusal_is_reported(u64 refused_before)
{
	return refused_before < NSP_REFUSALS_REPORTED_EACH ||
	       refused_before % NSP_REFUSALS_REPORTED_ONE_IN == 0;
}

/* Counts a refused call; true when it is to be reported as an event too. */
static __always_inline int refuse_call(struct nsp_enforcement *enforcement)
{
	mark_first_refusal(enforcement);
	return refusal_is_reported(__sync_fetch_and_add(&enforcement->refused_calls, 1));
}

/* Counts a dropped packet; true when it is to be reported (the caller: once a socket). */
static __always_inline int refuse_packet(struct nsp_enforcement *enforcement, u64 bytes)
{
	mark_first_refusal(enforcement);
	__sync_fetch_and_add(&enforcement->refused_bytes, bytes);
	return refusal_is_reported(__sync_fetch_and_add(&enforcement->refused_packets, 1));
}

#endif
