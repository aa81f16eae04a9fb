/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * HTTP requests across segments: http_head.h reads a head, here it is judged, its body is
 * passed over, and the next request of the connection is looked for, also in the same
 * segment. A segment that ends within a head has its request line judged already: some
 * servers need no more.
 *
 * A body without a known length (Transfer-Encoding), and what follows an Upgrade or a
 * CONNECT, cannot be told from a next request: the rest of such a connection is
 * unreadable, from the first byte after the head.
 */
#include "http_head.h"

#define NSP_HTTP_CONNECT 0x5443454e4e4f43ULL /* CONNECT, zero padded, as this machine reads it */

static __always_inline void begin_request(struct nsp_l7_stream *stream)
{
	u32 here = seq_at_position(stream);

	/* Heads of one segment are one: nothing of it may come again with other bytes. */
	if ((s32)(stream->read_to - stream->segment_seq) <= 0)
		stream->read_from = here;
	stream->kept = NSP_FOUND_NOTHING;
	stream->seen = 0;
	stream->window = 0;
	stream->length = 0;
	stream->head_bytes = 0;
	stream->uri_bytes = 0;
	stream->host_bytes = 0;
	stream->method_bytes = 0;
	__builtin_memset(stream->method, 0, sizeof(stream->method));
}

static __always_inline void read_head(struct nsp_l7_stream *stream)
{
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < NSP_L7_CHUNK_BYTES; step++) {
		u32 at = opaque(step);

		if (at >= kept(stream->chunk_bytes))
			break;
		kept(stream->place) = at + 1;
		http_byte(stream, stream->chunk[masked_index(at, NSP_L7_CHUNK_BYTES)]);
		paths_meet();
		if (kept(stream->found))
			break;
	}
}

/* The head is complete: what follows it. */
static __always_inline void end_request(struct nsp_l7_stream *stream)
{
	u32 seen = kept(stream->seen);
	u64 method;

	__builtin_memcpy(&method, stream->method, sizeof(method));
	if (method == NSP_HTTP_CONNECT)
		seen |= NSP_L7_SEEN_UPGRADE;
	if (!(seen & (NSP_L7_HAS_HOST | NSP_L7_VERSION_1_0)))
		seen |= NSP_L7_SEEN_NO_HOST;
	kept(stream->seen) = seen;
	keep_found(stream);
	kept(stream->skip) = kept(stream->length);
	kept(stream->state) = seen & (NSP_L7_SEEN_UPGRADE | NSP_L7_HAS_CODING)
				      ? NSP_HTTP_UNKNOWN_END
				      : NSP_HTTP_BEGIN;
}

/* Moves past what was read, and says what that came to. */
static __always_inline void settle_http(struct nsp_l7_stream *stream)
{
	u8 state = kept(stream->state) & ~NSP_HTTP_AFTER_CR;

	kept(stream->position) += kept(stream->place);
	kept(stream->head_bytes) += kept(stream->place);
	kept(stream->read_to) = seq_at_position(stream);
	if (kept(stream->found) == NSP_FOUND_REQUEST)
		return end_request(stream);
	if (!kept(stream->found) && kept(stream->head_bytes) > NSP_L7_HEAD_MAX_BYTES) {
		count(NSP_COUNTER_L7_TOO_LONG);
		find(stream, NSP_FOUND_UNREADABLE);
	}
	if (kept(stream->found) == NSP_FOUND_MALFORMED)
		kept(stream->seen) |= NSP_L7_SEEN_MALFORMED;
	if (kept(stream->found)) {
		keep_found(stream);
		return end_stream(stream);
	}
	if (!unread_bytes(stream) && state > NSP_HTTP_VERSION &&
	    !(kept(stream->seen) & NSP_L7_LINE_JUDGED)) {
		kept(stream->seen) |= NSP_L7_LINE_JUDGED;
		find(stream, NSP_FOUND_REQUEST_LINE);
	}
}

static __always_inline int read_http(struct __sk_buff *skb, u8 direction)
{
	struct nsp_l7_stream *stream;
	struct nsp_l7_turn turn;

	if (recall_turn(skb, &turn)) {
		count(NSP_COUNTER_PACKET_UNPARSED);
		return 0;
	}
	stream = turn.stream;
	if (kept(stream->state) == NSP_HTTP_BEGIN)
		begin_request(stream);
	stream->request.direction = direction;
	if (load_chunk(skb, &turn.headers, stream)) {
		count(NSP_COUNTER_PACKET_UNPARSED);
		return give_back_stream(stream);
	}
	if (kept(stream->state) == NSP_HTTP_UNKNOWN_END)
		find(stream, NSP_FOUND_UNREADABLE);
	else
		read_head(stream);
	settle_http(stream);
	if (kept(stream->found))
		return call_judge(skb, direction, stream);
	if (!unread_bytes(stream))
		return pass_segment(skb, direction, &turn);
	return call_reader(skb, direction, stream);
}

int http_egress(struct __sk_buff *skb)
{
	return read_http(skb, NSP_DIRECTION_OUT);
}

int http_ingress(struct __sk_buff *skb)
{
	return read_http(skb, NSP_DIRECTION_IN);
}
