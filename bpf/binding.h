/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Which MAC an IP address was heard under, per interface and VLAN, and what is wrong
 * with a claim. The rules, for frames that come in:
 *
 *  1. A claim of the interface's own address by another MAC is refused; the kernel would
 *     not believe it either, but the neighbours would. A virtual router's MAC (VRRP) may:
 *     its master changes.
 *  2. A frame whose Ethernet source is not the MAC it names is refused, except for a
 *     virtual router's MAC, which some send from the physical one.
 *  3. A binding seen before is not contradicted, unless
 *     - it has aged out: its MAC was not heard for NSP_BINDING_AGE_NS (a pod that moved
 *       keeps its address and comes back with another MAC). Gateways do not age: a
 *       connection in use is not asked for again, so silence says nothing about them; or
 *     - the kernel asked for the address itself and the old MAC has not answered for
 *       NSP_BINDING_PROBE_NS, while this answer was asked for. The kernel does so by
 *       itself within a minute, so a changed gateway is taken late, never not at all.
 *     First heard is not first trusted: where the binding has never answered a question
 *     and the claim does, it is reported and not dropped.
 *  4. An answer to no question of this interface, about an address that nobody is bound
 *     to, is refused. An announcement (its own address as the target) is not an answer,
 *     and whoever repeats what is known contradicts nothing.
 *
 * Of two answers to one question the first wins and the second is reported: which of
 * them lies, nobody can tell here. For frames that go out:
 *
 *  5. Nobody but its owner claims a gateway's address or a binding that has not aged.
 *  6. In a workload, a packet socket claims no other address than its interface's. What
 *     the kernel sends by itself is not held to that, since its addresses may be newer
 *     than user space's list; nor is the host, where load balancers announce what no
 *     interface has.
 */
#ifndef NSP_BINDING_H
#define NSP_BINDING_H

#include "claim.h"
#include "emit.h"

/* What Linux itself keeps an unused neighbour for (gc_stale_time). */
#define NSP_BINDING_AGE_NS 60000000000ULL
/* The kernel asks once a second: the second question is out by then. */
#define NSP_BINDING_PROBE_NS 1000000000ULL
/* How long after a question an answer is one. */
#define NSP_QUESTION_NS 3000000000ULL

/*
 * New bindings and questions of one interface: a burst, then a hundred a second. Filling
 * the table from one interface then takes minutes, in which everything in use is touched
 * again and stays. What is not learned is counted, and not protected.
 */
#define NSP_BINDING_COST_NS 10000000ULL
#define NSP_BINDING_BURST_NS (256 * NSP_BINDING_COST_NS)

static __always_inline u64 binding_age_limit(void)
{
	int index = NSP_SETTING_BINDING_AGE_NS;
	u64 *limit = settings.lookup(&index);

	return limit && *limit ? *limit : NSP_BINDING_AGE_NS;
}

static __always_inline int take_token(u64 *tokens_ns, u64 now_ns)
{
	u64 spent_ns = *tokens_ns;

	if (spent_ns + NSP_BINDING_BURST_NS < now_ns)
		spent_ns = now_ns - NSP_BINDING_BURST_NS;
	if (spent_ns > now_ns - NSP_BINDING_COST_NS)
		return 0;
	*tokens_ns = spent_ns + NSP_BINDING_COST_NS;
	return 1;
}

/* Own addresses and gateways on every VLAN: user space knows the untagged ones only. */
static __always_inline struct nsp_binding *find_binding(const struct nsp_binding_key *key)
{
	struct nsp_binding *binding = 0;

	if (!key->vlan)
		binding = interface_addresses.lookup((struct nsp_binding_key *)key);
	return binding ? binding : bindings.lookup((struct nsp_binding_key *)key);
}

static __always_inline int is_known(const struct nsp_binding *binding)
{
	return binding && !is_zero_mac(binding->mac);
}

static __always_inline int was_asked(const struct nsp_binding *binding, u64 now_ns)
{
	return binding && binding->asked_ns && now_ns - binding->asked_ns < NSP_QUESTION_NS;
}

/* Whether somebody else may have the address now: rule 3. */
static __always_inline int has_given_way(const struct nsp_binding *binding, int solicited,
					 u64 now_ns)
{
	if (!(binding->flags & NSP_BINDING_GATEWAY) &&
	    now_ns - binding->seen_ns > binding_age_limit())
		return 1;
	return solicited && binding->probed_ns && binding->seen_ns < binding->probed_ns &&
	       now_ns - binding->probed_ns >= NSP_BINDING_PROBE_NS;
}

static __always_inline void bind(struct nsp_binding *binding, const struct nsp_claim *claim,
				 int solicited, u64 now_ns)
{
	__builtin_memcpy(binding->mac, claim->mac, sizeof(binding->mac));
	binding->seen_ns = now_ns;
	binding->probed_ns = 0;
	binding->flags &= ~NSP_BINDING_CONFIRMED;
	if (solicited)
		binding->flags |= NSP_BINDING_CONFIRMED;
}

