/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Every packet of every socket, both ways: drops what belongs to a quarantined owner
 * (also on flows opened long before) or goes to a blocked destination, and hands DNS
 * to dns.c. Never asks for "current": it is somebody else here.
 */
#include "flow.h"
#include "headers.h"
#include "packet.h"

#define NSP_PACKET_ALLOWED 1
#define NSP_PACKET_DROPPED 0
#define NSP_ICMP_ECHO_REPLY 0
#define NSP_ICMP_ECHO 8
#define NSP_ICMPV6_ECHO 128
#define NSP_ICMPV6_ECHO_REPLY 129

static __always_inline void flow_of_packet(struct __sk_buff *skb, u8 direction,
					   const struct nsp_packet_headers *headers,
					   struct nsp_flow_event *flow)
{
	int out = direction == NSP_DIRECTION_OUT;
	int failed;

	failed = packet_addresses(skb, headers->family,
				  out ? flow->local_address : flow->remote_address,
				  out ? flow->remote_address : flow->local_address);
	if (failed)
		count(NSP_COUNTER_PACKET_UNPARSED);
	flow->local_port = out ? headers->source_port : headers->destination_port;
	flow->remote_port = out ? headers->destination_port : headers->source_port;
	flow->family = headers->family;
	flow->protocol = headers->protocol;
	flow->direction = direction;
	flow->hook = out ? NSP_EVENT_CONNECT : NSP_EVENT_ACCEPT;
}

/*
 * The quarantine root this socket falls under, zero for none. A stamp in force wins;
 * else the owner's own; and an owner that is gone may have been the root itself.
 */
static __always_inline void root_of_socket(struct nsp_socket *socket, struct nsp_process_key *root)
{
	struct nsp_process *owner;

	*root = socket->quarantine_root;
	if (root->tgid && quarantine_of(root))
		return;
	owner = find_process(&socket->owner);
	*root = owner ? owner->quarantine_root : socket->owner;
}

/* The workload, and with it the slot, may have been registered after the socket was owned. */
static __always_inline u64 workload_of_socket(struct nsp_socket *socket)
{
	struct nsp_governed governed = {};

	if (!socket->workload_cgroup_id) {
		workload_of_cgroup(socket->cgroup_id, &governed);
		socket->workload_cgroup_id = governed.workload_cgroup_id;
		socket->policy_slot = governed.slot;
	}
	return socket->workload_cgroup_id;
}

/* Drops, counts, and reports once per socket and direction. */
static __always_inline int drop_packet(struct __sk_buff *skb, struct nsp_socket *socket,
				       struct nsp_flow_event *flow, struct nsp_enforcement *by)
{
	u8 flag = flow->direction == NSP_DIRECTION_OUT ? NSP_SOCKET_EGRESS_REFUSED
						       : NSP_SOCKET_INGRESS_REFUSED;
	int reported = refuse_packet(by, skb->len);

	if (!reported || socket->flags & flag)
		return NSP_PACKET_DROPPED;
	socket->flags |= flag;
	refuse_flow(flow, by);
	flow->cookie = bpf_get_socket_cookie(skb);
	emit_flow(flow, NSP_EVENT_PACKET_REFUSED, &socket->owner, socket->cgroup_id, 0);
	return NSP_PACKET_DROPPED;
}

/* Which rules a packet falls under; those of the connection, where there is one. */
static __always_inline u8 rules_for(const struct nsp_socket *socket, u8 direction, u8 protocol)
{
	if (protocol == IPPROTO_TCP) {
		if (socket->flags & NSP_SOCKET_LISTENER)
			return NSP_FLOW_IN;
		/* Older than the sensor: nobody knows who opened it. */
		if (!socket->since_ns)
			return NSP_FLOW_EITHER;
		return socket->direction == NSP_DIRECTION_IN ? NSP_FLOW_IN : NSP_FLOW_OUT;
	}
	if (direction == NSP_DIRECTION_OUT)
		return protocol == IPPROTO_UDP ? NSP_FLOW_EITHER : NSP_FLOW_OUT;
	/* What comes in is an answer only to a socket that has asked. */
	return socket->flags & (NSP_SOCKET_SENT | NSP_SOCKET_RAW) ? NSP_FLOW_EITHER : NSP_FLOW_IN;
}

