#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/core/selffence.h"

static void test_counts_from_the_start(void **state)
{
	struct selffence sf;

	selffence_init(&sf, 1000);
	assert_false(selffence_tick(&sf, 1000));
	assert_false(selffence_tick(&sf, 1000 + SELFFENCE_KILL_MS - 1));
	assert_true(selffence_tick(&sf, 1000 + SELFFENCE_KILL_MS));
	assert_false(sf.ever_quorate);
}

static void test_heartbeat_defers_and_lifts(void **state)
{
	struct selffence sf;

	selffence_init(&sf, 0);
	for (uint64_t t = 0; t <= 3 * SELFFENCE_KILL_MS; t += SELFFENCE_HEARTBEAT_MS) {
		selffence_heartbeat(&sf, true, t);
		assert_false(selffence_tick(&sf, t));
	}
	assert_true(sf.ever_quorate);
	uint64_t last = sf.last_quorate_ms;
	assert_true(selffence_tick(&sf, last + SELFFENCE_KILL_MS));
	/* stays fenced until quorum is back, whatever the clock says */
	assert_true(selffence_tick(&sf, last + SELFFENCE_KILL_MS + 1));
	selffence_heartbeat(&sf, true, last + SELFFENCE_KILL_MS + 2);
	assert_false(selffence_tick(&sf, last + SELFFENCE_KILL_MS + 2));
}

static void test_heartbeats_without_quorum_do_not_count(void **state)
{
	struct selffence sf;

	selffence_init(&sf, 0);
	for (uint64_t t = 0; t < SELFFENCE_KILL_MS; t += SELFFENCE_HEARTBEAT_MS) {
		selffence_heartbeat(&sf, false, t);
		assert_false(selffence_tick(&sf, t));
	}
	selffence_heartbeat(&sf, false, SELFFENCE_KILL_MS);
	assert_true(selffence_tick(&sf, SELFFENCE_KILL_MS));
	selffence_heartbeat(&sf, false, SELFFENCE_KILL_MS + 1);
	assert_true(selffence_tick(&sf, SELFFENCE_KILL_MS + 1));
}

static void test_a_clock_that_goes_back_is_harmless(void **state)
{
	struct selffence sf;

	selffence_init(&sf, 50000);
	selffence_heartbeat(&sf, true, 60000);
	assert_false(selffence_tick(&sf, 10));
	selffence_heartbeat(&sf, true, 20);
	assert_int_equal(sf.last_quorate_ms, 60000);
	assert_true(selffence_tick(&sf, 60000 + SELFFENCE_KILL_MS));
}

static void test_countdown_stands_still_without_a_clusterd(void **state)
{
	struct selffence sf;

	selffence_init(&sf, 0);
	selffence_heartbeat(&sf, true, 1000);
	selffence_clusterd(&sf, false, 2000);
	selffence_clusterd(&sf, false, 3000);
	assert_false(selffence_tick(&sf, 10 * SELFFENCE_KILL_MS));
	/* it is back and says "no quorum": what was left of the time before it went is left now */
	selffence_clusterd(&sf, true, 10 * SELFFENCE_KILL_MS);
	selffence_heartbeat(&sf, false, 10 * SELFFENCE_KILL_MS);
	assert_false(selffence_tick(&sf, 11 * SELFFENCE_KILL_MS - 1001));
	assert_true(selffence_tick(&sf, 11 * SELFFENCE_KILL_MS - 1000));
	/* what is fenced stays so when clusterd goes */
	selffence_clusterd(&sf, false, 12 * SELFFENCE_KILL_MS);
	assert_true(selffence_tick(&sf, 12 * SELFFENCE_KILL_MS));
}

static void test_a_strict_host_counts_without_a_clusterd(void **state)
{
	struct selffence sf;

	selffence_init(&sf, 0);
	selffence_clusterd(&sf, false, 0);
	selffence_be_strict(&sf);
	assert_true(selffence_tick(&sf, SELFFENCE_KILL_MS));
	selffence_init(&sf, 0);
	selffence_be_strict(&sf);
	selffence_clusterd(&sf, false, 0);
	selffence_clusterd(&sf, true, 500);
	selffence_heartbeat(&sf, true, 1000);
	selffence_clusterd(&sf, false, 2000);
	assert_false(selffence_tick(&sf, 1000 + SELFFENCE_KILL_MS - 1));
	assert_true(selffence_tick(&sf, 1000 + SELFFENCE_KILL_MS));
	/* a clusterd alone does not lift it, its quorum does */
	selffence_clusterd(&sf, true, 2 * SELFFENCE_KILL_MS);
	assert_true(selffence_tick(&sf, 2 * SELFFENCE_KILL_MS));
	selffence_heartbeat(&sf, true, 2 * SELFFENCE_KILL_MS);
	assert_false(selffence_tick(&sf, 2 * SELFFENCE_KILL_MS));
}

/* Step by step as the drawing in selffence.c has it: the host is reset before the others may take time for a proof. */
static void test_the_worst_case_ends_before_the_others_act(void **state)
{
	struct selffence sf;
	uint64_t lost = 100000, heard = lost + DEADLINE_HEARD_MS + SELFFENCE_HEARTBEAT_MS, fed = 0, now;

	selffence_init(&sf, 0);
	selffence_be_strict(&sf);
	for (now = 0; now <= heard; now += 100)
		selffence_heartbeat(&sf, true, now);
	selffence_clusterd(&sf, false, now);
	for (; now < lost + SELFFENCE_OTHERS_WAIT_MS; now += 100)
		if (!selffence_tick(&sf, now))
			fed = now;
	assert_in_range(fed, heard, heard + SELFFENCE_KILL_MS);
	assert_true(fed + SELFFENCE_WATCHDOG_MS + SELFFENCE_WATCHDOG_LATE_MS < lost + DEADLINE_PROOF_BY_TIME_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_counts_from_the_start),
	    cmocka_unit_test(test_heartbeat_defers_and_lifts),
	    cmocka_unit_test(test_heartbeats_without_quorum_do_not_count),
	    cmocka_unit_test(test_a_clock_that_goes_back_is_harmless),
	    cmocka_unit_test(test_countdown_stands_still_without_a_clusterd),
	    cmocka_unit_test(test_a_strict_host_counts_without_a_clusterd),
	    cmocka_unit_test(test_the_worst_case_ends_before_the_others_act),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
