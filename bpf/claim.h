/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who says that an IP address is behind a MAC: ARP, and IPv6 neighbour discovery, read
 * from a frame into one form. ARP is judged whoever sent it, requests too: a request
 * tells its sender's binding to everybody who hears it.
 */
#ifndef NSP_CLAIM_H
#define NSP_CLAIM_H

#include "address.h"
#include "profile.h"

#define NSP_ETHERNET_HEADER_BYTES 14
#define NSP_ETHERNET_SOURCE 6
#define NSP_ETHERNET_TYPE 12
#define NSP_VLAN_TAG_BYTES 4
#define NSP_VLAN_ID_MASK 0xfff
#define NSP_ETHERTYPE_IPV4 0x0800
#define NSP_ETHERTYPE_ARP 0x0806
#define NSP_ETHERTYPE_VLAN 0x8100
#define NSP_ETHERTYPE_IPV6 0x86dd
#define NSP_ETHERTYPE_SERVICE_VLAN 0x88a8
#define NSP_ARP_BYTES 28
#define NSP_ARP_REQUEST 1
#define NSP_ARP_REPLY 2
#define NSP_IPV6_NEXT_HEADER 6
#define NSP_ND_OFFSET 40 /* behind an IPv6 header; neighbour discovery has no extensions */
#define NSP_ND_BYTES 32 /* to the end of the first option, a link-layer address */
#define NSP_ND_SOLICITATION 135
#define NSP_ND_ADVERTISEMENT 136
#define NSP_ND_FLAG_SOLICITED 0x40
#define NSP_ND_OPTION_SOURCE 1
#define NSP_ND_OPTION_TARGET 2

struct nsp_claim {
	u8 address[16]; /* what is claimed; unspecified: a question only */
	u8 target[16]; /* what is asked for, or who is told */
	u8 mac[6]; /* for what */
	u8 target_mac[6];
	u8 source_mac[6]; /* of the frame */
	u16 operation;
	u16 vlan;
	u8 protocol; /* enum nsp_claim_protocol */
	u8 is_answer; /* says that it was asked */
	u8 is_question;
	u8 pad;
};

enum nsp_reading {
	NSP_READ_OTHER = 0, /* neither ARP nor neighbour discovery */
	NSP_READ_CLAIM = 1,
	NSP_READ_MALFORMED = 2,
};

static __always_inline int same_mac(const u8 *a, const u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) |
		 (a[5] ^ b[5]));
}

