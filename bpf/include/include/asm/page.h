/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* BCC counts ring buffers in pages. Only their product matters, whatever the CPU's pages are. */
#ifndef NSP_STUB_PAGE_H
#define NSP_STUB_PAGE_H
#define PAGE_SIZE 4096
#endif
