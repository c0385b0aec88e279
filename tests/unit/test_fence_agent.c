/* Proofs of death: what is a proof, what is none, and what an agent is told. */
#include "tests/unit/fence_bench.h"

static void test_off_then_status_is_the_proof(void **state)
{
	struct bench *b = *state;

	/* It is on until it is told to go off. */
	agent(b, "fence_good", "case $A in off) : >$D/is_off;; status) [ -e $D/is_off ] && exit 2;; esac\nexit 0\n");
	device(b, "fence_good", 1, 5, NULL);
	assert_int_equal(fence(b), 0);
	assert_file(b, "calls", "fence_good off\nfence_good status\n");
	assert_has(b->proof, "fence_good at level 1: off, status off, ");
	assert_false(b->by_time);
}

static void test_already_off_counts(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_good", "case $A in off) echo 'Success: Already OFF'; exit 0;; status) exit 2;; esac\n");
	device(b, "fence_good", 1, 5, NULL);
	assert_int_equal(fence(b), 0);
}

static void test_status_is_asked_until_it_says_off(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_slow", "[ $A = off ] && exit 0\n[ -e $D/second ] && exit 2\n[ -e $D/first ] && : >$D/second\n: >$D/first\nexit 0\n");
	device(b, "fence_slow", 1, 10, NULL);
	assert_int_equal(fence(b), 0);
	assert_file(b, "calls", "fence_slow off\nfence_slow status\nfence_slow status\nfence_slow status\n");
	assert_true(b->took_ms >= 900 && b->took_ms < 8000);
}