static __always_inline int is_zero_mac(const u8 *mac)
{
	return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

static __always_inline int same_address(const u8 *a, const u8 *b)
{
	const u32 *x = (const u32 *)a, *y = (const u32 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

/* 0.0.0.0 and :: claim nothing: who is not sure of his address asks so (RFC 5227). */
static __always_inline int is_unspecified(const u8 *address)
{
	const u32 *words = (const u32 *)address;

	return !words[0] && !words[1] && !words[3] && (!words[2] || words[2] == bpf_htonl(0xffff));
}

/* VRRP's virtual routers, IPv4 and IPv6, which CARP shares: the MAC moves, not the binding. */
static __always_inline int is_virtual_router(const u8 *mac)
{
	return !mac[0] && !mac[1] && mac[2] == 0x5e && !mac[3] && (mac[4] == 1 || mac[4] == 2);
}

static __always_inline int read_arp(struct __sk_buff *skb, u32 offset, struct nsp_claim *claim)
{
	u8 arp[NSP_ARP_BYTES] __attribute__((aligned(8)));

	if (bpf_skb_load_bytes(skb, offset, arp, sizeof(arp)))
		return NSP_READ_MALFORMED;
	/* Ethernet and IPv4 with their address lengths; the kernel takes nothing else either. */
	if (arp[0] || arp[1] != 1 || arp[2] != 8 || arp[3] || arp[4] != 6 || arp[5] != 4)
		return NSP_READ_MALFORMED;
	claim->operation = (u16)arp[6] << 8 | arp[7];
	__builtin_memcpy(claim->mac, &arp[8], 6);
	map_ipv4(claim->address, &arp[14]);
	__builtin_memcpy(claim->target_mac, &arp[18], 6);
	map_ipv4(claim->target, &arp[24]);
	claim->protocol = NSP_CLAIM_ARP;
	claim->is_answer = claim->operation == NSP_ARP_REPLY;
	claim->is_question = claim->operation == NSP_ARP_REQUEST;
	return NSP_READ_CLAIM;
}

/* The sender of a solicitation, the target of an advertisement; without the option none. */
static __always_inline int read_nd(struct __sk_buff *skb, u32 offset, struct nsp_claim *claim)
{
	u8 nd[NSP_ND_BYTES] __attribute__((aligned(8)));
	u8 next, type;

	if (bpf_skb_load_bytes(skb, offset + NSP_IPV6_NEXT_HEADER, &next, 1) ||
	    next != NSP_PROTOCOL_ICMPV6)
		return NSP_READ_OTHER;
	if (bpf_skb_load_bytes(skb, offset + NSP_ND_OFFSET, &type, 1) ||
	    (type != NSP_ND_SOLICITATION && type != NSP_ND_ADVERTISEMENT))
		return NSP_READ_OTHER;
	if (bpf_skb_load_bytes(skb, offset + NSP_ND_OFFSET, nd, sizeof(nd)))
		return NSP_READ_OTHER; /* no option: a question before an address is taken */
	claim->operation = type;
	claim->protocol = NSP_CLAIM_ND;
	if (type == NSP_ND_ADVERTISEMENT) {
		claim->is_answer = (nd[4] & NSP_ND_FLAG_SOLICITED) != 0;
		__builtin_memcpy(claim->address, &nd[8], 16);
		if (bpf_skb_load_bytes(skb, offset + 24, claim->target, 16))
			return NSP_READ_MALFORMED;
	} else {
		claim->is_question = 1;
		__builtin_memcpy(claim->target, &nd[8], 16);
		if (bpf_skb_load_bytes(skb, offset + 8, claim->address, 16))
			return NSP_READ_MALFORMED;
	}
	/* Of two options only the first counts; what names no MAC claims nothing. */
	if (nd[24] !=
		    (type == NSP_ND_ADVERTISEMENT ? NSP_ND_OPTION_TARGET : NSP_ND_OPTION_SOURCE) ||
	    nd[25] != 1) {
		__builtin_memset(claim->address, 0, sizeof(claim->address));
		return NSP_READ_CLAIM;
	}
	__builtin_memcpy(claim->mac, &nd[26], 6);
	return NSP_READ_CLAIM;
}

/*
 * Reads the frame itself, because a packet socket may send it under any protocol. One
 * VLAN tag within the frame is followed, besides the one the kernel keeps aside.
 */
static __always_inline int read_claim(struct __sk_buff *skb, struct nsp_claim *claim)
{
	u8 header[NSP_ETHERNET_HEADER_BYTES] __attribute__((aligned(8)));
	u8 tag[NSP_VLAN_TAG_BYTES] __attribute__((aligned(8)));
	u32 offset = NSP_ETHERNET_HEADER_BYTES;
	u16 type;

	if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
		return NSP_READ_OTHER;
	__builtin_memcpy(claim->source_mac, &header[NSP_ETHERNET_SOURCE], 6);
	type = (u16)header[NSP_ETHERNET_TYPE] << 8 | header[NSP_ETHERNET_TYPE + 1];
	if (skb->vlan_present)
		claim->vlan = skb->vlan_tci & NSP_VLAN_ID_MASK;
	if (type == NSP_ETHERTYPE_VLAN || type == NSP_ETHERTYPE_SERVICE_VLAN) {
		if (bpf_skb_load_bytes(skb, offset, tag, sizeof(tag)))
			return NSP_READ_OTHER;
		claim->vlan = ((u16)tag[0] << 8 | tag[1]) & NSP_VLAN_ID_MASK;
		type = (u16)tag[2] << 8 | tag[3];
		offset += NSP_VLAN_TAG_BYTES;
	}
	if (type == NSP_ETHERTYPE_ARP)
		return read_arp(skb, offset, claim);
	if (type == NSP_ETHERTYPE_IPV6)
		return read_nd(skb, offset, claim);
	return NSP_READ_OTHER;
}

#endif
