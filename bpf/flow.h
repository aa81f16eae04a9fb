/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who makes a call, whose a socket is, and the flow event both end in: shared by the
 * call hooks, the TCP state hook, the packet hooks and the inventory.
 */
#ifndef NSP_FLOW_H
#define NSP_FLOW_H

#include "address.h"
#include "policy.h"

/* How deep a workload's own cgroup may lie: slices, pod and container are five. */
#define NSP_CGROUP_LEVELS 8

/* The process a call hook runs for; not to be asked for in packet hooks. */
struct nsp_caller {
	struct nsp_process_key key;
	struct nsp_process_key quarantine_root;
	struct nsp_governed governed;
	u64 cgroup_id;
	u32 tid;
};

/* Fills workload and slot of a cgroup; the programs are the process's. */
static __always_inline void workload_of_cgroup(u64 cgroup_id, struct nsp_governed *governed)
{
	struct nsp_workload *workload = workloads.lookup(&cgroup_id);

	governed->workload_cgroup_id = workload ? workload->workload_cgroup_id : 0;
	governed->slot = workload ? workload->policy_slot : NSP_SLOT_HOST;
}

/*
 * As above for the process that runs. A workload that may make cgroups could make more
 * than there is room for, and go into one that found none: then an ancestor counts.
 */
static __always_inline void workload_of_caller(u64 cgroup_id, struct nsp_governed *governed)
{
	int index = NSP_SETTING_WORKLOADS_FULL;
	u64 *full = settings.lookup(&index);

	workload_of_cgroup(cgroup_id, governed);
	if (governed->workload_cgroup_id || governed->slot || !full || !*full)
		return;
#pragma clang loop unroll(full)
	for (int level = 1; level <= NSP_CGROUP_LEVELS; level++) {
		u64 ancestor = bpf_get_current_ancestor_cgroup_id(level);

		if (ancestor && workloads.lookup(&ancestor))
			workload_of_cgroup(ancestor, governed);
	}
}

static __always_inline void identify_caller(struct nsp_caller *caller)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 tgid = pid_tgid >> 32;
	struct nsp_process *process = processes.lookup(&tgid);

	caller->tid = pid_tgid;
	caller->cgroup_id = bpf_get_current_cgroup_id();
	workload_of_caller(caller->cgroup_id, &caller->governed);
	caller->governed.program = 0;
	caller->governed.script = 0;
	caller->governed.pad = 0;
	if (process) {
		caller->key.start_ns = process->start_ns;
		caller->key.tgid = tgid;
		caller->key.pad = 0;
		caller->quarantine_root = process->quarantine_root;
		caller->governed.program = process->program;
		caller->governed.script = process->script;
		return;
	}
	count(NSP_COUNTER_PROCESS_UNKNOWN);
	process_key_of(bpf_get_current_task(), &caller->key);
	/* A quarantine of this very process is still found; one of an ancestor is not. */
	caller->quarantine_root = caller->key;
}

/* Whoever was allowed to use the socket last owns it: a stamp of an earlier owner goes. */
static __always_inline void own_socket(struct nsp_socket *socket, const struct nsp_caller *caller)
{
	struct nsp_process_key none = {};

	socket->owner = caller->key;
	socket->quarantine_root = none;
	socket->cgroup_id = caller->cgroup_id;
	socket->workload_cgroup_id = caller->governed.workload_cgroup_id;
	socket->policy_slot = caller->governed.slot;
	socket->program = caller->governed.program;
	socket->script = caller->governed.script;
	socket->flags |= NSP_SOCKET_OWNED;
}

/* Header and output; everything else is filled. header.type names the event. */
static __always_inline void emit_flow(struct nsp_flow_event *flow, u16 type,
				      const struct nsp_process_key *owner, u64 cgroup_id, u32 tid)
{
	event_header(&flow->header, type, sizeof(*flow), owner, cgroup_id, tid);
	if (events.ringbuf_output(flow, sizeof(*flow), NSP_RING_FLAGS))
		count(NSP_COUNTER_RING_FULL);
}

