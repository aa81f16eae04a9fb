/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Rule sets and what they pass: family, protocol and port, address. A rule set passes a
 * flow when each of its layers does; a flow passes when one of the rule sets of its
 * program (one for each profile that selects the workload) passes it. Payloads are for
 * the programs behind the tail calls.
 *
 * Nothing here changes a rule set: it is complete before anything leads to it.
 */
#ifndef NSP_RULES_H
#define NSP_RULES_H

#include <uapi/linux/in.h>

#include "bounds.h"
#include "emit.h"

#define NSP_PORT_RULE_BITS 32 /* direction, protocol, port */
#define NSP_ADDRESS_RULE_BITS 160 /* direction with its padding, address */
#define NSP_DNS_PORT 53
#define NSP_RULESET_NONE 0 /* of what was learned before there was a profile */

/* Whose flow it is; of the caller, or of the socket's owner when it took the socket. */
struct nsp_governed {
	u64 workload_cgroup_id;
	u32 slot;
	u32 program;
	u32 script;
	u32 pad;
};

/* Which rules a flow is held against. */
enum nsp_flow_rules {
	NSP_FLOW_OUT = 0, /* to a remote port */
	NSP_FLOW_IN = 1, /* to a local port */
	/* Datagrams have no direction: what may go out may be answered, and the reverse. */
	NSP_FLOW_EITHER = 2,
};

struct nsp_decision {
	u64 tag; /* of the slot; 0: no profile */
	u64 name_id; /* of the learned name that let the address pass */
	u64 generation;
	u8 verdict; /* enum nsp_verdict */
	u8 reason;
	u8 grants; /* bit n: the n-th rule set passed it */
	u8 l7; /* every one of these has something to say about the payload */
	u8 named; /* the address may be of a name that was not learned */
	u8 came_in; /* of grants, those that passed it by their rules for what comes in */
};

static __always_inline int is_resolver(u64 workload_cgroup_id, const u8 *address)
{
	struct nsp_resolver_key key = {};

	__builtin_memcpy(key.address, address, sizeof(key.address));
	key.workload_cgroup_id = workload_cgroup_id;
	if (resolvers.lookup(&key))
		return 1;
	if (is_loopback(address)) /* the node's stub; in another network it is somebody else */
		return 0;
	key.workload_cgroup_id = 0;
	return resolvers.lookup(&key) != 0;
}

/* Whether a rule set lets the names of a learned address be reached. */
static __always_inline int name_may_be_reached(u32 ruleset, u64 name_id)
{
	struct nsp_learned_name *name;
	int index = ruleset;
	void *trie;
	u32 *allowed;

	if (!name_id)
		return 0;
	name = learned_names.lookup(&name_id);
	trie = name_rules.lookup(&index);
	if (!name || !trie)
		return 0;
	allowed = bpf_map_lookup_elem(trie, name);
	return allowed && *allowed & NSP_NAME_REACH;
}

/*
 * One evaluation. It lies in map memory, of which the verifier knows nothing: with the
 * same on the stack it follows every combination of what each rule set said, and of how
 * the flow came about, and gives up at a million instructions.
 *
 * A program in process context may be preempted and another one started on the same
 * CPU: each takes a slot. Should all be taken, the flow is treated as not allowed.
 */
#define NSP_PROFILE_SCRATCH_SLOTS 4

/* Through volatile, so that neither LLVM nor the verifier keeps what was written. */
#define kept(member) (*(volatile typeof(member) *)&(member))

struct nsp_profile_scratch {
	u64 busy; /* BCC has atomics for 64 bits only */
	u64 now_ns;
	u64 name_id; /* by which the flow was allowed before, or is now */
	struct nsp_governed who;
	struct nsp_grants grants;
	struct nsp_address_rule address;
	struct nsp_learned_key learned;
	struct nsp_resolver_key resolver;
	struct nsp_port_rule port;
	u16 remote_port;
	u16 local_port;
	u8 family;
	u8 protocol;
	u8 which; /* enum nsp_flow_rules */
	u8 stopped; /* by the rule set that is being asked */
	u8 passed; /* bit n: the n-th rule set passed the flow */
	u8 judged; /* and has rules about its payload */
	u8 deepest; /* the layer the flow came to, where none passed it */
	u8 named; /* a rule set has names, and the address is of none of them */
	u8 by_ingress; /* the rule set that is asked passes it as what comes in */
	u8 came_in; /* of those that passed, as in struct nsp_decision */
	u8 pad[2];
};

