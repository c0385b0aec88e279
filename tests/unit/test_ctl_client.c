/* clusterctl's line to clusterd, against a scripted clusterd in a thread of its own: lost answers, refusals, silence,
 * tasks that end, daemons that go away. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ctl_client.h"
#include "clusterctl/job_wait.h"
#include "lib/cleanup.h"
#include "proto/frame.h"
#include "proto/pb.h"

/* What the fake does with each request in turn. */
enum act { HANG_UP, ANSWER, APPLIED_REFUSAL, RETRY_ERROR, SILENCE, JOB_RUNS, JOB_DONE, JOB_FAILED, STEPS_OK, STEPS_FAILED, STEPS_CUT,
	   MODEL, EVENTS_OTHER, EVENTS_DEAD, EVENTS_GONE, EVENTS_BACK, END };

struct fake {
	char path[108];
	int listener, fd;
	const enum act *script;
	pthread_t thread;
	char clients[16][40];
	uint64_t seqs[16];
	size_t n_proposed, n_requests;
	uint64_t after_id;   /* of the last watch of events */
};

static void send_message(struct fake *f, uint64_t id, Gantry__CtlMessage *message)
{
	struct buf payload = {0}, out = {0};

	message->id = id;
	pb_pack(message, &payload);
	frame_append(&out, FRAME_CTL, payload.data, payload.len);
	assert_int_equal(write(f->fd, out.data, out.len), out.len);
	buf_free(&payload);
	buf_free(&out);
}

static void send_result(struct fake *f, uint64_t id, Gantry__Status status, const char *text, uint64_t index)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlResult body = GANTRY__CTL_RESULT__INIT;
	Gantry__CommandResult result = GANTRY__COMMAND_RESULT__INIT;

	result.status = status;
	result.text = (char *)text;
	result.log_index = index;
	result.job_id = 5;
	body.result = &result;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_RESULT;
	message.result = &body;
	send_message(f, id, &message);
}

static void send_error(struct fake *f, uint64_t id, Gantry__Status status, const char *text)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlError body = GANTRY__CTL_ERROR__INIT;

	body.status = status;
	body.text = (char *)text;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_ERROR;
	message.error = &body;
	send_message(f, id, &message);
}

static void send_job(struct fake *f, uint64_t id, Gantry__JobState state)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlJob body = GANTRY__CTL_JOB__INIT;
	Gantry__Job job = GANTRY__JOB__INIT;

	job.id = 5;
	job.kind = GANTRY__JOB_KIND__JOB_KIND_START;
	job.state = state;
	job.domain_name = (char *)"web1";
	job.reason = (char *)(state == GANTRY__JOB_STATE__JOB_STATE_FAILED ? "no kernel" : "");
	body.job = &job;
	body.ended = state != GANTRY__JOB_STATE__JOB_STATE_RUNNING;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_JOB;
	message.job = &body;
	send_message(f, id, &message);
}

static void send_step(struct fake *f, uint64_t id, bool ok, bool ended)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlFenceTested body = GANTRY__CTL_FENCE_TESTED__INIT;

	body.agent = (char *)"fence_x";
	body.action = (char *)"status";
	body.ok = ok;
	body.ended = ended;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_FENCE_TESTED;
	message.fence_tested = &body;
	send_message(f, id, &message);
}

/* hostA, who answers, and hostB; the newest event is 7. */
static void send_model(struct fake *f, uint64_t id)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlModel body = GANTRY__CTL_MODEL__INIT;
	Gantry__ClusterModel model = GANTRY__CLUSTER_MODEL__INIT;
	Gantry__Host a = GANTRY__HOST__INIT, b = GANTRY__HOST__INIT, *hosts[] = {&a, &b};
	Gantry__Event event = GANTRY__EVENT__INIT, *events[] = {&event};

	a.name = (char *)"hostA";
	b.name = (char *)"hostB";
	event.id = 7;
	model.hosts = hosts;
	model.n_hosts = 2;
	model.events = events;
	model.n_events = 1;
	body.model = &model;
	body.host = a.name;
	body.quorate = true;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_MODEL;
	message.model = &body;
	send_message(f, id, &message);
}