static __always_inline int enforce_on_packet(struct __sk_buff *skb, u8 direction,
					     struct nsp_socket *socket,
					     const struct nsp_process_key *root,
					     const struct nsp_packet_headers *headers)
{
	struct nsp_flow_event flow = {};
	struct nsp_ends ends = {};
	struct nsp_enforcement *refused_by;

	flow_of_packet(skb, direction, headers, &flow);
	ends.address = flow.remote_address;
	ends.remote_port = flow.remote_port;
	if (rules_for(socket, direction, flow.protocol) != NSP_FLOW_OUT)
		ends.local_port = flow.local_port;
	ends.protocol = flow.protocol;
	refused_by = decide(&socket->owner, root, socket->workload_cgroup_id, &ends, &flow.reason);
	if (!refused_by)
		return NSP_PACKET_ALLOWED;
	if (flow.reason == NSP_REASON_QUARANTINED_PROCESS)
		socket->quarantine_root = *root; /* outlives the owner: its FIN is dropped too */
	return drop_packet(skb, socket, &flow, refused_by);
}

/* Only what is enforced somewhere pays for a decision: most packets read a map or two. */
static __always_inline int is_enforced(struct __sk_buff *skb, u8 direction,
				       struct nsp_socket *socket,
				       const struct nsp_packet_headers *headers)
{
	struct nsp_process_key root;

	if (!something_is_enforced())
		return 0;
	root_of_socket(socket, &root);
	if (!root.tgid && !workload_policy(workload_of_socket(socket)))
		return 0;
	return enforce_on_packet(skb, direction, socket, &root, headers) == NSP_PACKET_DROPPED;
}

/*
 * Whether nothing lies between the IP header and the next: with a source route among
 * options or extensions, which any process may set, a packet goes elsewhere first.
 */
static __always_inline int is_plain(const struct nsp_packet_headers *headers)
{
	return headers->payload_offset ==
	       (headers->family == 4 ? NSP_IPV4_HEADER_BYTES : NSP_IPV6_HEADER_BYTES);
}

/*
 * A socket with one peer keeps its verdict until the policy changes; the others, and
 * packets that may go elsewhere, only for the same peer. A listener's packets are
 * connections yet to be, and a raw socket's may be anything.
 */
static __always_inline int verdict_holds(const struct nsp_socket *socket,
					 const struct nsp_packet_headers *headers, u64 tag,
					 const struct nsp_flow_event *flow)
{
	const u64 *decided = (const u64 *)socket->decided_address;
	const u64 *now = (const u64 *)flow->remote_address;

	if (socket->policy_tag != tag || socket->flags & (NSP_SOCKET_LISTENER | NSP_SOCKET_RAW))
		return 0;
	if (headers->protocol == IPPROTO_TCP && is_plain(headers))
		return 1;
	return decided[0] == now[0] && decided[1] == now[1] &&
	       socket->decided_port == flow->remote_port;
}

/* The owner's program now, if it lives: profiles may have learned to know it meanwhile. */
static __always_inline void governed_by(struct nsp_socket *socket, struct nsp_governed *who)
{
	struct nsp_process *owner = find_process(&socket->owner);

	if (owner) {
		socket->program = owner->program;
		socket->script = owner->script;
	}
	who->workload_cgroup_id = socket->workload_cgroup_id;
	who->slot = socket->policy_slot;
	who->program = socket->program;
	who->script = socket->script;
	who->pad = 0;
}