static __always_inline void learn_binding(struct nsp_interface *interface,
					  struct nsp_binding_key *key,
					  const struct nsp_claim *claim, u64 now_ns)
{
	struct nsp_binding binding = {};

	if (!take_token(&interface->learn_tokens_ns, now_ns)) {
		count(NSP_COUNTER_ARP_TABLE_FULL);
		return;
	}
	bind(&binding, claim, 0, now_ns);
	if (bindings.update(key, &binding))
		count(NSP_COUNTER_ARP_TABLE_FULL);
}

/* A question left: answers to it are expected, and silence begins to mean something. */
static __always_inline void note_question(struct nsp_interface *interface,
					  struct nsp_binding_key *key, int by_kernel, u64 now_ns)
{
	struct nsp_binding *binding = find_binding(key);
	struct nsp_binding asked = {};

	if (binding) {
		binding->asked_ns = now_ns;
		if (by_kernel && (!binding->probed_ns || binding->seen_ns >= binding->probed_ns))
			binding->probed_ns = now_ns;
		return;
	}
	if (!take_token(&interface->ask_tokens_ns, now_ns)) {
		interface->ask_spared_ns = now_ns;
		count(NSP_COUNTER_ARP_TABLE_FULL);
		return;
	}
	asked.asked_ns = now_ns;
	if (bindings.update(key, &asked))
		count(NSP_COUNTER_ARP_TABLE_FULL);
}

/* Rule 3, for a claim that contradicts what is known. */
static __always_inline u8 judge_change(struct nsp_binding *binding, const struct nsp_claim *claim,
				       int solicited, u64 now_ns, u8 *only_reported)
{
	if (has_given_way(binding, solicited, now_ns)) {
		bind(binding, claim, solicited, now_ns);
		return NSP_CLAIM_FINE;
	}
	if (solicited && !(binding->flags & NSP_BINDING_CONFIRMED))
		*only_reported = 1;
	return binding->flags & NSP_BINDING_GATEWAY ? NSP_CLAIM_GATEWAY : NSP_CLAIM_CONTRADICTION;
}

/* Rules 3 and 4. */
static __always_inline u8 judge_binding(struct nsp_interface *interface,
					struct nsp_binding_key *key, struct nsp_binding *binding,
					const struct nsp_claim *claim, u64 now_ns,
					u8 *only_reported)
{
	int solicited = claim->is_answer && was_asked(binding, now_ns);

	if (is_known(binding)) {
		if (!same_mac(binding->mac, claim->mac))
			return judge_change(binding, claim, solicited, now_ns, only_reported);
		binding->seen_ns = now_ns;
		if (solicited)
			binding->flags |= NSP_BINDING_CONFIRMED;
		return NSP_CLAIM_FINE;
	}
	if (claim->is_answer && !solicited && !same_address(claim->address, claim->target) &&
	    now_ns - interface->ask_spared_ns > NSP_QUESTION_NS)
		return NSP_CLAIM_UNSOLICITED;
	if (binding)
		bind(binding, claim, solicited, now_ns);
	else
		learn_binding(interface, key, claim, now_ns);
	return NSP_CLAIM_FINE;
}

static __always_inline u8 judge_incoming(struct nsp_interface *interface,
					 struct nsp_binding_key *key, struct nsp_binding *binding,
					 const struct nsp_claim *claim, u64 now_ns,
					 u8 *only_reported)
{
	if (binding && binding->flags & NSP_BINDING_OWN)
		return same_mac(claim->mac, interface->mac) || is_virtual_router(claim->mac)
			       ? NSP_CLAIM_FINE
			       : NSP_CLAIM_OWN_ADDRESS;
	if (!same_mac(claim->mac, claim->source_mac) && !is_virtual_router(claim->mac))
		return NSP_CLAIM_SENDER_MISMATCH;
	return judge_binding(interface, key, binding, claim, now_ns, only_reported);
}

static __always_inline u8 judge_outgoing(const struct nsp_interface *interface,
					 const struct nsp_binding *binding,
					 const struct nsp_claim *claim, int by_packet_socket,
					 u64 now_ns)
{
	u8 flags = binding ? binding->flags : 0;
	int is_own = (flags & NSP_BINDING_OWN) != 0;
	int is_workload = (interface->flags & NSP_INTERFACE_WORKLOAD) != 0;

	if (flags & NSP_BINDING_GATEWAY && (is_workload || !is_own) &&
	    !(is_known(binding) && same_mac(binding->mac, claim->mac)))
		return NSP_CLAIM_GATEWAY;
	if (!is_own && is_known(binding) && !same_mac(binding->mac, claim->mac) &&
	    !has_given_way(binding, 0, now_ns))
		return NSP_CLAIM_CONTRADICTION;
	if (!by_packet_socket)
		return NSP_CLAIM_FINE;
	if (!same_mac(claim->mac, claim->source_mac) && !is_virtual_router(claim->mac))
		return NSP_CLAIM_SENDER_MISMATCH;
	if (!is_workload)
		return NSP_CLAIM_FINE;
	if (!is_own)
		return NSP_CLAIM_FOREIGN_ADDRESS;
	return same_mac(claim->mac, interface->mac) || is_virtual_router(claim->mac)
		       ? NSP_CLAIM_FINE
		       : NSP_CLAIM_CONTRADICTION;
}

#endif
