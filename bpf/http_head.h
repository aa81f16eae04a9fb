/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The head of an HTTP/1.0 or HTTP/1.1 request, byte by byte: request line, Host, and how
 * long the body is.
 *
 * Strict where servers differ: one blank between the words, no folded lines, no blank in
 * front of a colon, no lone CR, one Host, one Content-Length, none beside a
 * Transfer-Encoding. What breaks these is malformed: refused where requests or hosts are
 * compared, unreadable elsewhere. A bare LF ends a line, and empty lines may come before
 * a request: servers agree on that.
 */
#ifndef NSP_HTTP_HEAD_H
#define NSP_HTTP_HEAD_H

#include "l7.h"

enum nsp_http_state {
	NSP_HTTP_BEGIN = 0,
	NSP_HTTP_METHOD,
	NSP_HTTP_URI,
	NSP_HTTP_VERSION,
	NSP_HTTP_LINE, /* the first byte of a header's line */
	NSP_HTTP_NAME,
	NSP_HTTP_VALUE, /* of no interest */
	NSP_HTTP_HOST,
	NSP_HTTP_HOST_LITERAL, /* between brackets */
	NSP_HTTP_HOST_CLOSED, /* behind the bracket */
	NSP_HTTP_PORT,
	NSP_HTTP_LENGTH,
	NSP_HTTP_BLANK, /* blanks to the end of the line */
	NSP_HTTP_UNKNOWN_END, /* after a request whose end is not known */
};
#define NSP_HTTP_AFTER_CR 0x80 /* only LF may follow */

/* So many digits are more than anybody uploads, and fit. */
#define NSP_HTTP_LENGTH_DIGITS 15
#define NSP_HTTP_VERSION_BYTES 8
#define NSP_HTTP_VERSION_1_0 0x485454502f312e30ULL /* HTTP/1.0 */
#define NSP_HTTP_VERSION_1_1 0x485454502f312e31ULL
#define NSP_HTTP_VERSION_ANY 0x485454502fULL /* HTTP/ */
#define NSP_HTTP_REQUEST_HEAD 20 /* prefixlen, direction and method in front of the URI */

/*
 * Header names are told apart by a hash. Another name with the same one is taken for what
 * it is not, and the real one after it for a second: refused, never overlooked.
 */
static __always_inline u64 header_hash(u64 hash, u8 byte)
{
	return (hash << 5) - hash + byte;
}

static __always_inline u64 hash_of(const char *name, u32 bytes)
{
	u64 hash = 0;

#pragma clang loop unroll(full)
	for (u32 i = 0; i < bytes; i++)
		hash = header_hash(hash, name[i]);
	return hash;
}

#define header_is(hash, name) ((hash) == hash_of(name, sizeof(name) - 1))

/* What ends a segment of a path to some server; the blank ends the path. */
static __always_inline u64 is_path_end(u8 byte)
{
	return is_equal(byte, '/') | is_equal(byte, '?') | is_equal(byte, '#') |
	       is_equal(byte, ';') | is_equal(byte, '%') | is_equal(byte, ' ');
}

/* Watches for dot segments, however they are written; `byte` may be the blank at the end. */
static __always_inline void watch_path(struct nsp_l7_stream *stream, u8 small)
{
	u64 window = kept(stream->window);
	u64 crooked, slash;
	u8 byte = small ^ is_equal(small, '\\') * ('\\' ^ '/');

	crooked = is_equal(window & 0xffff, '/' << 8 | '.') |
		  is_equal(window & 0xffffff, '/' << 16 | '.' << 8 | '.');
	crooked &= is_path_end(byte);
	window = window << 8 | byte;
	crooked |= is_equal(window & 0xffffff, '%' << 16 | '2' << 8 | 'e');
	slash = is_equal(window & 0xffffff, '%' << 16 | '2' << 8 | 'f') |
		is_equal(window & 0xffffff, '%' << 16 | '5' << 8 | 'c');
	kept(stream->window) = (window & (slash - 1)) | slash * '/';
	/* NSP_L7_IN_QUERY: from the first question mark on it is no path. */
	crooked &= !(kept(stream->seen) & NSP_L7_IN_QUERY);
	kept(stream->seen) |=
		crooked * NSP_L7_SEEN_DOT_SEGMENT | is_equal(byte, '?') * NSP_L7_IN_QUERY;
}

static __always_inline void keep_uri_byte(struct nsp_l7_stream *stream, u8 byte)
{
	u8 *key = (u8 *)&stream->request;
	u32 bytes = kept(stream->uri_bytes);

	if (bytes < NSP_HTTP_URI_BYTES)
		key[masked_index(NSP_HTTP_REQUEST_HEAD + bytes, 256)] = byte;
}

