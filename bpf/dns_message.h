/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What a DNS question and a DNS answer have in common: finding the message in the
 * packet, copying it, reading its header and its question section.
 *
 * A verifier as old as 6.1 has to see each bound, so every access to the message goes
 * through message_u8() or message_u16() and the walks keep their position in map
 * memory: values the verifier forgets need not be proved again for each round.
 */
#ifndef NSP_DNS_MESSAGE_H
#define NSP_DNS_MESSAGE_H

#include <uapi/linux/in.h>

#include "bounds.h"
#include "emit.h"
#include "packet.h"

#define NSP_DNS_HEADER_BYTES 12
#define NSP_DNS_QUESTION_TAIL_BYTES 4 /* type and class after the question's name */
#define NSP_DNS_RECORD_HEADER_BYTES 10 /* type, class, TTL, RDATA length */
#define NSP_DNS_TCP_LENGTH_BYTES 2
#define NSP_DNS_LABEL_MAX_BYTES 63
#define NSP_DNS_NAME_MAX_BYTES 255 /* RFC 1035, with the length bytes and the root */
#define NSP_DNS_NAME_MAX_LABELS 128 /* what 255 bytes can hold, the root included */
#define NSP_DNS_POINTER 0xc0 /* the two top bits of a compression pointer */
#define NSP_DNS_POINTER_OFFSET 0x3f /* the others, of its first byte */
#define NSP_DNS_CLASS_IN 1
#define NSP_DNS_FLAG_RESPONSE 0x8000
#define NSP_DNS_OPCODE_MASK 0x7800
#define NSP_DNS_RCODE_MASK 0x000f
#define NSP_DNS_TYPE_A 1
#define NSP_DNS_TYPE_CNAME 5
#define NSP_DNS_TYPE_AAAA 28

/* A masked offset plus a record header or a word may lie past the end by this much. */
#define NSP_DNS_MESSAGE_SLACK_BYTES 16

/*
 * A packet program in process context may be preempted, and another one may start on
 * the same CPU, in a softirq or in another process: each takes a scratch of its own.
 * More than this many at once on one CPU is a counted loss.
 */
#define NSP_DNS_SCRATCH_SLOTS 4

struct nsp_dns_walk {
	u64 busy; /* taken by a program that runs now; BCC has atomics for 64 bits only */
	u32 position; /* in the message */
	u32 remaining; /* answer records not yet walked */
	u32 lengths; /* length bytes of the question's name that no other character is */
	u32 pad;
};

/* For numbers in map memory: read and written where it is said, never kept in a register. */
static __always_inline u32 recall(const u32 *place)
{
	return *(const volatile u32 *)place;
}

static __always_inline void remember(u32 *place, u32 value)
{
	*(volatile u32 *)place = value;
}

/* `field` is a constant below the slack; callers check the offset against the length. */
static __always_inline u32 message_u8(const u8 *message, u32 offset, u32 field)
{
	return message[masked_index(offset, NSP_DNS_MESSAGE_MAX_BYTES) + field];
}

static __always_inline u32 message_u16(const u8 *message, u32 offset, u32 field)
{
	return message_u8(message, offset, field) << 8 | message_u8(message, offset, field + 1);
}

/* Returns 1 when this program may use the scratch. */
static __always_inline int take(struct nsp_dns_walk *walk)
{
	return __sync_val_compare_and_swap(&walk->busy, 0, 1) == 0;
}

static __always_inline void give_back(struct nsp_dns_walk *walk)
{
	*(volatile u64 *)&walk->busy = 0;
}

/* Eight bytes at once: a map value may be read at any address. */
static __always_inline u64 message_u64(const u8 *message, u32 offset)
{
	return *(const volatile u64 *)(message + masked_index(offset, NSP_DNS_MESSAGE_MAX_BYTES));
}

/*
 * The length of the message of a TCP segment, or 0: it is not exactly one message, and
 * nothing here puts segments together. Servers that send the length by itself are
 * followed where `socket` is given: it remembers the length.
 */
static __always_inline u32 dns_in_segment(struct __sk_buff *skb, struct nsp_socket *socket,
					  u32 *offset, u32 bytes)
{
	u8 field[NSP_DNS_TCP_LENGTH_BYTES];
	u32 length;

	if (socket && bytes == socket->dns_length) {
		socket->dns_length = 0;
		return bytes;
	}
	if (bytes < sizeof(field) || bpf_skb_load_bytes(skb, *offset, field, sizeof(field)))
		return 0;
	length = (u32)field[0] << 8 | field[1];
	if (socket)
		socket->dns_length = bytes == sizeof(field) ? length : 0;
	if (length != bytes - NSP_DNS_TCP_LENGTH_BYTES)
		return 0;
	*offset += NSP_DNS_TCP_LENGTH_BYTES;
	return length;
}

/*
 * Finds the message in the payload: leaves its offset in walk->position and its length,
 * or 0 when there is nothing to parse, in walk->remaining. Many datagrams in one packet,
 * still to be cut (UDP_SEGMENT), are no message: the first would speak for the others.
 */
static __always_inline void dns_locate(struct __sk_buff *skb,
				       const struct nsp_packet_headers *headers,
				       struct nsp_socket *socket, struct nsp_dns_walk *walk)
{
	u32 offset = headers->payload_offset;
	u32 bytes = headers->payload_bytes;

