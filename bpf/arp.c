/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * ARP and neighbour discovery on the interfaces user space names: what contradicts
 * what is known (binding.h has the rules) is reported or dropped as the profile of the
 * interface's workload wants. Bindings are learned on every one of them, whatever the
 * profile, so that a new profile does not begin by believing everybody.
 */
#include "binding.h"
#include "flow.h"

/* For other programs on the interface to say more; our own verdict is only ever a drop. */
#define NSP_LINK_NEXT (-1) /* TC_ACT_UNSPEC, TCX_NEXT */
#define NSP_LINK_DROP 2 /* TC_ACT_SHOT, TCX_DROP */

/* Where and by whom a frame was met. */
struct nsp_link {
	struct nsp_process_key sender; /* of a packet socket, where "current" can be asked */
	u64 cgroup_id; /* of the socket */
	u8 direction; /* enum nsp_direction */
	u8 by_packet_socket;
	u8 by_kernel; /* no socket: the kernel's own, or forwarded */
	u8 pad[5];
};

static __always_inline void interface_key_of(struct __sk_buff *skb, struct nsp_interface_key *key)
{
	u64 device = read_u64((u64)skb + NSP_OFF_sk_buff__dev);
	u64 namespace = read_u64(device + NSP_OFF_net_device__nd_net);

	key->netns = read_u32(namespace + NSP_OFF_net__ns_inum);
	key->ifindex = skb->ifindex;
}

/* The slot is asked for each time: user space changes it without a word to interfaces. */
static __always_inline u32 slot_of_interface(const struct nsp_interface *interface)
{
	u64 cgroup_id = interface->workload_cgroup_id;
	struct nsp_workload *workload;

	if (!(interface->flags & (NSP_INTERFACE_WORKLOAD | NSP_INTERFACE_PEER)))
		return NSP_SLOT_HOST;
	workload = workloads.lookup(&cgroup_id);
	return workload ? workload->policy_slot : NSP_SLOT_UNKNOWN;
}

/*
 * ARP has no direction and no program: it is refused when nobody's rules want it. With
 * rules for single programs the rest alone cannot say that. Never on the host's own
 * interfaces, where it would cut off the node and every workload behind it.
 */
static __always_inline int arp_is_refused(const struct nsp_interface *interface,
					  const struct nsp_policy *policy)
{
	if (!(interface->flags & NSP_INTERFACE_WORKLOAD) || policy->flags & NSP_POLICY_PROGRAMS)
		return 0;
	return !some_grant_has(&policy->grants,
			       NSP_RULESET_L3_ARP | NSP_RULESET_L3_ARP
							    << NSP_RULESET_INGRESS_SHIFT);
}

static __always_inline void fill_claim_event(struct nsp_arp_event *event,
					     const struct nsp_interface *interface,
					     const struct nsp_claim *claim,
					     const struct nsp_binding *before, u64 now_ns)
{
	event->workload_cgroup_id = interface->workload_cgroup_id;
	event->ifindex = interface->subject.ifindex;
	event->netns = interface->subject.netns;
	event->operation = claim->operation;
	event->vlan = claim->vlan;
	__builtin_memcpy(event->sender_address, claim->address, sizeof(event->sender_address));
	__builtin_memcpy(event->target_address, claim->target, sizeof(event->target_address));
	__builtin_memcpy(event->sender_mac, claim->mac, sizeof(event->sender_mac));
	__builtin_memcpy(event->target_mac, claim->target_mac, sizeof(event->target_mac));
	__builtin_memcpy(event->source_mac, claim->source_mac, sizeof(event->source_mac));
	event->protocol = claim->protocol;
	if (before->flags & NSP_BINDING_OWN) {
		__builtin_memcpy(event->known_mac, interface->mac, sizeof(event->known_mac));
		return;
	}
	__builtin_memcpy(event->known_mac, before->mac, sizeof(event->known_mac));
	if (before->seen_ns)
		event->known_age_ns = now_ns - before->seen_ns;
}

