/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * connect, sendmsg and bind: decided before anything leaves, in the caller's own
 * context, so that the caller gets EPERM and is named rightly. Each allowed call
 * makes the caller the socket's owner.
 */
#include "flow.h"
#include "l7.h"

#define NSP_SOCK_RAW 3
#define NSP_CALL_ALLOWED 1
#define NSP_CALL_REFUSED 0 /* the kernel answers EPERM */

static __always_inline void addresses_of_call(struct bpf_sock_addr *ctx, u32 family, u8 *address)
{
	u32 words[4];

	if (family == NSP_AF_INET) {
		words[0] = ctx->user_ip4;
		map_ipv4(address, words);
		return;
	}
	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	__builtin_memcpy(address, words, sizeof(words));
}

/* The socket's own end, as far as it is bound already. */
static __always_inline void local_end(struct bpf_sock *sk, struct nsp_flow_event *flow)
{
	u32 words[4];

	flow->local_port = sk->src_port;
	if (sk->family == NSP_AF_INET) {
		words[0] = sk->src_ip4;
		map_ipv4(flow->local_address, words);
		return;
	}
	words[0] = sk->src_ip6[0];
	words[1] = sk->src_ip6[1];
	words[2] = sk->src_ip6[2];
	words[3] = sk->src_ip6[3];
	__builtin_memcpy(flow->local_address, words, sizeof(words));
}

static __always_inline void flow_of_call(struct bpf_sock_addr *ctx, u32 family, u16 hook,
					 struct nsp_flow_event *flow)
{
	u32 protocol = ctx->protocol;

	flow->hook = hook;
	flow->cookie = bpf_get_socket_cookie(ctx);
	flow->protocol = protocol == IPPROTO_MPTCP ? IPPROTO_TCP : protocol;
	if (hook == NSP_EVENT_BIND) {
		addresses_of_call(ctx, family, flow->local_address);
		flow->local_port = bpf_ntohs(ctx->user_port);
		flow->family = family == NSP_AF_INET || is_mapped(flow->local_address) ? 4 : 6;
		return;
	}
	addresses_of_call(ctx, family, flow->remote_address);
	flow->remote_port = bpf_ntohs(ctx->user_port);
	flow->family = family == NSP_AF_INET || is_mapped(flow->remote_address) ? 4 : 6;
	local_end(ctx->sk, flow);
}

static __always_inline int same_destination(const struct nsp_socket *socket,
					    const struct nsp_flow_event *flow)
{
	const u64 *last = (const u64 *)socket->last_address;
	const u64 *now = (const u64 *)flow->remote_address;

	return last[0] == now[0] && last[1] == now[1] && socket->last_port == flow->remote_port;
}

static __always_inline void remember_destination(struct nsp_socket *socket,
						 const struct nsp_flow_event *flow)
{
	__builtin_memcpy(socket->last_address, flow->remote_address, sizeof(socket->last_address));
	socket->last_port = flow->remote_port;
}

/* A loop over one refused destination is one event; the enforcement counts every call. */
static __always_inline int refusal_is_new(struct nsp_socket *socket,
					  const struct nsp_flow_event *flow)
{
	if (!socket)
		return 1;
	if (socket->flags & NSP_SOCKET_CALL_REFUSED && same_destination(socket, flow))
		return 0;
	socket->flags |= NSP_SOCKET_CALL_REFUSED;
	remember_destination(socket, flow);
	return 1;
}

/* Makes the caller the owner. True when the call is an event. */
static __always_inline int take_socket(struct nsp_socket *socket, const struct nsp_caller *caller,
				       const struct nsp_flow_event *flow, u16 hook, int bound)
{
	int reported = hook == NSP_EVENT_CONNECT;

	if (!socket)
		return flow->hook != NSP_EVENT_BIND;
	/* A bind of what is bound will fail: it must not make the caller the owner of a service. */
	if (hook == NSP_EVENT_BIND && bound)
		return 0;
	own_socket(socket, caller);
	if (hook == NSP_EVENT_BIND)
		return 0;
	if (hook == NSP_EVENT_CONNECT) {
		socket->since_ns = bpf_ktime_get_boot_ns();
		socket->direction = NSP_DIRECTION_OUT;
		socket->flags &= ~NSP_SOCKET_LISTENER; /* it may have been one */
	} else {
		reported =
			socket->flags & NSP_SOCKET_CALL_REFUSED || !same_destination(socket, flow);
	}
	socket->flags &= ~NSP_SOCKET_CALL_REFUSED;
	socket->flags |= NSP_SOCKET_SENT;
	remember_destination(socket, flow);
	return reported;
}

/* Returns 1 when the profile of the caller speaks against the call; flow says why. */
static __always_inline int profile_objects(const struct nsp_caller *caller,
					   struct nsp_socket *socket, struct nsp_flow_event *flow,
					   u16 hook, int *report)
{
	struct nsp_decision decision = {};
	u64 tag = policy_tag(caller->governed.slot);
	u8 which = NSP_FLOW_OUT;

	if (!tag)
		return 0;
	if (hook == NSP_EVENT_BIND) {
		if (!flow->local_port)
			return 0;
		decide_socket_by_profile(&caller->governed, &caller->key, 0, flow, &decision);
	} else {
		/* A connect begins a connection, of which nothing was said yet. */
		if (hook == NSP_EVENT_SENDMSG && socket &&
		    is_decided(socket, &caller->governed, flow, tag)) {
			flow->verdict = socket->verdict;
			return 0;
		}
		if (hook == NSP_EVENT_SENDMSG && flow->local_port)
			which = NSP_FLOW_EITHER;
		decide_by_profile(&caller->governed, &caller->key, flow, which, &decision);
		if (socket)
			remember_decision(socket, flow, &decision);
	}
	if (!decision.reason)
		return 0;
	judge_flow(flow, &decision);
	*report = note_verdict(caller->governed.slot, &decision, 1);
	return decision.verdict == NSP_VERDICT_REFUSED;
}