static void send_event(struct fake *f, uint64_t id, uint64_t event_id, const char *subject, const char *kind, const char *text)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlEvents body = GANTRY__CTL_EVENTS__INIT;
	Gantry__Event event = GANTRY__EVENT__INIT, *events[] = {&event};

	event.id = event_id;
	event.subject = (char *)subject;
	event.kind = (char *)kind;
	event.text = (char *)text;
	body.events = events;
	body.n_events = 1;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_EVENTS;
	message.events = &body;
	send_message(f, id, &message);
}

/* False: hang up. */
static bool act_on_ha(struct fake *f, const Gantry__CtlMessage *m, enum act act)
{
	switch (act) {
	case STEPS_OK:
		send_step(f, m->id, true, false);
		send_step(f, m->id, true, true);
		return true;
	case STEPS_FAILED:
		send_step(f, m->id, false, false);
		send_step(f, m->id, false, true);
		return true;
	case STEPS_CUT:
		send_step(f, m->id, true, false);
		return false;
	case MODEL:
		send_model(f, m->id);
		return true;
	case EVENTS_OTHER:
		send_event(f, m->id, 8, "host hostA", "host-dead", "hostA is proven dead");
		send_event(f, m->id, 9, "host hostB", "fence-failed", "no answer");
		return *f->script != HANG_UP;
	case EVENTS_DEAD:
		send_event(f, m->id, 10, "host hostB", "host-dead", "hostB is proven dead: fence_x");
		return true;
	case EVENTS_BACK:
		send_event(f, m->id, 10, "host hostB", "fence-failed", "no answer");
		send_event(f, m->id, 11, "host hostB", "host-online", "hostB is online again");
		return true;
	case EVENTS_GONE:
		send_event(f, m->id, 10, "host hostB", "host-removed", "hostB is removed");
		return true;
	default:
		return false;
	}
}

/* False: hang up. */
static bool act_on(struct fake *f, const Gantry__CtlMessage *m)
{
	f->n_requests++;
	if (m->body_case == GANTRY__CTL_MESSAGE__BODY_PROPOSE) {
		snprintf(f->clients[f->n_proposed], sizeof(f->clients[0]), "%s", m->propose->command->client);
		f->seqs[f->n_proposed++] = m->propose->command->seq;
	}
	if (m->body_case == GANTRY__CTL_MESSAGE__BODY_WATCH_EVENTS)
		f->after_id = m->watch_events->after_id;
	enum act act = *f->script == END ? END : *f->script++;
	switch (act) {
	case ANSWER:
		send_result(f, m->id, GANTRY__STATUS__STATUS_OK, "", 9);
		return true;
	case APPLIED_REFUSAL:
		send_result(f, m->id, GANTRY__STATUS__STATUS_RETRY, "being migrated by task 4", 9);
		return true;
	case RETRY_ERROR:
		send_error(f, m->id, GANTRY__STATUS__STATUS_RETRY, "syncing");
		return true;
	case SILENCE:
		return true;
	case JOB_RUNS:
		send_job(f, m->id, GANTRY__JOB_STATE__JOB_STATE_RUNNING);
		return *f->script != HANG_UP;
	case JOB_DONE:
		send_job(f, m->id, GANTRY__JOB_STATE__JOB_STATE_DONE);
		return true;
	case JOB_FAILED:
		send_job(f, m->id, GANTRY__JOB_STATE__JOB_STATE_FAILED);
		return true;
	default:
		return act_on_ha(f, m, act);
	}
}

static void serve(struct fake *f)
{
	struct frame_parser parser;
	struct frame frame;
	char data[4096];
	bool go_on = true;

	frame_parser_init(&parser, 1 << 20, 1u << FRAME_CTL);
	while (go_on) {
		ssize_t n = read(f->fd, data, sizeof(data));
		if (n <= 0)
			break;
		frame_parser_feed(&parser, data, (size_t)n);
		while (go_on && frame_parser_next(&parser, &frame, NULL) == 1) {
			Gantry__CtlMessage *m = gantry__ctl_message__unpack(NULL, frame.len, frame.payload);
			go_on = act_on(f, m);
			gantry__ctl_message__free_unpacked(m, NULL);
		}
	}
	frame_parser_free(&parser);
	/* A hang-up is an act of its own where it follows something that was said. */
	if (!go_on && *f->script == HANG_UP)
		f->script++;
}

