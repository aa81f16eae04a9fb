/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Learns addresses, before the application sees the answer. dns_answer leaves its scratch
 * to dns_believe, and that to dns_learn. Where the owners of the records cannot be told
 * by their places, dns_learn calls dns_owners, which compares the names and calls back.
 */
#include "dns_learn.h"

#define NSP_DNS_TTL_SIGN 0x80000000 /* from here on a TTL counts as 0 (RFC 2181) */
/* Where nobody has set a floor: a TTL of 0 has to last from the answer to the connect. */
#define NSP_LEARNED_FLOOR_NS (5ULL * 1000000000)

/* Whether to learn from the answer at all. */
int dns_believe(struct __sk_buff *skb)
{
	struct nsp_socket *socket = socket_of_packet(skb);
	struct nsp_dns_answer_scratch *scratch = inherited_scratch(skb);

	if (!scratch)
		return 1;
	if (is_made_here(skb, scratch->event.remote_address)) {
		count(NSP_COUNTER_LEARNED_UNSOLICITED);
	} else if (socket && may_be_learned(scratch, socket)) {
		ingress_tail_calls.call(skb, NSP_TAIL_DNS_LEARN);
		count(NSP_COUNTER_TAIL_CALL);
	}
	give_back(&scratch->walk);
	return 1;
}

/*
 * As answers mostly are: an owner points to the question's name, or to the target of the
 * alias before. Returns 0 when a record's owner cannot be told like that.
 */
static __always_inline int follow_chain(struct nsp_dns_answer_scratch *scratch, u32 table)
{
	struct nsp_dns_learning *learning = &scratch->learning;

	remember(&learning->chain, NSP_DNS_HEADER_BYTES);
	remember(&learning->chain_ttl_s, NSP_DNS_TTL_MAX_S);
	remember(&learning->owned, 0);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_DNS_MAX_RECORDS; i++) {
		struct nsp_dns_record *record = record_at(scratch, table, opaque(i));

		if (i >= *(volatile u8 *)&scratch->event.record_count)
			break;
		if (!is_chain_record(record->type, record->data_bytes))
			continue;
		if (record->owner_offset != recall(&learning->chain))
			return 0;
		remember(&learning->owned, recall(&learning->owned) | 1U << i);
		if (record->type != NSP_DNS_TYPE_CNAME)
			continue;
		remember(&learning->chain, record->data_offset);
		if (record->ttl_s < recall(&learning->chain_ttl_s))
			remember(&learning->chain_ttl_s, record->ttl_s);
	}
	return 1;
}

/* A TTL of the message as time to live from now on, with floor and grace. */
static __always_inline u64 expiry_of(u32 ttl_s)
{
	int floor_index = NSP_SETTING_LEARNED_FLOOR_NS;
	int grace_index = NSP_SETTING_LEARNED_GRACE_NS;
	u64 *floor_ns = settings.lookup(&floor_index);
	u64 *grace_ns = settings.lookup(&grace_index);
	u64 least = floor_ns && *floor_ns ? *floor_ns : NSP_LEARNED_FLOOR_NS;
	u64 life = ttl_s & NSP_DNS_TTL_SIGN ? 0 : (u64)ttl_s * 1000000000;

	return bpf_ktime_get_boot_ns() + (life > least ? life : least) + (grace_ns ? *grace_ns : 0);
}

/* The workload's count of learned addresses, or NULL: there is no place for it. */
static __always_inline u64 *added_by(u64 workload_cgroup_id)
{
	u64 none = 0;
	u64 *added = learned_added.lookup(&workload_cgroup_id);

	if (added)
		return added;
	learned_added.insert(&workload_cgroup_id, &none);
	return learned_added.lookup(&workload_cgroup_id);
}

static __always_inline int has_share_left(u64 workload_cgroup_id, u64 added)
{
	u64 *removed = learned_removed.lookup(&workload_cgroup_id);

	return added - (removed ? *removed : 0) < NSP_LEARNED_SHARE;
}

