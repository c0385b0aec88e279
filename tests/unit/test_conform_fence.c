/* One suite for a leader's fence runs, over the real ones and the simulator's (conform_fence.h): what is a proof and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/conform_fence.h"

#define AFTERWARDS_MS 800 /* what is wrong would have come within that */

struct bench {
	const struct fence_side *side;
	void *device;
	bool passing;
	int answers, rc;
	bool power_at_answer;
	char text[300], target[32];
};

static void on_answer(void *data, const char *target, int rc, const char *text)
{
	struct bench *b = data;

	/* Never from within start() or cancel(). */
	assert_true(b->passing);
	assert_non_null(text);
	assert_true(text[0] != '\0');
	assert_true(rc <= 0);
	b->answers++;
	b->rc = rc;
	b->power_at_answer = b->side->has_power(b->device);
	snprintf(b->text, sizeof(b->text), "%s", text);
	snprintf(b->target, sizeof(b->target), "%s", target);
}

static void bench_start(struct bench *b, void **state)
{
	*b = (struct bench){.side = *state};
	b->device = b->side->make(on_answer, b);
	assert_true(b->side->has_power(b->device));
}

static void pass(struct bench *b, unsigned ms)
{
	b->passing = true;
	b->side->pass(b->device, ms);
	b->passing = false;
}

static void fence(struct bench *b, enum fence_side_mood mood)
{
	b->answers = 0;
	b->side->set_mood(b->device, mood);
	b->side->start(b->device, CONFORM_TARGET);
	pass(b, mood == DEVICE_SLOW ? b->side->patience_ms : b->side->quick_ms);
	assert_int_equal(b->answers, 1);
	assert_string_equal(b->target, CONFORM_TARGET);
}

/* Each run is answered once. */
static void bench_end(struct bench *b)
{
	int answers = b->answers;

	pass(b, AFTERWARDS_MS);
	assert_int_equal(b->answers, answers);
	b->side->free(b->device);
}

static void test_off_before_the_proof(void **state)
{
	struct bench b;

	bench_start(&b, state);
	fence(&b, DEVICE_WORKS);
	assert_int_equal(b.rc, 0);
	assert_false(b.power_at_answer);
	bench_end(&b);
}

static void test_already_off_is_a_proof(void **state)
{
	struct bench b;

	bench_start(&b, state);
	b.side->set_power(b.device, false);
	fence(&b, DEVICE_WORKS);
	assert_int_equal(b.rc, 0);
	bench_end(&b);
}

static void test_a_failure_is_no_proof(void **state)
{
	struct bench b;

	bench_start(&b, state);
	fence(&b, DEVICE_FAILS);
	assert_true(b.rc < 0);
	assert_true(b.power_at_answer);
	/* Nor if the host is off: nobody has said so. */
	b.side->set_power(b.device, false);
	fence(&b, DEVICE_FAILS);
	assert_true(b.rc < 0);
	/* And one that was mended proves again. */
	b.side->set_power(b.device, true);
	fence(&b, DEVICE_WORKS);
	assert_int_equal(b.rc, 0);
	assert_false(b.power_at_answer);
	bench_end(&b);
}

static void test_slow_answers_come(void **state)
{
	struct bench b;

	bench_start(&b, state);
	fence(&b, DEVICE_SLOW);
	assert_int_equal(b.rc, 0);
	assert_false(b.power_at_answer);
	bench_end(&b);
}

/* What no agent can see: the assumption that docs/proof.md names. */
static void test_a_liar_is_believed(void **state)
{
	struct bench b;

	bench_start(&b, state);
	fence(&b, DEVICE_LIES);
	assert_int_equal(b.rc, 0);
	assert_true(b.power_at_answer);
	bench_end(&b);
}

static void test_a_cancelled_run_says_nothing(void **state)
{
	static const enum fence_side_mood moods[] = {DEVICE_WORKS, DEVICE_SLOW, DEVICE_FAILS, DEVICE_LIES};
	struct bench b;

	for (size_t i = 0; i < sizeof(moods) / sizeof(moods[0]); i++) {
		/* At once, and on its way. */
		for (unsigned ms = 0; ms <= 10; ms += 10) {
			bench_start(&b, state);
			b.side->set_mood(b.device, moods[i]);
			b.side->start(b.device, CONFORM_TARGET);
			if (ms)
				pass(&b, 1);
			b.side->cancel(b.device);
			b.side->cancel(b.device);
			bench_end(&b);
		}
	}
}

static void test_one_that_is_begun_after_a_cancel_is_answered_once(void **state)
{
	struct bench b;

	bench_start(&b, state);
	b.side->set_mood(b.device, DEVICE_SLOW);
	b.side->start(b.device, CONFORM_TARGET);
	pass(&b, 1);
	b.side->cancel(b.device);
	fence(&b, DEVICE_WORKS);
	assert_int_equal(b.rc, 0);
	assert_false(b.power_at_answer);
	pass(&b, b.side->patience_ms / 10);
	assert_int_equal(b.answers, 1);
	bench_end(&b);
}

static void test_one_run_for_a_host_at_a_time(void **state)
{
	struct bench b;

	bench_start(&b, state);
	b.side->start(b.device, CONFORM_TARGET);
	b.side->start(b.device, CONFORM_TARGET);
	fence(&b, DEVICE_WORKS);
	assert_int_equal(b.rc, 0);
	bench_end(&b);
}

static void test_without_a_device_it_fails_later(void **state)
{
	struct bench b;

	bench_start(&b, state);
	b.side->start(b.device, CONFORM_NOBODY);
	pass(&b, b.side->quick_ms);
	assert_int_equal(b.answers, 1);
	assert_true(b.rc < 0);
	assert_string_equal(b.target, CONFORM_NOBODY);
	bench_end(&b);
}

#define CASES(side) \
	T(test_off_before_the_proof, side), T(test_already_off_is_a_proof, side), T(test_a_failure_is_no_proof, side), \
	T(test_slow_answers_come, side), T(test_a_liar_is_believed, side), T(test_a_cancelled_run_says_nothing, side), \
	T(test_one_that_is_begun_after_a_cancel_is_answered_once, side), T(test_one_run_for_a_host_at_a_time, side), \
	T(test_without_a_device_it_fails_later, side)
#define T(f, side) {#f " (" #side ")", f, NULL, NULL, (void *)&side}

int main(void)
{
	const struct CMUnitTest tests[] = {CASES(fence_side_real), CASES(fence_side_sim)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
