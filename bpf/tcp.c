/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * inet_sock_set_state: TCP sockets that begin to listen, are accepted, or close. Only
 * listening happens in the owner's context; the rest names the owner by the socket's
 * storage, which an accepted socket inherits from its listener (BPF_F_CLONE).
 */
#include "flow.h"

#define NSP_TCP_ESTABLISHED 1
#define NSP_TCP_SYN_RECV 3
#define NSP_TCP_CLOSE 7
#define NSP_TCP_LISTEN 10
#define NSP_SOCK_DONE 2 /* 1 << SOCK_DONE in sk_flags: the peer's FIN was received */

/* The arguments as a BTF tracepoint has them. */
struct nsp_tcp_state_args {
	u64 sk;
	u64 old_state;
	u64 new_state;
};

static __always_inline void begin_tcp_flow(struct nsp_flow_event *flow, void *sk, u8 state)
{
	flow_from_sock(flow, (u64)sk);
	flow->cookie = bpf_get_socket_cookie(sk);
	flow->tcp_state = state;
}

static __always_inline void on_listen(void *sk)
{
	struct nsp_flow_event flow = {};
	struct nsp_caller caller;
	struct nsp_socket *socket;

	identify_caller(&caller);
	socket = sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (socket) {
		own_socket(socket, &caller);
		socket->flags |= NSP_SOCKET_LISTENER;
		socket->direction = NSP_DIRECTION_IN;
	} else {
		count(NSP_COUNTER_SOCKET_STORAGE);
	}
	begin_tcp_flow(&flow, sk, NSP_TCP_LISTEN);
	flow.direction = NSP_DIRECTION_IN;
	emit_flow(&flow, NSP_EVENT_LISTEN, &caller.key, caller.cgroup_id, caller.tid);
}

/* The new socket of a passive open. Its storage is a copy of the listener's. */
static __always_inline void on_accept(void *sk)
{
	struct nsp_flow_event flow = {};
	struct nsp_process_key owner = {};
	struct nsp_socket *socket;
	u64 cgroup_id = 0;

	socket = sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket)
		count(NSP_COUNTER_SOCKET_STORAGE);
	if (socket && socket->since_ns && !(socket->flags & NSP_SOCKET_LISTENER))
		return; /* a simultaneous open: our own connect, reported already */
	if (socket && socket->flags & NSP_SOCKET_OWNED) {
		owner = socket->owner;
		cgroup_id = socket->cgroup_id;
	} else {
		count(NSP_COUNTER_OWNER_UNKNOWN);
	}
	if (socket) {
		socket->flags &= NSP_SOCKET_OWNED;
		socket->policy_tag = 0; /* the listener was never decided for this peer */
		socket->since_ns = bpf_ktime_get_boot_ns();
		socket->direction = NSP_DIRECTION_IN;
	}
	begin_tcp_flow(&flow, sk, NSP_TCP_ESTABLISHED);
	flow.direction = NSP_DIRECTION_IN;
	emit_flow(&flow, NSP_EVENT_ACCEPT, &owner, cgroup_id, 0);
}

static __always_inline u64 smaller(u64 a, u64 b)
{
	return a < b ? a : b;
}

/*
 * Payload the peer acknowledged. bytes_acked also counts our SYN (active open only)
 * and our FIN; what was sent less what was sent again has neither, but counts data
 * nobody acknowledged: the smaller of the two is the payload.
 */
static __always_inline u64 acknowledged_bytes(u64 sk, u8 direction)
{
	u64 acked = read_u64(sk + NSP_OFF_tcp_sock__bytes_acked);
	u64 sent = read_u64(sk + NSP_OFF_tcp_sock__bytes_sent);
	u64 again = read_u64(sk + NSP_OFF_tcp_sock__bytes_retrans);

	if (direction == NSP_DIRECTION_OUT && acked)
		acked--;
	return smaller(acked, sent - smaller(again, sent));
}

/* bytes_received counts the peer's FIN, of which the kernel keeps a flag. */
static __always_inline u64 received_bytes(u64 sk)
{
	u64 bytes = read_u64(sk + NSP_OFF_tcp_sock__bytes_received);
	u64 flags = read_u64(sk + NSP_OFF_sock____sk_common_skc_flags);

	return bytes && flags & NSP_SOCK_DONE ? bytes - 1 : bytes;
}

static __always_inline void on_close(void *sk, u8 old_state)
{
	struct nsp_close_event event = {};
	struct nsp_process_key owner = {};
	struct nsp_socket *socket = sockets.sk_storage_get(sk, 0, 0);
	u64 cgroup_id = 0;

	if (socket && socket->flags & NSP_SOCKET_OWNED) {
		owner = socket->owner;
		cgroup_id = socket->cgroup_id;
	} else {
		count(NSP_COUNTER_OWNER_UNKNOWN);
	}
	if (socket) {
		event.flow.direction = socket->direction;
		if (socket->since_ns)
			event.duration_ns = bpf_ktime_get_boot_ns() - socket->since_ns;
	}
	begin_tcp_flow(&event.flow, sk, old_state);
	if (old_state != NSP_TCP_LISTEN) {
		event.bytes_sent = acknowledged_bytes((u64)sk, event.flow.direction);
		event.bytes_received = received_bytes((u64)sk);
	}
	event_header(&event.flow.header, NSP_EVENT_CLOSE, sizeof(event), &owner, cgroup_id, 0);
	if (events.ringbuf_output(&event, sizeof(event), NSP_RING_FLAGS))
		count(NSP_COUNTER_RING_FULL);
}

/* MPTCP, SCTP and DCCP sockets change states too, and are no tcp_sock. */
static __always_inline int is_tcp(void *sk)
{
	return read_u16((u64)sk + NSP_OFF_sock__sk_protocol) == IPPROTO_TCP;
}

int on_tcp_state(struct nsp_tcp_state_args *ctx)
{
	void *sk = (void *)ctx->sk;
	u32 old_state = ctx->old_state;
	u32 new_state = ctx->new_state;

	/* States first: most changes are of no interest, and cost nothing that way. */
	if (new_state == NSP_TCP_LISTEN && is_tcp(sk))
		on_listen(sk);
	else if (new_state == NSP_TCP_ESTABLISHED && old_state == NSP_TCP_SYN_RECV && is_tcp(sk))
		on_accept(sk);
	else if (new_state == NSP_TCP_CLOSE && old_state != NSP_TCP_CLOSE && is_tcp(sk))
		on_close(sk, old_state);
	return 0;
}
