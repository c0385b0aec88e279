/* The life of a QEMU process: start, events, adoption by a later agent, death and its last words. Real QEMU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/accel.h"
#include "hypervisor/pidfile.h"
#include "hypervisor/qemu_process.h"
#include "lib/buf.h"

#define DEADLINE_MS 20000

struct host {
	uv_loop_t loop;
	uv_timer_t guard;
	char dir[64], log[96];
	char qmp[160], oob[160];
	struct qemu_process *qp;
	int readies, exits, errors, resumes, exit_status;
	char tail[2000];
	struct err error;
};

static void on_ready(void *data, struct qemu_process *qp)
{
	((struct host *)data)->readies++;
}

static void on_event(void *data, struct qemu_process *qp, const char *event, json_t *event_data)
{
	((struct host *)data)->resumes += !strcmp(event, "RESUME");
}

static void on_exit_(void *data, struct qemu_process *qp, int exit_status, const char *log_tail)
{
	struct host *h = data;

	h->exits++;
	h->exit_status = exit_status;
	snprintf(h->tail, sizeof(h->tail), "%s", log_tail);
}

static void on_error(void *data, struct qemu_process *qp, const struct err *err)
{
	struct host *h = data;

	h->errors++;
	h->error = *err;
}

static void on_guard(uv_timer_t *timer)
{
	fail_msg("the loop did not get there in %d ms", DEADLINE_MS);
}

static const struct qemu_process_callbacks callbacks = {on_ready, on_event, on_exit_, on_error};

#define RUN_UNTIL(h, condition)                                                                                                                      \
	do {                                                                                                                                         \
		while (!(condition))                                                                                                                 \
			uv_run(&(h)->loop, UV_RUN_ONCE);                                                                                             \
	} while (0)

static void host_open(struct host *h)
{
	*h = (struct host){0};
	strcpy(h->dir, "/tmp/test_qemu_process.XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	snprintf(h->log, sizeof(h->log), "%s/qemu.log", h->dir);
	snprintf(h->qmp, sizeof(h->qmp), "socket,id=qmp,path=%s/qmp.sock,server=on,wait=off", h->dir);
	snprintf(h->oob, sizeof(h->oob), "socket,id=oob,path=%s/oob.sock,server=on,wait=off", h->dir);
	uv_loop_init(&h->loop);
	uv_timer_init(&h->loop, &h->guard);
	uv_timer_start(&h->guard, on_guard, DEADLINE_MS, 0);
}

static int host_start(struct host *h, const char *extra, struct err *err)
{
	const char *argv[] = {"qemu-system-x86_64", "-machine", "none", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-chardev", h->qmp,
			      "-mon", "chardev=qmp,mode=control", "-chardev", h->oob, "-mon", "chardev=oob,mode=control", extra, NULL};

	return qemu_process_start(&h->loop, (char *const *)argv, h->dir, h->log, &callbacks, h, &h->qp, err);
}

static void loop_close(struct host *h)
{
	qemu_process_free(h->qp);
	uv_close((uv_handle_t *)&h->guard, NULL);
	uv_run(&h->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&h->loop), 0);
}

static void host_close(struct host *h)
{
	loop_close(h);
	unlink(h->log);
	assert_int_equal(rmdir(h->dir), 0); /* nothing is left behind by a QEMU that has ended */
}

static void test_start_and_kill(void **state)
{
	struct host h;
	struct err err;

	host_open(&h);
	assert_int_equal(host_start(&h, NULL, &err), 0);
	assert_null(qemu_process_qmp(h.qp));
	RUN_UNTIL(&h, h.readies == 1);
	assert_true(getsid(qemu_process_pid(h.qp)) == qemu_process_pid(h.qp));
	qmp_execute(qemu_process_qmp(h.qp), "cont", NULL, NULL, NULL);
	RUN_UNTIL(&h, h.resumes == 1);
	assert_non_null(qemu_process_qmp_oob(h.qp));
	assert_true(qemu_process_alive(h.qp));
	assert_int_equal(qemu_process_kill(h.qp, SIGKILL), 0);
	RUN_UNTIL(&h, h.exits == 1);
	assert_true(WIFSIGNALED(h.exit_status) && WTERMSIG(h.exit_status) == SIGKILL);
	assert_false(qemu_process_alive(h.qp));
	assert_int_equal(qemu_process_kill(h.qp, SIGKILL), -ESRCH);
	assert_int_equal(h.errors, 0);
	host_close(&h);
}

