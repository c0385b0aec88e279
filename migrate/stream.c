#include "migrate/stream.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <isa-l/crc.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "lib/limits.h"
#include "proto/migration.pb-c.h"

#define RECORD_BYTES 16 /* of the digest's input: sequence, length, crc32c, big endian */

static uint32_t crc32c(const uint8_t *data, size_t len)
{
	/* crc32_iscsi takes no const and leaves the final inversion to its caller. */
	return ~crc32_iscsi((unsigned char *)data, (int)len, ~0u);
}

size_t stream_chunk_head(struct stream_chunk *chunk, uint8_t out[STREAM_HEAD_MAX])
{
	Gantry__DataHeader h = GANTRY__DATA_HEADER__INIT;
	size_t len;

	assert(chunk->len > 0 && chunk->len <= LIMIT_MIGRATION_CHUNK_BYTES);
	chunk->crc32c = crc32c(chunk->data, chunk->len);
	h.channel = chunk->channel;
	h.sequence = chunk->sequence;
	h.length = chunk->len;
	h.crc32c = chunk->crc32c;
	h.reply = chunk->reply;
	assert(2 + gantry__data_header__get_packed_size(&h) <= STREAM_HEAD_MAX);
	len = gantry__data_header__pack(&h, out + 2);
	out[0] = (uint8_t)(len >> 8);
	out[1] = (uint8_t)len;
	return 2 + len;
}

int stream_chunk_parse(const uint8_t *payload, size_t len, struct stream_chunk *ret, struct err *err)
{
	size_t head = len >= 2 ? (size_t)payload[0] << 8 | payload[1] : 0;
	Gantry__DataHeader *h;
	struct stream_chunk chunk;
	uint32_t length;

	if (head == 0 || head > STREAM_HEAD_MAX || head + 2 >= len)
		return err_set(err, EPROTO, "migration stream: a chunk without a header");
	h = gantry__data_header__unpack(NULL, head, payload + 2);
	if (!h)
		return err_set(err, EPROTO, "migration stream: a chunk whose header cannot be read");
	chunk = (struct stream_chunk){.channel = h->channel, .sequence = h->sequence, .reply = h->reply, .crc32c = h->crc32c};
	length = h->length;
	gantry__data_header__free_unpacked(h, NULL);
	chunk.data = payload + 2 + head;
	chunk.len = (uint32_t)(len - 2 - head);
	if (length != chunk.len || length > LIMIT_MIGRATION_CHUNK_BYTES)
		return err_set(err, EPROTO, "migration stream: chunk %" PRIu64 " has %u bytes, its header says %u", chunk.sequence, chunk.len, length);
	if (crc32c(chunk.data, chunk.len) != chunk.crc32c)
		return err_set(err, EBADMSG, "migration stream: chunk %" PRIu64 " was damaged on its way (crc32c)", chunk.sequence);
	*ret = chunk;
	return 0;
}

void stream_sum_init(struct stream_sum *s)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
		abort();
	*s = (struct stream_sum){.md = md};
}

static void put_be(uint8_t *out, uint64_t value, int bytes)
{
	for (int i = bytes - 1; i >= 0; i--, value >>= 8)
		out[i] = (uint8_t)value;
}

int stream_sum_add(struct stream_sum *s, const struct stream_chunk *chunk, struct err *err)
{
	uint8_t record[RECORD_BYTES];

	if (chunk->sequence != s->chunks + 1)
		return err_set(err, EPROTO, "migration stream: chunk %" PRIu64 " came where %" PRIu64 " was due", chunk->sequence, s->chunks + 1);
	put_be(record, chunk->sequence, 8);
	put_be(record + 8, chunk->len, 4);
	put_be(record + 12, chunk->crc32c, 4);
	if (EVP_DigestUpdate(s->md, record, sizeof(record)) != 1)
		abort();
	s->chunks++;
	s->bytes += chunk->len;
	return 0;
}

void stream_sum_digest(const struct stream_sum *s, uint8_t ret[STREAM_DIGEST_BYTES])
{
	EVP_MD_CTX *copy = EVP_MD_CTX_new();
	unsigned int len = 0;

	if (!copy || EVP_MD_CTX_copy_ex(copy, s->md) != 1 || EVP_DigestFinal_ex(copy, ret, &len) != 1 || len != STREAM_DIGEST_BYTES)
		abort();
	EVP_MD_CTX_free(copy);
}

void stream_sum_free(struct stream_sum *s)
{
	EVP_MD_CTX_free(s->md);
	*s = (struct stream_sum){0};
}
