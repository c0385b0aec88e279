/* The frame codec: whole, byte by byte, and everything a stranger may send. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/frame.h"

enum { MAX = 1000, KINDS = 1u << FRAME_CTL | 1u << FRAME_DATA };

static int feed_all(const void *data, size_t len, struct frame_parser *p, struct frame *f, struct err *err)
{
	frame_parser_feed(p, data, len);
	return frame_parser_next(p, f, err);
}

static void test_byte_by_byte(void **state)
{
	struct frame_parser p;
	struct buf out = {0};
	struct frame f;
	struct err err = {0};
	unsigned frames = 0;

	frame_parser_init(&p, MAX, KINDS);
	frame_append(&out, FRAME_CTL, "hello", 5);
	frame_append(&out, FRAME_DATA, NULL, 0);
	frame_append(&out, FRAME_CTL, "x", 1);
	for (size_t i = 0; i < out.len; i++) {
		int rc;

		frame_parser_feed(&p, out.data + i, 1);
		rc = frame_parser_next(&p, &f, &err);
		assert_int_equal(rc, i == 12 || i == 20 || i == 29);
		if (rc != 1)
			continue;
		switch (frames++) {
		case 0:
			assert_int_equal(f.kind, FRAME_CTL);
			assert_int_equal(f.len, 5);
			assert_memory_equal(f.payload, "hello", 5);
			break;
		case 1:
			assert_int_equal(f.kind, FRAME_DATA);
			assert_int_equal(f.len, 0);
			break;
		case 2:
			assert_int_equal(f.len, 1);
			assert_int_equal(f.payload[0], 'x');
		}
	}
	assert_int_equal(frames, 3);
	assert_int_equal(frame_parser_pending(&p), 0);
	frame_parser_free(&p);
	buf_free(&out);
}

static void test_many_in_one_read(void **state)
{
	struct frame_parser p;
	struct buf out = {0};
	struct frame f;
	char payload[997];

	frame_parser_init(&p, MAX, KINDS);
	for (unsigned i = 0; i < 300; i++) {
		memset(payload, (int)i, sizeof(payload));
		frame_append(&out, FRAME_DATA, payload, i * 3 % sizeof(payload));
	}
	/* Odd pieces, so that frames lie across them. */
	unsigned seen = 0;
	for (size_t at = 0; at < out.len; at += 1013) {
		frame_parser_feed(&p, out.data + at, out.len - at < 1013 ? out.len - at : 1013);
		while (frame_parser_next(&p, &f, NULL) == 1) {
			assert_int_equal(f.len, seen * 3 % sizeof(payload));
			for (size_t i = 0; i < f.len; i++)
				assert_int_equal(f.payload[i], seen & 0xff);
			seen++;
		}
	}
	assert_int_equal(seen, 300);
	frame_parser_free(&p);
	buf_free(&out);
}

static void test_oversized_is_refused_before_payload(void **state)
{
	struct frame_parser p;
	struct frame f;
	struct err err = {0};
	uint8_t h[FRAME_HEADER_BYTES];

	frame_parser_init(&p, MAX, KINDS);
	frame_header_encode(h, FRAME_CTL, MAX);
	assert_int_equal(feed_all(h, sizeof(h), &p, &f, &err), 0);
	frame_parser_free(&p);

	frame_parser_init(&p, MAX, KINDS);
	frame_header_encode(h, FRAME_CTL, MAX + 1);
	assert_int_equal(feed_all(h, sizeof(h), &p, &f, &err), -EPROTO);
	assert_string_equal(err.text, "a frame of 1001 bytes is too large: at most 1000 are taken");
	/* The stream stays dead. */
	assert_int_equal(frame_parser_next(&p, &f, &err), -EPROTO);
	frame_parser_free(&p);
}

static void test_truncated_waits(void **state)
{
	struct frame_parser p;
	struct buf out = {0};
	struct frame f;

	frame_parser_init(&p, MAX, KINDS);
	frame_append(&out, FRAME_CTL, "hello", 5);
	assert_int_equal(feed_all(out.data, out.len - 1, &p, &f, NULL), 0);
	assert_int_equal(frame_parser_pending(&p), out.len - 1);
	frame_parser_free(&p);
	buf_free(&out);
}

static void test_strangers(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *text;
	} cases[] = {
		{"G", 1, NULL},
		{"H", 1, "this is no frame of Gantry's protocol (it begins with byte 0x48)"},
		{"GET / HTTP/1.1\r\n", 16, "this is no frame of Gantry's protocol (it begins with byte 0x47)"},
		{"\x16\x03\x01", 3, "this is no frame of Gantry's protocol (it begins with byte 0x16)"},
		{"Gy\x07\x01", 4, "this is protocol 1, you speak 7: upgrade the older side to the same release"},
		{"Gy\x07\x05", 4, NULL}, /* a refusal is understood in every version */
		{"Gy\x01\x02", 4, "a frame of kind 2 is not understood here: is it the right port or socket?"},
		{"Gy\x01\xff", 4, "a frame of kind 255 is not understood here: is it the right port or socket?"},
		{"Gy\x01\x04", 4, NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct frame_parser p;
		struct frame f;
		struct err err = {0};
		int rc;

		frame_parser_init(&p, MAX, KINDS);
		rc = feed_all(cases[i].bytes, cases[i].len, &p, &f, &err);
		assert_int_equal(rc, cases[i].text ? -EPROTO : 0);
		assert_string_equal(err.text, cases[i].text ? cases[i].text : "");
		frame_parser_free(&p);
	}
}

static void test_memory_is_not_held_by_consumed_frames(void **state)
{
	struct frame_parser p;
	struct frame f;
	uint8_t payload[900] = {0};
	struct buf out = {0};

	frame_parser_init(&p, MAX, KINDS);
	frame_append(&out, FRAME_DATA, payload, sizeof(payload));
	/* Always half a frame is left behind, so the parser is never empty. */
	frame_parser_feed(&p, out.data, 450);
	for (unsigned i = 0; i < 1000; i++) {
		frame_parser_feed(&p, out.data + 450, out.len - 450);
		frame_parser_feed(&p, out.data, 450);
		assert_int_equal(frame_parser_next(&p, &f, NULL), 1);
		assert_int_equal(frame_parser_next(&p, &f, NULL), 0);
	}
	assert_true(p.in.cap <= 8192);
	frame_parser_free(&p);
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_many_in_one_read),
		cmocka_unit_test(test_oversized_is_refused_before_payload),
		cmocka_unit_test(test_truncated_waits),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_memory_is_not_held_by_consumed_frames),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