static void *fake_main(void *data)
{
	struct fake *f = data;

	while ((f->fd = accept(f->listener, NULL, NULL)) >= 0) {
		serve(f);
		close(f->fd);
	}
	return NULL;
}

static void fake_start(struct fake *f, const enum act *script)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	*f = (struct fake){.script = script};
	snprintf(f->path, sizeof(f->path), "ctl-test-%d.sock", (int)getpid());
	unlink(f->path);
	snprintf(address.sun_path, sizeof(address.sun_path), "%.107s", f->path);
	f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(f->listener, 8), 0);
	assert_int_equal(pthread_create(&f->thread, NULL, fake_main, f), 0);
}

static void fake_stop(struct fake *f)
{
	shutdown(f->listener, SHUT_RDWR);
	pthread_join(f->thread, NULL);
	close(f->listener);
	unlink(f->path);
}

static int propose(const struct fake *f, uint32_t timeout_ms, struct err *err)
{
	struct ctl_options options = {.socket = f->path, .timeout_ms = timeout_ms};
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdDomainUndefine body = GANTRY__CMD_DOMAIN_UNDEFINE__INIT;
	struct ctl_client *c;

	command.body_case = GANTRY__COMMAND__BODY_DOMAIN_UNDEFINE;
	command.domain_undefine = &body;
	assert_int_equal(ctl_client_new(&options, &c, err), 0);
	int rc = ctl_propose(c, &command, NULL, err);
	ctl_client_free(c);
	return rc;
}

static void test_lost_answer_is_asked_again_with_the_same_id(void **state)
{
	static const enum act lost[] = {HANG_UP, HANG_UP, ANSWER, END};
	struct err err = {0};
	struct fake f;

	fake_start(&f, lost);
	assert_int_equal(propose(&f, 5000, &err), 0);
	fake_stop(&f);
	assert_true(f.n_proposed >= 2);
	assert_int_equal(strlen(f.clients[0]), 32);
	for (size_t i = 1; i < f.n_proposed; i++) {
		assert_string_equal(f.clients[i], f.clients[0]);
		assert_int_equal(f.seqs[i], f.seqs[0]);
	}
	assert_int_equal(f.seqs[0], 1);
}

static void test_retry_status_is_retried(void **state)
{
	static const enum act script[] = {RETRY_ERROR, RETRY_ERROR, ANSWER, END};
	struct err err = {0};
	struct fake f;

	fake_start(&f, script);
	assert_int_equal(propose(&f, 5000, &err), 0);
	fake_stop(&f);
	assert_int_equal(f.n_proposed, 3);
	assert_int_equal(f.seqs[2], f.seqs[0]);
}

/* The model has decided: asking again would give the same answer for ever. */
static void test_applied_refusal_is_final(void **state)
{
	static const enum act script[] = {APPLIED_REFUSAL, ANSWER, END};
	struct err err = {0};
	struct fake f;

	fake_start(&f, script);
	assert_int_equal(propose(&f, 5000, &err), -EREMOTEIO);
	fake_stop(&f);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_RETRY);
	assert_string_equal(err.text, "being migrated by task 4");
	assert_int_equal(f.n_proposed, 1);
}

static void test_retries_end_at_the_timeout(void **state)
{
	static const enum act script[] = {RETRY_ERROR, RETRY_ERROR, RETRY_ERROR, RETRY_ERROR, RETRY_ERROR, RETRY_ERROR, RETRY_ERROR, END};
	struct err err = {0};
	struct fake f;

	fake_start(&f, script);
	assert_int_equal(propose(&f, 700, &err), -EAGAIN);
	fake_stop(&f);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_RETRY);
	assert_string_equal(err.text, "syncing");
	assert_true(f.n_proposed >= 2 && f.n_proposed <= 5);
}

static void test_silence_is_a_timeout(void **state)
{
	static const enum act script[] = {SILENCE, END};
	struct err err = {0};
	struct fake f;

	fake_start(&f, script);
	assert_int_equal(propose(&f, 300, &err), -ETIMEDOUT);
	fake_stop(&f);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_TIMEOUT);
}

