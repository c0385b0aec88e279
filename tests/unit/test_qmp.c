/* The QMP client: one conformance suite over a fake peer and over QEMU itself, then what only a fake does wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>

#include "hypervisor/qmp.h"
#include "hypervisor/qmp_parser.h"
#include "lib/buf.h"
#include "tests/unit/qmp_peer.h"

#define DEADLINE_MS 10000

struct session {
	uv_loop_t loop;
	uv_timer_t guard;
	struct qmp *qmp;
	pid_t peer;
	char path[64];
	bool ready, closed;
	int close_rc;
	struct err close_err;
	int events, answers;
	char trace[512];
	int rc[16];
	struct err err[16];
};

static void note(struct session *s, const char *word)
{
	strcat(s->trace, word);
	strcat(s->trace, " ");
}

static void on_ready(void *data, struct qmp *qmp)
{
	struct session *s = data;

	s->ready = true;
	note(s, "ready");
}

static void on_event(void *data, struct qmp *qmp, const char *event, json_t *event_data)
{
	struct session *s = data;

	s->events++;
	note(s, event);
}

static void on_close(void *data, int rc, const struct err *err)
{
	struct session *s = data;

	s->closed = true;
	s->close_rc = rc;
	s->close_err = *err;
	s->qmp = NULL;
	note(s, "close");
}

static void on_answer(void *data, int rc, json_t *ret, const struct err *err)
{
	struct session *s = data;

	assert_true(rc < 0 || json_is_object(ret));
	s->rc[s->answers] = rc;
	s->err[s->answers++] = *err;
	note(s, rc == 0 ? "ok" : rc == -EREMOTEIO ? "refused" : rc == -ECONNRESET ? "reset" : "other");
}

static void on_guard(uv_timer_t *timer)
{
	fail_msg("the loop did not get there in %d ms", DEADLINE_MS);
}

static const struct qmp_callbacks callbacks = {.on_ready = on_ready, .on_event = on_event, .on_close = on_close};

static void session_open(struct session *s, int fault, bool real, bool oob, uint32_t timeout_ms)
{
	struct err err;

	*s = (struct session){0};
	snprintf(s->path, sizeof(s->path), "/tmp/test_qmp.%d.sock", (int)getpid());
	unlink(s->path);
	s->peer = real ? real_start(s->path) : fake_start(s->path, (enum fake_fault)fault);
	uv_loop_init(&s->loop);
	uv_timer_init(&s->loop, &s->guard);
	uv_timer_start(&s->guard, on_guard, DEADLINE_MS, 0);
	assert_int_equal(qmp_connect(&s->loop, s->path, timeout_ms, oob, &callbacks, s, &s->qmp, &err), 0);
}

#define RUN_UNTIL(s, condition)                                                                                                                      \
	do {                                                                                                                                         \
		while (!(condition))                                                                                                                 \
			uv_run(&(s)->loop, UV_RUN_ONCE);                                                                                             \
	} while (0)

static void session_end(struct session *s)
{
	if (s->qmp)
		qmp_close(s->qmp);
	RUN_UNTIL(s, s->closed);
	uv_close((uv_handle_t *)&s->guard, NULL);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&s->loop), 0);
	peer_stop(s->peer);
	unlink(s->path);
}

/* ---- the conformance suite: *state says whether the peer is real ---- */

static bool is_real(void **state)
{
	return *(bool *)*state;
}

static void test_answers_in_order(void **state)
{
	struct session s;

	session_open(&s, FAKE_NONE, is_real(state), false, 5000);
	RUN_UNTIL(&s, s.ready);
	assert_int_equal(qmp_execute(s.qmp, "query-version", NULL, on_answer, &s), 0);
	assert_int_equal(qmp_execute(s.qmp, "no-such-command", json_pack("{s:i}", "x", 1), on_answer, &s), 0);
	assert_int_equal(qmp_execute(s.qmp, "query-version", NULL, on_answer, &s), 0);
	assert_int_equal(s.answers, 0);
	RUN_UNTIL(&s, s.answers == 3);
	assert_string_equal(s.trace, "ready ok refused ok ");
	assert_int_equal(s.rc[1], -EREMOTEIO);
	assert_non_null(strstr(s.err[1].text, "'no-such-command'"));
	assert_non_null(strstr(s.err[1].text, "has not been found"));
	assert_non_null(strstr(s.err[1].text, "CommandNotFound"));
	session_end(&s);
	assert_int_equal(s.close_rc, 0);
}

