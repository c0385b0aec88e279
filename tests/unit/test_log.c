/* The log's two targets and the flight recorder of a crash. Each case is a process of its own. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/buf.h"
#include "lib/log.h"

/* Runs the function in a child with stderr on a pipe, and gives what it wrote. */
static int in_child(void (*body)(void), struct buf *out)
{
	int fds[2], status;
	char chunk[512];
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		body();
		_exit(0);
	}
	close(fds[1]);
	while ((n = read(fds[0], chunk, sizeof(chunk))) > 0)
		buf_append(out, chunk, (size_t)n);
	close(fds[0]);
	waitpid(pid, &status, 0);
	return status;
}

static void quiet_daemon(void)
{
	log_open("tested", 0, NULL);
	log_error("it %s: %d", "broke", 7);
	log_debug("hidden");
	log_close();
}

static void journal_daemon(void)
{
	struct stat st;
	char stream[64];

	fstat(STDERR_FILENO, &st);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_open("tested", 1, NULL);
	log_warning("low");
	log_debug("seen");
	log_close();
}

static void crashing_daemon(void)
{
	log_open("tested", 0, "crash.blackbox");
	log_debug("the last words");
	abort();
}

static void test_stderr(void **state)
{
	struct buf out = {0};

	unsetenv("JOURNAL_STREAM");
	assert_int_equal(in_child(quiet_daemon, &out), 0);
	assert_non_null(strstr(buf_str(&out), "tested"));
	assert_non_null(strstr(buf_str(&out), ": it broke: 7\n"));
	assert_null(strstr(buf_str(&out), "hidden"));
	buf_free(&out);
}

static void test_journal(void **state)
{
	struct buf out = {0};

	assert_int_equal(in_child(journal_daemon, &out), 0);
	assert_string_equal(buf_str(&out), "<4>low\n<7>seen\n");
	buf_free(&out);
}

static void test_crash_keeps_the_recorder(void **state)
{
	struct buf out = {0};
	char *content = mem_alloc(1 << 20);
	FILE *file;
	size_t n;
	int status;

	unlink("crash.blackbox");
	status = in_child(crashing_daemon, &out);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_null(strstr(buf_str(&out), "the last words"));
	file = fopen("crash.blackbox", "r");
	assert_non_null(file);
	n = fread(content, 1, 1 << 20, file);
	fclose(file);
	unlink("crash.blackbox");
	assert_non_null(memmem(content, n, "the last words", 14));
	free(content);
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stderr),
		cmocka_unit_test(test_journal),
		cmocka_unit_test(test_crash_keeps_the_recorder),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
