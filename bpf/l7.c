/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Payloads of flows whose rules speak of them. packet.c tail-calls these programs with
 * packets of sockets that have NSP_SOCKET_L7, in the direction of whoever speaks first.
 * Here the next unread byte is found in the segment; http.c or tls.c reads from there.
 * Once a connection is encrypted or known to be unreadable, and that is allowed, the
 * flag goes and the rest costs nothing.
 *
 * Segments that were read before pass. One that leaves a hole is dropped: TCP sends it
 * again, after the hole. When nothing else comes for long the connection counts as
 * unreadable. Bytes that were read and did not reach the receiver (it has a wrong
 * checksum, for one) may not come a second time: they could be other bytes. A connection
 * with urgent data is unreadable.
 *
 * Limits: pages that a process changes while they are sent (sendfile, MSG_ZEROCOPY) are
 * read once, here; and what a server takes for the end of a request is taken from the
 * request alone, so after an Upgrade or a CONNECT the connection counts as unreadable.
 */
#include "l7_verdict.h"

#define NSP_TCP_HEADER_BYTES 20
#define NSP_L7_PASS 1
#define NSP_L7_DROP 0
#define NSP_TLS_HANDSHAKE 0x16
#define NSP_TCP_FLAG_URG 0x20

/* Where a segment lies, and whether it opens the connection. */
struct nsp_l7_segment {
	u32 seq;
	u32 bytes;
	u8 syn;
	u8 urgent;
};

static __always_inline int locate_segment(struct __sk_buff *skb,
					  const struct nsp_packet_headers *headers,
					  struct nsp_l7_segment *segment)
{
	u8 header[NSP_TCP_HEADER_BYTES];
	u32 seq;

	if (bpf_skb_load_bytes(skb, headers->payload_offset - headers->transport_bytes, header,
			       sizeof(header)))
		return -1;
	__builtin_memcpy(&seq, header + 4, sizeof(seq));
	segment->syn = header[13] & NSP_TCP_FLAG_SYN;
	segment->urgent = header[13] & NSP_TCP_FLAG_URG;
	segment->seq = bpf_ntohl(seq) + (segment->syn ? 1 : 0);
	segment->bytes = skb->len - headers->payload_offset;
	return 0;
}

/*
 * A connection whose beginning nobody read is unreadable: its rules came later, or data
 * came before its socket did and was forgotten.
 */
static __always_inline void begin_stream(struct nsp_l7_stream *stream, u8 direction,
					 const struct nsp_l7_segment *segment,
					 struct bpf_tcp_sock *tcp)
{
	int late;

	stream->opened = 1;
	stream->next_seq = segment->seq;
	if (direction == NSP_DIRECTION_OUT) {
		late = tcp->bytes_acked > 1 || segment->seq != tcp->snd_una;
	} else {
		late = tcp->data_segs_in != 0;
		stream->next_seq = tcp->rcv_nxt;
	}
	stream->read_from = stream->next_seq;
	stream->read_to = stream->next_seq;
	if (late && !segment->syn) {
		stream->speech = NSP_SPEECH_OTHER;
		stream->kept = NSP_FOUND_UNREADABLE;
		stream->ended = 1;
	}
}

/*
 * Data that a listener gets, with the last packet of a handshake or, by Fast Open, with
 * the first: read from its beginning each time it comes, for nothing is taken of it
 * before the connection has a socket. One at a time; another comes again.
 */
static __always_inline void begin_early(struct nsp_l7_stream *stream,
					const struct nsp_l7_segment *segment)
{
	__builtin_memset(&stream->tag, 0,
			 __builtin_offsetof(struct nsp_l7_stream, request) -
				 __builtin_offsetof(struct nsp_l7_stream, tag));
	stream->opened = 1;
	stream->segment_seq = segment->seq;
	stream->segment_bytes = segment->bytes;
	stream->read_from = segment->seq;
	stream->read_to = segment->seq;
}