	remember(&walk->remaining, 0);
	if (headers->protocol == IPPROTO_TCP) {
		bytes = dns_in_segment(skb, socket, &offset, bytes);
		if (!bytes) {
			if (!socket || !socket->dns_length)
				count(NSP_COUNTER_DNS_TCP_SEGMENTED);
			return;
		}
	} else if (skb->gso_size) {
		bytes = 0;
	}
	if (bytes < NSP_DNS_HEADER_BYTES) {
		count(NSP_COUNTER_DNS_MALFORMED);
		return;
	}
	remember(&walk->position, offset);
	remember(&walk->remaining, bytes);
}

/*
 * Whose packet it is, between whom: everything of the event but what is in the message.
 * The header's rest is filled when it is sent.
 */
static __always_inline void dns_describe(struct __sk_buff *skb, u8 direction,
					 const struct nsp_packet_headers *headers,
					 const struct nsp_socket *socket,
					 struct nsp_dns_event *event)
{
	int out = direction == NSP_DIRECTION_OUT;

	__builtin_memset(event, 0, sizeof(*event));
	event->cookie = bpf_get_socket_cookie(skb);
	if (packet_addresses(skb, headers->family,
			     out ? event->local_address : event->remote_address,
			     out ? event->remote_address : event->local_address))
		count(NSP_COUNTER_PACKET_UNPARSED);
	event->local_port = out ? headers->source_port : headers->destination_port;
	event->remote_port = out ? headers->destination_port : headers->source_port;
	event->family = headers->family;
	event->protocol = headers->protocol;
	if (!socket)
		return;
	event->header.start_ns = socket->owner.start_ns;
	event->header.tgid = socket->owner.tgid;
	event->header.cgroup_id = socket->cgroup_id;
}

/*
 * The length again, so that every verifier sees 1..NSP_DNS_MESSAGE_MAX_BYTES. A branch
 * here, as in clamped_length(), would have each walk verified twice.
 */
static __always_inline u64 message_length(const struct nsp_dns_event *event)
{
	return opaque(masked_index(event->message_bytes - 1, NSP_DNS_MESSAGE_MAX_BYTES) + 1);
}

static __always_inline void dns_measure(struct nsp_dns_event *event, u32 message_bytes)
{
	if (message_bytes > NSP_DNS_MESSAGE_MAX_BYTES) {
		event->parse_flags = NSP_DNS_TRUNCATED_COPY;
		message_bytes = NSP_DNS_MESSAGE_MAX_BYTES;
		count(NSP_COUNTER_DNS_TOO_LONG);
	}
	event->message_bytes = message_bytes;
}

/* Copies what dns_locate() found and reads its header. Returns 0 when it is a DNS message. */
static __always_inline int dns_copy(struct __sk_buff *skb, const struct nsp_dns_walk *walk,
				    u32 response, struct nsp_dns_event *event, u8 *message)
{
	dns_measure(event, recall(&walk->remaining));
	if (bpf_skb_load_bytes(skb, recall(&walk->position), message, message_length(event)))
		return -1;
	event->dns_id = message_u16(message, 0, 0);
	event->dns_flags = message_u16(message, 0, 2);
	event->answer_count = message_u16(message, 0, 6);
	if ((event->dns_flags & (NSP_DNS_FLAG_RESPONSE | NSP_DNS_OPCODE_MASK)) != response)
		return -1;
	return message_u16(message, 0, 4) == 1 ? 0 : -1;
}

/* What ends a walk early: a message that was cut here is not the sender's fault. */
static __always_inline void dns_stop(struct nsp_dns_event *event)
{
	if (event->parse_flags & NSP_DNS_TRUNCATED_COPY)
		return;
	event->parse_flags |= NSP_DNS_MALFORMED;
	count(NSP_COUNTER_DNS_MALFORMED);
}

/* Of the bytes below 64, which lengths are, those that names are written with too. */
static __always_inline int is_name_character(u32 byte)
{
	return byte == '-' || (byte >= '0' && byte <= '9');
}

/*
 * Walks the question's name label by label. Returns its bytes with the root, or 0:
 * too long, cut, or compressed, which a question's name never is.
 */
static __always_inline u32 dns_name_bytes(struct nsp_dns_walk *walk, const u8 *message,
					  u32 message_bytes)
{
	remember(&walk->position, NSP_DNS_HEADER_BYTES);
	remember(&walk->lengths, 0);
#pragma clang loop unroll(disable)
	for (u32 label = 0; label < NSP_DNS_NAME_MAX_LABELS; label++) {
		u32 position = recall(&walk->position);
		u32 length;

		if (position >= message_bytes ||
		    position >= NSP_DNS_HEADER_BYTES + NSP_DNS_NAME_MAX_BYTES)
			return 0;
		length = message_u8(message, position, 0);
		if (!length)
			return position + 1 - NSP_DNS_HEADER_BYTES;
		if (length > NSP_DNS_LABEL_MAX_BYTES)
			return 0;
		remember(&walk->position, position + 1 + length);
		if (!is_name_character(length))
			remember(&walk->lengths, recall(&walk->lengths) + 1);
	}
	return 0;
}

/* Fills name and type, and leaves walk->position at the answers. Returns 0, or -1. */
static __always_inline int dns_question_section(struct nsp_dns_walk *walk,
						struct nsp_dns_event *event, const u8 *message)
{
	u32 message_bytes = message_length(event);
	u32 name_bytes = dns_name_bytes(walk, message, message_bytes);
	u32 end = NSP_DNS_HEADER_BYTES + name_bytes + NSP_DNS_QUESTION_TAIL_BYTES;

	if (!name_bytes || end > message_bytes) {
		dns_stop(event);
		return -1;
	}
	event->name_bytes = name_bytes;
	event->question_type = message_u16(message, NSP_DNS_HEADER_BYTES + name_bytes, 0);
	remember(&walk->position, end);
	return 0;
}

#endif
