/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * DNS questions that leave a process and answers that reach it. packet.c tail-calls
 * these programs for packets to or from port 53. Each copies the message into per-CPU
 * scratch, checks that it is DNS, walks the question's name and, in an answer, finds
 * the records; the event carries their places and the message itself, and user space
 * reads the names. Parsing never decides about the packet: both always return 1.
 */
#include "dns_message.h"

/*
 * A step skips one label or takes one record. 32 records under uncompressed names of
 * seven labels fit; what is left over is flagged NSP_DNS_MORE_RECORDS.
 */
#define NSP_DNS_WALK_STEPS 256

/*
 * A packet program in process context may be preempted, and another one may start on
 * the same CPU, in a softirq or in another process: each takes a scratch of its own.
 * More than this many at once on one CPU is a counted loss.
 */
#define NSP_DNS_SCRATCH_SLOTS 4

/* In each scratch the message follows its event: they leave in one piece. */
struct nsp_dns_question_scratch {
	struct nsp_dns_walk walk;
	struct nsp_dns_event event;
	u8 message[NSP_DNS_MESSAGE_MAX_BYTES + NSP_DNS_MESSAGE_SLACK_BYTES];
};

struct nsp_dns_answer_scratch {
	struct nsp_dns_walk walk;
	struct nsp_dns_answer_event event;
	u8 message[NSP_DNS_MESSAGE_MAX_BYTES + NSP_DNS_MESSAGE_SLACK_BYTES];
};

BPF_PERCPU_ARRAY(dns_question_scratch, struct nsp_dns_question_scratch, NSP_DNS_SCRATCH_SLOTS);
BPF_PERCPU_ARRAY(dns_answer_scratch, struct nsp_dns_answer_scratch, NSP_DNS_SCRATCH_SLOTS);

/*
 * Takes the record whose fixed part is at `place`. Only class IN goes into the table:
 * the address of another class is no address. Returns 0, or -1 when it does not fit
 * into the message.
 */
static __always_inline int dns_record(struct nsp_dns_answer_scratch *scratch, u32 place,
				      u32 message_bytes)
{
	struct nsp_dns_event *event = &scratch->event.dns;
	struct nsp_dns_record *record;
	u32 data = place + NSP_DNS_RECORD_HEADER_BYTES;
	u32 data_bytes;
	u64 index;

	if (data > message_bytes)
		return -1;
	data_bytes = message_u16(scratch->message, place, 8);
	if (data + data_bytes > message_bytes)
		return -1;
	remember(&scratch->walk.position, data + data_bytes);
	remember(&scratch->walk.remaining, recall(&scratch->walk.remaining) - 1);
	if (message_u16(scratch->message, place, 2) != NSP_DNS_CLASS_IN)
		return 0;
	index = masked_index(event->record_count, NSP_DNS_MAX_RECORDS);
	record = &scratch->event.records[index];
	record->ttl_s = message_u16(scratch->message, place, 4) << 16 |
			message_u16(scratch->message, place, 6);
	record->type = message_u16(scratch->message, place, 0);
	record->data_offset = data;
	record->data_bytes = data_bytes;
	event->record_count = index + 1;
	return 0;
}

/*
 * Walks the answer section. An owner name ends at the root or at its first pointer,
 * which is not followed: only the place after it matters here.
 */
static __always_inline void dns_answer_section(struct nsp_dns_answer_scratch *scratch)
{
	struct nsp_dns_event *event = &scratch->event.dns;
	u32 message_bytes = message_length(event);

	remember(&scratch->walk.remaining, event->answer_count);
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
		length = message_u8(scratch->message, position, 0);
		if (length && length <= NSP_DNS_LABEL_MAX_BYTES) {
			remember(&scratch->walk.position, position + 1 + length);
			continue;
		}
		if (length && length < NSP_DNS_POINTER)
			return dns_stop(event);
		if (dns_record(scratch, position + (length ? 2 : 1), message_bytes))
			return dns_stop(event);
	}
	if (recall(&scratch->walk.remaining))
		event->parse_flags |= NSP_DNS_MORE_RECORDS;
}

/* Sends `event_bytes` of event and the message behind it. */
static __always_inline void dns_emit(struct nsp_dns_event *event, u16 type, u32 event_bytes,
				     const struct nsp_packet *packet)
{
	u64 size = event_bytes + message_length(event);

	event_header(&event->header, type, size, &packet->owner, packet->cgroup_id, 0);
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

static __always_inline struct nsp_dns_answer_scratch *take_answer_scratch(void)
{
#pragma clang loop unroll(full)
	for (int slot = 0; slot < NSP_DNS_SCRATCH_SLOTS; slot++) {
		int index = slot;
		struct nsp_dns_answer_scratch *scratch = dns_answer_scratch.lookup(&index);

		if (scratch && take(&scratch->walk))
			return scratch;
	}
	event_lost(NSP_COUNTER_SCRATCH_MISSING);
	return 0;
}

int dns_question(struct __sk_buff *skb)
{
	struct nsp_dns_question_scratch *scratch;
	struct nsp_packet packet;
	u32 offset, bytes;

	if (packet_recall(skb, NSP_DIRECTION_OUT, &packet)) {
		count(NSP_COUNTER_PACKET_UNPARSED);
		return 1;
	}
	bytes = dns_locate(skb, &packet, &offset);
	if (!bytes)
		return 1;
	scratch = take_question_scratch();
	if (!scratch)
		return 1;
	dns_describe(&scratch->event, &packet, bytes);
	if (dns_copy(skb, offset, 0, &scratch->event, scratch->message)) {
		count(NSP_COUNTER_DNS_MALFORMED);
	} else {
		dns_question_section(&scratch->walk, &scratch->event, scratch->message);
		dns_emit(&scratch->event, NSP_EVENT_DNS_QUESTION, sizeof(scratch->event), &packet);
	}
	give_back(&scratch->walk);
	return 1;
}

int dns_answer(struct __sk_buff *skb)
{
	struct nsp_dns_answer_scratch *scratch;
	struct nsp_packet packet;
	u32 offset, bytes;

	if (packet_recall(skb, NSP_DIRECTION_IN, &packet)) {
		count(NSP_COUNTER_PACKET_UNPARSED);
		return 1;
	}
	bytes = dns_locate(skb, &packet, &offset);
	if (!bytes)
		return 1;
	scratch = take_answer_scratch();
	if (!scratch)
		return 1;
	dns_describe(&scratch->event.dns, &packet, bytes);
	__builtin_memset(scratch->event.records, 0, sizeof(scratch->event.records));
	if (dns_copy(skb, offset, NSP_DNS_FLAG_RESPONSE, &scratch->event.dns, scratch->message)) {
		count(NSP_COUNTER_DNS_MALFORMED);
	} else {
		if (!dns_question_section(&scratch->walk, &scratch->event.dns, scratch->message))
			dns_answer_section(scratch);
		dns_emit(&scratch->event.dns, NSP_EVENT_DNS_ANSWER, sizeof(scratch->event),
			 &packet);
	}
	give_back(&scratch->walk);
	return 1;
}
