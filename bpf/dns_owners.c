/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Finds the records of the asked name and of its aliases by reading every owner's name
 * and every alias's target: for answers whose names are not compressed, or otherwise
 * than mostly, or whose records are in another order. Names are compared by hash.
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
	u32 first; /* where the part that is being read begins: pointers lead before it */
	u32 broken;
	u32 pad;
};

/* In skb->cb: [3] is the scratch, [4] how often dns_owners has run for this packet. */
BPF_PERCPU_ARRAY(dns_owner_scratch, struct nsp_dns_owners, NSP_DNS_SCRATCH_SLOTS);

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
	remember(&owners->first, recall(&owners->position));
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
 * name has. Each pointer leads before what was read so far, or they could go round.
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
	if (length < NSP_DNS_POINTER || end >= recall(&owners->first))
		return 1;
	remember(&owners->position, end);
	remember(&owners->first, end);
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