static void test_inherits_nothing(void **state)
{
	char path[64], link[256];
	int leak = open("/dev/zero", O_RDONLY); /* on purpose without O_CLOEXEC */
	struct host h;
	struct err err;

	host_open(&h);
	assert_int_equal(host_start(&h, NULL, &err), 0);
	RUN_UNTIL(&h, h.readies == 1);
	for (int fd = 0; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)qemu_process_pid(h.qp), fd);
		ssize_t n = readlink(path, link, sizeof(link) - 1);

		if (n < 0)
			continue;
		link[n] = '\0';
		assert_string_not_equal(link, "/dev/zero");
		if (fd == 0)
			assert_string_equal(link, "/dev/null");
		if (fd == 1 || fd == 2)
			assert_string_equal(link, h.log);
	}
	qemu_process_kill(h.qp, SIGKILL);
	RUN_UNTIL(&h, h.exits == 1);
	host_close(&h);
	close(leak);
}

static void test_last_words(void **state)
{
	struct host h;
	struct err err;

	host_open(&h);
	assert_int_equal(host_start(&h, "-no-such-option", &err), 0);
	RUN_UNTIL(&h, h.exits == 1);
	assert_true(WIFEXITED(h.exit_status) && WEXITSTATUS(h.exit_status) == 1);
	assert_non_null(strstr(h.tail, "no-such-option: invalid option"));
	assert_null(strstr(h.tail, "starting qemu"));
	assert_int_equal(h.readies, 0);
	host_close(&h);
}

static void test_missing_binary(void **state)
{
	char *argv[] = {"qemu-system-none", NULL};
	struct host h;
	struct err err;

	host_open(&h);
	assert_int_equal(qemu_process_start(&h.loop, argv, h.dir, h.log, &callbacks, &h, &h.qp, &err), -ENOENT);
	assert_non_null(strstr(err.text, "qemu-system-none"));
	host_close(&h);
}

static void test_a_later_agent_adopts(void **state)
{
	struct host h, later;
	struct err err;
	pid_t agent, pid;
	int status;

	host_open(&h);
	/* The first agent is a process that is killed: QEMU must live on, as nobody's child. */
	agent = fork();
	if (agent == 0) {
		if (host_start(&h, NULL, &err) < 0)
			_exit(1);
		while (!h.readies)
			uv_run(&h.loop, UV_RUN_ONCE);
		raise(SIGKILL);
	}
	waitpid(agent, &status, 0);
	assert_true(WIFSIGNALED(status));
	host_open(&later);
	rmdir(later.dir);
	strcpy(later.dir, h.dir);
	strcpy(later.log, h.log);
	assert_int_equal(qemu_process_adopt(&later.loop, h.dir, h.log, &callbacks, &later, &later.qp, &err), 0);
	RUN_UNTIL(&later, later.readies == 1);
	pid = qemu_process_pid(later.qp);
	/* Adopting is not owning: letting go leaves it alone. */
	loop_close(&later);
	assert_int_equal(kill(pid, 0), 0);
	assert_int_equal(qemu_process_adopt(&h.loop, h.dir, h.log, &callbacks, &h, &h.qp, &err), 0);
	RUN_UNTIL(&h, h.readies == 1);
	qemu_process_kill(h.qp, SIGTERM);
	RUN_UNTIL(&h, h.exits == 1);
	assert_int_equal(h.exit_status, -1);
	assert_non_null(strstr(h.tail, "terminating on signal 15"));
	host_close(&h);
}

