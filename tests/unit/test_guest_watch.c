/* When a silent guest agent means a hung guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/core/guest_watch.h"

/* Passes every 100 ms, a question as often as the policy needs one, and perhaps answers. The ms after which it had hung, or 0. */
static uint64_t silence(struct guest_watch *w, uint64_t from_ms, uint64_t for_ms, bool running, uint32_t hung_s)
{
	uint64_t ask_ms = from_ms;

	for (uint64_t t = from_ms; t <= from_ms + for_ms; t += 100) {
		if (running && t >= ask_ms) {
			guest_watch_asked(w);
			ask_ms = t + guest_watch_ask_every_ms(hung_s);
		}
		if (guest_watch_tick(w, t, running, hung_s))
			return t - from_ms;
	}
	return 0;
}

static void test_silence_after_an_answer(void **state)
{
	struct guest_watch w = {0};

	assert_int_equal(silence(&w, 1000, 60000, true, 10), 0); /* never heard: it may have no agent */
	guest_watch_answered(&w, 61000);
	assert_int_equal(silence(&w, 61000, 60000, true, 10), 10000);
	guest_watch_answered(&w, 200000);
	assert_int_equal(silence(&w, 200000, 60000, true, 0), 0); /* the policy never ends it */
	guest_watch_answered(&w, 300000);
	assert_int_equal(silence(&w, 300000, 60000, true, 1), 1000); /* two questions, at 0 and 1 s */
}

static void test_answers_keep_it(void **state)
{
	struct guest_watch w = {0};

	for (uint64_t t = 0; t < 60000; t += 4000) {
		guest_watch_answered(&w, t);
		assert_int_equal(silence(&w, t, 3900, true, 5), 0);
	}
}

static void test_time_without_vcpus_does_not_count(void **state)
{
	struct guest_watch w = {0};

	guest_watch_answered(&w, 0);
	assert_int_equal(silence(&w, 0, 9000, true, 10), 0);
	assert_int_equal(silence(&w, 9100, 60000, false, 10), 0);
	assert_int_equal(silence(&w, 69200, 60000, true, 10), 9900);
}

static void test_this_agents_own_pause_does_not_count(void **state)
{
	struct guest_watch w = {0};

	guest_watch_answered(&w, 0);
	assert_int_equal(silence(&w, 0, 5000, true, 10), 0);
	guest_watch_asked(&w);
	assert_false(guest_watch_tick(&w, 100000, true, 10));
	assert_int_equal(silence(&w, 100100, 60000, true, 10), 4900);
	/* asked once only: the answer may be on its way */
	guest_watch_answered(&w, 200000);
	guest_watch_asked(&w);
	for (uint64_t t = 200000; t < 300000; t += 100)
		assert_false(guest_watch_tick(&w, t, true, 10));
}

static void test_a_reset_forgets(void **state)
{
	struct guest_watch w = {0};

	guest_watch_answered(&w, 0);
	guest_watch_reset(&w);
	assert_int_equal(silence(&w, 0, 60000, true, 10), 0);
}

static void test_how_often_it_is_asked(void **state)
{
	assert_int_equal(guest_watch_ask_every_ms(0), 5000);
	assert_int_equal(guest_watch_ask_every_ms(600), 5000);
	assert_int_equal(guest_watch_ask_every_ms(UINT32_MAX), 5000);
	assert_int_equal(guest_watch_ask_every_ms(9), 3000);
	assert_int_equal(guest_watch_ask_every_ms(1), 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_silence_after_an_answer),
	    cmocka_unit_test(test_answers_keep_it),
	    cmocka_unit_test(test_time_without_vcpus_does_not_count),
	    cmocka_unit_test(test_this_agents_own_pause_does_not_count),
	    cmocka_unit_test(test_a_reset_forgets),
	    cmocka_unit_test(test_how_often_it_is_asked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