BPF_PERCPU_ARRAY(profile_scratch, struct nsp_profile_scratch, NSP_PROFILE_SCRATCH_SLOTS);

static __always_inline struct nsp_profile_scratch *take_profile_scratch(void)
{
#pragma clang loop unroll(full)
	for (int slot = 0; slot < NSP_PROFILE_SCRATCH_SLOTS; slot++) {
		int index = slot;
		struct nsp_profile_scratch *scratch = profile_scratch.lookup(&index);

		if (scratch && __sync_val_compare_and_swap(&scratch->busy, 0, 1) == 0)
			return scratch;
	}
	count(NSP_COUNTER_SCRATCH_MISSING);
	return 0;
}

static __always_inline int address_rule_matches(struct nsp_profile_scratch *ask, u32 ruleset,
						u8 direction)
{
	int index = ruleset;
	void *trie = address_rules.lookup(&index);

	if (!trie)
		return 0;
	ask->address.direction = direction;
	return bpf_map_lookup_elem(trie, &ask->address) != 0;
}

static __always_inline int port_rule_matches(struct nsp_profile_scratch *ask, u32 ruleset,
					     u8 direction, u16 port)
{
	int index = ruleset;
	void *trie = port_rules.lookup(&index);

	if (!trie)
		return 0;
	ask->port.direction = direction;
	ask->port.port[0] = port >> 8;
	ask->port.port[1] = port;
	return bpf_map_lookup_elem(trie, &ask->port) != 0;
}

static __always_inline int protocol_passes(struct nsp_profile_scratch *ask,
					   const struct nsp_ruleset *rules, u32 ruleset,
					   u8 direction, u16 port)
{
	u64 word = masked_index(ask->protocol >> 6, 4);
	u32 flags = rules->flags >> (direction ? NSP_RULESET_INGRESS_SHIFT : 0);

	if (rules->protocols[direction][word] >> (ask->protocol & 63) & 1)
		return 1;
	return flags & NSP_RULESET_PORTS && port_rule_matches(ask, ruleset, direction, port);
}

/* The question itself is judged by name when it leaves (dns.c). */
static __always_inline int is_allowed_dns(struct nsp_profile_scratch *ask,
					  const struct nsp_ruleset *rules)
{
	if (ask->remote_port != NSP_DNS_PORT ||
	    (ask->protocol != IPPROTO_UDP && ask->protocol != IPPROTO_TCP))
		return 0;
	if (!(rules->flags & (NSP_RULESET_NAMES | NSP_RULESET_DNS_ANY)))
		return 0;
	ask->resolver.workload_cgroup_id = ask->who.workload_cgroup_id;
	if (resolvers.lookup(&ask->resolver))
		return 1;
	if (is_loopback(ask->resolver.address))
		return 0;
	ask->resolver.workload_cgroup_id = 0;
	return resolvers.lookup(&ask->resolver) != 0;
}

static __always_inline int family_passes(u32 flags, u8 family)
{
	return (family == 4 ? flags & NSP_RULESET_L3_IPV4 : flags & NSP_RULESET_L3_IPV6) != 0;
}

static __always_inline int any_address_passes(u32 flags, u8 family)
{
	return (family == 4 ? flags & NSP_RULESET_ANY_IPV4 : flags & NSP_RULESET_ANY_IPV6) != 0;
}

/* Whether the address was learned under ask->learned.ruleset, for a name this one allows. */
static __always_inline int is_learned_under(struct nsp_profile_scratch *ask, u32 ruleset)
{
	struct nsp_learned_value *value = learned.lookup(&ask->learned);

	if (!value || value->expires_ns <= ask->now_ns ||
	    !name_may_be_reached(ruleset, value->name_id))
		return 0;
	ask->name_id = value->name_id;
	return 1;
}

/*
 * Whether a former version of the rule set learned the address, for a name that is still
 * allowed; or user space, before the workload had a profile.
 */
