/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The decision by profile about a call or a packet: which rule sets are asked (rules.h),
 * what the policy's mode makes of their answer, and how often that is reported.
 *
 * A policy is complete before a slot points to it, so whoever reads a tag reads one
 * version to the end.
 */
#ifndef NSP_PROFILE_H
#define NSP_PROFILE_H

#include "address.h"
#include "emit.h"
#include "rules.h"

#define NSP_PROTOCOL_ICMP 1
#define NSP_PROTOCOL_ICMPV6 58
#define NSP_PROTOCOL_DCCP 33
#define NSP_PROTOCOL_SCTP 132
#define NSP_PROTOCOL_UDPLITE 136
#define NSP_BREAK_GLASS_BITS 160

/*
 * Reports of one workload: a burst, then so many a second. Past them a refusal is only
 * counted: a process that loops over refused calls can neither fill the ring nor hide.
 */
#define NSP_REPORT_COST_NS 10000000ULL
#define NSP_REPORT_BURST_NS (256 * NSP_REPORT_COST_NS)

static __always_inline u64 policy_tag(u32 slot)
{
	u64 *tag = policy_slots.lookup(&slot);

	return tag ? *tag : 0;
}

static __always_inline struct nsp_grants *grants_in(struct nsp_policy *policy, u32 index,
						    u32 program, u32 script)
{
	struct nsp_program_key key = {};
	struct nsp_grants *grants = 0;

	if (!program || !(policy->flags & NSP_POLICY_PROGRAMS))
		return &policy->grants;
	key.policy = index;
	key.program = program;
	key.script = script;
	grants = program_rules.lookup(&key);
	if (!grants && script) {
		key.script = 0;
		grants = program_rules.lookup(&key);
	}
	return grants ? grants : &policy->grants;
}

/*
 * The rule sets that decide about a program under a slot, or NULL: no profile does.
 * *tag is the slot's and *policy the policy they are of.
 */
static __always_inline struct nsp_grants *grants_of(u32 slot, u32 program, u32 script, u64 *tag,
						    struct nsp_policy **policy)
{
	u32 index;

	*policy = 0;
	*tag = policy_tag(slot);
	index = NSP_POLICY_OF_TAG(*tag);
	if (!index)
		return 0;
	*policy = policies.lookup(&index);
	return *policy ? grants_in(*policy, index, program, script) : 0;
}

/* The sensor itself. */
static __always_inline int is_exempt(const struct nsp_process_key *process)
{
	u32 tgid = process->tgid;
	u64 *start_ns = exempt.lookup(&tgid);

	return start_ns && *start_ns == process->start_ns;
}

static __always_inline int is_break_glass(const struct nsp_flow_event *flow, u8 direction, u16 port)
{
	struct nsp_break_glass key = {};

	key.prefixlen = NSP_BREAK_GLASS_BITS;
	key.protocol = flow->protocol;
	key.direction = direction;
	key.port[0] = port >> 8;
	key.port[1] = port;
	__builtin_memcpy(key.address, flow->remote_address, sizeof(key.address));
	return break_glass.lookup(&key) != 0;
}

/* No profile may cut the sensor itself, nor the way in that was kept for emergencies. */
static __always_inline int is_beyond_profiles(const struct nsp_process_key *process,
					      const struct nsp_flow_event *flow, u8 which)
{
	if (is_exempt(process))
		return 1;
	if (which != NSP_FLOW_IN && is_break_glass(flow, NSP_BREAK_GLASS_OUT, flow->remote_port))
		return 1;
	return which != NSP_FLOW_OUT && is_break_glass(flow, NSP_BREAK_GLASS_IN, flow->local_port);
}

static __always_inline struct nsp_policy_counters *counters_of(u32 slot)
{
	return policy_counters.lookup(&slot);
}

static __always_inline void count_verdict(struct nsp_policy_counters *counters,
					  const struct nsp_decision *decision)
{
	u64 reason = masked_index(decision->reason, NSP_REASON_MAX);

	__sync_fetch_and_add(&counters->by_reason[reason], 1);
	if (decision->verdict != NSP_VERDICT_REFUSED) {
		__sync_fetch_and_add(&counters->alerted, 1);
		return;
	}
	if (!counters->first_refused_ns)
		counters->first_refused_ns = bpf_ktime_get_boot_ns();
}

