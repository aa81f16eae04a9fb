/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The ClientHello of TLS across segments and across records: server name, and whether an
 * encrypted hello (ECH) hides another. Fields of no interest are passed over by their
 * lengths, so a hello of any size costs what its extensions are in number. The name may
 * come last, and ECH after it: all of the extensions are gone through.
 *
 * A server that asks again (HelloRetryRequest) gets a second hello, which could name
 * somebody else: the stream is read up to the first record that is neither that nor a
 * ChangeCipherSpec, which the next flight of the client is. With early data, its records
 * are passed over too.
 */
#include "l7.h"

#define NSP_TLS_RECORD_HEADER_BYTES 5
#define NSP_TLS_RECORD_MAX_BYTES (16384 + 256)
#define NSP_TLS_HELLO_FIXED_BYTES 34 /* version and random */
#define NSP_TLS_SESSION_MAX_BYTES 32
#define NSP_TLS_CHANGE_CIPHER_SPEC 20
#define NSP_TLS_APPLICATION_DATA 23
#define NSP_TLS_CLIENT_HELLO 1
#define NSP_TLS_SERVER_NAME 0
#define NSP_TLS_EARLY_DATA 42
#define NSP_TLS_ECH 0xfe0d
/* Length of the list, type and length of the name, all in front of it. */
#define NSP_TLS_NAME_HEAD_BYTES 5
/* A step gathers one byte or passes over a field; a hello of twenty extensions has 150. */
#define NSP_TLS_STEPS 256

enum nsp_tls_state {
	NSP_TLS_BEGIN = 0, /* nothing yet, not even a record */
	NSP_TLS_MESSAGE, /* type and length of a handshake message */
	NSP_TLS_SESSION, /* these gather a length and pass over what it says */
	NSP_TLS_CIPHERS,
	NSP_TLS_COMPRESSION,
	NSP_TLS_EXTENSIONS,
	NSP_TLS_EXTENSION,
	NSP_TLS_NAME_HEAD,
	NSP_TLS_NAME,
	NSP_TLS_END, /* passes over the last field */
};

/* Gathers so many bytes next, for a state. */
static __always_inline void gather(struct nsp_l7_stream *stream, u8 state, u8 bytes)
{
	kept(stream->state) = state;
	kept(stream->need) = bytes;
	kept(stream->word) = 0;
}

/* A record's header is complete: kept apart, for records may end within any field. */
static __always_inline void record_begins(struct nsp_l7_stream *stream, u64 header)
{
	u32 type = header >> 32 & 0xff;
	u32 bytes = header & 0xffff;
	u32 seen = kept(stream->seen);

	if ((header >> 24 & 0xff) != 3 || !bytes || bytes > NSP_TLS_RECORD_MAX_BYTES)
		return find(stream, kept(stream->state) == NSP_TLS_BEGIN ? NSP_FOUND_UNREADABLE
									 : NSP_FOUND_MALFORMED);
	kept(stream->record) = bytes;
	if (kept(stream->state) == NSP_TLS_BEGIN)
		gather(stream, NSP_TLS_MESSAGE, 4);
	if (type == NSP_TLS_HANDSHAKE)
		return;
	if (!(seen & NSP_L7_AFTER_HELLO))
		return find(stream, NSP_FOUND_MALFORMED);
	kept(stream->left) = bytes;
	if (type != NSP_TLS_CHANGE_CIPHER_SPEC &&
	    (type != NSP_TLS_APPLICATION_DATA || !(seen & NSP_L7_EARLY_DATA)))
		find(stream, NSP_FOUND_ENCRYPTED);
}

static __always_inline void record_byte(struct nsp_l7_stream *stream, u8 byte)
{
	u64 header = kept(stream->record_word) << 8 | byte;
	u8 bytes = kept(stream->record_bytes) + 1;

	kept(stream->record_word) = header;
	kept(stream->record_bytes) = bytes;
	if (bytes < NSP_TLS_RECORD_HEADER_BYTES)
		return;
	kept(stream->record_word) = 0;
	kept(stream->record_bytes) = 0;
	record_begins(stream, header);
}

static __always_inline void message_begins(struct nsp_l7_stream *stream, u32 header)
{
	u32 bytes = header & 0xffffff;

	if (header >> 24 != NSP_TLS_CLIENT_HELLO)
		return find(stream, kept(stream->seen) & NSP_L7_AFTER_HELLO ? NSP_FOUND_ENCRYPTED
									    : NSP_FOUND_UNREADABLE);
	kept(stream->seen) = 0;
	kept(stream->kept) = NSP_FOUND_NOTHING;
	kept(stream->host_bytes) = 0;
	kept(stream->hello) = bytes;
	kept(stream->left) = NSP_TLS_HELLO_FIXED_BYTES;
	if (bytes <= NSP_TLS_HELLO_FIXED_BYTES)
		find(stream, NSP_FOUND_MALFORMED);
	gather(stream, NSP_TLS_SESSION, 1);
}

