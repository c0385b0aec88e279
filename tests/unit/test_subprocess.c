/* Programs that are run: output, input, deadlines, and what their children may not do to us. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include <cmocka.h>

#include "lib/buf.h"
#include "lib/limits.h"
#include "lib/subprocess.h"

struct run {
	uv_loop_t loop;
	int calls, rc, exit_status;
	struct buf out, err_out;
	uint64_t begun, took_ms;
};

static void on_done(void *data, const struct subprocess_result *result)
{
	struct run *r = data;

	r->calls++;
	r->rc = result->rc;
	r->exit_status = result->exit_status;
	buf_append(&r->out, result->out, strlen(result->out));
	buf_append(&r->err_out, result->err_out, strlen(result->err_out));
	r->took_ms = (uv_hrtime() - r->begun) / 1000000;
}

static void run_begin(struct run *r)
{
	*r = (struct run){0};
	uv_loop_init(&r->loop);
	r->begun = uv_hrtime();
}

static void run_end(struct run *r)
{
	uv_run(&r->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&r->loop), 0);
}

static void run_free(struct run *r)
{
	buf_free(&r->out);
	buf_free(&r->err_out);
}

/* A shell only here, where it stands for any program that has children. */
static struct run run_script(const char *script, const char *stdin_text, uint32_t timeout_ms)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct run r;
	struct err err = {0};

	run_begin(&r);
	assert_int_equal(subprocess_run(&r.loop, &(struct subprocess_options){.argv = argv, .stdin_text = stdin_text, .timeout_ms = timeout_ms},
					on_done, &r, NULL, &err), 0);
	run_end(&r);
	assert_int_equal(r.calls, 1);
	return r;
}

static void test_output_and_status(void **state)
{
	struct run r = run_script("echo out; echo err >&2; exit 3", NULL, 5000);

	assert_int_equal(r.rc, 0);
	assert_int_equal(r.exit_status, 3);
	assert_string_equal(buf_str(&r.out), "out\n");
	assert_string_equal(buf_str(&r.err_out), "err\n");
	run_free(&r);
}

static void test_stdin(void **state)
{
	struct run r = run_script("cat; echo end", "action=status\nplug=1\n", 5000);

	assert_string_equal(buf_str(&r.out), "action=status\nplug=1\nend\n");
	run_free(&r);
	/* Without a text it is empty, not our terminal. */
	r = run_script("cat; echo end", NULL, 5000);
	assert_string_equal(buf_str(&r.out), "end\n");
	run_free(&r);
}

static void test_stdin_that_nobody_reads(void **state)
{
	char *big = mem_alloc((1 << 20) + 1);
	struct run r;

	signal(SIGPIPE, SIG_IGN);
	memset(big, 'x', 1 << 20);
	r = run_script("exit 0", big, 5000);
	assert_int_equal(r.rc, 0);
	assert_int_equal(r.exit_status, 0);
	run_free(&r);
	free(big);
}

static void test_output_is_bounded_and_drained(void **state)
{
	struct run r = run_script("head -c 3000000 /dev/zero | tr '\\0' x; head -c 100 /dev/zero | tr '\\0' y >&2", NULL, 20000);

	assert_int_equal(r.rc, 0);
	assert_int_equal(r.exit_status, 0);
	assert_int_equal(r.out.len, LIMIT_SUBPROCESS_OUTPUT_BYTES);
	assert_int_equal(r.err_out.len, 100);
	run_free(&r);
}

static void test_killed_by_a_signal(void **state)
{
	struct run r = run_script("kill -9 $$", NULL, 5000);

	assert_int_equal(r.rc, 0);
	assert_int_equal(r.exit_status, 128 + 9);
	run_free(&r);
}

static void test_deadline_kills_the_group(void **state)
{
	/* The child has its own child, and both would outlive a signal to the leader alone. */
	struct run r = run_script("sleep 1000 & echo $!; wait", NULL, 200);
	pid_t grandchild = (pid_t)atoi(buf_str(&r.out));

	assert_int_equal(r.rc, -ETIMEDOUT);
	assert_in_range(r.took_ms, 190, 1500);
	assert_true(grandchild > 1);
	for (int i = 0; i < 50 && kill(grandchild, 0) == 0; i++)
		uv_sleep(20);
	/* An orphan that nobody reaps in a container is still a number: ask whether it runs. */
	char path[64], line[256] = "";
	snprintf(path, sizeof(path), "/proc/%d/stat", grandchild);
	FILE *stat = fopen(path, "r");
	if (stat) {
		assert_non_null(fgets(line, sizeof(line), stat));
		fclose(stat);
		assert_non_null(strstr(line, ") Z "));
	}
	run_free(&r);
}

static void test_deadline_insists(void **state)
{
	struct run r = run_script("trap '' TERM; echo up; while :; do sleep 0.1; done", NULL, 200);

	assert_int_equal(r.rc, -ETIMEDOUT);
	assert_in_range(r.took_ms, 1150, 3000);
	assert_string_equal(buf_str(&r.out), "up\n");
	run_free(&r);
}

static void test_leftover_child_does_not_hold_us(void **state)
{
	struct run r = run_script("sleep 3 & echo started", NULL, 10000);

	assert_int_equal(r.rc, 0);
	assert_string_equal(buf_str(&r.out), "started\n");
	assert_true(r.took_ms < 2000);
	run_free(&r);
}

static void test_no_such_program(void **state)
{
	const char *const argv[] = {"fence_nonexistent", NULL};
	struct run r;
	struct err err = {0};

	run_begin(&r);
	assert_int_equal(subprocess_run(&r.loop, &(struct subprocess_options){.argv = argv}, on_done, &r, NULL, &err), -ENOENT);
	assert_string_equal(err.text, "cannot run fence_nonexistent: no such file or directory: is its package installed?");
	run_end(&r);
	assert_int_equal(r.calls, 0);
}

static void test_environment(void **state)
{
	const char *const argv[] = {"env", NULL}, *const env[] = {"PATH=/usr/bin:/bin", "A=b", NULL};
	struct run r;

	run_begin(&r);
	assert_int_equal(subprocess_run(&r.loop, &(struct subprocess_options){.argv = argv, .env = env}, on_done, &r, NULL, NULL), 0);
	run_end(&r);
	assert_string_equal(buf_str(&r.out), "PATH=/usr/bin:/bin\nA=b\n");
	run_free(&r);
}

static void test_cancel(void **state)
{
	const char *const argv[] = {"sleep", "1000", NULL};
	struct subprocess *sp = NULL;
	struct run r;

	run_begin(&r);
	assert_int_equal(subprocess_run(&r.loop, &(struct subprocess_options){.argv = argv, .timeout_ms = 60000}, on_done, &r, &sp, NULL), 0);
	subprocess_cancel(sp);
	assert_int_equal(r.calls, 0);
	run_end(&r);
	assert_int_equal(r.calls, 1);
	assert_int_equal(r.rc, -ECANCELED);
	assert_true(r.took_ms < 2000);
	run_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output_and_status),
		cmocka_unit_test(test_stdin),
		cmocka_unit_test(test_stdin_that_nobody_reads),
		cmocka_unit_test(test_output_is_bounded_and_drained),
		cmocka_unit_test(test_killed_by_a_signal),
		cmocka_unit_test(test_deadline_kills_the_group),
		cmocka_unit_test(test_deadline_insists),
		cmocka_unit_test(test_leftover_child_does_not_hold_us),
		cmocka_unit_test(test_no_such_program),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_cancel),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