static __always_inline void method_byte(struct nsp_l7_stream *stream, u8 byte, u64 plain)
{
	u32 bytes = kept(stream->method_bytes);

	if (byte == ' ' && bytes) {
		kept(stream->state) = NSP_HTTP_URI;
		return;
	}
	if (byte == '\t' && bytes)
		return find(stream, NSP_FOUND_MALFORMED);
	if (!plain || byte == '.' || bytes >= NSP_HTTP_METHOD_BYTES)
		return find(stream, NSP_FOUND_UNREADABLE);
	stream->method[masked_index(bytes, NSP_L7_METHOD_BYTES)] = byte;
	kept(stream->method_bytes) = bytes + 1;
}

static __always_inline void uri_byte(struct nsp_l7_stream *stream, u8 byte, u8 small)
{
	u32 bytes = kept(stream->uri_bytes);

	if (byte < ' ' || byte == 0x7f || (byte == ' ' && !bytes))
		return find(stream, NSP_FOUND_MALFORMED);
	watch_path(stream, small);
	keep_uri_byte(stream, byte);
	if (byte == ' ') {
		kept(stream->state) = NSP_HTTP_VERSION;
		kept(stream->word) = 0;
		kept(stream->count) = 0;
		return;
	}
	kept(stream->uri_bytes) = bytes + 1;
}

/* What a header's value is to the reader. */
static __always_inline void header_begins(struct nsp_l7_stream *stream)
{
	u64 hash = kept(stream->word);
	u32 seen = kept(stream->seen);
	u32 twice = 0;

	kept(stream->state) = NSP_HTTP_VALUE;
	if (header_is(hash, "host")) {
		twice = seen & NSP_L7_HAS_HOST;
		seen |= NSP_L7_HAS_HOST;
		kept(stream->state) = NSP_HTTP_HOST;
	} else if (header_is(hash, "content-length")) {
		twice = seen & (NSP_L7_HAS_LENGTH | NSP_L7_HAS_CODING);
		seen |= NSP_L7_HAS_LENGTH;
		kept(stream->state) = NSP_HTTP_LENGTH;
		kept(stream->count) = 0;
	} else if (header_is(hash, "transfer-encoding")) {
		twice = seen & NSP_L7_HAS_LENGTH;
		seen |= NSP_L7_HAS_CODING;
	} else if (header_is(hash, "upgrade")) {
		seen |= NSP_L7_SEEN_UPGRADE;
	}
	kept(stream->seen) = seen;
	if (twice)
		find(stream, NSP_FOUND_MALFORMED);
}

static __always_inline void name_byte(struct nsp_l7_stream *stream, u8 byte)
{
	if (byte == ':')
		return header_begins(stream);
	if (byte <= ' ' || byte >= 0x7f)
		return find(stream, NSP_FOUND_MALFORMED);
	kept(stream->word) = header_hash(kept(stream->word), byte);
}

static __always_inline int is_blank(u8 byte)
{
	return byte == ' ' || byte == '\t';
}

static __always_inline void host_byte(struct nsp_l7_stream *stream, u8 byte, u64 plain)
{
	u32 bytes = kept(stream->host_bytes);

	if (is_blank(byte)) {
		if (bytes)
			kept(stream->state) = NSP_HTTP_BLANK;
		return;
	}
	if (byte == ':' && bytes) {
		kept(stream->state) = NSP_HTTP_PORT;
		return;
	}
	if (byte == '[' && !bytes)
		kept(stream->state) = NSP_HTTP_HOST_LITERAL;
	else if (!plain)
		return find(stream, NSP_FOUND_MALFORMED);
	keep_host_byte(stream, byte);
}

/* Behind the host: a port, blanks, nothing else. */
static __always_inline void host_end_byte(struct nsp_l7_stream *stream, u8 state, u8 byte)
{
	if (state == NSP_HTTP_HOST_LITERAL) {
		if (byte <= ' ' || byte >= 0x7f)
			return find(stream, NSP_FOUND_MALFORMED);
		keep_host_byte(stream, byte);
		if (byte == ']')
			kept(stream->state) = NSP_HTTP_HOST_CLOSED;
		return;
	}
	if (is_blank(byte))
		kept(stream->state) = NSP_HTTP_BLANK;
	else if (byte == ':' && state == NSP_HTTP_HOST_CLOSED)
		kept(stream->state) = NSP_HTTP_PORT;
	else if (state != NSP_HTTP_PORT || !is_digit(byte))
		find(stream, NSP_FOUND_MALFORMED);
}

