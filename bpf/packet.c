/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Every packet of every socket, both ways: drops what belongs to a quarantined owner
 * (also on flows opened long before) or goes to a blocked destination, and hands DNS
 * to dns.c. Never asks for "current": it is somebody else here.
 */
#include "flow.h"
#include "packet.h"

#define NSP_PACKET_ALLOWED 1
#define NSP_PACKET_DROPPED 0
#define NSP_IPV4_HEADER_BYTES 20
#define NSP_IPV6_HEADER_BYTES 40
#define NSP_IPV6_EXTENSIONS_MAX 6 /* hop-by-hop, routing, destination options: 3 are usual */
#define NSP_UDP_HEADER_BYTES 8
#define NSP_DNS_PORT 53

/* Offset of the transport header, or 0. */
static __always_inline u32 walk_ipv4(struct __sk_buff *skb, u8 *protocol)
{
	u8 header[NSP_IPV4_HEADER_BYTES];

	if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
		return 0;
	if (header[6] & 0x1f || header[7]) /* a later fragment has no ports */
		return 0;
	*protocol = header[9];
	return (header[0] & 0x0f) * 4;
}

static __always_inline int is_ipv6_extension(u8 next)
{
	return next == 0 || next == 43 || next == 60;
}

static __always_inline u32 walk_ipv6(struct __sk_buff *skb, u8 *protocol)
{
	u32 offset = NSP_IPV6_HEADER_BYTES;
	u8 extension[2];
	u8 next;

	if (bpf_skb_load_bytes(skb, 6, &next, 1))
		return 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < NSP_IPV6_EXTENSIONS_MAX; i++) {
		if (!is_ipv6_extension(next))
			break;
		if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)))
			return 0;
		next = extension[0];
		offset += ((u32)extension[1] + 1) * 8;
	}
	*protocol = next;
	return is_ipv6_extension(next) ? 0 : offset;
}

/* Where the payload is; only DNS needs it. headers->payload_offset is the transport header's. */
static __always_inline void find_payload(struct __sk_buff *skb, struct nsp_packet_headers *headers)
{
	u32 offset = headers->payload_offset;
	u32 header_bytes = NSP_UDP_HEADER_BYTES;
	u8 words;

	if (headers->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, offset + 12, &words, 1))
			return;
		header_bytes = (words >> 4) * 4;
	}
	offset += header_bytes;
	if (skb->len <= offset)
		return;
	headers->payload_offset = offset;
	headers->payload_bytes = skb->len - offset;
}

/* Returns 0, or -1 when the packet is beyond what is followed. Other protocols: no ports. */
static __always_inline int parse_packet(struct __sk_buff *skb, struct nsp_packet_headers *headers)
{
	u16 ports[2];
	u32 offset;
	u8 version;

	if (bpf_skb_load_bytes(skb, 0, &version, 1))
		return -1;
	headers->family = version >> 4;
	if (headers->family == 4)
		offset = walk_ipv4(skb, &headers->protocol);
	else
		offset = walk_ipv6(skb, &headers->protocol);
	if (!offset)
		return -1;
	if (headers->protocol != IPPROTO_TCP && headers->protocol != IPPROTO_UDP)
		return 0;
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return -1;
	headers->source_port = bpf_ntohs(ports[0]);
	headers->destination_port = bpf_ntohs(ports[1]);
	headers->payload_offset = offset;
	return 0;
}

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

/* The workload may have been registered after the socket was owned. */
static __always_inline u64 workload_of_socket(struct nsp_socket *socket)
{
	if (!socket->workload_cgroup_id)
		socket->workload_cgroup_id = workload_of(socket->cgroup_id);
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

static __always_inline int enforce_on_packet(struct __sk_buff *skb, u8 direction,
					     struct nsp_socket *socket,
					     const struct nsp_process_key *root,
					     const struct nsp_packet_headers *headers)
{
	struct nsp_flow_event flow = {};
	struct nsp_enforcement *refused_by;

	flow_of_packet(skb, direction, headers, &flow);
	refused_by = decide(root, socket->workload_cgroup_id, flow.remote_address, flow.remote_port,
			    flow.protocol, &flow.reason);
	if (!refused_by)
		return NSP_PACKET_ALLOWED;
	if (flow.reason == NSP_REASON_QUARANTINED_PROCESS)
		socket->quarantine_root = *root; /* outlives the owner: its FIN is dropped too */
	return drop_packet(skb, socket, &flow, refused_by);
}

/* Only what is enforced somewhere pays for a decision: most packets read a map or two. */
static __always_inline int decide_packet(struct __sk_buff *skb, u8 direction,
					 struct nsp_socket *socket,
					 const struct nsp_packet_headers *headers)
{
	u8 reported = NSP_SOCKET_EGRESS_REFUSED | NSP_SOCKET_INGRESS_REFUSED;
	struct nsp_process_key root;

	root_of_socket(socket, &root);
	if (root.tgid || workload_policy(workload_of_socket(socket)))
		return enforce_on_packet(skb, direction, socket, &root, headers);
	if (socket->flags & reported)
		socket->flags &= ~reported;
	return NSP_PACKET_ALLOWED;
}

static __always_inline int is_dns(const struct nsp_packet_headers *headers, u8 direction)
{
	return NSP_DNS_PORT ==
	       (direction == NSP_DIRECTION_OUT ? headers->destination_port : headers->source_port);
}

/* Ends the program, unless the tail call fails or there is nothing to read. */
static __always_inline void hand_over_dns(struct __sk_buff *skb, u8 direction,
					  struct nsp_packet_headers *headers)
{
	find_payload(skb, headers);
	if (!headers->payload_bytes)
		return;
	packet_remember(skb, headers);
	if (direction == NSP_DIRECTION_OUT)
		egress_tail_calls.call(skb, NSP_TAIL_DNS_QUESTION);
	else
		ingress_tail_calls.call(skb, NSP_TAIL_DNS_ANSWER);
	count(NSP_COUNTER_TAIL_CALL);
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
	if (parse_packet(skb, &headers))
		count(NSP_COUNTER_PACKET_UNPARSED);
	socket = sockets.sk_storage_get(sk, 0, 0);
	if (socket && socket->flags & NSP_SOCKET_OWNED &&
	    decide_packet(skb, direction, socket, &headers) == NSP_PACKET_DROPPED)
		return NSP_PACKET_DROPPED;
	if (!is_dns(&headers, direction))
		return NSP_PACKET_ALLOWED;
	if (!socket)
		count(NSP_COUNTER_OWNER_UNKNOWN);
	hand_over_dns(skb, direction, &headers);
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