static void test_events_come_before_the_answer(void **state)
{
	struct session s;

	session_open(&s, FAKE_NONE, is_real(state), false, 5000);
	RUN_UNTIL(&s, s.ready);
	qmp_execute(s.qmp, "cont", NULL, on_answer, &s);
	RUN_UNTIL(&s, s.answers == 1);
	assert_string_equal(s.trace, "ready RESUME ok ");
	session_end(&s);
}

static void test_descriptor_is_handed_over(void **state)
{
	int fds[2];
	struct session s;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	session_open(&s, FAKE_NONE, is_real(state), false, 5000);
	RUN_UNTIL(&s, s.ready);
	assert_int_equal(qmp_send_fd(s.qmp, "gantry-test", fds[1], on_answer, &s), 0);
	assert_int_equal(qmp_execute(s.qmp, "getfd", json_pack("{s:s}", "fdname", "none"), on_answer, &s), 0);
	RUN_UNTIL(&s, s.answers == 2);
	assert_int_equal(s.rc[0], 0);
	assert_int_equal(s.rc[1], -EREMOTEIO);
	assert_true(fcntl(fds[1], F_GETFD) >= 0);
	session_end(&s);
	close(fds[0]);
	close(fds[1]);
}

static void test_out_of_band(void **state)
{
	struct session s;

	session_open(&s, FAKE_NONE, is_real(state), true, 5000);
	RUN_UNTIL(&s, s.ready);
	/* migrate-pause may run out of band; without a migration a real QEMU refuses it, but understands it. */
	assert_int_equal(qmp_execute_oob(s.qmp, "migrate-pause", NULL, on_answer, &s), 0);
	RUN_UNTIL(&s, s.answers == 1);
	if (is_real(state))
		assert_non_null(strstr(s.err[0].text, "(GenericError)"));
	else
		assert_int_equal(s.rc[0], 0);
	session_end(&s);
}

static void test_close_answers_what_is_pending(void **state)
{
	struct session s;

	session_open(&s, FAKE_NONE, is_real(state), false, 5000);
	RUN_UNTIL(&s, s.ready);
	qmp_execute(s.qmp, "query-version", NULL, on_answer, &s);
	qmp_close(s.qmp);
	qmp_close(s.qmp);
	assert_int_equal(qmp_execute(s.qmp, "query-version", json_pack("{s:i}", "x", 1), on_answer, &s), -ENOTCONN);
	session_end(&s);
	assert_string_equal(s.trace, "ready reset close ");
	assert_non_null(strstr(s.err[0].text, "'query-version'"));
}

static void test_peer_dies(void **state)
{
	struct session s;

	session_open(&s, FAKE_NONE, is_real(state), false, 5000);
	RUN_UNTIL(&s, s.ready);
	kill(s.peer, SIGKILL);
	qmp_execute(s.qmp, "query-version", NULL, on_answer, &s);
	RUN_UNTIL(&s, s.closed);
	assert_string_equal(s.trace, "ready reset close ");
	assert_true(s.close_rc < 0);
	session_end(&s);
}

/* ---- only with a fake ---- */

static void expect_failure(int fault, int rc, const char *text)
{
	struct session s;

	session_open(&s, fault, false, false, fault == FAKE_ENDLESS ? 5000 : 300);
	RUN_UNTIL(&s, s.ready || s.closed);
	if (s.ready)
		qmp_execute(s.qmp, "query-version", NULL, on_answer, &s);
	RUN_UNTIL(&s, s.closed);
	assert_int_equal(s.close_rc, rc);
	assert_non_null(strstr(s.close_err.text, text));
	session_end(&s);
}

