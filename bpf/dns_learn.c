/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Learns addresses, before the application sees the answer. dns_answer leaves its scratch
 * to dns_believe, and that to dns_learn. Where the owners of the records cannot be told
 * by their places, dns_learn calls dns_owners, which compares the names and calls back.
 */
#include "dns_learn.h"

/*
 * Words, pointers and ends of names in one run, and runs: each tail-calls the next. 32
 * records under names of 30 words fit in all of them.
 */
#define NSP_DNS_OWNER_STEPS 128
#define NSP_DNS_OWNER_RUNS 8
/* Aliases on the way to an address: resolvers give up earlier. */
#define NSP_DNS_CHAIN_MAX 16
#define NSP_DNS_TTL_SIGN 0x80000000 /* from here on a TTL counts as 0 (RFC 2181) */
/* Where nobody has set a floor: a TTL of 0 has to last from the answer to the connect. */
#define NSP_LEARNED_FLOOR_NS (5ULL * 1000000000)
#define NSP_DNS_NAMES_DONE 0xffff

struct nsp_dns_owners {
	u64 hash; /* of the name that is being read */
	u64 owners[NSP_DNS_MAX_RECORDS];
	u64 targets[NSP_DNS_MAX_RECORDS];
	u64 question;
	u64 current; /* the name the chain has come to */
	u64 next;
	u32 job; /* 0: the question; 1 + 2n: owner of record n; 2 + 2n: its target */
	u32 position;
	u32 label_end;
	u32 broken;
};

/* In skb->cb: [3] is the scratch, [4] how often dns_owners has run for this packet. */
BPF_PERCPU_ARRAY(dns_owner_scratch, struct nsp_dns_owners, NSP_DNS_SCRATCH_SLOTS);

/* The scratch that dns_answer filled and left to this program, still taken. */
static __always_inline struct nsp_dns_answer_scratch *inherited_scratch(struct __sk_buff *skb)
{
	int index = skb->cb[3];

	return dns_answer_scratch.lookup(&index);
}