static __always_inline void length_byte(struct nsp_l7_stream *stream, u8 byte)
{
	u32 digits = kept(stream->count);

	if (is_blank(byte)) {
		if (digits)
			kept(stream->state) = NSP_HTTP_BLANK;
		return;
	}
	if (!is_digit(byte) || digits >= NSP_HTTP_LENGTH_DIGITS)
		return find(stream, NSP_FOUND_MALFORMED);
	kept(stream->length) = kept(stream->length) * 10 + (byte - '0');
	kept(stream->count) = digits + 1;
}

/* A request line that is none: of HTTP by its looks, or not. */
static __always_inline void line_is_wrong(struct nsp_l7_stream *stream)
{
	u8 first = kept(stream->uri_bytes) ? stream->request.uri[0] : 0;

	find(stream,
	     first == '/' || lower_byte(first) == 'h' ? NSP_FOUND_MALFORMED : NSP_FOUND_UNREADABLE);
}

static __always_inline void version_ends(struct nsp_l7_stream *stream)
{
	u64 version = kept(stream->word);

	if (kept(stream->count) != NSP_HTTP_VERSION_BYTES ||
	    (version != NSP_HTTP_VERSION_1_0 && version != NSP_HTTP_VERSION_1_1))
		return line_is_wrong(stream);
	if (version == NSP_HTTP_VERSION_1_0)
		kept(stream->seen) |= NSP_L7_VERSION_1_0;
	kept(stream->state) = NSP_HTTP_LINE;
}

static __always_inline void line_ends(struct nsp_l7_stream *stream, u8 state)
{
	if (state == NSP_HTTP_BEGIN)
		kept(stream->state) = NSP_HTTP_BEGIN;
	else if (state == NSP_HTTP_METHOD)
		find(stream, NSP_FOUND_UNREADABLE);
	else if (state == NSP_HTTP_URI)
		line_is_wrong(stream);
	else if (state == NSP_HTTP_VERSION)
		version_ends(stream);
	else if (state == NSP_HTTP_LINE)
		find(stream, NSP_FOUND_REQUEST);
	else if (state == NSP_HTTP_NAME || state == NSP_HTTP_HOST_LITERAL ||
		 (state == NSP_HTTP_LENGTH && !kept(stream->count)))
		find(stream, NSP_FOUND_MALFORMED);
	else
		kept(stream->state) = NSP_HTTP_LINE;
}

static __always_inline void version_byte(struct nsp_l7_stream *stream, u8 byte)
{
	u8 bytes = kept(stream->count);

	kept(stream->word) = kept(stream->word) << 8 | byte;
	if (bytes <= NSP_HTTP_VERSION_BYTES)
		kept(stream->count) = bytes + 1;
}

/* A header's name; the first byte of its line first: folded lines are not followed. */
static __always_inline void header_byte(struct nsp_l7_stream *stream, u8 state, u8 small)
{
	if (state == NSP_HTTP_LINE) {
		if (small == ':')
			return find(stream, NSP_FOUND_MALFORMED);
		kept(stream->state) = NSP_HTTP_NAME;
		kept(stream->word) = 0;
	}
	name_byte(stream, small);
}

static __always_inline void http_byte(struct nsp_l7_stream *stream, u8 byte)
{
	u8 state = kept(stream->state);
	u8 small;

	if (byte == '\n')
		return line_ends(stream, state & ~NSP_HTTP_AFTER_CR);
	if (state & NSP_HTTP_AFTER_CR)
		return find(stream, (state & ~NSP_HTTP_AFTER_CR) <= NSP_HTTP_METHOD
					    ? NSP_FOUND_UNREADABLE
					    : NSP_FOUND_MALFORMED);
	if (byte == '\r') {
		kept(stream->state) = state | NSP_HTTP_AFTER_CR;
		return;
	}
	if (state == NSP_HTTP_VALUE)
		return;
	if (state == NSP_HTTP_VERSION)
		return version_byte(stream, byte);
	if (state == NSP_HTTP_LENGTH)
		return length_byte(stream, byte);
	small = lower_byte(byte);
	if (state == NSP_HTTP_NAME || state == NSP_HTTP_LINE)
		return header_byte(stream, state, small);
	if (state == NSP_HTTP_URI)
		return uri_byte(stream, byte, small);
	if (state == NSP_HTTP_HOST)
		return host_byte(stream, small, is_name_byte(small));
	if (state <= NSP_HTTP_METHOD) {
		kept(stream->state) = NSP_HTTP_METHOD;
		return method_byte(stream, byte, is_name_byte(small));
	}
	if (state != NSP_HTTP_BLANK)
		return host_end_byte(stream, state, small);
	if (!is_blank(byte))
		find(stream, NSP_FOUND_MALFORMED);
}

#endif