/* The hello is read; it may be followed by another. */
static __always_inline void hello_ends(struct nsp_l7_stream *stream)
{
	kept(stream->seen) |= NSP_L7_AFTER_HELLO;
	gather(stream, NSP_TLS_MESSAGE, 4);
	find(stream, NSP_FOUND_HELLO);
}

static __always_inline void hello_ends_behind_field(struct nsp_l7_stream *stream)
{
	if (kept(stream->left))
		kept(stream->state) = NSP_TLS_END;
	else
		hello_ends(stream);
}

static __always_inline void next_extension(struct nsp_l7_stream *stream)
{
	u32 extensions = kept(stream->extensions);

	if (!extensions)
		return hello_ends_behind_field(stream);
	if (extensions < 4)
		return find(stream, NSP_FOUND_MALFORMED);
	gather(stream, NSP_TLS_EXTENSION, 4);
}

static __always_inline void extension_begins(struct nsp_l7_stream *stream, u32 header)
{
	u32 type = header >> 16;
	u32 bytes = header & 0xffff;
	u32 seen = kept(stream->seen);

	if (bytes + 4 > kept(stream->extensions) ||
	    (type == NSP_TLS_SERVER_NAME &&
	     (seen & NSP_L7_HAS_NAME || bytes <= NSP_TLS_NAME_HEAD_BYTES)))
		return find(stream, NSP_FOUND_MALFORMED);
	kept(stream->extensions) -= bytes + 4;
	kept(stream->left) = bytes;
	if (type == NSP_TLS_SERVER_NAME) {
		kept(stream->seen) = seen | NSP_L7_HAS_NAME;
		kept(stream->name_left) = bytes;
		kept(stream->left) = 0;
		return gather(stream, NSP_TLS_NAME_HEAD, NSP_TLS_NAME_HEAD_BYTES);
	}
	if (type == NSP_TLS_ECH)
		kept(stream->seen) = seen | NSP_L7_SEEN_ENCRYPTED_HELLO;
	else if (type == NSP_TLS_EARLY_DATA)
		kept(stream->seen) = seen | NSP_L7_EARLY_DATA;
	next_extension(stream);
}

/* One name, a host's, as long as its list and its extension say: anything else is not sent. */
static __always_inline void name_begins(struct nsp_l7_stream *stream, u64 header)
{
	u32 bytes = kept(stream->name_left);

	if ((header >> 24 & 0xffff) != bytes - 2 || header >> 16 & 0xff ||
	    (header & 0xffff) != bytes - NSP_TLS_NAME_HEAD_BYTES)
		return find(stream, NSP_FOUND_MALFORMED);
	kept(stream->name_left) = bytes - NSP_TLS_NAME_HEAD_BYTES;
	kept(stream->state) = NSP_TLS_NAME;
}

static __always_inline void server_name_byte(struct nsp_l7_stream *stream, u8 byte)
{
	u32 name_left = kept(stream->name_left) - 1;

	byte = lower_byte(byte);
	if (!is_name_byte(byte))
		return find(stream, NSP_FOUND_MALFORMED);
	keep_host_byte(stream, byte);
	kept(stream->name_left) = name_left;
	if (!name_left)
		next_extension(stream);
}

/* What is gathered is complete; `hello` bytes of the message are left behind it. */
static __always_inline void field_ends(struct nsp_l7_stream *stream, u64 field)
{
	u8 state = kept(stream->state);
	u32 hello = kept(stream->hello);

	if (state == NSP_TLS_MESSAGE)
		return message_begins(stream, field);
	if (state == NSP_TLS_EXTENSION)
		return extension_begins(stream, field);
	if (state == NSP_TLS_NAME_HEAD)
		return name_begins(stream, field);
	if (state == NSP_TLS_EXTENSIONS) {
		kept(stream->extensions) = field;
		if (field != hello)
			return find(stream, NSP_FOUND_MALFORMED);
		return next_extension(stream);
	}
	if (field > hello || (state == NSP_TLS_SESSION && field > NSP_TLS_SESSION_MAX_BYTES))
		return find(stream, NSP_FOUND_MALFORMED);
	kept(stream->left) = field;
	if (state == NSP_TLS_SESSION)
		gather(stream, NSP_TLS_CIPHERS, 2);
	else if (state == NSP_TLS_CIPHERS)
		gather(stream, NSP_TLS_COMPRESSION, 1);
	else if (field == hello)
		hello_ends_behind_field(stream); /* as before there were extensions */
	else
		gather(stream, NSP_TLS_EXTENSIONS, 2);
}

