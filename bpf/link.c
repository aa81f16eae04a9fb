/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The programs on network interfaces (tc). On an interface of a workload or of the
 * host: link_ingress and link_egress; on the host's end of a workload's veth:
 * link_peer, because a packet socket with PACKET_QDISC_BYPASS, and AF_XDP, leave
 * without meeting the egress program. The socket goes along to the other end.
 *
 * Packet sockets pass every cgroup hook, at creation and with each packet. Here their
 * packets still carry the socket, and with it the cgroup it was made in: quarantines,
 * blocks and profiles hold for them too.
 */

#define NSP_IPV4_PROTOCOL_OFFSET 9

static __always_inline int is_packet_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	u32 family;

	if (!sk)
		return 0;
	family = sk->family;
	return family == NSP_AF_PACKET || family == NSP_AF_XDP;
}

/* Everything else is left alone after these few instructions. */
static __always_inline int may_be_claim(struct __sk_buff *skb)
{
	u8 next;

	if (skb->protocol == bpf_htons(NSP_ETHERTYPE_ARP))
		return 1;
	if (skb->protocol != bpf_htons(NSP_ETHERTYPE_IPV6))
		return 0;
	return !bpf_skb_load_bytes(skb, NSP_ETHERNET_HEADER_BYTES + NSP_IPV6_NEXT_HEADER, &next,
				   1) &&
	       next == NSP_PROTOCOL_ICMPV6;
}

/* Where an IP packet of an Ethernet frame goes; another frame goes to no address. */
static __always_inline void flow_of_frame(struct __sk_buff *skb, struct nsp_flow_event *flow)
{
	u32 offset = NSP_ETHERNET_HEADER_BYTES;
	u32 pair[8];
	u8 first;

	flow->hook = NSP_EVENT_CONNECT;
	if (bpf_skb_load_bytes(skb, offset, &first, 1))
		return;
	if (first >> 4 == 4 && !bpf_skb_load_bytes(skb, offset + 12, pair, 8)) {
		flow->family = 4;
		map_ipv4(flow->local_address, &pair[0]);
		map_ipv4(flow->remote_address, &pair[1]);
		bpf_skb_load_bytes(skb, offset + NSP_IPV4_PROTOCOL_OFFSET, &flow->protocol, 1);
	} else if (first >> 4 == 6 && !bpf_skb_load_bytes(skb, offset + 8, pair, 32)) {
		flow->family = 6;
		__builtin_memcpy(flow->local_address, &pair[0], 16);
		__builtin_memcpy(flow->remote_address, &pair[4], 16);
		bpf_skb_load_bytes(skb, offset + NSP_IPV6_NEXT_HEADER, &flow->protocol, 1);
	}
}

/*
 * Whose packet socket it is. The task that runs is the sender where its cgroup is the
 * socket's: a packet socket sends in its caller's context, but a frame met again
 * behind a bridge may not.
 */
static __always_inline void sender_of(struct __sk_buff *skb, const struct nsp_interface *interface,
				      struct nsp_link *link, struct nsp_governed *who,
				      struct nsp_process_key *root)
{
	u64 cgroup_id = bpf_skb_cgroup_id(skb);
	u64 task = bpf_get_current_task();
	struct nsp_workload *workload = workloads.lookup(&cgroup_id);
	struct nsp_process *process;

	link->cgroup_id = cgroup_id;
	who->workload_cgroup_id =
		workload ? workload->workload_cgroup_id : interface->workload_cgroup_id;
	who->slot = workload ? workload->policy_slot : slot_of_interface(interface);
	if (task_cgroup_id(task) != cgroup_id)
		return;
	process_key_of(task, &link->sender);
	process = find_process(&link->sender);
	if (!process)
		return;
	*root = process->quarantine_root;
	who->program = process->program;
	who->script = process->script;
}

static __always_inline void tell_packet_socket(struct __sk_buff *skb, struct nsp_flow_event *flow,
					       const struct nsp_link *link)
{
	flow->cookie = bpf_get_socket_cookie(skb);
	emit_flow(flow, NSP_EVENT_PACKET_REFUSED, &link->sender, link->cgroup_id, 0);
}

/*
 * What the profile says. An alert is told and counted once a socket: the same packet may
 * be met again at the other end.
 */
