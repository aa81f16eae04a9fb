/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What was said, held against the rule sets that let the flow pass below: one of them
 * must pass it here too. A rule set without payload rules for the direction passes
 * everything.
 *
 * An URI is compared byte by byte as it was sent, so that a rule says what it says. What
 * a server would make another path of is refused where requests are compared: dot
 * segments ("/../", "/./", "/..;"), dots written %2e, and so slashes in front of and
 * behind them written %2f, %5c or as a backslash. The query is not a path.
 *
 * The Host of a request that goes out must be a name that the rule set lets be reached
 * (or be a TLS server name), where it has names at all: else an allowed address serves
 * every other site it has. Where no name led to the address (a CIDR did), a name that may
 * be asked for is enough. The address itself will do too.
 */
#ifndef NSP_L7_RULES_H
#define NSP_L7_RULES_H

#include "l7.h"
#include "profile.h"

#define NSP_IPV4_TEXT_MAX_BYTES 15
#define NSP_L7_LABEL_MAX_BYTES 63

/* What is asked of one rule set. */
struct nsp_l7_question {
	u32 ruleset;
	u8 direction;
	u8 l7; /* NSP_L7_* */
	u8 by_name; /* the rule set has names, and they are of this direction */
	u8 by_cidr; /* no name led to the address */
};

static __always_inline u8 unreadable_stopped(u8 l7)
{
	return l7 & NSP_L7_OPAQUE ? NSP_REASON_NONE : NSP_REASON_OPAQUE;
}

/*
 * The text reversed, each dot the length of the label after it, and a NUL: a rule's name.
 * An empty label would be a NUL too, in the middle, where an exact rule ends: no name.
 */
static __always_inline void reverse_host(struct nsp_l7_stream *stream)
{
	u8 *key = (u8 *)&stream->name;
	u32 bytes = kept(stream->host_bytes);

	kept(stream->count) = 0;
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < NSP_NAME_BYTES; step++) {
		u32 at = opaque(step);
		u64 byte = stream->host[masked_index(bytes - 1 - at, 256)];
		u64 dot = is_equal(byte, '.');
		u64 label = kept(stream->count);

		if (at >= bytes)
			break;
		kept(stream->seen) |=
			(dot & ~is_between(label, 1, NSP_L7_LABEL_MAX_BYTES)) * NSP_L7_NO_NAME;
		kept(stream->count) = (label + 1) & (dot - 1);
		key[masked_index(at + 4, 256)] = byte ^ ((byte ^ label) & (0 - dot));
	}
	if (!is_between(kept(stream->count), 1, NSP_L7_LABEL_MAX_BYTES))
		kept(stream->seen) |= NSP_L7_NO_NAME;
	key[masked_index(bytes + 4, 256)] = kept(stream->count);
	key[masked_index(bytes + 5, 256)] = 0;
	stream->name.prefixlen = (bytes + 2) * 8;
}

/* NSP_NAME_* of the host or server name in this rule set. */
static __always_inline u32 name_value(struct nsp_l7_stream *stream, u32 ruleset)
{
	int index = ruleset;
	void *trie;
	u32 *value;

	/* As names on the wire are measured (dns_name.h): the first label's length counts. */
	if (kept(stream->host_bytes) + 1 > NSP_NAME_BYTES - 2 ||
	    kept(stream->seen) & NSP_L7_NO_NAME)
		return 0;
	trie = name_rules.lookup(&index);
	if (!trie)
		return 0;
	value = bpf_map_lookup_elem(trie, &stream->name);
	return value ? *value : 0;
}

/* One byte of an address written with dots. Returns 0, or -1: it is none. */
static __always_inline int address_byte(struct nsp_l7_stream *stream, u8 byte)
{
	u32 part = kept(stream->left);
	u8 digits = kept(stream->count);

	if (byte == '.') {
		kept(stream->window) = kept(stream->window) << 8 | part;
		kept(stream->left) = 0;
		kept(stream->count) = 0;
		kept(stream->need) += 1;
		return digits ? 0 : -1;
	}
	/* A leading zero would be octal to some. */
	if (!is_digit(byte) || (digits && !part) || part > 25)
		return -1;
	kept(stream->left) = part * 10 + (byte - '0');
	kept(stream->count) = digits + 1;
	return kept(stream->left) > 255 ? -1 : 0;
}

/* Whether the host is the remote address, written with dots. The reader's fields are free now. */
static __always_inline int host_is_address(struct nsp_l7_stream *stream, const u8 *remote_address)
{
	u32 bytes = kept(stream->host_bytes);
	u32 peer;

	kept(stream->window) = 0;
	kept(stream->left) = 0;
	kept(stream->count) = 0;
	kept(stream->need) = 0;
	if (bytes > NSP_IPV4_TEXT_MAX_BYTES || !is_mapped(remote_address))
		return 0;
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < NSP_IPV4_TEXT_MAX_BYTES; step++) {
		u32 at = opaque(step);

		if (at >= bytes)
			break;
		if (address_byte(stream, stream->host[masked_index(at, 256)]))
			return 0;
	}
	__builtin_memcpy(&peer, remote_address + 12, sizeof(peer));
	return kept(stream->count) && kept(stream->need) == 3 &&
	       (kept(stream->window) << 8 | kept(stream->left)) == bpf_ntohl(peer);
}

static __always_inline int host_passes(struct nsp_l7_stream *stream,
				       const struct nsp_l7_question *question)
{
	u32 wanted = NSP_NAME_REACH | NSP_NAME_SNI;

	if (question->by_cidr)
		wanted |= NSP_NAME_ASK;
	return name_value(stream, question->ruleset) & wanted ||
	       kept(stream->seen) & NSP_L7_SEEN_HOST_IS_PEER;
}