/* Whether to learn from the answer at all. */
int dns_believe(struct __sk_buff *skb)
{
	struct nsp_socket *socket = socket_of_packet(skb);
	struct nsp_dns_answer_scratch *scratch = inherited_scratch(skb);

	if (!scratch)
		return 1;
	if (socket && may_be_learned(scratch, socket)) {
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

/* Goes on to the next name: sets position, or job to NSP_DNS_NAMES_DONE. */
static __always_inline void next_name(struct nsp_dns_answer_scratch *scratch,
				      struct nsp_dns_owners *owners, u32 table)
{
	u32 job = recall(&owners->job) + 1;
	u32 index = (job - 1) / 2;
	struct nsp_dns_record *record;

	kept(owners->hash) = NSP_HASH_START;
	remember(&owners->label_end, 0);
	if (index >= *(volatile u8 *)&scratch->event.record_count) {
		remember(&owners->job, NSP_DNS_NAMES_DONE);
		return;
	}
	record = record_at(scratch, table, index);
	remember(&owners->job, job);
	remember(&owners->position, job & 1 ? record->owner_offset : record->data_offset);
}

static __always_inline void store_name(struct nsp_dns_owners *owners)
{
	u32 job = recall(&owners->job);
	u64 index = masked_index((job - 1) / 2, NSP_DNS_MAX_RECORDS);
	u64 hash = kept(owners->broken) ? 0 : kept(owners->hash) | 1;

	if (!job)
		kept(owners->question) = hash;
	else if (job & 1)
		kept(owners->owners[index]) = hash;
	else
		kept(owners->targets[index]) = hash;
}

/* A word of a label: its length byte and what follows, up to the label's end. */
static __always_inline void read_word(struct nsp_dns_owners *owners, const u8 *message,
				      u32 position, u32 end)
{
	u64 word = message_u64(message, position);

	kept(owners->hash) = hashed(kept(owners->hash), lower(word) & first_bytes(end - position));
	remember(&owners->position, end - position > 8 ? position + 8 : end);
	remember(&owners->label_end, end - position > 8 ? end : 0);
}

/*
 * One step of a name; true when the name has ended. A broken one has hash 0, which no
 * name has; pointers lead backwards, or they could go round.
 */
static __always_inline int name_step(struct nsp_dns_owners *owners, const u8 *message,
				     u32 message_bytes)
{
	u32 position = recall(&owners->position);
	u32 end = recall(&owners->label_end);
	u32 length;

	kept(owners->broken) = 1;
	if (position >= message_bytes)
		return 1;
	length = message_u8(message, position, 0);
	if (!end && length <= NSP_DNS_LABEL_MAX_BYTES)
		end = position + 1 + length;
	if (end && (length || recall(&owners->label_end))) {
		read_word(owners, message, position, end);
		return 0;
	}
	if (!length) {
		kept(owners->broken) = 0;
		return 1;
	}
	end = (length & NSP_DNS_POINTER_OFFSET) << 8 | message_u8(message, position, 1);
	if (length < NSP_DNS_POINTER || end >= position)
		return 1;
	remember(&owners->position, end);
	return 0;
}

static __always_inline void begin_reading(struct nsp_dns_owners *owners)
{
	__builtin_memset(owners, 0, sizeof(*owners));
	owners->hash = NSP_HASH_START;
	owners->position = NSP_DNS_HEADER_BYTES;
}

static __always_inline void read_owners(struct nsp_dns_answer_scratch *scratch,
					struct nsp_dns_owners *owners)
{
	u32 message_bytes = message_length(&scratch->event);
	u32 table = record_table(&scratch->event);

#pragma clang loop unroll(disable)
	for (u32 step = 0; step < NSP_DNS_OWNER_STEPS; step++) {
		if (recall(&owners->job) == NSP_DNS_NAMES_DONE)
			break;
		if (!name_step(owners, scratch->tail, message_bytes))
			continue;
		store_name(owners);
		next_name(scratch, owners, table);
	}
}

/* Marks the records of the name the chain has come to, and finds the next name. */
static __always_inline void mark_owned(struct nsp_dns_answer_scratch *scratch,
				       struct nsp_dns_owners *owners, u32 table)
{
	struct nsp_dns_learning *learning = &scratch->learning;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_DNS_MAX_RECORDS; i++) {
		u64 index = masked_index(i, NSP_DNS_MAX_RECORDS);
		struct nsp_dns_record *record;

		if (index >= *(volatile u8 *)&scratch->event.record_count)
			break;
		if (kept(owners->owners[index]) != kept(owners->current))
			continue;
		remember(&learning->owned, recall(&learning->owned) | 1U << index);
		record = record_at(scratch, table, index);
		if (record->type != NSP_DNS_TYPE_CNAME)
			continue;
		kept(owners->next) = kept(owners->targets[index]);
		if (record->ttl_s < recall(&learning->chain_ttl_s))
			remember(&learning->chain_ttl_s, record->ttl_s);
	}
}

static __always_inline void find_owned(struct nsp_dns_answer_scratch *scratch,
				       struct nsp_dns_owners *owners)
{
	u32 table = record_table(&scratch->event);

	remember(&scratch->learning.owned, 0);
	remember(&scratch->learning.chain_ttl_s, NSP_DNS_TTL_MAX_S);
	kept(owners->current) = kept(owners->question);
#pragma clang loop unroll(disable)
	for (u32 round = 0; round <= NSP_DNS_CHAIN_MAX; round++) {
		if (!kept(owners->current))
			return;
		kept(owners->next) = 0;
		mark_owned(scratch, owners, table);
		kept(owners->current) = kept(owners->next);
	}
}

/*
 * Called again until all names are read. Names beyond that have no hash: their records
 * are nobody's.
 */
int dns_owners(struct __sk_buff *skb)
{
	struct nsp_dns_answer_scratch *scratch = inherited_scratch(skb);
	int index = skb->cb[3];
	struct nsp_dns_owners *owners = dns_owner_scratch.lookup(&index);

	if (!scratch)
		return 1;
	if (owners) {
		if (!skb->cb[4])
			begin_reading(owners);
		skb->cb[4]++;
		read_owners(scratch, owners);
		if (recall(&owners->job) != NSP_DNS_NAMES_DONE && skb->cb[4] < NSP_DNS_OWNER_RUNS)
			ingress_tail_calls.call(skb, NSP_TAIL_DNS_OWNERS);
		find_owned(scratch, owners);
		ingress_tail_calls.call(skb, NSP_TAIL_DNS_LEARN);
	}
	count(NSP_COUNTER_TAIL_CALL);
	give_back(&scratch->walk);
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

/* The later expiry counts; with it goes the name. */
static __always_inline void learn_address(struct nsp_learned_key *key,
					  const struct nsp_learned_value *value)
{
	struct nsp_learned_value *known = learned.lookup(key);

	if (!known)
		return learn_new(key, value);
	if (known->expires_ns >= value->expires_ns)
		return;
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