static __always_inline int refuse_by_profile(struct __sk_buff *skb, struct nsp_flow_event *flow,
					     const struct nsp_link *link,
					     const struct nsp_governed *who,
					     struct nsp_socket *socket)
{
	struct nsp_decision decision = {};
	struct nsp_policy *policy;
	struct nsp_grants *grants =
		grants_of(who->slot, who->program, who->script, &decision.tag, &policy);

	if (!grants || !policy || !grants->mode)
		return 0;
	decision.reason = raw_socket_stopped(grants);
	if (!decision.reason)
		return 0;
	apply_mode(&decision, policy, grants->mode);
	if (decision.verdict == NSP_VERDICT_ALERTED && socket &&
	    socket->flags & NSP_SOCKET_EGRESS_REFUSED)
		return 0;
	if (socket)
		socket->flags |= NSP_SOCKET_EGRESS_REFUSED;
	count(NSP_COUNTER_PACKET_SOCKET);
	if (note_verdict(who->slot, &decision, 0)) {
		judge_flow(flow, &decision);
		tell_packet_socket(skb, flow, link);
	}
	return decision.verdict == NSP_VERDICT_REFUSED;
}

/* Whether the frame of a packet socket is to be dropped. */
static __always_inline int refuse_packet_socket(struct __sk_buff *skb,
						const struct nsp_interface *interface,
						struct nsp_link *link)
{
	struct nsp_process_key root = {};
	struct nsp_governed who = {};
	struct nsp_flow_event flow = {};
	struct nsp_ends ends = {};
	struct nsp_socket *socket = 0;
	struct nsp_enforcement *by;
	struct bpf_sock *sk = skb->sk;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (sk)
		socket = sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!socket)
		count(NSP_COUNTER_SOCKET_STORAGE);
	sender_of(skb, interface, link, &who, &root);
	if (!root.tgid && socket)
		root = socket->quarantine_root;
	if (interface->flags & NSP_INTERFACE_ETHERNET)
		flow_of_frame(skb, &flow);
	ends.address = flow.remote_address;
	ends.protocol = flow.protocol;
	by = refusal_of(&root, who.workload_cgroup_id, &ends, &flow.reason);
	if (!by)
		return refuse_by_profile(skb, &flow, link, &who, socket);
	count(NSP_COUNTER_PACKET_SOCKET);
	if (refuse_packet(by, skb->len)) {
		refuse_flow(&flow, by);
		tell_packet_socket(skb, &flow, link);
	}
	return 1;
}

static __always_inline int handle_frame(struct __sk_buff *skb, struct nsp_link *link)
{
	struct nsp_interface_key key;
	struct nsp_interface *interface;

	interface_key_of(skb, &key);
	interface = interfaces.lookup(&key);
	if (!interface)
		return NSP_LINK_NEXT;
	if (link->by_packet_socket && link->direction == NSP_DIRECTION_OUT &&
	    refuse_packet_socket(skb, interface, link))
		return NSP_LINK_DROP;
	if (interface->flags & NSP_INTERFACE_PEER) {
		key = interface->subject;
		interface = interfaces.lookup(&key);
		if (!interface)
			return NSP_LINK_NEXT;
	}
	if (interface->flags & NSP_INTERFACE_ETHERNET && refuse_claim(skb, interface, link))
		return NSP_LINK_DROP;
	return NSP_LINK_NEXT;
}

int link_ingress(struct __sk_buff *skb)
{
	struct nsp_link link = {};

	if (!may_be_claim(skb))
		return NSP_LINK_NEXT;
	link.direction = NSP_DIRECTION_IN;
	return handle_frame(skb, &link);
}

int link_egress(struct __sk_buff *skb)
{
	struct nsp_link link = {};

	link.by_packet_socket = is_packet_socket(skb);
	if (!link.by_packet_socket && !may_be_claim(skb))
		return NSP_LINK_NEXT;
	link.direction = NSP_DIRECTION_OUT;
	link.by_kernel = !link.by_packet_socket;
	return handle_frame(skb, &link);
}

/* Comes in here, and is what the workload sends. */
int link_peer(struct __sk_buff *skb)
{
	struct nsp_link link = {};

	link.by_packet_socket = is_packet_socket(skb);
	if (!link.by_packet_socket)
		return NSP_LINK_NEXT;
	link.direction = NSP_DIRECTION_OUT;
	return handle_frame(skb, &link);
}