/* Exact method first, then the rules for any. */
static __always_inline int request_is_listed(struct nsp_l7_stream *stream, u32 ruleset)
{
	u32 bytes = kept(stream->uri_bytes) + 1; /* the blank behind it is compared */
	int index = ruleset;
	void *trie = http_rules.lookup(&index);

	if (!trie)
		return 0;
	if (bytes > NSP_HTTP_URI_BYTES)
		bytes = NSP_HTTP_URI_BYTES;
	stream->request.prefixlen = (1 + NSP_HTTP_METHOD_BYTES + bytes) * 8;
	__builtin_memcpy(stream->request.method, stream->method, NSP_HTTP_METHOD_BYTES);
	if (bpf_map_lookup_elem(trie, &stream->request))
		return 1;
	__builtin_memset(stream->request.method, 0, NSP_HTTP_METHOD_BYTES);
	return bpf_map_lookup_elem(trie, &stream->request) != 0;
}

static __always_inline u8 request_stopped(struct nsp_l7_stream *stream,
					  const struct nsp_l7_question *question)
{
	u32 seen = kept(stream->seen);
	u8 found = kept(stream->found);

	if (!(question->l7 & NSP_L7_HTTP))
		return NSP_REASON_L7_PROTOCOL;
	if (!(question->l7 & NSP_L7_HTTP_RULES) && !question->by_name)
		return found == NSP_FOUND_MALFORMED ? unreadable_stopped(question->l7)
						    : NSP_REASON_NONE;
	if (found == NSP_FOUND_MALFORMED || seen & NSP_L7_SEEN_NO_HOST)
		return NSP_REASON_HTTP_REQUEST;
	if (question->l7 & NSP_L7_HTTP_RULES &&
	    (seen & NSP_L7_SEEN_DOT_SEGMENT || !request_is_listed(stream, question->ruleset)))
		return NSP_REASON_HTTP_REQUEST;
	if (found == NSP_FOUND_REQUEST && question->by_name && !host_passes(stream, question))
		return NSP_REASON_HTTP_REQUEST;
	return NSP_REASON_NONE;
}

/*
 * A hello with an encrypted inner one says nothing about where it leads: that is for
 * `opaque` to decide, where server names matter. No server name at all is not allowed then.
 */
static __always_inline u8 hello_stopped(struct nsp_l7_stream *stream,
					const struct nsp_l7_question *question)
{
	u32 wanted = question->direction ? NSP_NAME_SNI_IN : NSP_NAME_SNI;

	if (!(question->l7 & NSP_L7_TLS))
		return NSP_REASON_L7_PROTOCOL;
	if (kept(stream->found) == NSP_FOUND_MALFORMED)
		return question->l7 & NSP_L7_SNI_RULES ? NSP_REASON_TLS_SNI
						       : unreadable_stopped(question->l7);
	if (!(question->l7 & NSP_L7_SNI_RULES))
		return NSP_REASON_NONE;
	if (kept(stream->seen) & NSP_L7_SEEN_ENCRYPTED_HELLO)
		return unreadable_stopped(question->l7);
	return name_value(stream, question->ruleset) & wanted ? NSP_REASON_NONE
							      : NSP_REASON_TLS_SNI;
}

static __always_inline u8 payload_stopped(struct nsp_l7_stream *stream,
					  struct nsp_l7_question *question,
					  const struct nsp_ruleset *rules)
{
	u32 flags = rules->flags >> (question->direction ? NSP_RULESET_INGRESS_SHIFT : 0);

	if (!(flags & NSP_RULESET_L7))
		return NSP_REASON_NONE;
	question->l7 = rules->l7[question->direction];
	question->by_name =
		question->direction == NSP_DIRECTION_OUT && rules->flags & NSP_RULESET_NAMES;
	if (kept(stream->found) == NSP_FOUND_UNREADABLE)
		return unreadable_stopped(question->l7);
	return kept(stream->speech) == NSP_SPEECH_TLS ? hello_stopped(stream, question)
						      : request_stopped(stream, question);
}

/* Those that let the flow pass below: of the packet to a listener, or of the socket. */
static __always_inline u8 grants_asked(const struct nsp_l7_turn *turn)
{
	u64 early = turn->headers.listener_grants;

	return early | (turn->socket->grants & (0 - is_equal(early, 0)));
}

/* Why no rule set passes what was found, or NSP_REASON_NONE. */
static __always_inline u8 held_against_rules(struct nsp_l7_turn *turn, u8 direction,
					     const struct nsp_grants *grants)
{
	struct nsp_l7_stream *stream = turn->stream;
	struct nsp_l7_question question = {.direction = direction};
	u8 asked = grants_asked(turn);

	question.by_cidr = !turn->socket->name_id;
	kept(stream->deepest) = NSP_REASON_NONE;
	kept(stream->passed) = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u32 index = grants->rulesets[masked_index(i, NSP_GRANTS)];
		struct nsp_ruleset *rules;

		if (!index)
			break;
		rules = rulesets.lookup(&index);
		if (!rules)
			break;
		if (!(asked >> opaque(i) & 1))
			continue;
		question.ruleset = index;
		kept(stream->stopped) = payload_stopped(stream, &question, rules);
		if (!kept(stream->stopped)) {
			kept(stream->passed) = 1;
			break;
		}
		if (kept(stream->stopped) > kept(stream->deepest))
			kept(stream->deepest) = kept(stream->stopped);
	}
	return kept(stream->passed) ? NSP_REASON_NONE : kept(stream->deepest);
}

#endif