static __always_inline int is_learned_before(struct nsp_profile_scratch *ask, u32 previous,
					     u32 ruleset)
{
#pragma unroll
	for (int i = 0; i < NSP_RULESET_HISTORY; i++) {
		struct nsp_ruleset *before;

		if (!previous)
			break;
		ask->learned.ruleset = previous;
		if (is_learned_under(ask, ruleset))
			return 1;
		before = rulesets.lookup(&previous);
		if (!before)
			break;
		previous = before->previous;
	}
	ask->learned.ruleset = NSP_RULESET_NONE;
	return is_learned_under(ask, ruleset);
}

/*
 * Whether an allowed name was answered with the address; ask->name_id says which. A flow
 * that was allowed by a name stays so while the name is, whatever its TTL.
 */
static __always_inline int is_learned(struct nsp_profile_scratch *ask, u32 ruleset)
{
	struct nsp_learned_value *value;

	if (name_may_be_reached(ruleset, ask->name_id))
		return 1;
	ask->learned.ruleset = ruleset;
	value = learned.lookup(&ask->learned);
	if (!value || value->expires_ns <= ask->now_ns)
		return 0;
	ask->name_id = value->name_id;
	return 1;
}

/* The first layer of one rule set that stops the flow, or NSP_REASON_NONE. */
static __always_inline u8 outgoing_stopped(struct nsp_profile_scratch *ask,
					   const struct nsp_ruleset *rules, u32 ruleset)
{
	u32 flags = rules->flags;

	if (!family_passes(flags, ask->family))
		return NSP_REASON_L3_PROTOCOL;
	if (is_allowed_dns(ask, rules))
		return NSP_REASON_NONE;
	if (!protocol_passes(ask, rules, ruleset, NSP_DIRECTION_OUT, ask->remote_port))
		return NSP_REASON_L4_PROTOCOL;
	if (any_address_passes(flags, ask->family))
		return NSP_REASON_NONE;
	if (flags & NSP_RULESET_NAMES && is_learned(ask, ruleset))
		return NSP_REASON_NONE;
	if (address_rule_matches(ask, ruleset, NSP_DIRECTION_OUT))
		return NSP_REASON_NONE;
	if (flags & NSP_RULESET_NAMES) {
		if (is_learned_before(ask, rules->previous, ruleset))
			return NSP_REASON_NONE;
		kept(ask->named) = 1;
	}
	return NSP_REASON_ADDRESS;
}

static __always_inline u8 incoming_stopped(struct nsp_profile_scratch *ask,
					   const struct nsp_ruleset *rules, u32 ruleset)
{
	u32 flags = rules->flags >> NSP_RULESET_INGRESS_SHIFT;

	if (!family_passes(flags, ask->family))
		return NSP_REASON_L3_PROTOCOL;
	if (!protocol_passes(ask, rules, ruleset, NSP_DIRECTION_IN, ask->local_port))
		return NSP_REASON_L4_PROTOCOL;
	if (any_address_passes(flags, ask->family) ||
	    address_rule_matches(ask, ruleset, NSP_DIRECTION_IN))
		return NSP_REASON_NONE;
	return NSP_REASON_ADDRESS;
}

/* Asks one rule set: ask->stopped, and whether it judges payloads of such flows. */
static __always_inline u32 ask_ruleset(struct nsp_profile_scratch *ask,
				       const struct nsp_ruleset *rules, u32 ruleset)
{
	u32 judges = rules->flags;

	kept(ask->stopped) = NSP_REASON_ADDRESS;
	kept(ask->by_ingress) = 0;
	if (kept(ask->which) != NSP_FLOW_IN)
		kept(ask->stopped) = outgoing_stopped(ask, rules, ruleset);
	if (kept(ask->stopped) && kept(ask->which) != NSP_FLOW_OUT) {
		kept(ask->stopped) = incoming_stopped(ask, rules, ruleset);
		kept(ask->by_ingress) = 1;
		judges >>= NSP_RULESET_INGRESS_SHIFT;
	}
	return judges & NSP_RULESET_L7;
}

static __always_inline void ask_rulesets(struct nsp_profile_scratch *ask)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u64 place = masked_index(i, NSP_GRANTS);
		u32 index = kept(ask->grants.rulesets[place]);
		struct nsp_ruleset *rules;
		u32 judges;

		if (!index)
			break;
		rules = rulesets.lookup(&index);
		if (!rules)
			break;
		judges = ask_ruleset(ask, rules, index);
		if (kept(ask->stopped)) {
			if (kept(ask->stopped) > kept(ask->deepest))
				kept(ask->deepest) = kept(ask->stopped);
			continue;
		}
		kept(ask->passed) |= 1 << place;
		kept(ask->came_in) |= kept(ask->by_ingress) << place;
		if (judges)
			kept(ask->judged) |= 1 << place;
	}
}