static void test_no_daemon(void **state)
{
	struct fake f = {.path = "no-such.sock"};
	struct err err = {0};
	uint64_t began = ctl_now_ms();

	assert_int_equal(propose(&f, 5000, &err), -ECONNREFUSED);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_UNAVAILABLE);
	assert_string_equal(err.text, "clusterd does not run on this host (no no-such.sock): systemctl start clusterd");
	assert_true(ctl_now_ms() - began < 1000);
}

static void *listen_soon(void *data)
{
	struct fake *f = data;

	usleep(500000);
	assert_int_equal(listen(f->listener, 8), 0);
	assert_int_equal(pthread_create(&f->thread, NULL, fake_main, f), 0);
	return NULL;
}

/* A socket without a listener: what a killed clusterd leaves. */
static void test_restarting_daemon_is_waited_for(void **state)
{
	static const enum act script[] = {ANSWER, END};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct err err = {0};
	struct fake f = {.script = script};
	pthread_t thread;

	snprintf(f.path, sizeof(f.path), "ctl-test-%d.sock", (int)getpid());
	unlink(f.path);
	snprintf(address.sun_path, sizeof(address.sun_path), "%.107s", f.path);
	f.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	uint64_t began = ctl_now_ms();
	assert_int_equal(propose(&f, 5000, &err), -ECONNREFUSED);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_UNAVAILABLE);
	assert_true(ctl_now_ms() - began >= CTL_RESTART_MS);
	assert_int_equal(pthread_create(&thread, NULL, listen_soon, &f), 0);
	assert_int_equal(propose(&f, 5000, &err), 0);
	pthread_join(thread, NULL);
	fake_stop(&f);
}

static int wait_job(const enum act *script, uint32_t timeout_s, struct invocation *inv, size_t *requests)
{
	Gantry__CtlJob *end = NULL;
	struct fake f;

	fake_start(&f, script);
	*inv = (struct invocation){.socket = f.path, .timeout_s = timeout_s};
	int rc = job_wait(inv, 5, &end);
	struct err err = inv->err;
	if (end != NULL) {
		assert_int_equal(rc, 0);
		gantry__ctl_job__free_unpacked(end, NULL);
	}
	invocation_clear(inv);
	inv->err = err;
	fake_stop(&f);
	*requests = f.n_requests;
	return rc;
}

static void test_task_is_watched_over_a_lost_connection(void **state)
{
	static const enum act script[] = {JOB_RUNS, HANG_UP, JOB_DONE, END};
	struct invocation inv;
	size_t requests;

	assert_int_equal(wait_job(script, 0, &inv, &requests), 0);
	assert_int_equal(requests, 2);
}

static void test_failed_task_says_why(void **state)
{
	static const enum act script[] = {JOB_FAILED, END};
	struct invocation inv;
	size_t requests;

	assert_int_equal(wait_job(script, 0, &inv, &requests), -EREMOTEIO);
	assert_int_equal(inv.err.status, GANTRY__STATUS__STATUS_FAILED);
	assert_string_equal(inv.err.text, "web1: task 5 (start) failed: no kernel");
}

static void test_task_wait_has_an_end(void **state)
{
	static const enum act script[] = {JOB_RUNS, END};
	struct invocation inv;
	size_t requests;

	assert_int_equal(wait_job(script, 1, &inv, &requests), GANTRY__STATUS__STATUS_TIMEOUT);
}

static void *interrupt_soon(void *data)
{
	usleep(200000);
	kill(getpid(), SIGINT);
	return NULL;
}

static void test_ctrl_c_leaves_the_task(void **state)
{
	static const enum act script[] = {JOB_RUNS, END};
	struct invocation inv;
	pthread_t thread;
	size_t requests;

	assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, NULL), 0);
	assert_int_equal(wait_job(script, 0, &inv, &requests), 130);
	pthread_join(thread, NULL);
}

/* ---- commands that follow what comes */

static int run_command(const enum act *script, struct fake *f, struct err *err, char *const *argv)
{
	struct invocation inv = {0};
	int argc = 0;

	while (argv[argc])
		argc++;
	if (script)
		fake_start(f, script);
	assert_int_equal(command_parse(argc, argv, &inv, err), 0);
	inv.socket = f->path;
	int rc = inv.command->run(&inv);
	*err = inv.err;
	invocation_clear(&inv);
	if (script)
		fake_stop(f);
	return rc;
}