/* A socket's stream, with what came early if that is all that came. */
static __always_inline struct nsp_l7_stream *make_stream(struct __sk_buff *skb, struct bpf_sock *sk,
							 const struct nsp_packet_headers *headers,
							 u8 direction, struct bpf_tcp_sock *tcp)
{
	struct nsp_l7_connection connection = {};
	struct nsp_l7_stream *early = 0;
	struct nsp_l7_stream *stream;

	if (direction == NSP_DIRECTION_IN && !headers->listener_grants && tcp->data_segs_in) {
		connection_of(skb, headers, &connection);
		early = l7_early.lookup(&connection);
		if (early && early->segment_seq + early->segment_bytes != tcp->rcv_nxt)
			early = 0;
	}
	stream = l7_streams.sk_storage_get(sk, early, BPF_SK_STORAGE_GET_F_CREATE);
	if (!stream)
		count(NSP_COUNTER_SOCKET_STORAGE);
	if (early)
		l7_early.delete(&connection);
	return stream;
}

/* Whether what comes in again was taken by the receiver as it was read. */
static __always_inline int was_taken(const struct nsp_l7_stream *stream, struct bpf_tcp_sock *tcp)
{
	return (s32)(tcp->rcv_nxt - stream->read_to) >= 0;
}

/* Finds the next byte to read. Returns 0, or -1: the segment must come again. */
static __always_inline int place_segment(struct nsp_l7_stream *stream, u8 direction,
					 const struct nsp_l7_segment *segment,
					 struct bpf_tcp_sock *tcp)
{
	s32 known = stream->next_seq - segment->seq;

	kept(stream->segment_seq) = segment->seq;
	kept(stream->segment_bytes) = segment->bytes;
	if (known < 0) {
		if ((u64) - (s64)known > stream->skip)
			return -1;
		stream->skip += known;
		known = 0;
	}
	kept(stream->position) = (u32)known > segment->bytes ? segment->bytes : (u32)known;
	if (direction == NSP_DIRECTION_OUT || was_taken(stream, tcp))
		return 0;
	/* A new head may begin in it, or it repeats some of the last. */
	if (stream->kept && unread_bytes(stream) > stream->skip)
		return -1;
	return known && (s32)(stream->read_to - segment->seq) > 0 &&
			       (s32)(segment->seq + segment->bytes - stream->read_from) > 0
		       ? -1
		       : 0;
}

static __always_inline int speaks_tls(struct __sk_buff *skb, const struct nsp_l7_turn *turn)
{
	u8 byte = 0;

	if (bpf_skb_load_bytes(skb, turn->headers.payload_offset + kept(turn->stream->position),
			       &byte, 1))
		return 0;
	return byte == NSP_TLS_HANDSHAKE;
}

static __always_inline void stop_reading(struct nsp_l7_stream *stream)
{
	kept(stream->kept) = NSP_FOUND_UNREADABLE;
	kept(stream->ended) = 1;
	stream->tag = 0; /* not judged yet */
}

/* Too many holes in a row: whatever is in them will not be read any more. */
static __always_inline int give_up(struct nsp_l7_stream *stream)
{
	count(NSP_COUNTER_L7_REORDERED);
	if (stream->holes < NSP_L7_HOLES_MAX) {
		stream->holes++;
		return 0;
	}
	stop_reading(stream);
	return 1;
}

static __always_inline int read_on(struct __sk_buff *skb, u8 direction, struct nsp_l7_turn *turn)
{
	struct nsp_l7_stream *stream = turn->stream;

	skip_body(stream);
	if (!unread_bytes(stream))
		return pass_segment(skb, direction, turn);
	if (stream->speech == NSP_SPEECH_UNKNOWN)
		stream->speech = speaks_tls(skb, turn) ? NSP_SPEECH_TLS : NSP_SPEECH_HTTP;
	return call_reader(skb, direction, stream);
}

