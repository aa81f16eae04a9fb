/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Addresses as the contract has them: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
#ifndef NSP_ADDRESS_H
#define NSP_ADDRESS_H

#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>

#define NSP_AF_INET 2
#define NSP_AF_INET6 10
#define NSP_AF_PACKET 17
#define NSP_AF_XDP 44

static __always_inline void map_ipv4(u8 *address, const void *ipv4)
{
	__builtin_memset(address, 0, 10);
	address[10] = 0xff;
	address[11] = 0xff;
	__builtin_memcpy(address + 12, ipv4, 4);
}

static __always_inline int is_mapped(const u8 *address)
{
	const u32 *words = (const u32 *)address;

	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

static __always_inline int is_loopback(const u8 *address)
{
	const u32 *words = (const u32 *)address;

	if (words[0] || words[1])
		return 0;
	if (words[2] == bpf_htonl(0xffff))
		return address[12] == 127;
	return !words[2] && words[3] == bpf_htonl(1);
}

#endif
