/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Where the headers of a packet are, of those kinds that are followed: ports and the
 * place of the payload. What is beyond it (fragments, long chains of extension headers)
 * is told apart, not guessed.
 */
#ifndef NSP_HEADERS_H
#define NSP_HEADERS_H

#include "packet.h"

#define NSP_IPV4_HEADER_BYTES 20
#define NSP_IPV4_PLAIN 0x45 /* version and length of a header without options */
#define NSP_IPV6_HEADER_BYTES 40
#define NSP_IPV6_EXTENSIONS_MAX 6 /* hop-by-hop, routing, destination options: 3 are usual */
#define NSP_UDP_HEADER_BYTES 8

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
	headers->transport_bytes = header_bytes;
	headers->payload_offset = offset;
	headers->payload_bytes = skb->len - offset;
}

static __always_inline int is_icmp(u8 protocol)
{
	return protocol == NSP_PROTOCOL_ICMP || protocol == NSP_PROTOCOL_ICMPV6;
}

/*
 * The headers of nearly every packet, where they lie: IPv4 without options or IPv6
 * without extensions, TCP or UDP, in the linear part. Returns 0, or -1: walk them.
 */
static __always_inline int glance_at_packet(struct __sk_buff *skb,
					    struct nsp_packet_headers *headers)
{
	u8 *start = (u8 *)(long)skb->data;
	u8 *end = (u8 *)(long)skb->data_end;
	u16 *ports;
	u8 protocol;

	if (start + NSP_IPV4_HEADER_BYTES + 4 > end)
		return -1;
	if (start[0] == NSP_IPV4_PLAIN) {
		if (start[6] & 0x1f || start[7])
			return -1;
		headers->family = 4;
		protocol = start[9];
		ports = (u16 *)(start + NSP_IPV4_HEADER_BYTES);
		headers->payload_offset = NSP_IPV4_HEADER_BYTES;
	} else {
		if (start[0] >> 4 != 6 || start + NSP_IPV6_HEADER_BYTES + 4 > end)
			return -1;
		headers->family = 6;
		protocol = start[6];
		ports = (u16 *)(start + NSP_IPV6_HEADER_BYTES);
		headers->payload_offset = NSP_IPV6_HEADER_BYTES;
	}
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return -1;
	headers->protocol = protocol;
	headers->source_port = bpf_ntohs(ports[0]);
	headers->destination_port = bpf_ntohs(ports[1]);
	return 0;
}

/* UDP-Lite, SCTP and DCCP begin with their ports too; nothing in them is followed further. */
static __always_inline int has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP ||
	       protocol == NSP_PROTOCOL_DCCP || protocol == NSP_PROTOCOL_SCTP ||
	       protocol == NSP_PROTOCOL_UDPLITE;
}

/* Returns 0, or -1 when the packet is beyond what is followed. Other protocols: no ports. */
static __always_inline int walk_packet(struct __sk_buff *skb, struct nsp_packet_headers *headers)
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
	if (!has_ports(headers->protocol) && !is_icmp(headers->protocol))
		return 0;
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return -1;
	headers->source_port = bpf_ntohs(ports[0]);
	/* ICMP begins with type and code, which rules take for a port, whichever way it goes. */
	headers->destination_port =
		is_icmp(headers->protocol) ? headers->source_port : bpf_ntohs(ports[1]);
	headers->payload_offset = offset;
	return 0;
}

#endif