/* Counts and reports a finding; whether the frame is to be dropped. */
static __always_inline int answer_finding(const struct nsp_interface *interface,
					  const struct nsp_link *link, struct nsp_arp_event *event,
					  const struct nsp_policy *policy, int only_reported)
{
	struct nsp_decision decision = {};
	u64 cgroup_id = link->cgroup_id;

	decision.reason = event->finding == NSP_CLAIM_PROTOCOL ? NSP_REASON_L3_PROTOCOL
							       : NSP_REASON_ARP_SPOOFING;
	apply_mode(&decision, policy, only_reported ? NSP_MODE_ALERT : policy->grants.mode);
	if (note_verdict(event->policy_slot, &decision, 0)) {
		event->verdict = decision.verdict;
		event->reason = decision.reason;
		event->generation = decision.generation;
		event->direction = link->direction;
		if (!cgroup_id)
			cgroup_id = interface->workload_cgroup_id;
		event_header(&event->header, NSP_EVENT_ARP, sizeof(*event), &link->sender,
			     cgroup_id, 0);
		if (events.ringbuf_output(event, sizeof(*event), NSP_RING_FLAGS))
			count(NSP_COUNTER_RING_FULL);
	}
	return decision.verdict == NSP_VERDICT_REFUSED;
}

/* Learns, and returns what is wrong; *before is what was known until now. */
static __always_inline u8 judge_claim(struct nsp_interface *interface, const struct nsp_link *link,
				      const struct nsp_claim *claim, struct nsp_binding *before,
				      u64 now_ns, u8 *only_reported)
{
	struct nsp_binding_key key = {};
	struct nsp_binding *binding;

	key.interface = interface->subject;
	key.vlan = claim->vlan;
	if (link->direction == NSP_DIRECTION_OUT && claim->is_question) {
		__builtin_memcpy(key.address, claim->target, sizeof(key.address));
		note_question(interface, &key, link->by_kernel, now_ns);
	}
	if (is_unspecified(claim->address))
		return NSP_CLAIM_FINE;
	__builtin_memcpy(key.address, claim->address, sizeof(key.address));
	binding = find_binding(&key);
	if (binding)
		*before = *binding;
	if (link->direction == NSP_DIRECTION_OUT)
		return judge_outgoing(interface, binding, claim, link->by_packet_socket, now_ns);
	return judge_incoming(interface, &key, binding, claim, now_ns, only_reported);
}

/* The whole of it for one frame; whether it is to be dropped. */
static __always_inline int refuse_claim(struct __sk_buff *skb, struct nsp_interface *interface,
					const struct nsp_link *link)
{
	struct nsp_arp_event event = {};
	struct nsp_binding before = {};
	struct nsp_claim claim = {};
	struct nsp_policy *policy;
	u64 now_ns = bpf_ktime_get_boot_ns(), tag;
	u8 only_reported = 0;
	int reading = read_claim(skb, &claim);

	if (reading == NSP_READ_OTHER)
		return 0;
	if (reading == NSP_READ_MALFORMED) {
		count(NSP_COUNTER_ARP_MALFORMED);
		event.finding = NSP_CLAIM_MALFORMED;
	} else {
		event.finding =
			judge_claim(interface, link, &claim, &before, now_ns, &only_reported);
	}
	event.policy_slot = slot_of_interface(interface);
	if (!grants_of(event.policy_slot, 0, 0, &tag, &policy) || !policy || !policy->grants.mode)
		return 0;
	if (!(policy->flags & NSP_POLICY_ARP_SPOOFING))
		event.finding = NSP_CLAIM_FINE;
	if (claim.protocol == NSP_CLAIM_ARP && arp_is_refused(interface, policy))
		event.finding = NSP_CLAIM_PROTOCOL;
	if (!event.finding)
		return 0;
	fill_claim_event(&event, interface, &claim, &before, now_ns);
	return answer_finding(interface, link, &event, policy, only_reported);
}