static __always_inline void learn_new(const struct nsp_learned_key *key,
				      const struct nsp_learned_value *value)
{
	struct nsp_learned_key place = *key;
	struct nsp_learned_value entry = *value;
	u64 *added = added_by(place.workload_cgroup_id);

	if (!added || !has_share_left(place.workload_cgroup_id, *added)) {
		count(NSP_COUNTER_LEARNED_FULL);
		return;
	}
	if (!learned.insert(&place, &entry))
		__sync_fetch_and_add(added, 1);
	else if (!learned.lookup(&place)) /* another CPU's entry is as good */
		count(NSP_COUNTER_LEARNED_FULL);
}

/*
 * The later expiry counts; with it goes the name. User space may take out what has
 * expired at any time, so that is written by the map's own update.
 */
static __always_inline void learn_address(struct nsp_learned_key *key,
					  struct nsp_learned_value *value)
{
	struct nsp_learned_value *known = learned.lookup(key);

	if (!known)
		return learn_new(key, value);
	if (known->expires_ns >= value->expires_ns)
		return;
	if (known->expires_ns <= bpf_ktime_get_boot_ns()) {
		learned.update(key, value);
		return;
	}
	known->name_id = value->name_id;
	known->expires_ns = value->expires_ns;
}

/* A is 4 bytes of an address that is kept mapped. */
static __always_inline void read_address(struct nsp_learned_key *key, const u8 *message,
					 const struct nsp_dns_record *record)
{
	u64 *words = (u64 *)key->address;
	u32 offset = record->data_offset;

	if (record->type == NSP_DNS_TYPE_A) {
		words[0] = 0;
		words[1] = (u64)bpf_htonl(0xffff) | message_u64(message, offset) << 32;
		return;
	}
	words[0] = message_u64(message, offset);
	words[1] = message_u64(message, offset + 8);
}

static __always_inline void learn_record(struct nsp_dns_answer_scratch *scratch,
					 const struct nsp_dns_record *record)
{
	struct nsp_dns_learning *learning = &scratch->learning;
	struct nsp_learned_value value = {};
	u32 ttl_s = record->ttl_s;

	if (ttl_s > recall(&learning->chain_ttl_s) && !(ttl_s & NSP_DNS_TTL_SIGN))
		ttl_s = recall(&learning->chain_ttl_s);
	value.expires_ns = expiry_of(ttl_s);
	value.name_id = scratch->name.hash;
	read_address(&learning->key, scratch->tail, record);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u32 ruleset = kept(learning->rulesets[masked_index(i, NSP_GRANTS)]);

		if (!ruleset)
			break;
		kept(learning->key.ruleset) = ruleset;
		learn_address(&learning->key, &value);
	}
}

/* For whoever reports a connect, and for open flows when rules change. */
static __always_inline void learn_name(struct nsp_dns_name *name)
{
	u64 name_id = name->hash;

	if (!learned_names.lookup(&name_id))
		learned_names.update(&name_id, (struct nsp_learned_name *)&name->rule);
}

static __always_inline void learn_records(struct nsp_dns_answer_scratch *scratch, u32 table)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_DNS_MAX_RECORDS; i++) {
		struct nsp_dns_record *record = record_at(scratch, table, opaque(i));

		if (i >= *(volatile u8 *)&scratch->event.record_count)
			break;
		if (!is_address(record->type, record->data_bytes))
			continue;
		if (recall(&scratch->learning.owned) >> i & 1)
			learn_record(scratch, record);
		else
			count(NSP_COUNTER_LEARNED_OTHER_OWNER);
	}
}

int dns_learn(struct __sk_buff *skb)
{
	struct nsp_dns_answer_scratch *scratch = inherited_scratch(skb);
	u32 table;

	if (!scratch)
		return 1;
	table = record_table(&scratch->event);
	if (!skb->cb[4] && !follow_chain(scratch, table)) {
		ingress_tail_calls.call(skb, NSP_TAIL_DNS_OWNERS);
		count(NSP_COUNTER_TAIL_CALL);
		remember(&scratch->learning.owned, 0);
	}
	learn_name(&scratch->name);
	learn_records(scratch, table);
	give_back(&scratch->walk);
	return 1;
}
