/* Chunks of the migration stream: what is damaged, lost, doubled or swapped is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf.h"
#include "migrate/stream.h"

static size_t make(uint8_t *out, uint64_t sequence, bool reply, const char *text)
{
	struct stream_chunk chunk = {.sequence = sequence, .reply = reply, .data = (const uint8_t *)text, .len = (uint32_t)strlen(text)};
	uint8_t head[STREAM_HEAD_MAX];
	size_t len = stream_chunk_head(&chunk, head);

	memcpy(out, head, len);
	memcpy(out + len, text, strlen(text));
	return len + strlen(text);
}

static void test_round_trip(void **state)
{
	struct stream_chunk chunk;
	uint8_t frame[256];
	size_t len = make(frame, 7, true, "123456789");

	assert_int_equal(stream_chunk_parse(frame, len, &chunk, NULL), 0);
	assert_int_equal(chunk.sequence, 7);
	assert_true(chunk.reply);
	assert_int_equal(chunk.len, 9);
	assert_int_equal(chunk.crc32c, 0xe3069283); /* the check value of CRC-32C */
	assert_memory_equal(chunk.data, "123456789", 9);
}

static void test_each_flipped_bit_is_found(void **state)
{
	uint8_t frame[256];
	struct stream_chunk chunk, good;
	size_t len = make(frame, 1, false, "the guest's memory");
	struct err err;

	assert_int_equal(stream_chunk_parse(frame, len, &good, &err), 0);
	for (size_t bit = 0; bit < len * 8; bit++) {
		frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
		/* A header that still parses says another sequence or channel, which the next layer refuses. */
		if (stream_chunk_parse(frame, len, &chunk, &err) == 0 && chunk.sequence == good.sequence && chunk.channel == good.channel &&
		    chunk.reply == good.reply && (chunk.len != good.len || memcmp(chunk.data, good.data, good.len)))
			fail_msg("bit %zu went unnoticed", bit);
		frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t cut = 0; cut < len; cut++)
		assert_true(stream_chunk_parse(frame, cut, &chunk, &err) < 0);
}

static void test_order(void **state)
{
	uint8_t a[STREAM_DIGEST_BYTES], b[STREAM_DIGEST_BYTES], frame[64];
	struct stream_sum one, two;
	struct stream_chunk chunk;
	struct err err;

	stream_sum_init(&one);
	stream_sum_init(&two);
	for (uint64_t i = 1; i <= 3; i++) {
		stream_chunk_parse(frame, make(frame, i, false, "abc"), &chunk, &err);
		assert_int_equal(stream_sum_add(&one, &chunk, &err), 0);
		assert_int_equal(stream_sum_add(&one, &chunk, &err), -EPROTO); /* doubled */
		chunk.sequence += 2;
		assert_int_equal(stream_sum_add(&one, &chunk, &err), -EPROTO); /* one is lost */
		stream_chunk_parse(frame, make(frame, i, false, i == 2 ? "abd" : "abc"), &chunk, &err);
		assert_int_equal(stream_sum_add(&two, &chunk, &err), 0);
	}
	assert_int_equal(one.bytes, 9);
	assert_int_equal(one.chunks, 3);
	stream_sum_digest(&one, a);
	stream_sum_digest(&one, b);
	assert_memory_equal(a, b, sizeof(a)); /* asking changes nothing */
	stream_sum_digest(&two, b);
	assert_memory_not_equal(a, b, sizeof(a));
	stream_sum_free(&one);
	stream_sum_free(&two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_each_flipped_bit_is_found),
		cmocka_unit_test(test_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