static void test_strangers_are_not_adopted(void **state)
{
	struct host h;
	struct err err;
	char path[128];
	FILE *f;

	host_open(&h);
	assert_int_equal(qemu_process_adopt(&h.loop, h.dir, h.log, &callbacks, &h, &h.qp, &err), -ESRCH);
	snprintf(path, sizeof(path), "%s/pid", h.dir);
	assert_int_equal(pidfile_write(path, getpid(), &err), 0);
	pid_t pid;
	int pidfd;
	assert_int_equal(pidfile_find(path, &pid, &pidfd, &err), 0);
	assert_int_equal(pid, getpid());
	close(pidfd);
	/* The same pid with another start time is somebody else. */
	f = fopen(path, "w");
	fprintf(f, "%d 1 /usr/bin/qemu-system-x86_64\n", (int)getpid());
	fclose(f);
	assert_int_equal(qemu_process_adopt(&h.loop, h.dir, h.log, &callbacks, &h, &h.qp, &err), -ESRCH);
	assert_non_null(strstr(err.text, "another program"));
	f = fopen(path, "w");
	fprintf(f, "garbage\n");
	fclose(f);
	assert_int_equal(qemu_process_adopt(&h.loop, h.dir, h.log, &callbacks, &h, &h.qp, &err), -ESRCH);
	unlink(path);
	host_close(&h);
}

static void test_frozen_qemu_is_told_and_comes_back(void **state)
{
	struct host h;
	struct err err;

	host_open(&h);
	assert_int_equal(host_start(&h, NULL, &err), 0);
	RUN_UNTIL(&h, h.readies == 1);
	struct qemu_process *first = h.qp;
	assert_int_equal(qemu_process_kill(first, SIGSTOP), 0);
	qmp_close(qemu_process_qmp(first));
	RUN_UNTIL(&h, h.errors == 1);
	/* The next try finds it frozen, and goes on until it thaws. */
	assert_null(qemu_process_qmp(first));
	assert_int_equal(qemu_process_kill(first, SIGCONT), 0);
	RUN_UNTIL(&h, h.readies == 2);
	assert_int_equal(h.exits, 0);
	qemu_process_kill(first, SIGKILL);
	RUN_UNTIL(&h, h.exits == 1);
	host_close(&h);
}

/* ---- the accelerator ---- */

struct verdict {
	int calls, rc;
	struct accel_info info;
	struct err err;
};

static void on_accel(void *data, int rc, const struct accel_info *info, const struct err *err)
{
	struct verdict *v = data;

	v->calls++;
	v->rc = rc;
	if (rc == 0)
		v->info = *info;
	else
		v->err = *err;
}

static void test_accel(void **state)
{
	struct verdict v = {0};
	uv_loop_t loop;
	struct err err;
	uint32_t version;
	char text[32];

	assert_int_equal(accel_version_parse("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n", &version, text, sizeof(text)), 0);
	assert_int_equal(version, 0x0a0002);
	assert_string_equal(text, "10.0.2");
	assert_int_equal(accel_version_parse("QEMU emulator version seven", &version, text, sizeof(text)), -EINVAL);
	uv_loop_init(&loop);
	assert_int_equal(accel_probe(&loop, "qemu-system-x86_64", "xen", on_accel, &v, &err), -EINVAL);
	assert_int_equal(accel_probe(&loop, "qemu-system-x86_64", "tcg", on_accel, &v, &err), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(v.calls, 1);
	assert_int_equal(v.rc, 0);
	assert_string_equal(v.info.accel, "tcg");
	assert_true(v.info.qemu_version >= 0x070200);
	if (accel_probe(&loop, "/bin/false", "tcg", on_accel, &v, &err) == 0)
		uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(v.calls, 2);
	assert_true(v.rc < 0);
	assert_non_null(strstr(v.err.text, "/bin/false"));
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_and_kill),
		cmocka_unit_test(test_inherits_nothing),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_missing_binary),
		cmocka_unit_test(test_a_later_agent_adopts),
		cmocka_unit_test(test_strangers_are_not_adopted),
		cmocka_unit_test(test_frozen_qemu_is_told_and_comes_back),
		cmocka_unit_test(test_accel),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