static __always_inline int judge_segment(struct __sk_buff *skb, u8 direction,
					 struct nsp_l7_turn *turn,
					 const struct nsp_l7_segment *segment,
					 struct bpf_tcp_sock *tcp)
{
	struct nsp_l7_stream *stream = turn->stream;

	/* Most receivers leave an urgent byte out, so what they read is not what is read here. */
	if (!stream->ended && segment->urgent) {
		stop_reading(stream);
	} else if (!stream->ended) {
		if (!place_segment(stream, direction, segment, tcp))
			stream->holes = 0;
		else if (!give_up(stream))
			return give_back_stream(stream);
	}
	if (stream->kept && stream->tag != turn->socket->policy_tag) {
		kept(stream->found) = stream->kept;
		return call_judge(skb, direction, stream);
	}
	if (stream->ended) {
		turn->socket->flags &= ~NSP_SOCKET_L7;
		kept(stream->busy) = 0;
		return NSP_L7_PASS;
	}
	return read_on(skb, direction, turn);
}

/*
 * Whether a datagram is a question to a name server here, or its answer: by port and header,
 * whatever name it is about.
 */
static __always_inline int is_served_dns(struct __sk_buff *skb, u8 direction,
					 const struct nsp_packet_headers *headers)
{
	u16 port = direction ? headers->destination_port : headers->source_port;
	u8 header[NSP_DNS_HEADER_BYTES];
	u8 answer = direction ? 0 : NSP_DNS_FLAG_RESPONSE >> 8;

	if (headers->protocol != IPPROTO_UDP || port != NSP_DNS_PORT || skb->gso_size ||
	    bpf_skb_load_bytes(skb, headers->payload_offset, header, sizeof(header)))
		return 0;
	return (header[2] & (NSP_DNS_FLAG_RESPONSE | NSP_DNS_OPCODE_MASK) >> 8) == answer &&
	       !header[4] && header[5] == 1;
}

/*
 * Why nothing passes a payload that is not read, or NSP_REASON_NONE: those that are asked
 * go by their rules for the way by which they let the flow pass.
 */
static __always_inline u8 unread_stopped(const struct nsp_grants *grants, u8 asked, u8 came_in,
					 u8 served)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u32 index = grants->rulesets[masked_index(i, NSP_GRANTS)];
		struct nsp_ruleset *rules;
		u8 wanted = NSP_L7_OPAQUE;
		u32 flags;
		u8 l7;

		if (!index)
			break;
		rules = rulesets.lookup(&index);
		if (!rules)
			break;
		flags = rules->flags;
		l7 = rules->l7[NSP_DIRECTION_OUT];
		if (came_in >> opaque(i) & 1) {
			flags >>= NSP_RULESET_INGRESS_SHIFT;
			l7 = rules->l7[NSP_DIRECTION_IN];
			if (served)
				wanted = NSP_L7_DNS;
		}
		if (asked >> opaque(i) & 1 && (!(flags & NSP_RULESET_L7) || l7 & wanted))
			return NSP_REASON_NONE;
	}
	return served ? NSP_REASON_L7_PROTOCOL : NSP_REASON_OPAQUE;
}

/*
 * Datagrams (QUIC, most of all), and a connection for which there is no memory. Questions
 * that go out are judged by dns.c; of those that come in it is known that they are DNS, and
 * nothing else is read of datagrams.
 */
static __always_inline int judge_unread(struct __sk_buff *skb, u8 direction,
					struct nsp_l7_turn *turn)
{
	struct nsp_flow_event flow = {};
	struct nsp_decision decision = {};
	struct nsp_socket *socket = turn->socket;
	u8 asked = grants_asked(turn);
	u8 came_in = turn->headers.protocol == IPPROTO_UDP ? socket->came_in : 0 - direction;
	u8 served = came_in && is_served_dns(skb, direction, &turn->headers);
	struct nsp_policy *policy;
	struct nsp_grants *grants = grants_of(socket->policy_slot, socket->program, socket->script,
					      &decision.tag, &policy);