static void test_faults(void **state)
{
	expect_failure(FAKE_SILENT, -ETIMEDOUT, "frozen");
	expect_failure(FAKE_GARBAGE, -EPROTO, "no JSON");
	expect_failure(FAKE_UNKNOWN_ID, -EPROTO, "not sent");
	expect_failure(FAKE_HALF_REPLY, -ECONNRESET, "closed");
	expect_failure(FAKE_TWO_GREETINGS, -EPROTO, "second greeting");
	expect_failure(FAKE_ENDLESS, -EFBIG, "line of more than");
}

static void test_nobody_listens(void **state)
{
	struct session s = {0};
	struct err err;

	snprintf(s.path, sizeof(s.path), "/tmp/test_qmp.%d.none", (int)getpid());
	uv_loop_init(&s.loop);
	assert_int_equal(qmp_connect(&s.loop, s.path, 100, 0, &callbacks, &s, &s.qmp, &err), 0);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	assert_true(s.closed);
	assert_int_equal(s.close_rc, -ETIMEDOUT);
	assert_non_null(strstr(s.close_err.text, s.path));
	uv_loop_close(&s.loop);
}

static void test_waits_for_the_socket_and_reads_single_bytes(void **state)
{
	static const int faults[] = {FAKE_LATE_SOCKET, FAKE_DRIP};
	struct session s;

	for (int i = 0; i < 2; i++) {
		session_open(&s, faults[i], false, true, 5000);
		RUN_UNTIL(&s, s.ready);
		qmp_execute(s.qmp, "query-version", NULL, on_answer, &s);
		RUN_UNTIL(&s, s.answers == 1);
		assert_string_equal(s.trace, "ready ok ");
		session_end(&s);
	}
}

static void test_pending_commands_are_limited(void **state)
{
	struct session s;
	int rc = 0, n = 0;

	session_open(&s, FAKE_NO_ANSWER, false, false, 5000);
	RUN_UNTIL(&s, s.ready);
	while ((rc = qmp_execute(s.qmp, "query-version", NULL, NULL, NULL)) == 0 && n < 10000)
		n++;
	assert_int_equal(rc, -ENOBUFS);
	assert_int_equal(n, 256);
	session_end(&s);
}

static void test_parser_limits_a_line(void **state)
{
	struct qmp_parser p;
	struct qmp_message m;
	struct err err;

	qmp_parser_init(&p, 64);
	for (int i = 0; i < 8; i++) {
		qmp_parser_feed(&p, "12345678", 8);
		assert_int_equal(qmp_parser_next(&p, &m, &err), 0);
	}
	qmp_parser_feed(&p, "9", 1);
	assert_int_equal(qmp_parser_next(&p, &m, &err), -EFBIG);
	qmp_parser_free(&p);
	qmp_parser_init(&p, 64);
	qmp_parser_feed(&p, "\r\n{\"event\":\"A\"}\n{\"return\":1,\"id\":7}\n[]\n", 39);
	assert_int_equal(qmp_parser_next(&p, &m, &err), 1);
	assert_int_equal(m.kind, QMP_MESSAGE_EVENT);
	qmp_message_clear(&m);
	assert_int_equal(qmp_parser_next(&p, &m, &err), 1);
	assert_true(m.kind == QMP_MESSAGE_RETURN && m.has_id && m.id == 7);
	qmp_message_clear(&m);
	assert_int_equal(qmp_parser_next(&p, &m, &err), -EPROTO);
	qmp_parser_free(&p);
}

int main(void)
{
	static bool fake = false, real = true;
#define CONFORMANCE(peer)                                                                                                                            \
	cmocka_unit_test_prestate(test_answers_in_order, peer), cmocka_unit_test_prestate(test_events_come_before_the_answer, peer),                 \
		cmocka_unit_test_prestate(test_descriptor_is_handed_over, peer), cmocka_unit_test_prestate(test_out_of_band, peer),                  \
		cmocka_unit_test_prestate(test_close_answers_what_is_pending, peer), cmocka_unit_test_prestate(test_peer_dies, peer)
	const struct CMUnitTest tests[] = {
		CONFORMANCE(&fake),
		CONFORMANCE(&real),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_waits_for_the_socket_and_reads_single_bytes),
		cmocka_unit_test(test_pending_commands_are_limited),
		cmocka_unit_test(test_parser_limits_a_line),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