/* A refusal by profile: counted, and told once a socket and direction; a listener's each time. */
static __always_inline void tell_verdict(struct __sk_buff *skb, struct nsp_socket *socket,
					 struct nsp_flow_event *flow,
					 const struct nsp_decision *decision)
{
	u8 flag = flow->direction == NSP_DIRECTION_OUT ? NSP_SOCKET_EGRESS_REFUSED
						       : NSP_SOCKET_INGRESS_REFUSED;

	if (!note_verdict(socket->policy_slot, decision, 0))
		return;
	if (socket->flags & flag && !(socket->flags & NSP_SOCKET_LISTENER))
		return;
	socket->flags |= flag;
	judge_flow(flow, decision);
	flow->cookie = bpf_get_socket_cookie(skb);
	emit_flow(flow, NSP_EVENT_PACKET_REFUSED, &socket->owner, socket->cgroup_id, 0);
}

static __always_inline int decide_anew(struct __sk_buff *skb, struct nsp_socket *socket,
				       struct nsp_packet_headers *headers,
				       struct nsp_flow_event *flow)
{
	struct nsp_decision decision = {};
	struct nsp_governed who;

	/* Only the same peer may lean on the name that let it pass before. */
	if (headers->protocol == IPPROTO_TCP && is_plain(headers) &&
	    !(socket->flags & NSP_SOCKET_LISTENER))
		decision.name_id = socket->name_id;
	governed_by(socket, &who);
	/* The same bytes, but one state for the verifier, not one for each way they were found. */
	bpf_probe_read_kernel(headers, sizeof(*headers), headers);
	decide_by_profile(&who, &socket->owner, flow,
			  rules_for(socket, flow->direction, headers->protocol), &decision);
	if (!(socket->flags & (NSP_SOCKET_LISTENER | NSP_SOCKET_RAW)))
		remember_decision(socket, flow, &decision);
	/* A handshake may end with data, or begin with it: nobody else will see these. */
	if (socket->flags & NSP_SOCKET_LISTENER && decision.l7)
		headers->listener_grants = decision.grants;
	if (decision.reason)
		tell_verdict(skb, socket, flow, &decision);
	if (decision.verdict == NSP_VERDICT_REFUSED)
		return NSP_PACKET_DROPPED;
	/* Sockets that pass no call hook, as ping's, are answered too. */
	if (flow->direction == NSP_DIRECTION_OUT)
		socket->flags |= NSP_SOCKET_SENT;
	return NSP_PACKET_ALLOWED;
}

/* What came in is the answer to what must have been allowed to go out. */
static __always_inline u16 icmp_asked_by(u16 type_and_code)
{
	if (type_and_code >> 8 == NSP_ICMP_ECHO_REPLY)
		return NSP_ICMP_ECHO << 8;
	if (type_and_code >> 8 == NSP_ICMPV6_ECHO_REPLY)
		return NSP_ICMPV6_ECHO << 8;
	return type_and_code;
}

static __always_inline int is_refused_by_profile(struct __sk_buff *skb, u8 direction,
						 struct nsp_socket *socket,
						 struct nsp_packet_headers *headers)
{
	struct nsp_flow_event flow = {};
	struct nsp_policy_counters *counters;
	u64 tag;

	workload_of_socket(socket);
	tag = policy_tag(socket->policy_slot);
	if (!tag)
		return 0;
	if (headers->protocol == IPPROTO_TCP && verdict_holds(socket, headers, tag, &flow) &&
	    socket->verdict != NSP_VERDICT_REFUSED)
		return 0;
	flow_of_packet(skb, direction, headers, &flow);
	if (!verdict_holds(socket, headers, tag, &flow)) {
		if (direction == NSP_DIRECTION_IN && is_icmp(headers->protocol))
			flow.remote_port = icmp_asked_by(flow.remote_port);
		return decide_anew(skb, socket, headers, &flow) == NSP_PACKET_DROPPED;
	}
	if (socket->verdict != NSP_VERDICT_REFUSED)
		return 0;
	counters = counters_of(socket->policy_slot);
	if (counters)
		__sync_fetch_and_add(&counters->refused_packets, 1);
	return 1;
}

static __always_inline int decide_packet(struct __sk_buff *skb, u8 direction,
					 struct nsp_socket *socket,
					 struct nsp_packet_headers *headers)
{
	u8 reported = NSP_SOCKET_EGRESS_REFUSED | NSP_SOCKET_INGRESS_REFUSED;