/* Whether this refusal or alert of the slot may be an event of its own. */
static __always_inline int report_is_due(struct nsp_policy_counters *counters)
{
	u64 now_ns = bpf_ktime_get_boot_ns();
	u64 spent_ns = counters->tokens_ns;

	if (spent_ns + NSP_REPORT_BURST_NS < now_ns)
		spent_ns = now_ns - NSP_REPORT_BURST_NS;
	if (spent_ns > now_ns - NSP_REPORT_COST_NS) {
		count(NSP_COUNTER_POLICY_REPORTS_SPARED);
		return 0;
	}
	counters->tokens_ns = spent_ns + NSP_REPORT_COST_NS;
	return 1;
}

/* What a mode makes of a reason: the verdict. */
static __always_inline void apply_mode(struct nsp_decision *decision,
				       const struct nsp_policy *policy, u8 mode)
{
	if (!decision->reason)
		return;
	decision->generation = policy->generation;
	if (policy->flags & NSP_POLICY_UNKNOWN_WORKLOAD)
		decision->reason = NSP_REASON_UNKNOWN_WORKLOAD;
	decision->verdict = mode == NSP_MODE_ENFORCE ? NSP_VERDICT_REFUSED : NSP_VERDICT_ALERTED;
}

static __always_inline int is_settling(u32 slot)
{
	u64 *until_ns = settling.lookup(&slot);

	return until_ns && *until_ns && bpf_ktime_get_boot_ns() < *until_ns;
}

/*
 * The decision by profile. decision->name_id is what a flow that is decided again was
 * allowed by before, else 0. Returns 0 when no profile governs it.
 */
static __always_inline int decide_by_profile(const struct nsp_governed *who,
					     const struct nsp_process_key *process,
					     const struct nsp_flow_event *flow, u8 which,
					     struct nsp_decision *decision)
{
	struct nsp_policy *policy;
	struct nsp_grants *grants =
		grants_of(who->slot, who->program, who->script, &decision->tag, &policy);

	decision->verdict = NSP_VERDICT_ALLOWED;
	decision->reason = NSP_REASON_NONE;
	decision->generation = 0;
	decision->grants = 0;
	decision->came_in = 0;
	decision->l7 = 0;
	if (!grants || !policy || !grants->mode)
		return 0;
	if (!(policy->flags & NSP_POLICY_LOOPBACK) && is_loopback(flow->remote_address))
		return 1;
	hold_against_rules(who, grants, flow, which, decision);
	if (decision->reason == NSP_REASON_ADDRESS && decision->named && is_settling(who->slot)) {
		decision->reason = NSP_REASON_NONE;
		decision->tag = 0; /* to be decided again */
		return 1;
	}
	if (decision->reason && is_beyond_profiles(process, flow, which))
		decision->reason = NSP_REASON_NONE;
	apply_mode(decision, policy, grants->mode);
	/* Read anew, so that the verifier forgets by which of many ways it came to be. */
	bpf_probe_read_kernel(decision, sizeof(*decision), decision);
	return 1;
}

/* A bind to a port, or the birth of a raw socket; not a flow yet. */
static __always_inline void decide_socket_by_profile(const struct nsp_governed *who,
						     const struct nsp_process_key *process, int raw,
						     const struct nsp_flow_event *flow,
						     struct nsp_decision *decision)
{
	struct nsp_policy *policy;
	struct nsp_grants *grants =
		grants_of(who->slot, who->program, who->script, &decision->tag, &policy);

	if (!grants || !policy || !grants->mode)
		return;
	if (!(policy->flags & NSP_POLICY_LOOPBACK) && is_loopback(flow->local_address))
		return;
	decision->reason =
		raw ? raw_socket_stopped(grants) : bind_refused_by_rules(who, grants, flow);
	/* Whoever is to be reached in an emergency must be able to start then. */
	if (decision->reason &&
	    (is_exempt(process) || is_break_glass(flow, NSP_BREAK_GLASS_BIND, flow->local_port)))
		decision->reason = NSP_REASON_NONE;
	apply_mode(decision, policy, grants->mode);
}

#endif