	if (!grants || !policy || !grants->mode)
		return NSP_L7_PASS;
	if (decision.tag != socket->policy_tag && !turn->headers.listener_grants)
		return NSP_L7_DROP;
	if (!served)
		count(NSP_COUNTER_L7_OPAQUE);
	decision.reason = unread_stopped(grants, asked, came_in, served);
	flow_of_packet(skb, direction, &turn->headers, &flow);
	flow.cookie = bpf_get_socket_cookie(skb);
	conclude(skb, turn, &flow, &decision, policy, grants->mode);
	/* What follows from the same peer is as good or bad; but for DNS, which need not go on. */
	if (!served)
		socket->flags &= ~NSP_SOCKET_L7;
	return decision.verdict != NSP_VERDICT_REFUSED;
}

/* Judges what a reader found, or an earlier program kept, and lets the reader go on. */
static __always_inline int judge_found(struct __sk_buff *skb, u8 direction)
{
	struct nsp_l7_stream *stream;
	struct nsp_l7_turn turn;

	if (recall_turn(skb, &turn)) {
		count(NSP_COUNTER_PACKET_UNPARSED);
		return NSP_L7_DROP;
	}
	stream = turn.stream;
	if (judge_payload(skb, direction, &turn) <= 0)
		return drop_segment(stream);
	if (kept(stream->ended)) {
		turn.socket->flags &= ~NSP_SOCKET_L7;
		return pass_segment(skb, direction, &turn);
	}
	skip_body(stream);
	if (!unread_bytes(stream))
		return pass_segment(skb, direction, &turn);
	return call_reader(skb, direction, stream);
}

static __always_inline int judge_packet(struct __sk_buff *skb, u8 direction)
{
	struct nsp_l7_segment segment = {};
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tcp;
	struct nsp_l7_turn turn;

	if (!sk)
		return NSP_L7_PASS;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NSP_L7_PASS;
	turn.socket = sockets.sk_storage_get(sk, 0, 0);
	if (!turn.socket)
		return NSP_L7_PASS;
	packet_recall(skb, &turn.headers);
	tcp = turn.headers.protocol == IPPROTO_TCP ? bpf_tcp_sock(sk) : 0;
	if (!tcp || locate_segment(skb, &turn.headers, &segment))
		return judge_unread(skb, direction, &turn);
	turn.stream = l7_streams.sk_storage_get(sk, 0, 0);
	if (!turn.stream)
		turn.stream = make_stream(skb, sk, &turn.headers, direction, tcp);
	if (!turn.stream)
		return judge_unread(skb, direction, &turn);
	if (!take_stream(turn.stream)) {
		count(NSP_COUNTER_L7_REORDERED);
		return NSP_L7_DROP;
	}
	if (direction == NSP_DIRECTION_IN && turn.headers.listener_grants) {
		begin_early(turn.stream, &segment);
		if (segment.urgent)
			return judge_segment(skb, direction, &turn, &segment, tcp);
		return read_on(skb, direction, &turn);
	}
	if (!turn.stream->opened)
		begin_stream(turn.stream, direction, &segment, tcp);
	return judge_segment(skb, direction, &turn, &segment, tcp);
}

int l7_egress(struct __sk_buff *skb)
{
	return judge_packet(skb, NSP_DIRECTION_OUT);
}

int l7_ingress(struct __sk_buff *skb)
{
	return judge_packet(skb, NSP_DIRECTION_IN);
}

int l7_judge_egress(struct __sk_buff *skb)
{
	return judge_found(skb, NSP_DIRECTION_OUT);
}

int l7_judge_ingress(struct __sk_buff *skb)
{
	return judge_found(skb, NSP_DIRECTION_IN);
}