static __always_inline void begin_asking(struct nsp_profile_scratch *ask,
					 const struct nsp_governed *who,
					 const struct nsp_grants *grants,
					 const struct nsp_flow_event *flow)
{
	ask->now_ns = bpf_ktime_get_boot_ns();
	ask->who = *who;
	ask->grants = *grants;
	ask->address.prefixlen = NSP_ADDRESS_RULE_BITS;
	__builtin_memcpy(ask->address.address, flow->remote_address, 16);
	ask->learned.workload_cgroup_id = who->workload_cgroup_id;
	__builtin_memcpy(ask->learned.address, flow->remote_address, 16);
	__builtin_memcpy(ask->resolver.address, flow->remote_address, 16);
	ask->port.prefixlen = NSP_PORT_RULE_BITS;
	ask->port.protocol = flow->protocol;
	ask->remote_port = flow->remote_port;
	ask->local_port = flow->local_port;
	ask->family = flow->family;
	ask->protocol = flow->protocol;
	ask->passed = 0;
	ask->judged = 0;
	ask->came_in = 0;
	ask->deepest = NSP_REASON_L3_PROTOCOL;
	ask->named = 0;
}

/* Holds the flow against one rule set after the other; fills all but the mode's part. */
static __always_inline void hold_against_rules(const struct nsp_governed *who,
					       const struct nsp_grants *grants,
					       const struct nsp_flow_event *flow, u8 which,
					       struct nsp_decision *decision)
{
	struct nsp_profile_scratch *ask = take_profile_scratch();
	u8 passed;

	if (!ask) {
		decision->reason = NSP_REASON_ADDRESS;
		return;
	}
	begin_asking(ask, who, grants, flow);
	ask->name_id = decision->name_id;
	ask->which = which;
	ask_rulesets(ask);
	passed = kept(ask->passed);
	decision->name_id = passed ? ask->name_id : 0;
	decision->grants = passed;
	decision->came_in = kept(ask->came_in);
	decision->l7 = passed && passed == kept(ask->judged);
	decision->reason = passed ? NSP_REASON_NONE : kept(ask->deepest);
	decision->named = kept(ask->named);
	kept(ask->busy) = 0;
}

/* Whether some rule set lets anybody reach this local port: what a bind is for. */
static __always_inline u8 bind_stopped(struct nsp_profile_scratch *ask)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u32 index = kept(ask->grants.rulesets[masked_index(i, NSP_GRANTS)]);
		struct nsp_ruleset *rules;

		if (!index)
			break;
		rules = rulesets.lookup(&index);
		if (!rules)
			break;
		if (protocol_passes(ask, rules, index, NSP_DIRECTION_IN, ask->local_port))
			return NSP_REASON_NONE;
	}
	return NSP_REASON_L4_PROTOCOL;
}

static __always_inline u8 bind_refused_by_rules(const struct nsp_governed *who,
						const struct nsp_grants *grants,
						const struct nsp_flow_event *flow)
{
	struct nsp_profile_scratch *ask = take_profile_scratch();
	u8 stopped;

	if (!ask)
		return NSP_REASON_L4_PROTOCOL;
	begin_asking(ask, who, grants, flow);
	stopped = bind_stopped(ask);
	kept(ask->busy) = 0;
	return stopped;
}

/* Whether one of the grants has one of these NSP_RULESET_* flags. */
static __always_inline int some_grant_has(const struct nsp_grants *grants, u32 flags)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u32 index = grants->rulesets[masked_index(i, NSP_GRANTS)];
		struct nsp_ruleset *rules;

		if (!index)
			break;
		rules = rulesets.lookup(&index);
		if (!rules)
			break;
		if (rules->flags & flags)
			return 1;
	}
	return 0;
}

static __always_inline u8 raw_socket_stopped(const struct nsp_grants *grants)
{
	return some_grant_has(grants, NSP_RULESET_RAW_SOCKETS) ? NSP_REASON_NONE
							       : NSP_REASON_RAW_SOCKET;
}

#endif