#define RUN(script, f, err, ...) run_command(script, f, err, (char *const[]){__VA_ARGS__, NULL})

static void test_fence_test_follows_the_steps(void **state)
{
	static const enum act good[] = {STEPS_OK, END}, bad[] = {STEPS_FAILED, END}, cut[] = {STEPS_CUT, END}, slow[] = {SILENCE, END};
	struct fake f = {.path = "no-such.sock"};
	struct err err = {0};

	assert_int_equal(RUN(good, &f, &err, "fence", "test", "hostB"), 0);
	assert_int_equal(RUN(bad, &f, &err, "fence", "test", "hostB", "-o", "json"), -EREMOTEIO);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_FAILED);
	assert_string_equal(err.text, "not every fence device of host 'hostB' works");
	assert_true(RUN(cut, &f, &err, "fence", "test", "hostB") < 0);
	assert_int_equal(RUN(slow, &f, &err, "fence", "test", "hostB", "--timeout", "1"), -ETIMEDOUT);
	/* Nothing is even asked. */
	assert_int_equal(RUN(NULL, &f, &err, "fence", "test", "hostB", "--really"), -EPERM);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_NEEDS_FORCE);
}

static void test_fence_run_waits_for_the_death_of_that_host(void **state)
{
	static const enum act dead[] = {MODEL, ANSWER, EVENTS_OTHER, HANG_UP, EVENTS_DEAD, END}, gone[] = {MODEL, ANSWER, EVENTS_GONE, END},
			      back[] = {MODEL, ANSWER, EVENTS_BACK, END},
			      never[] = {MODEL, ANSWER, EVENTS_OTHER, END}, own[] = {MODEL, END}, unknown[] = {MODEL, END};
	struct fake f = {.path = "no-such.sock"};
	struct err err = {0};

	/* Over a connection that is lost: it goes on behind what it has heard. */
	assert_int_equal(RUN(dead, &f, &err, "fence", "run", "hostB", "--yes"), 0);
	assert_int_equal(f.n_proposed, 1);
	assert_int_equal(f.after_id, 9);
	assert_int_equal(RUN(gone, &f, &err, "fence", "run", "hostB", "--yes"), -EREMOTEIO);
	assert_int_equal(f.after_id, 7);
	assert_string_equal(err.text, "host hostB was not fenced: hostB is removed; see 'clusterctl fence history hostB'");
	assert_int_equal(RUN(back, &f, &err, "fence", "run", "hostB", "--yes"), -EREMOTEIO);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_FAILED);
	assert_int_equal(RUN(never, &f, &err, "fence", "run", "hostB", "--yes", "--timeout", "1"), GANTRY__STATUS__STATUS_TIMEOUT);
	assert_int_equal(RUN(own, &f, &err, "fence", "run", "hostA", "--yes"), -EINVAL);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_CONSTRAINT);
	assert_int_equal(RUN(unknown, &f, &err, "fence", "run", "hostZ", "--yes"), -ENOENT);
	assert_int_equal(f.n_proposed, 0);
	assert_int_equal(RUN(NULL, &f, &err, "fence", "run", "hostB"), -EPERM);
	assert_int_equal(err.status, GANTRY__STATUS__STATUS_NEEDS_FORCE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lost_answer_is_asked_again_with_the_same_id),
		cmocka_unit_test(test_retry_status_is_retried),
		cmocka_unit_test(test_applied_refusal_is_final),
		cmocka_unit_test(test_retries_end_at_the_timeout),
		cmocka_unit_test(test_silence_is_a_timeout),
		cmocka_unit_test(test_no_daemon),
		cmocka_unit_test(test_restarting_daemon_is_waited_for),
		cmocka_unit_test(test_task_is_watched_over_a_lost_connection),
		cmocka_unit_test(test_failed_task_says_why),
		cmocka_unit_test(test_task_wait_has_an_end),
		cmocka_unit_test(test_ctrl_c_leaves_the_task),
		cmocka_unit_test(test_fence_test_follows_the_steps),
		cmocka_unit_test(test_fence_run_waits_for_the_death_of_that_host),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
