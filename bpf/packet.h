/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * How packet.c hands a packet to the tail-called programs: the few numbers it found go
 * into skb->cb, which belongs to this packet and this program run alone (a per-CPU
 * buffer could be overwritten when an egress program is preempted); packet_recall()
 * reads them, and the addresses and the socket are found again.
 */
#ifndef NSP_PACKET_H
#define NSP_PACKET_H

#include "address.h"
#include "maps.h"

#define NSP_IPV4_ADDRESSES_OFFSET 12
#define NSP_IPV6_ADDRESSES_OFFSET 8
#define NSP_U16_MASK 0xffff

/* What the header walk yields; ports in host order. */
struct nsp_packet_headers {
	u32 payload_offset;
	u32 payload_bytes;
	u16 source_port;
	u16 destination_port;
	u8 family;
	u8 protocol;
	u8 transport_bytes; /* of the UDP or TCP header */
	u8 listener_grants; /* of a packet to a listener: as grants of struct nsp_socket */
};

/* Reads source and destination address, IPv4 mapped. Returns 0, or -1 when too short. */
static __always_inline int packet_addresses(struct __sk_buff *skb, u8 family, u8 *source,
					    u8 *destination)
{
	u32 pair[8];

	if (family == 4) {
		if (bpf_skb_load_bytes(skb, NSP_IPV4_ADDRESSES_OFFSET, pair, 8))
			return -1;
		map_ipv4(source, &pair[0]);
		map_ipv4(destination, &pair[1]);
		return 0;
	}
	if (bpf_skb_load_bytes(skb, NSP_IPV6_ADDRESSES_OFFSET, pair, 32))
		return -1;
	__builtin_memcpy(source, &pair[0], 16);
	__builtin_memcpy(destination, &pair[4], 16);
	return 0;
}

static __always_inline void packet_remember(struct __sk_buff *skb,
					    const struct nsp_packet_headers *headers)
{
	u32 bytes = headers->payload_bytes;

	if (bytes > NSP_U16_MASK) /* a segment still to be split: more than DNS reads anyway */
		bytes = NSP_U16_MASK;
	skb->cb[0] = headers->payload_offset | bytes << 16;
	skb->cb[1] = headers->source_port | (u32)headers->destination_port << 16;
	skb->cb[2] = headers->family | (u32)headers->protocol << 8 |
		     (u32)headers->transport_bytes << 16 | (u32)headers->listener_grants << 24;
}

/* For the tail-called programs, first thing. */
static __always_inline void packet_recall(struct __sk_buff *skb, struct nsp_packet_headers *headers)
{
	u32 place = skb->cb[0];
	u32 ports = skb->cb[1];
	u32 kind = skb->cb[2];

	headers->payload_offset = place & NSP_U16_MASK;
	headers->payload_bytes = place >> 16;
	headers->source_port = ports & NSP_U16_MASK;
	headers->destination_port = ports >> 16;
	headers->family = kind & 0xff;
	headers->protocol = kind >> 8 & 0xff;
	headers->transport_bytes = kind >> 16 & 0xff;
	headers->listener_grants = kind >> 24;
}

/* What the packet's socket remembers, or NULL: nobody owns it. */
static __always_inline struct nsp_socket *socket_of_packet(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	return sk ? sockets.sk_storage_get(sk, 0, 0) : 0;
}

#endif
