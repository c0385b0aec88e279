/* Bundles of messages: what goes in comes out, and a damaged one ends early instead of being read beyond its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "clusterd/daemon/cpg_bundle.h"

static void assert_next(const struct buf *b, size_t *at, const char *want)
{
	const uint8_t *part = NULL;
	size_t len = 0;

	assert_true(cpg_bundle_next(b->data, b->len, at, &part, &len));
	assert_int_equal(len, strlen(want));
	assert_memory_equal(part, want, len);
}

static void test_messages_come_out_in_their_order(void **state)
{
	struct buf b = {0};
	const uint8_t *part;
	size_t at = 0, len, bytes = 1;

	cpg_bundle_add(&b, "first", 5);
	cpg_bundle_add(&b, "", 0);
	cpg_bundle_add(&b, "the third", 9);
	bytes += CPG_BUNDLE_PART_BYTES(5) + CPG_BUNDLE_PART_BYTES(0) + CPG_BUNDLE_PART_BYTES(9);
	assert_int_equal(b.len, bytes);
	assert_true(cpg_bundle_is(b.data, b.len));
	assert_next(&b, &at, "first");
	assert_next(&b, &at, "");
	assert_next(&b, &at, "the third");
	assert_false(cpg_bundle_next(b.data, b.len, &at, &part, &len));
	buf_free(&b);
}

static void test_a_message_alone_is_no_bundle(void **state)
{
	static const uint8_t message[] = {0x08, 0x01};

	assert_false(cpg_bundle_is(message, sizeof(message)));
	assert_false(cpg_bundle_is(message, 0));
}

static void test_a_damaged_bundle_ends_before_the_damage(void **state)
{
	struct buf whole = {0};

	cpg_bundle_add(&whole, "abc", 3);
	cpg_bundle_add(&whole, "defg", 4);
	for (size_t cut = 0; cut < whole.len; cut++) {
		uint8_t *part_of_it = mem_dup(whole.data, cut + 1);   /* of its own: the sanitizer sees a byte too far */
		const uint8_t *part;
		size_t at = 0, len, n = 0;

		while (cpg_bundle_next(part_of_it, cut, &at, &part, &len))
			n++;
		assert_int_equal(n, cut >= 8 ? 1 : 0);
		free(part_of_it);
	}
	whole.data[1] = 0xff;   /* a length beyond all bounds */
	size_t at = 0, len;
	const uint8_t *part;
	assert_false(cpg_bundle_next(whole.data, whole.len, &at, &part, &len));
	buf_free(&whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages_come_out_in_their_order),
		cmocka_unit_test(test_a_message_alone_is_no_bundle),
		cmocka_unit_test(test_a_damaged_bundle_ends_before_the_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
