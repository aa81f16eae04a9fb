/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What a connection has said so far, for the programs that judge payloads: l7.c finds
 * the next byte to be read in a segment, http.c and tls.c read on from there, l7_rules.h
 * judges what was read.
 *
 * Both readers are machines over single bytes whose state lives here between segments,
 * so it makes no difference how a request or a hello is cut up, and nothing needs to be
 * kept but what is compared with rules. Pieces that do not complete it pass: a server
 * cannot act on half a request head or half a hello. The piece that completes what is
 * refused is dropped, and everything after it.
 *
 * sk_storage, and not a per-CPU buffer: what a program keeps lies apart from all other
 * connections', and the sending side of a TCP socket is serialized by its lock. The
 * receiving side is not, hence busy.
 */
#ifndef NSP_L7_H
#define NSP_L7_H

#include "bounds.h"
#include "packet.h"
#include "rules.h"

/* Bytes read by one run; a run that leaves some calls itself. What 6.1 verifies in a second. */
#define NSP_L7_CHUNK_BYTES 256
/*
 * Servers refuse longer heads and hellos: 8 KB is the usual limit, cookies included. And
 * of 33 tail calls in a row 30 are for reading, so that a head in one segment is read at once.
 */
#define NSP_L7_HEAD_MAX_BYTES (30 * NSP_L7_CHUNK_BYTES)
/* Segments in a row that leave a hole before the connection counts as unreadable. */
#define NSP_L7_HOLES_MAX 32
#define NSP_L7_HOST_BYTES 252
#define NSP_L7_METHOD_BYTES 16
#define NSP_TCP_FLAG_SYN 2

/* What the connection speaks. */
enum nsp_l7_speech {
	NSP_SPEECH_UNKNOWN = 0, /* nothing was said yet */
	NSP_SPEECH_HTTP = 1,
	NSP_SPEECH_TLS = 2,
	NSP_SPEECH_OTHER = 3,
};

/* What a reader came to, and what is judged. */
enum nsp_l7_found {
	NSP_FOUND_NOTHING = 0, /* more is needed */
	NSP_FOUND_REQUEST = 1, /* the head of a request, complete */
	NSP_FOUND_REQUEST_LINE = 2, /* its first line; the segment ends within the head */
	NSP_FOUND_HELLO = 3,
	NSP_FOUND_MALFORMED = 4, /* HTTP or TLS by its looks, and wrong */
	NSP_FOUND_UNREADABLE = 5, /* neither */
	NSP_FOUND_ENCRYPTED = 6, /* what follows a hello and is none */
};

struct nsp_l7_stream {
	__u64 busy; /* a program is at it; BCC has atomics for 64 bits only */
	__u64 tag; /* of the policy under which it was last judged */
	__u64 skip; /* HTTP: bytes of a body still to pass */
	__u64 length; /* HTTP: of the body, as the head says */
	__u64 record_word; /* TLS: of the record's header, gathered so far */
	__u64 word; /* bytes gathered: a field, a version, a header's name hashed */
	__u32 segment_seq; /* sequence number of the segment's first payload byte */
	__u32 segment_bytes; /* of its payload */
	__u32 position; /* in the payload, of the next byte to read */
	__u32 place; /* in the chunk */
	__u32 next_seq; /* of the next byte to read, between segments */
	__u32 read_from; /* sequence numbers of the last head or hello: what must not change */
	__u32 read_to;
	__u32 head_bytes;
	__u32 window; /* the last four bytes of the URI */
	__u32 left; /* TLS: bytes of the field still to pass */
	__u32 record; /* bytes left of the TLS record, of the hello, of its extensions */
	__u32 hello;
	__u32 extensions;
	__u32 name_left;
	__u16 uri_bytes; /* as sent; what exceeds the rule is not kept */
	__u16 host_bytes;
	__u16 method_bytes;
	__u16 chunk_bytes;
	__u8 speech; /* enum nsp_l7_speech */
	__u8 state; /* of the reader */
	__u8 need; /* TLS: bytes of the field that is gathered */
	__u8 count; /* of digits, of bytes of a version */
	__u8 found; /* enum nsp_l7_found */
	__u8 kept; /* the same of what was judged last: judged again under a new policy */
	__u8 stopped; /* enum nsp_reason by the rule set that is asked */
	__u8 deepest; /* the layer it came to, where none let it pass */
	__u8 passed;
	__u8 holes;
	__u8 ended; /* nothing of it will be read any more: unreadable, or encrypted */
	__u8 opened;
	__u8 record_bytes;
	__u8 told; /* what was judged last is reported */
	__u8 pad[6];
	__u32 seen; /* NSP_L7_SEEN_* of events.h, and the reader's own */
	struct nsp_http_rule request;
	struct nsp_name_rule name; /* host, as rules have names */
	__u8 method[NSP_L7_METHOD_BYTES];
	__u8 host[256]; /* or server name: lower case, as sent */
	__u8 chunk[NSP_L7_CHUNK_BYTES];
};

