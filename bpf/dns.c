/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * DNS questions that leave a process and answers that reach it. packet.c tail-calls
 * these programs for packets to or from port 53. Each copies the message into per-CPU
 * scratch, checks that it is DNS, walks the question's name and, in an answer, finds
 * the records; the event carries their places and the message itself, and user space
 * reads the names. A question that no profile allows is refused (dns_policy.h); an
 * answer always passes, and is learned from before it does (dns_learn.c).
 */
#include "dns_learn.h"

/*
 * A step skips one label or takes one record. 32 records under uncompressed names of
 * seven labels fit; what is left over is flagged NSP_DNS_MORE_RECORDS.
 */
#define NSP_DNS_WALK_STEPS 256

/* The message follows its event: they leave in one piece. */
struct nsp_dns_question_scratch {
	struct nsp_dns_walk walk;
	struct nsp_dns_asking asking;
	struct nsp_dns_name name;
	struct nsp_dns_event event;
	u8 message[NSP_DNS_MESSAGE_MAX_BYTES + NSP_DNS_MESSAGE_SLACK_BYTES];
};

BPF_PERCPU_ARRAY(dns_question_scratch, struct nsp_dns_question_scratch, NSP_DNS_SCRATCH_SLOTS);

/*
 * Takes the record whose fixed part is at `place`, of the name at `owner`. Only class IN
 * goes into the table: the address of another class is no address. Returns 0, or -1
 * when it does not fit into the message.
 */
static __always_inline int dns_record(struct nsp_dns_answer_scratch *scratch, u32 place, u32 owner,
				      u32 message_bytes, u32 table)
{
	struct nsp_dns_event *event = &scratch->event;
	struct nsp_dns_record *record;
	u32 data = place + NSP_DNS_RECORD_HEADER_BYTES;
	u32 data_bytes;
	u64 index;

	if (data > message_bytes)
		return -1;
	data_bytes = message_u16(scratch->tail, place, 8);
	if (data + data_bytes > message_bytes)
		return -1;
	remember(&scratch->walk.position, data + data_bytes);
	remember(&scratch->learning.owner, data + data_bytes);
	remember(&scratch->walk.remaining, recall(&scratch->walk.remaining) - 1);
	if (message_u16(scratch->tail, place, 2) != NSP_DNS_CLASS_IN)
		return 0;
	index = masked_index(event->record_count, NSP_DNS_MAX_RECORDS);
	record = record_at(scratch, table, index);
	record->ttl_s =
		message_u16(scratch->tail, place, 4) << 16 | message_u16(scratch->tail, place, 6);
	record->type = message_u16(scratch->tail, place, 0);
	record->data_offset = data;
	record->data_bytes = data_bytes;
	record->owner_offset = owner;
	event->record_count = index + 1;
	return 0;
}

/*
 * The record's name: where it points to, or where it begins when it is more than a
 * pointer. `length` is 0 or a pointer's first byte. Without a branch, of which the
 * verifier would follow both sides for each record.
 */
static __always_inline u32 dns_owner(struct nsp_dns_answer_scratch *scratch, u32 position,
				     u32 length)
{
	u64 owner = opaque(recall(&scratch->learning.owner));
	u64 target =
		(length & NSP_DNS_POINTER_OFFSET) << 8 | message_u8(scratch->tail, position, 1);
	u64 is_bare = opaque((opaque(owner ^ position) - 1) >> 63) & length >> 7;

	return owner ^ ((owner ^ target) & opaque(0 - is_bare));
}

/*
 * Walks the answer section. An owner name ends at the root or at its first pointer,
 * which is not followed: only the place after it matters here.
 */
static __always_inline void dns_answer_section(struct nsp_dns_answer_scratch *scratch)
{
	struct nsp_dns_event *event = &scratch->event;
	u32 message_bytes = message_length(event);
	u32 table = record_table(event);

	*(volatile u32 *)(scratch->tail + masked_index(message_bytes, NSP_DNS_TAIL_BYTES)) = 0;
	remember(&scratch->walk.remaining, event->answer_count);
	remember(&scratch->learning.owner, recall(&scratch->walk.position));
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < NSP_DNS_WALK_STEPS; step++) {
		u32 position = recall(&scratch->walk.position);
		u32 length;

		if (!recall(&scratch->walk.remaining))
			return;
		if (*(volatile u8 *)&event->record_count >= NSP_DNS_MAX_RECORDS)
			break;
		if (position >= message_bytes)
			return dns_stop(event);
		length = message_u8(scratch->tail, position, 0);
		if (length && length <= NSP_DNS_LABEL_MAX_BYTES) {
			remember(&scratch->walk.position, position + 1 + length);
			continue;
		}
		if (length && length < NSP_DNS_POINTER)
			return dns_stop(event);
		if (dns_record(scratch, position + 1 + (length >> 7),
			       dns_owner(scratch, position, length), message_bytes, table))
			return dns_stop(event);
	}
	if (recall(&scratch->walk.remaining))
		event->parse_flags |= NSP_DNS_MORE_RECORDS;
}

/* Sends the event with `bytes` behind it. */
static __always_inline void dns_emit(struct nsp_dns_event *event, u16 type, u64 bytes)
{
	struct nsp_process_key owner = {};
	u64 size = sizeof(*event) + bytes;

	owner.start_ns = event->header.start_ns;
	owner.tgid = event->header.tgid;
	event_header(&event->header, type, size, &owner, event->header.cgroup_id, 0);
	if (events.ringbuf_output(event, size, NSP_RING_FLAGS))
		count(NSP_COUNTER_RING_FULL);
}

