/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What profiles say about a DNS question. To a listed resolver it passes by its name
 * where names are listed; to any other server it is a payload like others, which rules
 * of layer 7 may stop, by name too where they list names.
 */
#ifndef NSP_DNS_POLICY_H
#define NSP_DNS_POLICY_H

#include "dns_name.h"
#include "flow.h"

/* A question while rule sets are asked: in map memory, as in profile.h, for the verifier. */
struct nsp_dns_asking {
	struct nsp_grants grants;
	u8 among; /* bit n: the n-th rule set lets the packet pass below layer 7 */
	u8 readable; /* the packet is one question */
	u8 listed; /* the server is a listed resolver */
	u8 learns; /* a rule set has names: the answer may be learned */
	u8 passed;
	u8 reason; /* the most specific of those that were given */
	u8 pad[2];
};

/* What one rule set has against the question, or NSP_REASON_NONE. */
static __always_inline u8 question_stopped(struct nsp_dns_asking *asking, struct nsp_dns_name *name,
					   const struct nsp_ruleset *rules, u32 ruleset)
{
	u32 flags = rules->flags;
	u8 l7 = rules->l7[NSP_DIRECTION_OUT];

	if (!kept(asking->listed) || !(flags & (NSP_RULESET_NAMES | NSP_RULESET_DNS_ANY))) {
		if (!(flags & NSP_RULESET_L7))
			return NSP_REASON_NONE;
		if (!kept(asking->readable))
			return l7 & NSP_L7_OPAQUE ? NSP_REASON_NONE : NSP_REASON_OPAQUE;
		if (!(l7 & NSP_L7_DNS))
			return NSP_REASON_L7_PROTOCOL;
	}
	if (!kept(asking->readable))
		return NSP_REASON_DNS_NAME;
	if (flags & NSP_RULESET_DNS_ANY || !(flags & NSP_RULESET_NAMES))
		return NSP_REASON_NONE;
	if (allowed_with_name(ruleset, name) & (NSP_NAME_ASK | NSP_NAME_REACH))
		return NSP_REASON_NONE;
	return NSP_REASON_DNS_NAME;
}

static __always_inline void ask_about_question(struct nsp_dns_asking *asking,
					       struct nsp_dns_name *name)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < NSP_GRANTS; i++) {
		u64 place = masked_index(i, NSP_GRANTS);
		u32 index = kept(asking->grants.rulesets[place]);
		struct nsp_ruleset *rules;
		u8 stopped;

		if (!index)
			break;
		rules = rulesets.lookup(&index);
		if (!rules)
			break;
		if (!(kept(asking->among) >> place & 1))
			continue;
		if (rules->flags & NSP_RULESET_NAMES)
			kept(asking->learns) = 1;
		stopped = question_stopped(asking, name, rules, index);
		if (!stopped)
			kept(asking->passed) = 1;
		else if (stopped > kept(asking->reason))
			kept(asking->reason) = stopped;
	}
}

/* Exempt processes and the emergency exit are looked for last: nobody else pays for them. */
static __always_inline int question_is_beyond_profiles(struct nsp_socket *socket,
						       const struct nsp_dns_event *event)
{
	struct nsp_flow_event flow = {};

	flow.protocol = event->protocol;
	flow.remote_port = event->remote_port;
	__builtin_memcpy(flow.remote_address, event->remote_address, sizeof(flow.remote_address));
	return is_beyond_profiles(&socket->owner, &flow, NSP_FLOW_OUT);
}

/*
 * Judges the question: verdict, reason and generation of the event. Returns 0, or -1
 * when a refusal is one of so many that it is only counted.
 */
static __always_inline int judge_question(struct nsp_socket *socket, struct nsp_dns_asking *asking,
					  struct nsp_dns_name *name, struct nsp_dns_event *event)
{
	struct nsp_decision decision = {};
	struct nsp_policy *policy;
	struct nsp_grants *grants = grants_of(socket->policy_slot, socket->program, socket->script,
					      &decision.tag, &policy);

	if (!grants || !policy || !grants->mode)
		return 0;
	asking->grants = *grants;
	asking->listed = is_resolver(socket->workload_cgroup_id, event->remote_address);
	if (!asking->listed && !(policy->flags & NSP_POLICY_LOOPBACK) &&
	    is_loopback(event->remote_address))
		return 0;
	asking->among = socket->grants;
	if (!socket->grants || socket->policy_tag != decision.tag)
		asking->among = 0xff; /* it passed for another reason: let each have a say */
	ask_about_question(asking, name);
	if (kept(asking->passed) || question_is_beyond_profiles(socket, event)) {
		if (kept(asking->listed) && kept(asking->learns) && kept(asking->readable))
			remember_question(socket, event->cookie, question_of(event, name->hash));
		return 0;
	}
	decision.reason = kept(asking->reason);
	if (!decision.reason)
		decision.reason = NSP_REASON_DNS_NAME;
	apply_mode(&decision, policy, grants->mode);
	event->verdict = decision.verdict;
	event->reason = decision.reason;
	event->generation = decision.generation;
	return note_verdict(socket->policy_slot, &decision, 0) ? 0 : -1;
}

#endif