/*
 * Only connections whose rules speak of payloads have one: 1.5 KB. A socket for which
 * there is no memory is treated as unreadable.
 */
BPF_F_TABLE("sk_storage", int, struct nsp_l7_stream, l7_streams, 0, BPF_F_NO_PREALLOC);

/* Connections that begin with data in their handshake, until their own socket is there. */
#define NSP_MAX_L7_EARLY 256

struct nsp_l7_connection {
	u8 local_address[16];
	u8 remote_address[16];
	u16 local_port;
	u16 remote_port;
};

BPF_TABLE("lru_hash", struct nsp_l7_connection, struct nsp_l7_stream, l7_early, NSP_MAX_L7_EARLY);

/* The reader's own bits of seen. */
#define NSP_L7_HAS_LENGTH (1 << 16)
#define NSP_L7_IN_QUERY (1 << 17)
#define NSP_L7_VERSION_1_0 (1 << 18)
#define NSP_L7_LINE_JUDGED (1 << 19)
#define NSP_L7_HAS_HOST (1 << 20)
#define NSP_L7_AFTER_HELLO (1 << 21)
#define NSP_L7_EARLY_DATA (1 << 22)
#define NSP_L7_HAS_NAME (1 << 23)
#define NSP_L7_NO_NAME (1 << 24)
#define NSP_L7_HAS_CODING (1 << 25)

/* A segment and whose it is: what every program of these begins with. */
struct nsp_l7_turn {
	struct nsp_packet_headers headers;
	struct nsp_socket *socket;
	struct nsp_l7_stream *stream;
};

/*
 * Comparisons without branches: the readers are verified byte for byte, and each branch
 * that does not end a path doubles what comes after it.
 */
static __always_inline u64 is_equal(u64 a, u64 b)
{
	return (opaque(a ^ b) - 1) >> 63;
}

static __always_inline u64 is_between(u64 value, u64 first, u64 last)
{
	return ~(opaque(value - first) | opaque(last - value)) >> 63;
}

static __always_inline u8 lower_byte(u8 byte)
{
	return byte | is_between(byte, 'A', 'Z') << 5;
}

static __always_inline u64 is_digit(u8 byte)
{
	return is_between(byte, '0', '9');
}

/* Of a byte in lower case. */
static __always_inline u64 is_name_byte(u8 byte)
{
	return is_between(byte, 'a', 'z') | is_digit(byte) | is_between(byte, '-', '.') |
	       is_equal(byte, '_');
}

/* A name longer than rules can be passes none: it is cut, and its length says so. */
static __always_inline void keep_host_byte(struct nsp_l7_stream *stream, u8 byte)
{
	u32 bytes = kept(stream->host_bytes);

	stream->host[masked_index(bytes, 256)] = byte;
	if (bytes < NSP_L7_HOST_BYTES)
		kept(stream->host_bytes) = bytes + 1;
}

static __always_inline void find(struct nsp_l7_stream *stream, u8 found)
{
	kept(stream->found) = found;
}

/* Takes the stream, so that two segments are never read at once. False: somebody has it. */
static __always_inline int take_stream(struct nsp_l7_stream *stream)
{
	return __sync_val_compare_and_swap(&stream->busy, 0, 1) == 0;
}

/* Gives it back as it was: the segment was not read, or will come again. */
static __always_inline int give_back_stream(struct nsp_l7_stream *stream)
{
	kept(stream->busy) = 0;
	return 0;
}

static __always_inline u32 seq_at_position(const struct nsp_l7_stream *stream)
{
	return kept(stream->segment_seq) + kept(stream->position);
}

/* Remembers how far it was read, and drops the segment: it is refused, or comes again. */
static __always_inline int drop_segment(struct nsp_l7_stream *stream)
{
	kept(stream->next_seq) = seq_at_position(stream);
	kept(stream->busy) = 0;
	return 0;
}