	if (is_enforced(skb, direction, socket, headers) ||
	    is_refused_by_profile(skb, direction, socket, headers))
		return NSP_PACKET_DROPPED;
	if (socket->flags & reported && socket->verdict == NSP_VERDICT_ALLOWED)
		socket->flags &= ~reported;
	return NSP_PACKET_ALLOWED;
}

/*
 * Of a connection only who opened it asks: its peers may come from any port they like, as
 * may whoever sends datagrams because of the rules for what comes in.
 */
static __always_inline int is_dns(const struct nsp_socket *socket,
				  const struct nsp_packet_headers *headers, u8 direction)
{
	if (headers->protocol != IPPROTO_TCP && headers->protocol != IPPROTO_UDP)
		return 0;
	if (socket && headers->protocol == IPPROTO_TCP && socket->direction == NSP_DIRECTION_IN)
		return 0;
	if (socket && direction == NSP_DIRECTION_IN && socket->came_in &&
	    socket->flags & NSP_SOCKET_L7)
		return 0;
	return NSP_DNS_PORT ==
	       (direction == NSP_DIRECTION_OUT ? headers->destination_port : headers->source_port);
}

/* Ends the program, unless the tail call fails or there is nothing to read. */
static __always_inline void hand_over(struct __sk_buff *skb, u8 direction,
				      struct nsp_packet_headers *headers, u32 going_out,
				      u32 coming_in)
{
	find_payload(skb, headers);
	if (!headers->payload_bytes)
		return;
	packet_remember(skb, headers);
	if (direction == NSP_DIRECTION_OUT)
		egress_tail_calls.call(skb, going_out);
	else
		ingress_tail_calls.call(skb, coming_in);
	count(NSP_COUNTER_TAIL_CALL);
}

/* Whose payload speaks first: the client's. Of datagrams it is the first, whoever sends it. */
static __always_inline int payload_is_judged(const struct nsp_socket *socket,
					     const struct nsp_packet_headers *headers, u8 direction)
{
	if (headers->listener_grants)
		return direction == NSP_DIRECTION_IN && headers->protocol == IPPROTO_TCP;
	if (!(socket->flags & NSP_SOCKET_L7))
		return 0;
	if (headers->protocol == IPPROTO_TCP)
		return direction == socket->direction;
	return headers->protocol == IPPROTO_UDP;
}

static __always_inline int handle_packet(struct __sk_buff *skb, u8 direction)
{
	struct nsp_packet_headers headers = {};
	struct bpf_sock *sk = skb->sk;
	struct nsp_socket *socket;

	/* No socket, or a request or time-wait one: nobody's yet, or nobody's any more. */
	if (!sk)
		return NSP_PACKET_ALLOWED;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NSP_PACKET_ALLOWED;
	if (glance_at_packet(skb, &headers) && walk_packet(skb, &headers))
		count(NSP_COUNTER_PACKET_UNPARSED);
	socket = sockets.sk_storage_get(sk, 0, 0);
	if (socket && socket->flags & NSP_SOCKET_OWNED &&
	    decide_packet(skb, direction, socket, &headers) == NSP_PACKET_DROPPED)
		return NSP_PACKET_DROPPED;
	if (!is_dns(socket, &headers, direction)) {
		if (socket && payload_is_judged(socket, &headers, direction))
			hand_over(skb, direction, &headers, NSP_TAIL_L7, NSP_TAIL_L7);
		return NSP_PACKET_ALLOWED;
	}
	if (!socket)
		count(NSP_COUNTER_OWNER_UNKNOWN);
	hand_over(skb, direction, &headers, NSP_TAIL_DNS_QUESTION, NSP_TAIL_DNS_ANSWER);
	return NSP_PACKET_ALLOWED;
}

int packet_egress(struct __sk_buff *skb)
{
	return handle_packet(skb, NSP_DIRECTION_OUT);
}

int packet_ingress(struct __sk_buff *skb)
{
	return handle_packet(skb, NSP_DIRECTION_IN);
}