static __always_inline void refuse_flow(struct nsp_flow_event *flow,
					const struct nsp_enforcement *by)
{
	flow->verdict = NSP_VERDICT_REFUSED;
	flow->generation = by->generation;
}

/* What a decision by profile has to tell. */
static __always_inline void judge_flow(struct nsp_flow_event *flow,
				       const struct nsp_decision *decision)
{
	flow->verdict = decision->verdict;
	flow->reason = decision->reason;
	flow->generation = decision->generation;
}

/* Whether the socket's last decision is about this flow and program, and still holds. */
static __always_inline int is_decided(const struct nsp_socket *socket,
				      const struct nsp_governed *who,
				      const struct nsp_flow_event *flow, u64 tag)
{
	const u64 *decided = (const u64 *)socket->decided_address;
	const u64 *now = (const u64 *)flow->remote_address;

	if (socket->program != who->program || socket->script != who->script)
		return 0;
	/* What a name let pass is asked again: names expire. */
	return socket->policy_tag == tag && !socket->name_id &&
	       socket->verdict != NSP_VERDICT_REFUSED && decided[0] == now[0] &&
	       decided[1] == now[1] && socket->decided_port == flow->remote_port;
}

static __always_inline void remember_decision(struct nsp_socket *socket,
					      const struct nsp_flow_event *flow,
					      const struct nsp_decision *decision)
{
	socket->policy_tag = decision->tag;
	socket->name_id = decision->name_id;
	__builtin_memcpy(socket->decided_address, flow->remote_address,
			 sizeof(socket->decided_address));
	socket->decided_port = flow->remote_port;
	socket->verdict = decision->verdict;
	socket->grants = decision->grants;
	socket->came_in = decision->came_in;
	socket->flags &= ~NSP_SOCKET_L7;
	if (decision->l7)
		socket->flags |= NSP_SOCKET_L7;
}

/* Counts what a profile refused or alerted; true when it may be reported as an event. */
static __always_inline int note_verdict(u32 slot, const struct nsp_decision *decision, int is_call)
{
	struct nsp_policy_counters *counters = counters_of(slot);

	if (!counters)
		return 1;
	count_verdict(counters, decision);
	if (decision->verdict == NSP_VERDICT_REFUSED)
		__sync_fetch_and_add(
			is_call ? &counters->refused_calls : &counters->refused_packets, 1);
	return report_is_due(counters);
}

/* Addresses and ports of a kernel struct sock of family AF_INET or AF_INET6. */
static __always_inline void flow_from_sock(struct nsp_flow_event *flow, u64 sk)
{
	u16 family = read_u16(sk + NSP_OFF_sock____sk_common_skc_family);
	u32 ipv4;

	/* Not skc_num: that one is cleared before the state change to CLOSE is told. */
	flow->local_port = bpf_ntohs(read_u16(sk + NSP_OFF_inet_sock__inet_sport));
	flow->remote_port = bpf_ntohs(read_u16(sk + NSP_OFF_sock____sk_common_skc_dport));
	flow->protocol = read_u16(sk + NSP_OFF_sock__sk_protocol);
	flow->family = 4;
	if (family == NSP_AF_INET) {
		ipv4 = read_u32(sk + NSP_OFF_sock____sk_common_skc_rcv_saddr);
		map_ipv4(flow->local_address, &ipv4);
		ipv4 = read_u32(sk + NSP_OFF_sock____sk_common_skc_daddr);
		map_ipv4(flow->remote_address, &ipv4);
		return;
	}
	bpf_probe_read_kernel(flow->local_address, 16,
			      (void *)(sk + NSP_OFF_sock____sk_common_skc_v6_rcv_saddr));
	bpf_probe_read_kernel(flow->remote_address, 16,
			      (void *)(sk + NSP_OFF_sock____sk_common_skc_v6_daddr));
	if (!is_mapped(flow->local_address) && !is_mapped(flow->remote_address))
		flow->family = 6;
}

#endif
