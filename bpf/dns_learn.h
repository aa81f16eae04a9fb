/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Whether the addresses of an answer are to be learned: it comes from a listed
 * resolver, to the socket that asked, with the question as it was asked, and a rule set
 * lets the name be reached. What is allowed is looked up when the answer is here, so a
 * profile that came in between counts already.
 */
#ifndef NSP_DNS_LEARN_H
#define NSP_DNS_LEARN_H

#include "dns_policy.h"

/* Message and record table: 2048 + 32 * 12 bytes, in a power of two. */
#define NSP_DNS_TAIL_BYTES 4096
/* Resolvers keep no answer for longer (RFC 8767). */
#define NSP_DNS_TTL_MAX_S (7 * 24 * 3600)

#define NSP_PACKET_HOST 0 /* skb->pkt_type: to this host alone */
#define NSP_LOOPBACK_IFINDEX 1 /* in every network namespace */

/* What the answer's walk and the two learning programs hand on. */
struct nsp_dns_learning {
	struct nsp_learned_key key;
	u32 rulesets[NSP_GRANTS]; /* that let the name be reached, 0 ends */
	u32 owned; /* bit n: the n-th record is of the asked name or of an alias on its chain */
	u32 chain; /* offset of the name the chain has come to */
	u32 chain_ttl_s; /* the least of the aliases' */
	u32 owner; /* where the walked record's owner name begins */
};

/* Message and record table follow their event: they leave in one piece. */
struct nsp_dns_answer_scratch {
	struct nsp_dns_walk walk;
	struct nsp_dns_learning learning;
	struct nsp_dns_name name;
	struct nsp_grants grants;
	u32 governed; /* a profile holds for the socket */
	u32 pad;
	struct nsp_dns_event event;
	u8 tail[NSP_DNS_TAIL_BYTES + NSP_DNS_MESSAGE_SLACK_BYTES];
};

BPF_PERCPU_ARRAY(dns_answer_scratch, struct nsp_dns_answer_scratch, NSP_DNS_SCRATCH_SLOTS);

static __always_inline u32 record_table(const struct nsp_dns_event *event)
{
	return (message_length(event) + 3) & ~3;
}

static __always_inline struct nsp_dns_record *record_at(struct nsp_dns_answer_scratch *scratch,
							u32 table, u32 index)
{
	u64 place = masked_index(table + index * sizeof(struct nsp_dns_record), NSP_DNS_TAIL_BYTES);

	return (struct nsp_dns_record *)(scratch->tail + place);
}

static __always_inline int is_address(u16 type, u16 data_bytes)
{
	return (type == NSP_DNS_TYPE_A && data_bytes == 4) ||
	       (type == NSP_DNS_TYPE_AAAA && data_bytes == 16);
}

static __always_inline int is_chain_record(u16 type, u16 data_bytes)
{
	return type == NSP_DNS_TYPE_CNAME || is_address(type, data_bytes);
}

/*
 * Whether the answer was made in the network namespace that it came to: over its loopback
 * from an address that is none of the loopback, or as the copy of a multicast. Who may
 * send from any address (IP_TRANSPARENT, IPV6_FREEBIND, packet sockets on the loopback)
 * could answer himself like that. The node has resolvers on addresses of its own.
 */
static __always_inline int is_made_here(struct __sk_buff *skb, const u8 *remote_address)
{
	int index = NSP_SETTING_NODE_NETWORK;
	u64 *node = settings.lookup(&index);
	u64 device, namespace;

	if (skb->pkt_type != NSP_PACKET_HOST)
		return 1;
	if (skb->ifindex != NSP_LOOPBACK_IFINDEX || is_loopback(remote_address))
		return 0;
	device = read_u64((u64)skb + NSP_OFF_sk_buff__dev);
	namespace = read_u64(device + NSP_OFF_net_device__nd_net);
	return node && *node && read_u32(namespace + NSP_OFF_net__ns_inum) != *node;
}

/* The rule sets of the socket's program that list names. Returns how many. */
static __always_inline u32 rulesets_with_names(struct nsp_dns_answer_scratch *scratch,
					       const struct nsp_socket *socket)
{
	struct nsp_policy *policy;
	u64 tag;
	struct nsp_grants *grants =
		grants_of(socket->policy_slot, socket->program, socket->script, &tag, &policy);
	u32 found = 0;

	if (!grants || !grants->mode)
		return 0;
	scratch->grants = *grants;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u32 index = kept(scratch->grants.rulesets[masked_index(i, NSP_GRANTS)]);
		struct nsp_ruleset *rules;

		if (!index)
			break;
		rules = rulesets.lookup(&index);
		if (!rules)
			break;
		if (!(rules->flags & NSP_RULESET_NAMES))
			continue;
		kept(scratch->learning.rulesets[masked_index(found, NSP_GRANTS)]) = index;
		found++;
	}
	return found;
}

/* Of those, the ones that let the name be reached; the others' places are 0. */
static __always_inline u32 rulesets_that_reach(struct nsp_dns_answer_scratch *scratch,
					       u32 candidates)
{
	u32 found = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u32 index = kept(scratch->learning.rulesets[masked_index(i, NSP_GRANTS)]);

		if (i >= candidates)
			index = 0;
		else if (!(allowed_with_name(index, &scratch->name) & NSP_NAME_REACH))
			continue;
		kept(scratch->learning.rulesets[masked_index(found, NSP_GRANTS)]) = index;
		if (!index)
			break;
		found++;
	}
	if (found < NSP_GRANTS)
		kept(scratch->learning.rulesets[masked_index(found, NSP_GRANTS)]) = 0;
	return found;
}

/* Returns 1 when the answer's addresses are to be learned. The question is used up. */
static __always_inline int may_be_learned(struct nsp_dns_answer_scratch *scratch,
					  struct nsp_socket *socket)
{
	struct nsp_dns_event *event = &scratch->event;
	u32 candidates;

	candidates = rulesets_with_names(scratch, socket);
	if (!candidates || !event->name_bytes)
		return 0;
	read_name(&scratch->name, &scratch->walk, scratch->tail, event->name_bytes);
	if (!is_resolver(socket->workload_cgroup_id, event->remote_address) ||
	    !take_question(socket, event->cookie, question_of(event, scratch->name.hash))) {
		count(NSP_COUNTER_LEARNED_UNSOLICITED);
		return 0;
	}
	if (event->dns_flags & NSP_DNS_RCODE_MASK || !event->record_count)
		return 0;
	scratch->learning.key.workload_cgroup_id = socket->workload_cgroup_id;
	return rulesets_that_reach(scratch, candidates) != 0;
}

/* The scratch that dns_answer filled and left to this program, still taken. */
static __always_inline struct nsp_dns_answer_scratch *inherited_scratch(struct __sk_buff *skb)
{
	int index = skb->cb[3];

	return dns_answer_scratch.lookup(&index);
}

#endif
