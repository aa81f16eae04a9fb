/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What a policy makes of what was said, and what is told of it: the refusal once a
 * socket, as of every refused packet, and the request or hello itself, each within the
 * budget of the workload's reports.
 */
#ifndef NSP_L7_VERDICT_H
#define NSP_L7_VERDICT_H

#include "l7_rules.h"

/* What is allowed may spend half of the burst: a flood of it cannot hide a refusal. */
static __always_inline int seen_is_due(u32 slot, int allowed)
{
	struct nsp_policy_counters *counters = counters_of(slot);

	if (!counters)
		return 1;
	if (allowed && counters->tokens_ns > bpf_ktime_get_boot_ns() - NSP_REPORT_BURST_NS / 2) {
		count(NSP_COUNTER_POLICY_REPORTS_SPARED);
		return 0;
	}
	return report_is_due(counters);
}

static __always_inline void tell_request(const struct nsp_l7_turn *turn,
					 const struct nsp_flow_event *flow)
{
	struct nsp_l7_stream *stream = turn->stream;
	struct nsp_http_event *event = events.ringbuf_reserve(sizeof(struct nsp_http_event));

	if (!event) {
		event_lost(NSP_COUNTER_RING_FULL);
		return;
	}
	event->flow = *flow;
	event->uri_bytes = kept(stream->uri_bytes);
	event->host_bytes = kept(stream->host_bytes);
	event->seen = kept(stream->seen);
	__builtin_memset(event->seen_pad, 0, sizeof(event->seen_pad));
	__builtin_memcpy(event->method, stream->method, sizeof(event->method));
	bpf_probe_read_kernel(event->uri, sizeof(event->uri), stream->request.uri);
	bpf_probe_read_kernel(event->host, sizeof(event->host), stream->host);
	event_header(&event->flow.header, NSP_EVENT_HTTP_REQUEST, sizeof(*event),
		     &turn->socket->owner, turn->socket->cgroup_id, 0);
	events.ringbuf_submit(event, NSP_RING_FLAGS);
}

static __always_inline void tell_hello(const struct nsp_l7_turn *turn,
				       const struct nsp_flow_event *flow)
{
	struct nsp_l7_stream *stream = turn->stream;
	struct nsp_tls_event *event = events.ringbuf_reserve(sizeof(struct nsp_tls_event));

	if (!event) {
		event_lost(NSP_COUNTER_RING_FULL);
		return;
	}
	event->flow = *flow;
	event->name_bytes = kept(stream->host_bytes);
	event->seen = kept(stream->seen);
	event->seen_pad[0] = 0;
	bpf_probe_read_kernel(event->name, sizeof(event->name), stream->host);
	event_header(&event->flow.header, NSP_EVENT_TLS_HELLO, sizeof(*event), &turn->socket->owner,
		     turn->socket->cgroup_id, 0);
	events.ringbuf_submit(event, NSP_RING_FLAGS);
}

/* A request or hello is told once: not again when a new policy judges it anew. */
static __always_inline void tell_what_was_seen(const struct nsp_l7_turn *turn,
					       struct nsp_flow_event *flow)
{
	u8 found = kept(turn->stream->found);
	u8 speech = kept(turn->stream->speech);

	if (found == NSP_FOUND_UNREADABLE || kept(turn->stream->told))
		return;
	if (found == NSP_FOUND_REQUEST_LINE && !flow->reason)
		return;
	kept(turn->stream->told) = 1;
	if (!seen_is_due(turn->socket->policy_slot, !flow->reason))
		return;
	if (speech == NSP_SPEECH_TLS)
		tell_hello(turn, flow);
	else
		tell_request(turn, flow);
}

/* What the policy does about a reason; the socket remembers it. */
static __always_inline void conclude(struct __sk_buff *skb, struct nsp_l7_turn *turn,
				     struct nsp_flow_event *flow, struct nsp_decision *decision,
				     struct nsp_policy *policy, u8 mode)
{
	u8 which = flow->protocol == IPPROTO_UDP	 ? NSP_FLOW_EITHER
		   : flow->direction == NSP_DIRECTION_IN ? NSP_FLOW_IN
							 : NSP_FLOW_OUT;

	if (decision->reason && is_beyond_profiles(&turn->socket->owner, flow, which))
		decision->reason = NSP_REASON_NONE;
	apply_mode(decision, policy, mode);
	if (!decision->reason)
		return;
	/* A listener is not one connection: what it gets is judged packet by packet. */
	if (!turn->headers.listener_grants)
		turn->socket->verdict = decision->verdict;
	tell_verdict(skb, turn->socket, flow, decision);
	judge_flow(flow, decision);
}

/*
 * Judges what was found. Returns 1 when it may pass, 0 when it is refused, and with it
 * everything that follows (packet.c drops by the socket's verdict), -1 when the policy
 * has changed since the packet was decided below: it comes again and is decided anew.
 */
static __always_inline int judge_payload(struct __sk_buff *skb, u8 direction,
					 struct nsp_l7_turn *turn)
{
	struct nsp_flow_event flow = {};
	struct nsp_decision decision = {};
	struct nsp_socket *socket = turn->socket;
	struct nsp_l7_stream *stream = turn->stream;
	u8 found = kept(stream->found);
	struct nsp_policy *policy;
	struct nsp_grants *grants = grants_of(socket->policy_slot, socket->program, socket->script,
					      &decision.tag, &policy);

	if (!grants || !policy || !grants->mode)
		return 1;
	if (decision.tag != socket->policy_tag && !turn->headers.listener_grants)
		return -1;
	kept(stream->tag) = decision.tag;
	flow_of_packet(skb, direction, &turn->headers, &flow);
	flow.cookie = bpf_get_socket_cookie(skb);
	if (found != NSP_FOUND_REQUEST_LINE)
		reverse_host(stream);
	if (found == NSP_FOUND_REQUEST && direction == NSP_DIRECTION_OUT &&
	    host_is_address(stream, flow.remote_address))
		kept(stream->seen) |= NSP_L7_SEEN_HOST_IS_PEER;
	if (found == NSP_FOUND_UNREADABLE)
		count(NSP_COUNTER_L7_OPAQUE);
	decision.reason = held_against_rules(turn, direction, grants);

	conclude(skb, turn, &flow, &decision, policy, grants->mode);
	tell_what_was_seen(turn, &flow);
	return decision.verdict != NSP_VERDICT_REFUSED;
}

#endif