static __always_inline struct nsp_dns_question_scratch *take_question_scratch(void)
{
#pragma clang loop unroll(full)
	for (int slot = 0; slot < NSP_DNS_SCRATCH_SLOTS; slot++) {
		int index = slot;
		struct nsp_dns_question_scratch *scratch = dns_question_scratch.lookup(&index);

		if (scratch && take(&scratch->walk))
			return scratch;
	}
	event_lost(NSP_COUNTER_SCRATCH_MISSING);
	return 0;
}

/* Which one goes into skb->cb for the programs that learn. */
static __always_inline struct nsp_dns_answer_scratch *take_answer_scratch(struct __sk_buff *skb)
{
#pragma clang loop unroll(full)
	for (int slot = 0; slot < NSP_DNS_SCRATCH_SLOTS; slot++) {
		int index = slot;
		struct nsp_dns_answer_scratch *scratch = dns_answer_scratch.lookup(&index);

		if (scratch && take(&scratch->walk)) {
			skb->cb[3] = slot;
			return scratch;
		}
	}
	event_lost(NSP_COUNTER_SCRATCH_MISSING);
	return 0;
}

/* Nothing could be read for want of scratch: who is governed is not let past unseen. */
static __always_inline int unread_question(const struct nsp_socket *socket)
{
	struct nsp_policy *policy;
	struct nsp_grants *grants;
	u64 tag;

	if (!socket)
		return 1;
	grants = grants_of(socket->policy_slot, socket->program, socket->script, &tag, &policy);
	return !grants || grants->mode != NSP_MODE_ENFORCE;
}

/* Reads the packet into the scratch. Returns 1 when it is a question, if a broken one. */
static __always_inline int read_question(struct __sk_buff *skb, const struct nsp_socket *socket,
					 struct nsp_dns_question_scratch *scratch)
{
	struct nsp_packet_headers headers = {};

	packet_recall(skb, &headers);
	dns_describe(skb, NSP_DIRECTION_OUT, &headers, socket, &scratch->event);
	dns_locate(skb, &headers, 0, &scratch->walk);
	if (!recall(&scratch->walk.remaining))
		return 0;
	if (!dns_copy(skb, &scratch->walk, 0, &scratch->event, scratch->message)) {
		dns_question_section(&scratch->walk, &scratch->event, scratch->message);
		return 1;
	}
	count(NSP_COUNTER_DNS_MALFORMED);
	return 0;
}

int dns_question(struct __sk_buff *skb)
{
	struct nsp_socket *socket = socket_of_packet(skb);
	struct nsp_dns_question_scratch *scratch = take_question_scratch();
	struct nsp_dns_event *event;
	int is_question, reported = 0;
	u8 verdict;

	if (!scratch)
		return unread_question(socket);
	event = &scratch->event;
	is_question = read_question(skb, socket, scratch);
	if (socket && policy_tag(socket->policy_slot)) {
		__builtin_memset(&scratch->asking, 0, sizeof(scratch->asking));
		scratch->asking.readable = event->name_bytes != 0;
		if (event->name_bytes)
			read_name(&scratch->name, &scratch->walk, scratch->message,
				  event->name_bytes);
		reported = judge_question(socket, &scratch->asking, &scratch->name, event);
	}
	verdict = event->verdict;
	if (!reported && is_question)
		dns_emit(event, NSP_EVENT_DNS_QUESTION, message_length(event));
	else if (!reported && verdict != NSP_VERDICT_ALLOWED) {
		event->message_bytes = 0;
		dns_emit(event, NSP_EVENT_DNS_QUESTION, 0);
	}
	give_back(&scratch->walk);
	return verdict != NSP_VERDICT_REFUSED;
}

/* Finds out whose packet it is and where the message lies; 0: there is none. */
static __always_inline u32 find_answer(struct __sk_buff *skb,
				       struct nsp_dns_answer_scratch *scratch)
{
	struct nsp_socket *socket = socket_of_packet(skb);
	struct nsp_packet_headers headers = {};

	packet_recall(skb, &headers);
	dns_locate(skb, &headers, socket, &scratch->walk);
	if (!recall(&scratch->walk.remaining))
		return 0;
	dns_describe(skb, NSP_DIRECTION_IN, &headers, socket, &scratch->event);
	remember(&scratch->governed, socket && policy_tag(socket->policy_slot));
	return 1;
}

/* Message, then the records that were found. */
static __always_inline u64 dns_tail_bytes(const struct nsp_dns_event *event)
{
	u64 records = masked_index(event->record_count, 2 * NSP_DNS_MAX_RECORDS);

	if (!records)
		return message_length(event);
	return masked_index(record_table(event) + records * sizeof(struct nsp_dns_record),
			    NSP_DNS_TAIL_BYTES);
}

int dns_answer(struct __sk_buff *skb)
{
	struct nsp_dns_answer_scratch *scratch = take_answer_scratch(skb);
	struct nsp_dns_event *event;

	if (!scratch)
		return 1;
	event = &scratch->event;
	if (!find_answer(skb, scratch)) {
		give_back(&scratch->walk);
		return 1;
	}
	if (dns_copy(skb, &scratch->walk, NSP_DNS_FLAG_RESPONSE, event, scratch->tail)) {
		count(NSP_COUNTER_DNS_MALFORMED);
		give_back(&scratch->walk);
		return 1;
	}
	if (!dns_question_section(&scratch->walk, event, scratch->tail))
		dns_answer_section(scratch);
	dns_emit(event, NSP_EVENT_DNS_ANSWER, dns_tail_bytes(event));
	if (recall(&scratch->governed)) {
		ingress_tail_calls.call(skb, NSP_TAIL_DNS_BELIEVE);
		count(NSP_COUNTER_TAIL_CALL);
	}
	give_back(&scratch->walk);
	return 1;
}