/* Passes over as much of a field as the record and the segment have. */
static __always_inline void pass_over(struct nsp_l7_stream *stream, u32 left, u32 record)
{
	u32 there = unread_bytes(stream) - kept(stream->place);
	u32 bytes = left < record ? left : record;

	if (bytes > there)
		bytes = there;
	kept(stream->left) = left - bytes;
	kept(stream->record) = record - bytes;
	kept(stream->hello) -= bytes;
	kept(stream->place) += bytes;
	if (bytes == left && kept(stream->state) == NSP_TLS_END)
		hello_ends(stream);
}

static __always_inline void message_byte(struct nsp_l7_stream *stream, u32 record, u8 byte)
{
	u8 need;

	kept(stream->record) = record - 1;
	if (kept(stream->state) == NSP_TLS_NAME) {
		kept(stream->hello) -= 1;
		return server_name_byte(stream, byte);
	}
	if (kept(stream->state) != NSP_TLS_MESSAGE)
		kept(stream->hello) -= 1;
	need = kept(stream->need) - 1;
	kept(stream->need) = need;
	kept(stream->word) = kept(stream->word) << 8 | byte;
	if (!need)
		field_ends(stream, kept(stream->word));
}

static __always_inline void read_hello(struct nsp_l7_stream *stream)
{
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < NSP_TLS_STEPS; step++) {
		u32 at = kept(stream->place);
		u32 record = kept(stream->record);
		u32 left = kept(stream->left);
		u8 byte;

		if (at >= kept(stream->chunk_bytes) || kept(stream->found))
			break;
		if (record && left) {
			pass_over(stream, left, record);
			continue;
		}
		byte = stream->chunk[masked_index(at, NSP_L7_CHUNK_BYTES)];
		kept(stream->place) = at + 1;
		if (!record)
			record_byte(stream, byte);
		else
			message_byte(stream, record, byte);
	}
}

/* Moves past what was read, and says what that came to. Returns 1 when it is to be judged. */
static __always_inline int settle_tls(struct nsp_l7_stream *stream)
{
	kept(stream->position) += kept(stream->place);
	kept(stream->head_bytes) += kept(stream->place);
	kept(stream->read_to) = seq_at_position(stream);
	if (!kept(stream->found)) {
		if (kept(stream->head_bytes) <= NSP_L7_HEAD_MAX_BYTES ||
		    kept(stream->seen) & NSP_L7_AFTER_HELLO)
			return 0;
		count(NSP_COUNTER_L7_TOO_LONG);
		find(stream, NSP_FOUND_UNREADABLE);
	}
	if (kept(stream->found) == NSP_FOUND_ENCRYPTED) {
		end_stream(stream);
		return 0;
	}
	keep_found(stream);
	if (kept(stream->found) == NSP_FOUND_HELLO) {
		kept(stream->head_bytes) = 0;
		return 1;
	}
	if (kept(stream->found) == NSP_FOUND_MALFORMED)
		kept(stream->seen) |= NSP_L7_SEEN_MALFORMED;
	end_stream(stream);
	return 1;
}

static __always_inline int read_tls(struct __sk_buff *skb, u8 direction)
{
	struct nsp_l7_stream *stream;
	struct nsp_l7_turn turn;

	if (recall_turn(skb, &turn)) {
		count(NSP_COUNTER_PACKET_UNPARSED);
		return 0;
	}
	stream = turn.stream;
	if (load_chunk(skb, &turn.headers, stream)) {
		count(NSP_COUNTER_PACKET_UNPARSED);
		return give_back_stream(stream);
	}
	read_hello(stream);
	if (settle_tls(stream))
		return call_judge(skb, direction, stream);
	if (kept(stream->ended))
		turn.socket->flags &= ~NSP_SOCKET_L7;
	if (!unread_bytes(stream))
		return pass_segment(skb, direction, &turn);
	return call_reader(skb, direction, stream);
}

int tls_egress(struct __sk_buff *skb)
{
	return read_tls(skb, NSP_DIRECTION_OUT);
}

int tls_ingress(struct __sk_buff *skb)
{
	return read_tls(skb, NSP_DIRECTION_IN);
}
