/* The frame that carries every message between programs: 8 bytes of header, then the payload.
 *   0-1 'G','y'   2 protocol version (FRAME_VERSION)   3 kind   4-7 payload length, big endian
 * Incremental: feed bytes as they come. Pure: no I/O. A wrong magic, an unknown version, an unknown
 * kind or a length above the limit is an error at once, before the payload is waited for. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

#define FRAME_VERSION 1
#define FRAME_HEADER_BYTES 8

enum frame_kind {
	FRAME_CTL = 1,       /* CtlMessage */
	FRAME_AGENT = 2,     /* AgentMessage */
	FRAME_MIGRATION = 3, /* MigrationMessage */
	FRAME_DATA = 4,      /* u16 length of DataHeader, DataHeader, raw bytes */
	FRAME_REFUSAL = 5,   /* UTF-8 text for people: why the peer is being dropped (also sent for an unknown version) */
};

struct frame { enum frame_kind kind; const uint8_t *payload; size_t len; };
struct frame_parser {
	struct buf in;
	size_t at;          /* where the next frame begins in `in` */
	size_t max_payload;
	uint32_t kinds;     /* bit set of allowed kinds; FRAME_REFUSAL is always allowed, and in any version */
};

void frame_parser_init(struct frame_parser *p, size_t max_payload, uint32_t kinds);
void frame_parser_free(struct frame_parser *p);
void frame_parser_feed(struct frame_parser *p, const void *data, size_t len);
/* The same without a copy: room for len bytes, then how many of them were filled. */
void *frame_parser_reserve(struct frame_parser *p, size_t len);
void frame_parser_commit(struct frame_parser *p, size_t len);
/* Bytes that are held and not yet given out as a frame: not 0 at the end of a stream means it was cut off. */
size_t frame_parser_pending(const struct frame_parser *p);
/* 1: *ret is a frame, valid until the next call on p; 0: more bytes needed; negative: -EPROTO with text, the stream is dead. */
int frame_parser_next(struct frame_parser *p, struct frame *ret, struct err *err);
/* Appends header and payload. */
void frame_append(struct buf *out, enum frame_kind kind, const void *payload, size_t len);
void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], enum frame_kind kind, uint32_t len);
