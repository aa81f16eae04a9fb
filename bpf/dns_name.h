/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A question's name as name rules have it, what a rule set says about it, and the
 * questions that a socket has open: an answer counts only for one of them.
 *
 * Names are worked on eight bytes at a time, in map memory.
 */
#ifndef NSP_DNS_NAME_H
#define NSP_DNS_NAME_H

#include "dns_message.h"

#define NSP_NAME_WORDS 32 /* 250 bytes of name and the NUL, in words of eight */
#define NSP_NAME_RULE_MAX_BYTES (NSP_NAME_BYTES - 2)
#define NSP_HASH_START 0x9ae16a3b2f90404fULL
#define NSP_HASH_FACTOR 0x9e3779b97f4a7c15ULL
#define NSP_EVERY_BYTE(byte) ((byte) * 0x0101010101010101ULL)

struct nsp_dns_name {
	u64 hash; /* of the name in lower case */
	struct nsp_name_rule rule;
	u8 slack[12]; /* the last word may reach beyond the rule */
	u32 may_match; /* 0: no rule is to be asked about this name */
};

static __always_inline u64 hashed(u64 hash, u64 word)
{
	hash = (hash ^ word) * NSP_HASH_FACTOR;
	return hash ^ hash >> 29;
}

/* Bit 7 of each byte that is in first..last, which are below 128. */
static __always_inline u64 bytes_within(u64 word, u64 first, u64 last)
{
	u64 low = word & NSP_EVERY_BYTE(0x7fULL);

	return ((low + NSP_EVERY_BYTE(0x80 - first)) ^ (low + NSP_EVERY_BYTE(0x7f - last))) &
	       ~word & NSP_EVERY_BYTE(0x80ULL);
}

/* Letters in lower case; length bytes are below them. */
static __always_inline u64 lower(u64 word)
{
	return word | bytes_within(word, 'A', 'Z') >> 2;
}

/* How many bytes could only be lengths, were they not in the middle of a label. */
static __always_inline u32 lengths_in(u64 word, u64 counted)
{
	u64 found = bytes_within(word, 0, NSP_DNS_LABEL_MAX_BYTES) & ~bytes_within(word, '-', '-') &
		    ~bytes_within(word, '0', '9') & counted;

	return (found >> 7) * NSP_EVERY_BYTE(1ULL) >> 56;
}

static __always_inline u64 first_bytes(u64 bytes)
{
	return bytes < 8 ? (1ULL << bytes * 8) - 1 : ~0ULL;
}

/*
 * Reverses the question's name, of name_bytes with the root. A label with a byte in it
 * that reads as a length could imitate the end of a suffix: such names match no rule,
 * nor do those longer than rules can be.
 */
static __always_inline void read_name(struct nsp_dns_name *name, const struct nsp_dns_walk *walk,
				      const u8 *message, u32 name_bytes)
{
	u32 bytes = name_bytes - 1;
	u32 lengths = 0;
	u64 hash = NSP_HASH_START;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_NAME_WORDS; i++) {
		u64 at = opaque(i) * 8;
		u64 counted, word;

		if (at > bytes)
			break;
		counted = first_bytes(bytes - at);
		word = message_u64(message, NSP_DNS_HEADER_BYTES + bytes - 8 - at);
		word = lower(__builtin_bswap64(word)) & counted;
		lengths += lengths_in(word, counted);
		hash = hashed(hash, word);
		*(volatile u64 *)(name->rule.name + masked_index(at, 256)) = word;
	}
	name->hash = hash;
	name->rule.prefixlen = name_bytes * 8;
	name->may_match = bytes <= NSP_NAME_RULE_MAX_BYTES && lengths == recall(&walk->lengths);
	if (bytes > NSP_NAME_RULE_MAX_BYTES)
		count(NSP_COUNTER_NAME_TOO_LONG);
}

/* NSP_NAME_*: what a rule set allows to be done with the name. */
static __always_inline u32 allowed_with_name(u32 ruleset, struct nsp_dns_name *name)
{
	int index = ruleset;
	void *trie = name_rules.lookup(&index);
	u32 *allowed;

	if (!trie || !recall(&name->may_match))
		return 0;
	allowed = bpf_map_lookup_elem(trie, &name->rule);
	return allowed ? *allowed : 0;
}

/* What an answer has to repeat: name, type, and the id that who asked made up. */
static __always_inline u64 question_of(const struct nsp_dns_event *event, u64 name_hash)
{
	u64 question = hashed(name_hash, (u32)event->question_type << 16 | event->dns_id);

	return question ? question : 1;
}

static __always_inline void remember_question(struct nsp_socket *socket, u64 cookie, u64 question)
{
	u64 place = __sync_fetch_and_add(&socket->asked_count, 1);
	u64 *asked = &socket->asked[masked_index(place, NSP_ASKED)];
	struct nsp_asked_question elsewhere = {};
	u32 one = 1;

	elsewhere.cookie = cookie;
	elsewhere.question = *asked;
	*asked = question;
	if (!elsewhere.question || elsewhere.question == question)
		return;
	socket->asked_elsewhere = 1;
	asked_questions.update(&elsewhere, &one);
}

/* Whether the socket has asked this, and not had an answer: each question is used up. */
static __always_inline int take_question(struct nsp_socket *socket, u64 cookie, u64 question)
{
	struct nsp_asked_question elsewhere = {};

#pragma clang loop unroll(full)
	for (int i = 0; i < NSP_ASKED; i++) {
		if (socket->asked[i] == question &&
		    __sync_val_compare_and_swap(&socket->asked[i], question, 0) == question)
			return 1;
	}
	if (!socket->asked_elsewhere)
		return 0;
	elsewhere.cookie = cookie;
	elsewhere.question = question;
	return asked_questions.delete(&elsewhere) == 0;
}

#endif