static void test_off_that_stays_on_is_no_proof(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_liar", "exit 0\n");
	device(b, "fence_liar", 1, 1, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_string_equal(b->err, "hostB is not proven off: fence_liar (level 1): it was told to switch off and still says on");
	assert_true(b->took_ms >= 1000 && b->took_ms < 4000);
}

static void test_a_failing_agent_is_quoted(void **state)
{
	struct bench *b = *state;

	/* The status would say off: after an `off` that failed it is not asked. */
	agent(b, "fence_bad", "[ $A = status ] && exit 2\necho noise >&2\necho 'ERROR: no route to 192.0.2.7' >&2\n"
			      "printf '\\n ERROR: Please use -h for usage\\n\\n' >&2\nexit 1\n");
	device(b, "fence_bad", 3, 5, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_string_equal(b->err, "hostB is not proven off: fence_bad (level 3): 'off' failed with status 1: ERROR: no route to 192.0.2.7");
	assert_file(b, "calls", "fence_bad off\n");
	/* Says nothing at all; and a status that fails is no proof either. */
	bench_forget_devices(b);
	agent(b, "fence_mute", "[ $A = off ] && exit 0\nexit 7\n");
	device(b, "fence_mute", 1, 5, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_string_equal(b->err, "hostB is not proven off: fence_mute (level 1): 'status' failed with status 7");
}

static void test_what_is_quoted_can_be_shown(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_bad", "printf 'a\\033[2Jb\\303\\244' >&2; printf '%0200d\\n' 7 >&2\nexit 1\n");
	device(b, "fence_bad", 1, 5, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_has(b->err, "status 1: a?[2Jb??000");
	assert_true(strlen(b->err) < 240);
}

static void test_a_killed_agent_is_no_proof(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_dies", "kill -KILL $$\n");
	device(b, "fence_dies", 1, 5, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_has(b->err, "'off' failed with status 137");
}

static void test_an_agent_that_is_missing(void **state)
{
	struct bench *b = *state;

	device(b, "fence_nowhere", 1, 5, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_has(b->err, "fence_nowhere (level 1): cannot run fence_nowhere: no such file");
	assert_has(b->err, "is its package installed?");
}

static void assert_gone(struct bench *b)
{
	_cleanup_free_ char *pid = file_text(b, "pid");

	assert_true(atoi(pid) > 1);
	assert_int_equal(kill(atoi(pid), 0), -1);
	assert_int_equal(errno, ESRCH);
}

static void test_an_agent_that_hangs_is_killed(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_hangs", "echo $$ >$D/pid\nsleep 30\n");
	device(b, "fence_hangs", 1, 1, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_has(b->err, "fence_hangs (level 1): 'off' did not end within 1 s");
	assert_true(b->took_ms >= 1000 && b->took_ms < 4500);
	assert_gone(b);
	/* The same for the status. */
	bench_forget_devices(b);
	agent(b, "fence_hangs2", "[ $A = off ] && exit 0\nsleep 30\n");
	device(b, "fence_hangs2", 1, 1, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_has(b->err, "'status' did not end within 1 s");
}

static void test_a_large_timeout_does_not_wrap(void **state)
{
	struct bench *b = *state;

	/* 704 ms, if it were told in milliseconds of 32 bits. */
	agent(b, "fence_good", "[ $A = off ] && sleep 1\n" OFF);
	device(b, "fence_good", 1, 4294968, NULL);
	assert_int_equal(fence(b), 0);
}

static void test_all_of_a_level_must_agree(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_psu1", OFF);
	agent(b, "fence_psu2", OFF);
	device(b, "fence_psu1", 1, 5, NULL);
	device(b, "fence_psu2", 1, 5, NULL);
	assert_int_equal(fence(b), 0);
	assert_file(b, "calls", "fence_psu1 off\nfence_psu1 status\nfence_psu2 off\nfence_psu2 status\n");
	assert_has(b->proof, "fence_psu1 at level 1: off");
	assert_has(b->proof, "; fence_psu2 at level 1: off");
}

static void test_one_that_disagrees_fails_its_level(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_psu1", OFF);
	agent(b, "fence_psu2", "echo 'no answer' >&2; exit 1\n");
	device(b, "fence_psu1", 1, 5, NULL);
	device(b, "fence_psu2", 1, 5, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_string_equal(b->err, "hostB is not proven off: fence_psu2 (level 1): 'off' failed with status 1: no answer");
}

static void test_the_next_level_is_tried_after_a_failure(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_good", OFF);
	agent(b, "fence_bad", "exit 1\n");
	agent(b, "fence_never", OFF);
	agent(b, "fence_last", OFF);
	/* Given in any order; fence_never stands behind fence_bad in a level that has failed already. */
	device(b, "fence_last", 2, 5, NULL);
	device(b, "fence_good", 1, 5, NULL);
	device(b, "fence_bad", 1, 5, NULL);
	device(b, "fence_never", 1, 5, NULL);
	assert_int_equal(fence(b), 0);
	assert_file(b, "calls", "fence_good off\nfence_good status\nfence_bad off\nfence_last off\nfence_last status\n");
	/* What the failed level said is no part of the proof. */
	assert_int_equal(strncmp(b->proof, "fence_last at level 2: off, status off", 38), 0);
	assert_has_not(b->proof, "fence_good");
}

static void test_every_level_that_failed_is_told(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_bad", "exit 1\n");
	device(b, "fence_nowhere", 1, 5, NULL);
	device(b, "fence_bad", 2, 5, NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_has(b->err, "fence_nowhere (level 1)");
	assert_has(b->err, "; fence_bad (level 2): 'off' failed");
}

static void test_no_device_is_said_with_the_remedy(void **state)
{
	struct bench *b = *state;
	struct fence_target target = target_of(b);
	struct err err = {0};

	assert_int_equal(fence_off(&b->loop, &target, on_end, b, NULL, &err), -ENODEV);
	assert_has(err.text, "hostB has no fence device");
	assert_has(err.text, "clusterctl fence set hostB");
	uv_run(&b->loop, UV_RUN_DEFAULT);
	assert_int_equal(b->calls, 0);
}

static void test_parameters_go_to_stdin_only(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_good", "[ $# = 0 ] || exit 9\nenv | grep -q geheim && exit 9\n" OFF);
	device(b, "fence_good", 1, 5, "ip=192.0.2.7", "!password=geheim = 1", NULL);
	assert_int_equal(fence(b), 0);
	assert_file(b, "fence_good.stdin", "action=off\nip=192.0.2.7\npassword=geheim = 1\nplug=hostB\n"
					   "action=status\nip=192.0.2.7\npassword=geheim = 1\nplug=hostB\n");
	assert_has_not(b->proof, "geheim");
}

static void test_a_plug_that_is_given_stands(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_plug", OFF);
	agent(b, "fence_port", OFF);
	device(b, "fence_plug", 1, 5, "plug=7", NULL);
	device(b, "fence_port", 1, 5, "port=8", NULL);
	assert_int_equal(fence(b), 0);
	assert_file(b, "fence_plug.stdin", "action=off\nplug=7\naction=status\nplug=7\n");
	assert_file(b, "fence_port.stdin", "action=off\nport=8\naction=status\nport=8\n");
}

static void test_the_action_cannot_be_overridden(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_good", OFF);
	device(b, "fence_good", 1, 5, "action=on", "option=on", "ip=192.0.2.7", NULL);
	assert_int_equal(fence(b), 0);
	assert_file(b, "calls", "fence_good off\nfence_good status\n");
	assert_file(b, "fence_good.stdin", "action=off\nip=192.0.2.7\nplug=hostB\naction=status\nip=192.0.2.7\nplug=hostB\n");
}

static void test_a_parameter_that_would_be_another_is_refused(void **state)
{
	static const char *const bad[] = {"ip=a\naction=on", "ip=a\raction=on", "!password=geheim\naction=on", " action=on",
					  "action =on", "\taction=on", "#x=y", "=y", "a\nb=c"};
	struct bench *b = *state;

	agent(b, "fence_good", OFF);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		device(b, "fence_good", 1, 5, bad[i], NULL);
		assert_int_equal(fence(b), -EHOSTUNREACH);
		assert_has(b->err, "fence_good (level 1): fence_good: the ");
		assert_has_not(b->err, "geheim");
		assert_has_not(b->err, "\n");
		bench_forget_devices(b);
	}
	assert_file(b, "calls", "");
}

static void test_a_secret_is_never_repeated(void **state)
{
	struct bench *b = *state;

	/* An agent that says what it was given, as Debian's do with an option that they do not know. */
	agent(b, "fence_chatty", "while read -r line; do echo \"$line\"; done <$D/$N.stdin | tr '\\n' ' ' >&2\nexit 1\n");
	device(b, "fence_chatty", 1, 5, "ip=192.0.2.7", "!passwd=geheim", "!snmp_priv_passwd=geheimer", NULL);
	/* Its script says what the first was told, too. */
	device(b, "fence_chatty", 2, 5, "!passwd=geheim  ", NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_has(b->err, "ip=192.0.2.7 passwd=*** snmp_priv_passwd=*** plug=hostB");
	assert_has_not(b->err, "er plug"); /* the longer one as a whole */
	bench_forget_devices(b);
	/* Where it begins before the end of the quote, and where the agent takes quotes off. */
	agent(b, "fence_long", "printf '%0155d%s\\n' 0 geheim >&2\nexit 1\n");
	device(b, "fence_long", 1, 5, "!passwd=\"geheim\"", NULL);
	assert_int_equal(fence(b), -EHOSTUNREACH);
	assert_has_not(b->err, "0g");
	assert_has(b->err, "0***");
}

static void on_cancel_timer(uv_timer_t *timer)
{
	struct bench *b = timer->data;
	_cleanup_free_ char *calls = file_text(b, "calls");

	/* Not before the agent runs. */
	if (!*calls)
		return;
	uv_close((uv_handle_t *)timer, NULL);
	fence_cancel(b->run);
	fence_cancel(b->run);
}

static void test_cancelled_while_the_agent_runs(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_hangs", "echo $$ >$D/pid\necho ready >>$D/calls\nsleep 30\n");
	agent(b, "fence_good", OFF);
	device(b, "fence_hangs", 1, 20, NULL);
	device(b, "fence_good", 2, 20, NULL);
	begin(b);
	uv_timer_init(&b->loop, &b->cancel);
	b->cancel.data = b;
	uv_timer_start(&b->cancel, on_cancel_timer, 100, 100);
	end(b);
	assert_int_equal(b->rc, -ECANCELED);
	assert_has(b->err, "hostB: fencing was cancelled");
	assert_true(b->took_ms < 5000);
	assert_file(b, "fence_good.stdin", ""); /* no other is tried */
	assert_gone(b);
}

static void test_cancelled_before_it_began(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_good", OFF);
	device(b, "fence_good", 1, 5, NULL);
	begin(b);
	fence_cancel(b->run);
	fence_cancel(b->run);
	end(b);
	assert_int_equal(b->rc, -ECANCELED);
	assert_file(b, "calls", "");
}

static void test_cancelled_between_two_looks(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_slow", "exit 0\n");
	device(b, "fence_slow", 1, 20, NULL);
	begin(b);
	/* Until the loop has nothing but the timer: both agents ended, the next look is 500 ms away. */
	for (;;) {
		_cleanup_free_ char *calls = file_text(b, "calls");
		uv_run(&b->loop, UV_RUN_NOWAIT);
		if (strstr(calls, "status") && uv_backend_timeout(&b->loop) > 100)
			break;
		usleep(2000);
	}
	fence_cancel(b->run);
	end(b);
	assert_int_equal(b->rc, -ECANCELED);
}

static void test_only_fence_agents_are_run(void **state)
{
	static const char *const bad[] = {"sh", "", "fence-good", "FENCE_good", "./fence_good", "fence_/../good", "/bin/fence_good"};
	struct bench *b = *state;

	agent(b, "good", OFF);
	agent(b, "fence_good", OFF);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		device(b, bad[i], 1, 5, NULL);
		assert_int_equal(fence(b), -EHOSTUNREACH);
		assert_has(b->err, "is not the name of a fence agent");
		bench_forget_devices(b);
	}
	assert_file(b, "calls", "");
}

static int status_of(struct bench *b, const char *name)
{
	struct fence_target target;
	struct err err = {0};

	device(b, name, 1, 5, NULL);
	target = target_of(b);
	b->calls = 0;
	assert_int_equal(fence_status(&b->loop, &target, on_end, b, &b->run, &err), 0);
	bench_forget_devices(b); /* it has its own copy */
	end(b);
	return b->rc;
}

static void test_status_asks_only(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_off", "exit 2\n");
	agent(b, "fence_on", "exit 0\n");
	agent(b, "fence_bad", "exit 1\n");
	assert_int_equal(status_of(b, "fence_off"), 0);
	assert_string_equal(b->proof, "off");
	assert_int_equal(status_of(b, "fence_on"), 0);
	assert_string_equal(b->proof, "on");
	assert_int_equal(status_of(b, "fence_bad"), -EHOSTUNREACH);
	assert_string_equal(b->err, "nobody can tell whether hostB is on: fence_bad (level 1): 'status' failed with status 1");
	assert_file(b, "calls", "fence_off status\nfence_on status\nfence_bad status\n");
}

static int switch_on(struct bench *b)
{
	struct fence_target target = target_of(b);
	struct err err = {0};

	b->calls = 0;
	uv_update_time(&b->loop);
	assert_int_equal(fence_on(&b->loop, &target, on_end, b, &b->run, &err), 0);
	end(b);
	return b->rc;
}

static void test_on_then_status_until_it_is_on(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_good", "[ $A = on ] && exit 0\n[ -e $D/first ] && exit 0\n: >$D/first\nexit 2\n");
	device(b, "fence_good", 1, 5, NULL);
	assert_int_equal(switch_on(b), 0);
	assert_has(b->proof, "fence_good at level 1: on, status on, ");
	assert_file(b, "calls", "fence_good on\nfence_good status\nfence_good status\n");
	bench_forget_devices(b);
	agent(b, "fence_dead", "[ $A = on ] && exit 0\nexit 2\n");
	device(b, "fence_dead", 1, 1, NULL);
	assert_int_equal(switch_on(b), -EHOSTUNREACH);
	assert_string_equal(b->err, "hostB is not proven on: fence_dead (level 1): it was told to switch on and still says off");
	bench_forget_devices(b);
	agent(b, "fence_bad", "exit 1\n");
	device(b, "fence_bad", 1, 5, NULL);
	assert_int_equal(switch_on(b), -EHOSTUNREACH);
	assert_has(b->err, "'on' failed with status 1");
}

/* The timer that waits for longest is the watchdog's. */
static void find_wait(uv_handle_t *handle, void *arg)
{
	uv_timer_t **longest = arg, *timer = (uv_timer_t *)handle;

	if (handle->type == UV_TIMER && uv_is_active(handle) && (!*longest || uv_timer_get_due_in(timer) > uv_timer_get_due_in(*longest)))
		*longest = timer;
}

/* Runs until the watchdog is waited for, checks for how long, and makes the time pass. */
static void pass_the_watchdogs_time(struct bench *b)
{
	uv_timer_t *wait = NULL;

	for (int i = 0; i < 1000 && (!wait || uv_timer_get_due_in(wait) < 40000); i++) {
		uv_run(&b->loop, UV_RUN_NOWAIT);
		wait = NULL;
		uv_walk(&b->loop, find_wait, &wait);
		usleep(2000);
	}
	assert_non_null(wait);
	uv_update_time(&b->loop);
	assert_in_range(uv_timer_get_due_in(wait), DEADLINE_PROOF_BY_TIME_MS - 200, DEADLINE_PROOF_BY_TIME_MS);
	uv_timer_start(wait, wait->timer_cb, 0, 0);
}

static void test_a_watchdog_agrees_when_its_time_is_over(void **state)
{
	struct bench *b = *state;
	_cleanup_free_ char *proof = str_printf("watchdog at level 2: it did not feed it for %d s", DEADLINE_PROOF_BY_TIME_MS / 1000);

	/* Behind a device that fails, its time begins with its own turn. */
	agent(b, "fence_bad", "exit 1\n");
	b->watchdog = "/dev/watchdog";
	device(b, "fence_bad", 1, 5, NULL);
	device(b, "watchdog", 2, 1, NULL);
	begin(b);
	pass_the_watchdogs_time(b);
	end(b);
	assert_int_equal(b->rc, 0);
	assert_true(b->by_time);
	assert_string_equal(b->proof, proof);
	assert_file(b, "calls", "fence_bad off\n");
	begin(b);
	pass_the_watchdogs_time(b);
	fence_cancel(b->run);
	end(b);
	assert_int_equal(b->rc, -ECANCELED);
	assert_false(b->by_time);
}

static void test_where_there_is_no_watchdog_time_proves_nothing(void **state)
{
	struct bench *b = *state;

	device(b, "watchdog", 1, 1, NULL);
	for (int i = 0; i < 2; i++) {
		b->watchdog = i ? "" : NULL;
		assert_int_equal(fence(b), -EHOSTUNREACH);
		assert_string_equal(b->err, "hostB is not proven off: watchdog (level 1): hostB has reported none, so that time proves nothing about it");
	}
	/* The level that failed leaves no mark on the next one. */
	agent(b, "fence_good", OFF);
	device(b, "fence_good", 2, 5, NULL);
	assert_int_equal(fence(b), 0);
	assert_false(b->by_time);
}

static void test_a_level_with_a_watchdog_rests_on_time(void **state)
{
	struct bench *b = *state;

	agent(b, "fence_good", OFF);
	b->watchdog = "/dev/watchdog";
	device(b, "watchdog", 1, 1, NULL);
	device(b, "fence_good", 1, 5, NULL);
	begin(b);
	pass_the_watchdogs_time(b);
	end(b);
	assert_int_equal(b->rc, 0);
	assert_true(b->by_time);
	assert_has(b->proof, "watchdog at level 1");
	assert_has(b->proof, "fence_good at level 1: off, status off");
	bench_forget_devices(b);
	/* One that agreed by time in a level that then failed does not make a later one rest on it. */
	agent(b, "fence_bad", "exit 1\n");
	device(b, "watchdog", 1, 1, NULL);
	device(b, "fence_bad", 1, 5, NULL);
	device(b, "fence_good", 2, 5, NULL);
	begin(b);
	pass_the_watchdogs_time(b);
	end(b);
	assert_int_equal(b->rc, 0);
	assert_false(b->by_time);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, bench_new, bench_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_off_then_status_is_the_proof),
		CASE(test_already_off_counts),
		CASE(test_status_is_asked_until_it_says_off),
		CASE(test_off_that_stays_on_is_no_proof),
		CASE(test_a_failing_agent_is_quoted),
		CASE(test_what_is_quoted_can_be_shown),
		CASE(test_a_killed_agent_is_no_proof),
		CASE(test_an_agent_that_is_missing),
		CASE(test_an_agent_that_hangs_is_killed),
		CASE(test_a_large_timeout_does_not_wrap),
		CASE(test_all_of_a_level_must_agree),
		CASE(test_one_that_disagrees_fails_its_level),
		CASE(test_the_next_level_is_tried_after_a_failure),
		CASE(test_every_level_that_failed_is_told),
		CASE(test_no_device_is_said_with_the_remedy),
		CASE(test_parameters_go_to_stdin_only),
		CASE(test_a_plug_that_is_given_stands),
		CASE(test_the_action_cannot_be_overridden),
		CASE(test_a_parameter_that_would_be_another_is_refused),
		CASE(test_a_secret_is_never_repeated),
		CASE(test_cancelled_while_the_agent_runs),
		CASE(test_cancelled_before_it_began),
		CASE(test_cancelled_between_two_looks),
		CASE(test_only_fence_agents_are_run),
		CASE(test_status_asks_only),
		CASE(test_on_then_status_until_it_is_on),
		CASE(test_a_watchdog_agrees_when_its_time_is_over),
		CASE(test_where_there_is_no_watchdog_time_proves_nothing),
		CASE(test_a_level_with_a_watchdog_rests_on_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
