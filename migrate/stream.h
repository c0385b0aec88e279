/* The guest's image on its way: chunks with a checksum each and one digest over all. Pure.
 * A chunk is a frame of kind DATA: u16 length of the header, packed DataHeader, raw bytes. Its crc32c finds what memory or a bug
 * changed (TLS guards only the wire); the digest over the chunks' numbers, lengths and checksums finds what was lost, doubled or
 * put in another order. docs/decisions/migration-digest.md says why it is not taken over the bytes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define STREAM_HEAD_MAX 64
#define STREAM_DIGEST_BYTES 32

struct stream_chunk {
	uint32_t channel;
	uint64_t sequence; /* 1 is the first of each direction */
	bool reply;        /* destination to source */
	const uint8_t *data; /* borrowed */
	uint32_t len;
	uint32_t crc32c;
};

/* Fills chunk->crc32c and writes what goes before the bytes; returns its length. 0 < len <= LIMIT_MIGRATION_CHUNK_BYTES. */
size_t stream_chunk_head(struct stream_chunk *chunk, uint8_t out[STREAM_HEAD_MAX]);
/* Payload of a DATA frame -> *ret, whose data points into it. -EPROTO: no chunk; -EBADMSG: its bytes are not what was sent. */
int stream_chunk_parse(const uint8_t *payload, size_t len, struct stream_chunk *ret, struct err *err);

/* One direction: what has been seen of it. */
struct stream_sum { uint64_t bytes, chunks; void *md; };
void stream_sum_init(struct stream_sum *s);
/* -EPROTO if the chunk is not the next one. */
int stream_sum_add(struct stream_sum *s, const struct stream_chunk *chunk, struct err *err);
/* The digest so far; more may follow. */
void stream_sum_digest(const struct stream_sum *s, uint8_t ret[STREAM_DIGEST_BYTES]);
void stream_sum_free(struct stream_sum *s);