/*
 * Whether a socket may do without the storage by which it could be cut later. The kernel
 * gives none where memory is short, and where whoever owns the network namespace told it
 * to (net.core.optmem_max): what a workload gains by that must be nothing.
 */
static __always_inline int passes_without_storage(const struct nsp_caller *caller)
{
	count(NSP_COUNTER_SOCKET_STORAGE);
	if (!caller->governed.workload_cgroup_id && !policy_tag(caller->governed.slot))
		return 1;
	return is_exempt(&caller->key);
}

static __always_inline int decide_call(struct bpf_sock_addr *ctx, u32 family, u16 hook)
{
	struct nsp_flow_event flow = {};
	struct nsp_ends ends = {};
	struct nsp_caller caller;
	struct nsp_enforcement *refused_by;
	struct nsp_socket *socket;
	int reported, refused, report = 1;

	flow_of_call(ctx, family, hook, &flow);
	identify_caller(&caller);
	socket = sockets.sk_storage_get(ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket && !passes_without_storage(&caller))
		return NSP_CALL_REFUSED;
	/* What the socket's last connection said says nothing about the next one. */
	if (hook == NSP_EVENT_CONNECT)
		l7_streams.sk_storage_delete(ctx->sk);
	ends.address = flow.remote_address;
	ends.remote_port = flow.remote_port;
	/* A datagram may be the answer to one that was let in. */
	ends.local_port = hook == NSP_EVENT_SENDMSG ? flow.local_port : 0;
	ends.protocol = flow.protocol;
	refused_by = decide(&caller.key, &caller.quarantine_root,
			    caller.governed.workload_cgroup_id, &ends, &flow.reason);
	if (refused_by) {
		refused = 1;
		refuse_flow(&flow, refused_by);
		report = refuse_call(refused_by);
	} else {
		refused = profile_objects(&caller, socket, &flow, hook, &report);
	}
	if (refused)
		reported = report && refusal_is_new(socket, &flow);
	else
		reported = take_socket(socket, &caller, &flow, hook, ctx->sk->src_port != 0) ||
			   (flow.reason && report);
	if (reported)
		emit_flow(&flow, hook, &caller.key, caller.cgroup_id, caller.tid);
	return refused ? NSP_CALL_REFUSED : NSP_CALL_ALLOWED;
}

int connect4(struct bpf_sock_addr *ctx)
{
	return decide_call(ctx, NSP_AF_INET, NSP_EVENT_CONNECT);
}

int connect6(struct bpf_sock_addr *ctx)
{
	return decide_call(ctx, NSP_AF_INET6, NSP_EVENT_CONNECT);
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	return decide_call(ctx, NSP_AF_INET, NSP_EVENT_SENDMSG);
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	return decide_call(ctx, NSP_AF_INET6, NSP_EVENT_SENDMSG);
}

int bind4(struct bpf_sock_addr *ctx)
{
	return decide_call(ctx, NSP_AF_INET, NSP_EVENT_BIND);
}

int bind6(struct bpf_sock_addr *ctx)
{
	return decide_call(ctx, NSP_AF_INET6, NSP_EVENT_BIND);
}

/*
 * A raw socket never passes connect or sendmsg here, so it is decided and owned at
 * birth; ping and SCTP sockets likewise. A quarantine's refusal is only counted, there is
 * no flow to report; a profile that speaks against raw sockets is told of.
 * The others get their storage now, and an owner when they are used: later their program
 * could have spent the socket's option memory, and what has no storage is never cut.
 */
int sock_create(struct bpf_sock *ctx)
{
	struct nsp_flow_event flow = {};
	struct nsp_decision decision = {};
	struct nsp_ends ends = {};
	struct nsp_caller caller;
	struct nsp_enforcement *refused_by;
	struct nsp_socket *socket;

	socket = sockets.sk_storage_get(ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket) {
		identify_caller(&caller);
		if (!passes_without_storage(&caller))
			return NSP_CALL_REFUSED;
	}
	if (ctx->type != NSP_SOCK_RAW &&
	    (ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_UDP ||
	     ctx->protocol == IPPROTO_MPTCP))
		return NSP_CALL_ALLOWED;
	identify_caller(&caller);
	ends.address = flow.remote_address;
	refused_by = decide(&caller.key, &caller.quarantine_root,
			    caller.governed.workload_cgroup_id, &ends, &flow.reason);
	if (refused_by) {
		refuse_call(refused_by);
		return NSP_CALL_REFUSED;
	}
	if (socket)
		own_socket(socket, &caller);
	if (ctx->type != NSP_SOCK_RAW)
		return NSP_CALL_ALLOWED;
	if (socket)
		socket->flags |= NSP_SOCKET_RAW;
	flow.protocol = ctx->protocol;
	flow.family = ctx->family == NSP_AF_INET ? 4 : 6;
	flow.hook = NSP_EVENT_RAW_SOCKET;
	decide_socket_by_profile(&caller.governed, &caller.key, 1, &flow, &decision);
	if (!decision.reason)
		return NSP_CALL_ALLOWED;
	judge_flow(&flow, &decision);
	if (note_verdict(caller.governed.slot, &decision, 1))
		emit_flow(&flow, NSP_EVENT_RAW_SOCKET, &caller.key, caller.cgroup_id, caller.tid);
	return decision.verdict == NSP_VERDICT_REFUSED ? NSP_CALL_REFUSED : NSP_CALL_ALLOWED;
}
