/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Bounds that verifiers as old as 6.1 can follow. Index and clamp with these only. */
#ifndef NSP_BOUNDS_H
#define NSP_BOUNDS_H

#include <uapi/linux/bpf.h>

/*
 * LLVM proves bounds from conditions that a 6.1 verifier cannot follow any more once
 * LLVM has rewritten them. Values that pass through here are opaque to LLVM, so that
 * the mask stays where it is written.
 */
static __always_inline u64 opaque(u64 value)
{
	asm volatile("" : "+r"(value));
	return value;
}

/* An index into a buffer whose size is a power of two. */
static __always_inline u64 masked_index(u64 index, u64 size)
{
	return opaque(opaque(index) & (size - 1));
}

/* A length of 1..limit for a helper that refuses 0; limit is a power of two. */
static __always_inline u64 clamped_length(u64 length, u64 limit)
{
	length = opaque(length > limit ? limit : length);
	return opaque(opaque((length - 1) & (limit - 1)) + 1);
}

/*
 * For the end of a loop's body with many paths through it. The verifier only compares a
 * path with earlier ones where it saw two jumps and eight instructions since the last
 * such place: here it has. Without this it follows each of them far into the next round.
 */
static __always_inline void paths_meet(void)
{
	u64 nothing = 0;

	asm volatile("%0 = %0\n\t%0 = %0\n\t%0 = %0\n\t%0 = %0\n\t"
		     "%0 = %0\n\t%0 = %0\n\t%0 = %0\n\t%0 = %0\n\t"
		     "goto +0\n\tgoto +0\n\tgoto +0"
		     : "+r"(nothing));
}

#endif