static __always_inline u32 unread_bytes(const struct nsp_l7_stream *stream)
{
	u32 position = kept(stream->position);
	u32 bytes = kept(stream->segment_bytes);

	return bytes > position ? bytes - position : 0;
}

/* Passes over as much of a body as the segment has. */
static __always_inline void skip_body(struct nsp_l7_stream *stream)
{
	u64 skip = kept(stream->skip);
	u32 unread = unread_bytes(stream);

	if (skip > unread)
		skip = unread;
	kept(stream->skip) -= skip;
	kept(stream->position) += skip;
}

/* Keeps what is to be judged now, and again under policies to come. */
static __always_inline void keep_found(struct nsp_l7_stream *stream)
{
	kept(stream->kept) = kept(stream->found);
	kept(stream->tag) = 0;
	kept(stream->told) = 0;
}

/* Nothing more is read. */
static __always_inline void end_stream(struct nsp_l7_stream *stream)
{
	kept(stream->ended) = 1;
	kept(stream->position) = kept(stream->segment_bytes);
}

/* Each of these ends the program; should one come back, the segment must come again. */
static __always_inline int call_judge(struct __sk_buff *skb, u8 direction,
				      struct nsp_l7_stream *stream)
{
	if (direction == NSP_DIRECTION_OUT)
		egress_tail_calls.call(skb, NSP_TAIL_L7_JUDGE);
	else
		ingress_tail_calls.call(skb, NSP_TAIL_L7_JUDGE);
	return drop_segment(stream);
}

static __always_inline int call_reader(struct __sk_buff *skb, u8 direction,
				       struct nsp_l7_stream *stream)
{
	u32 reader = kept(stream->speech) == NSP_SPEECH_TLS ? NSP_TAIL_TLS : NSP_TAIL_HTTP;

	if (direction == NSP_DIRECTION_OUT)
		egress_tail_calls.call(skb, reader);
	else
		ingress_tail_calls.call(skb, reader);
	return drop_segment(stream);
}

/* Only incoming packets come early. */
static __always_inline void connection_of(struct __sk_buff *skb,
					  const struct nsp_packet_headers *headers,
					  struct nsp_l7_connection *connection)
{
	packet_addresses(skb, headers->family, connection->remote_address,
			 connection->local_address);
	connection->local_port = headers->destination_port;
	connection->remote_port = headers->source_port;
}

/* A segment that may pass. What a listener's stream knows is kept for the connection's own. */
static __always_inline int pass_segment(struct __sk_buff *skb, u8 direction,
					struct nsp_l7_turn *turn)
{
	struct nsp_l7_connection connection = {};
	struct nsp_l7_stream *early;

	kept(turn->stream->next_seq) = seq_at_position(turn->stream);
	if (direction == NSP_DIRECTION_IN && turn->headers.listener_grants) {
		connection_of(skb, &turn->headers, &connection);
		l7_early.update(&connection, turn->stream);
		early = l7_early.lookup(&connection);
		if (early)
			early->busy = 0;
	}
	kept(turn->stream->busy) = 0;
	return 1;
}

/* For the programs behind the second tail call: l7.c has found and taken both already. */
static __always_inline int recall_turn(struct __sk_buff *skb, struct nsp_l7_turn *turn)
{
	struct bpf_sock *sk = skb->sk;

	packet_recall(skb, &turn->headers);
	if (!sk)
		return -1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return -1;
	turn->socket = sockets.sk_storage_get(sk, 0, 0);
	turn->stream = l7_streams.sk_storage_get(sk, 0, 0);
	return turn->socket && turn->stream ? 0 : -1;
}

/* Copies the next bytes to read. Returns 0, or -1. */
static __always_inline int load_chunk(struct __sk_buff *skb,
				      const struct nsp_packet_headers *headers,
				      struct nsp_l7_stream *stream)
{
	u32 unread = unread_bytes(stream);
	u64 bytes = clamped_length(unread, NSP_L7_CHUNK_BYTES);

	kept(stream->place) = 0;
	kept(stream->found) = NSP_FOUND_NOTHING;
	kept(stream->chunk_bytes) = unread < NSP_L7_CHUNK_BYTES ? unread : NSP_L7_CHUNK_BYTES;
	if (!unread)
		return 0;
	return bpf_skb_load_bytes(skb, headers->payload_offset + kept(stream->position),
				  stream->chunk, bytes);
}

#endif
