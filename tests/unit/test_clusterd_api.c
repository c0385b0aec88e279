/* clusterd's API over a stand-in for the cluster: real sockets and TLS, a real model, no log and no corosync.
 * A proposal is applied to the model at once, or kept until the test says so. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <uv.h>

#include "clusterd/daemon/api.h"
#include "lib/atomic_file.h"
#include "lib/limits.h"
#include "proto/pb.h"
#include "proto/rpc.h"

#define UUID "11111111-1111-1111-1111-111111111111"
#define STATUS(x) GANTRY__STATUS__STATUS_##x

/* ---- the stand-in */

struct held { proposal_cb cb; void *data; struct buf packed; };

static struct world {
	uv_loop_t loop;
	char dir[32], path[12][96];
	struct model model;
	struct soft_state soft;
	struct api *api;
	bool hold, api_closed;
	struct held held[LIMIT_API_REQUESTS + 8];
	size_t n_held;
	int n_proposed;
	uint64_t last_epoch;
	struct buf ca, ca_key;
	struct tls_context *host_a, *host_z;   /* clients: a member, a host that was removed */
	struct rpc_listener *agent;
	struct rpc_conn *agent_conn;
} w;

static const struct model *op_model(void *data) { return &w.model; }
static const struct soft_state *op_soft(void *data) { return &w.soft; }
static bool op_current(void *data) { return true; }

static Gantry__CtlStatus *op_status(void *data)
{
	Gantry__CtlStatus *s = PB_NEW(Gantry__CtlStatus, gantry__ctl_status__init);

	pb_set_string(&s->host, "hostA");
	pb_set_string(&s->log_state, "normal");
	s->quorate = true;
	return s;
}

static void apply(const struct buf *packed, proposal_cb cb, void *data)
{
	Gantry__CommandResult *result = NULL;
	struct err err = {0};
	int rc = model_apply(&w.model, w.model.state->applied_index + 1, 1, packed->data, packed->len, &result, &err);

	if (rc < 0)
		fail_msg("apply: %s", err.text);
	cb(data, result);
	gantry__command_result__free_unpacked(result, NULL);
	api_model_changed(w.api);
}

static void op_propose(void *data, Gantry__Command *command, proposal_cb cb, void *cb_data)
{
	struct buf packed = {0};

	command->version = MODEL_COMMAND_VERSION;
	command->time_ms = 1000;
	w.n_proposed++;
	w.last_epoch = command->epoch;
	pb_pack(command, &packed);
	if (w.hold) {
		w.held[w.n_held++] = (struct held){.cb = cb, .data = cb_data, .packed = packed};
		return;
	}
	apply(&packed, cb, cb_data);
	buf_free(&packed);
}

static const struct api_ops ops = {.model = op_model, .soft = op_soft, .is_current = op_current, .status = op_status, .propose = op_propose};

/* ---- a client */

struct client {
	struct rpc_conn *conn;
	bool open, closed;
	int rc;
	struct err err;
	Gantry__CtlMessage *answers[128];
	size_t n, taken;
};

static void on_open(struct rpc_conn *conn, void *data) { ((struct client *)data)->open = true; }
static void on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct client *c = data;

	assert_true(c->n < 128);
	c->answers[c->n] = gantry__ctl_message__unpack(NULL, frame->len, frame->payload);
	assert_non_null(c->answers[c->n++]);
}
static void on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct client *c = data;

	c->closed = true;
	c->rc = rc;
	if (err)
		c->err = *err;
}
static const struct rpc_callbacks client_callbacks = {.on_open = on_open, .on_frame = on_frame, .on_close = on_close};

static void on_guard(uv_timer_t *timer) { fail_msg("nothing happened for 10 s"); }

/* Runs the loop until the condition holds. */
#define UNTIL(condition) do { \
	uv_timer_t guard_; \
	uv_timer_init(&w.loop, &guard_); \
	uv_timer_start(&guard_, on_guard, 10000, 0); \
	while (!(condition)) \
		uv_run(&w.loop, UV_RUN_ONCE); \
	uv_close((uv_handle_t *)&guard_, NULL); \
	uv_run(&w.loop, UV_RUN_NOWAIT); \
} while (0)

static void open_unix(struct client *c)
{
	struct err err = {0};

	*c = (struct client){0};
	if (rpc_connect_unix(&w.loop, w.path[0], 1u << FRAME_CTL, &client_callbacks, c, &c->conn, &err) < 0)
		fail_msg("%s", err.text);
	UNTIL(c->open || c->closed);
	assert_true(c->open);
}

static void open_tls(struct client *c, struct tls_context *tls)
{
	struct err err = {0};

	*c = (struct client){0};
	if (rpc_connect_tls(&w.loop, "127.0.0.1", api_port(w.api), tls, NULL, 5000, 1u << FRAME_CTL, &client_callbacks, c, &c->conn, &err) < 0)
		fail_msg("%s", err.text);
	UNTIL(c->open || c->closed);
	assert_true(c->open);
}

static void drop_client(struct client *c)
{
	if (!c->closed)
		rpc_conn_close(c->conn, NULL);
	UNTIL(c->closed);
	for (size_t i = 0; i < c->n; i++)
		gantry__ctl_message__free_unpacked(c->answers[i], NULL);
}

static void say(struct client *c, uint64_t id, Gantry__CtlMessage *m)
{
	m->id = id;
	assert_int_equal(rpc_send_message(c->conn, FRAME_CTL, &m->base), 0);
}

/* The next answer; borrowed from the client. */
static Gantry__CtlMessage *answer(struct client *c)
{
	UNTIL(c->n > c->taken || c->closed);
	assert_true(c->n > c->taken);
	return c->answers[c->taken++];
}

#define ASK(c, idno, FIELD, field, value) ({ \
	Gantry__CtlMessage m_ = GANTRY__CTL_MESSAGE__INIT; \
	m_.body_case = GANTRY__CTL_MESSAGE__BODY_##FIELD; \
	m_.field = (value); \
	say(c, idno, &m_); })

#define EXPECT_ERROR(c, want, part) do { \
	Gantry__CtlMessage *a_ = answer(c); \
	assert_int_equal(a_->body_case, GANTRY__CTL_MESSAGE__BODY_ERROR); \
	if (a_->error->status != STATUS(want) || !strstr(a_->error->text, part)) \
		fail_msg("%d: %s", a_->error->status, a_->error->text); \
} while (0)

static void propose(struct client *c, uint64_t id, Gantry__Command *command)
{
	Gantry__CtlPropose p = GANTRY__CTL_PROPOSE__INIT;

	p.command = command;
	ASK(c, id, PROPOSE, propose, &p);
}

static Gantry__CommandResult *result_of(struct client *c)
{
	Gantry__CtlMessage *a = answer(c);

	if (a->body_case == GANTRY__CTL_MESSAGE__BODY_ERROR)
		fail_msg("%s", a->error->text);
	assert_int_equal(a->body_case, GANTRY__CTL_MESSAGE__BODY_RESULT);
	return a->result->result;
}

static void note(struct client *c, uint64_t id, const char *text)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdEventNote n = GANTRY__CMD_EVENT_NOTE__INIT;

	n.subject = (char *)"test";
	n.kind = (char *)"note";
	n.text = (char *)text;
	command.body_case = GANTRY__COMMAND__BODY_EVENT_NOTE;
	command.event_note = &n;
	propose(c, id, &command);
}

/* ---- setting up */

enum { P_SOCKET, P_AGENT, P_CA, P_CA_KEY, P_CONF, P_AUTHKEY, P_TOKENS, P_CERT, P_KEY };

static struct tls_context *context_of(const char *host)
{
	struct buf csr = {0}, key = {0}, cert = {0};
	struct tls_context *tls = NULL;
	struct err err = {0};

	assert_int_equal(pki_make_request(host, &csr, &key, &err), 0);
	assert_int_equal(pki_sign(&w.ca, &w.ca_key, &csr, host, UUID, &cert, &err), 0);
	assert_int_equal(atomic_file_write(w.path[P_CERT], cert.data, cert.len, 0600, &err), 0);
	assert_int_equal(atomic_file_write(w.path[P_KEY], key.data, key.len, 0600, &err), 0);
	if (tls_context_load(w.path[P_CA], w.path[P_CERT], w.path[P_KEY], &tls, &err) < 0)
		fail_msg("%s", err.text);
	buf_free(&csr);
	buf_free(&key);
	buf_free(&cert);
	return tls;
}

static void command_now(Gantry__Command *command)
{
	Gantry__CommandResult *result = NULL;
	struct buf packed = {0};
	struct err err = {0};

	command->version = MODEL_COMMAND_VERSION;
	pb_pack(command, &packed);
	assert_int_equal(model_apply(&w.model, w.model.state->applied_index + 1, 1, packed.data, packed.len, &result, &err), 0);
	if (result->status != STATUS(OK))
		fail_msg("%s", result->text);
	gantry__command_result__free_unpacked(result, NULL);
	buf_free(&packed);
}

static void make_cluster(void)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdClusterInit init = GANTRY__CMD_CLUSTER_INIT__INIT;
	Gantry__Host host = GANTRY__HOST__INIT;

	host.node_id = 1;
	host.name = (char *)"hostA";
	host.address = (char *)"10.0.0.1";
	init.name = (char *)"demo";
	init.uuid = (char *)UUID;
	init.host = &host;
	command.body_case = GANTRY__COMMAND__BODY_CLUSTER_INIT;
	command.cluster_init = &init;
	command_now(&command);
}

static int set_up(void **state)
{
	static const char *const names[] = {"ctl.sock", "agent.sock", "ca.crt", "ca.key", "corosync.conf", "authkey", "join-tokens", "h.crt", "h.key"};
	struct api_config config;
	struct err err = {0};

	w = (struct world){0};
	strcpy(w.dir, "api-test-XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	for (size_t i = 0; i < 9; i++)
		snprintf(w.path[i], sizeof(w.path[i]), "%s/%s", w.dir, names[i]);
	uv_loop_init(&w.loop);
	model_init(&w.model);
	make_cluster();
	assert_int_equal(pki_make_ca("demo", UUID, &w.ca, &w.ca_key, &err), 0);
	assert_int_equal(atomic_file_write(w.path[P_CA], w.ca.data, w.ca.len, 0644, &err), 0);
	assert_int_equal(atomic_file_write(w.path[P_CA_KEY], w.ca_key.data, w.ca_key.len, 0600, &err), 0);
	assert_int_equal(atomic_file_write(w.path[P_CONF], "totem {\n\ttoken: 700\n}\n", 22, 0644, &err), 0);
	assert_int_equal(atomic_file_write(w.path[P_AUTHKEY], "secretkey", 9, 0400, &err), 0);
	config = (struct api_config){.host = "hostA", .agent_socket = w.path[P_AGENT], .agent_port = 1, .ca_cert = w.path[P_CA],
		.ca_key = w.path[P_CA_KEY], .corosync_conf = w.path[P_CONF], .corosync_authkey = w.path[P_AUTHKEY], .tokens = w.path[P_TOKENS]};
	w.api = api_new(&w.loop, &config, &ops, NULL);
	assert_int_equal(api_listen_unix(w.api, w.path[P_SOCKET], &err), 0);
	if (api_listen_tls(w.api, "127.0.0.1", 0, context_of("hostA"), &err) < 0)
		fail_msg("%s", err.text);
	w.host_a = context_of("hostA");
	w.host_z = context_of("hostZ");
	return 0;
}

static void on_api_closed(void *data) { w.api_closed = true; }

static int tear_down(void **state)
{
	api_close(w.api, on_api_closed, NULL);
	if (w.agent)
		rpc_listener_close(w.agent);
	if (w.agent_conn)
		rpc_conn_close(w.agent_conn, NULL);
	UNTIL(w.api_closed);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&w.loop), 0);
	for (size_t i = 0; i < w.n_held; i++)
		buf_free(&w.held[i].packed);
	for (size_t i = 0; i < 9; i++)
		unlink(w.path[i]);
	rmdir(w.dir);
	tls_context_free(w.host_a);
	tls_context_free(w.host_z);
	buf_free(&w.ca);
	buf_free(&w.ca_key);
	model_free(&w.model);
	soft_state_free(&w.soft);
	return 0;
}

/* ---- who may ask what */

static void test_status_and_result(void **state)
{
	Gantry__CtlStatusRequest request = GANTRY__CTL_STATUS_REQUEST__INIT;
	Gantry__CtlMessage *a;
	struct client c;

	open_unix(&c);
	ASK(&c, 7, STATUS_REQUEST, status_request, &request);
	a = answer(&c);
	assert_int_equal(a->id, 7);
	assert_string_equal(a->status->log_state, "normal");
	note(&c, 8, "hello");
	assert_int_equal(result_of(&c)->status, STATUS(OK));
	assert_int_equal(c.answers[1]->id, 8);
	drop_client(&c);
}

static void test_daemons_commands_are_refused(void **state)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHostState host_state = GANTRY__CMD_HOST_STATE__INIT;
	Gantry__CmdDomainPlace place = GANTRY__CMD_DOMAIN_PLACE__INIT;
	Gantry__CmdMigrateCommit commit = GANTRY__CMD_MIGRATE_COMMIT__INIT;
	Gantry__CmdHostAdd add = GANTRY__CMD_HOST_ADD__INIT;
	Gantry__CmdClusterInit init = GANTRY__CMD_CLUSTER_INIT__INIT;
	struct client c;

	open_unix(&c);
#define REFUSED(FIELD, field, value) do { \
	command.body_case = GANTRY__COMMAND__BODY_##FIELD; \
	command.field = (value); \
	propose(&c, 1, &command); \
	EXPECT_ERROR(&c, PERMISSION, ""); \
} while (0)
	REFUSED(HOST_STATE, host_state, &host_state);
	REFUSED(DOMAIN_PLACE, domain_place, &place);
	REFUSED(MIGRATE_COMMIT, migrate_commit, &commit);
	REFUSED(HOST_ADD, host_add, &add);
	REFUSED(CLUSTER_INIT, cluster_init, &init);
	command.body_case = GANTRY__COMMAND__BODY__NOT_SET;
	propose(&c, 1, &command);
	EXPECT_ERROR(&c, PERMISSION, "");
	assert_int_equal(w.n_proposed, 0);
	drop_client(&c);
}

static void test_users_command_is_bound_to_no_epoch(void **state)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdPoolRemove remove = GANTRY__CMD_POOL_REMOVE__INIT;
	struct client c;

	open_unix(&c);
	remove.name = (char *)"none";
	command.epoch = 99;
	command.body_case = GANTRY__COMMAND__BODY_POOL_REMOVE;
	command.pool_remove = &remove;
	propose(&c, 1, &command);
	assert_int_equal(result_of(&c)->status, STATUS(NO_SUCH));
	assert_int_equal(w.last_epoch, 0);
	drop_client(&c);
}

static void test_tls_needs_a_members_certificate(void **state)
{
	Gantry__CtlStatusRequest request = GANTRY__CTL_STATUS_REQUEST__INIT;
	struct tls_context *anonymous = NULL;
	char fingerprint[65];
	struct client c;

	assert_int_equal(pki_fingerprint(&w.ca, fingerprint, NULL), 0);
	assert_int_equal(tls_context_for_join(fingerprint, &anonymous, NULL), 0);
	open_tls(&c, w.host_a);
	ASK(&c, 1, STATUS_REQUEST, status_request, &request);
	assert_int_equal(answer(&c)->body_case, GANTRY__CTL_MESSAGE__BODY_STATUS);
	drop_client(&c);
	open_tls(&c, w.host_z);
	ASK(&c, 1, STATUS_REQUEST, status_request, &request);
	EXPECT_ERROR(&c, PERMISSION, "no member");
	note(&c, 2, "from outside");
	EXPECT_ERROR(&c, PERMISSION, "no member");
	drop_client(&c);
	open_tls(&c, anonymous);
	ASK(&c, 1, STATUS_REQUEST, status_request, &request);
	EXPECT_ERROR(&c, PERMISSION, "only joining");
	note(&c, 2, "from outside");
	EXPECT_ERROR(&c, PERMISSION, "only joining");
	drop_client(&c);
	assert_int_equal(w.n_proposed, 0);
	tls_context_free(anonymous);
}

static void test_garbage_is_dropped(void **state)
{
	struct client c;

	open_unix(&c);
	assert_int_equal(rpc_send(c.conn, FRAME_CTL, "\xff\xff\xff\xff", 4), 0);
	UNTIL(c.closed);
	assert_int_equal(c.rc, -ECONNREFUSED);
	assert_non_null(strstr(c.err.text, "cannot read"));
	drop_client(&c);
}

/* ---- what is filled in, what is held back */

static void test_host_removal_is_tried_first(void **state)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHostRemove remove = GANTRY__CMD_HOST_REMOVE__INIT;
	struct client c;

	open_unix(&c);
	command.body_case = GANTRY__COMMAND__BODY_HOST_REMOVE;
	command.host_remove = &remove;
	remove.name = (char *)"hostA";
	propose(&c, 1, &command);
	EXPECT_ERROR(&c, CONSTRAINT, "last one");
	remove.name = (char *)"hostX";
	propose(&c, 2, &command);
	EXPECT_ERROR(&c, NO_SUCH, "hostX");
	/* Nothing of this has reached the log, where it would have cost a voter. */
	assert_int_equal(w.n_proposed, 0);
	drop_client(&c);
}

static void test_migration_token_and_volume_host(void **state)
{
	Gantry__Command command = GANTRY__COMMAND__INIT, *sent;
	Gantry__CmdMigrateStart start = GANTRY__CMD_MIGRATE_START__INIT;
	Gantry__CmdVolumeCreate create = GANTRY__CMD_VOLUME_CREATE__INIT;
	Gantry__Volume volume = GANTRY__VOLUME__INIT;
	uint8_t chosen[3] = {1, 2, 3};
	struct client c;

	w.hold = true;
	open_unix(&c);
	/* A client that wants to choose the secret itself does not get its way. */
	start.token = (ProtobufCBinaryData){.data = chosen, .len = 3};
	command.body_case = GANTRY__COMMAND__BODY_MIGRATE_START;
	command.migrate_start = &start;
	propose(&c, 1, &command);
	propose(&c, 2, &command);
	create.volume = &volume;
	command.body_case = GANTRY__COMMAND__BODY_VOLUME_CREATE;
	command.volume_create = &create;
	propose(&c, 3, &command);
	UNTIL(w.n_held == 3);
	sent = gantry__command__unpack(NULL, w.held[0].packed.len, w.held[0].packed.data);
	assert_int_equal(sent->migrate_start->token.len, 32);
	gantry__command__free_unpacked(sent, NULL);
	assert_memory_not_equal(w.held[0].packed.data, w.held[1].packed.data, w.held[1].packed.len);
	sent = gantry__command__unpack(NULL, w.held[2].packed.len, w.held[2].packed.data);
	assert_string_equal(sent->volume_create->volume->host, "hostA");
	gantry__command__free_unpacked(sent, NULL);
	for (size_t i = 0; i < 3; i++)
		apply(&w.held[i].packed, w.held[i].cb, w.held[i].data);
	drop_client(&c);
}

static void test_client_that_leaves_before_the_answer(void **state)
{
	struct client c, d;

	w.hold = true;
	open_unix(&c);
	note(&c, 1, "one");
	note(&c, 2, "two");
	UNTIL(w.n_held == 2);
	drop_client(&c);
	open_unix(&d);
	for (size_t i = 0; i < 2; i++)
		apply(&w.held[i].packed, w.held[i].cb, w.held[i].data);
	assert_int_equal(w.model.state->events[w.model.state->n_events - 1]->text[0], 't');
	drop_client(&d);
}

static void test_too_many_requests(void **state)
{
	struct client c;

	w.hold = true;
	open_unix(&c);
	for (uint64_t i = 1; i <= LIMIT_API_REQUESTS + 1; i++)
		note(&c, i, "x");
	EXPECT_ERROR(&c, RETRY, "under way");
	assert_int_equal(c.answers[0]->id, LIMIT_API_REQUESTS + 1);
	assert_int_equal(w.n_held, LIMIT_API_REQUESTS);
	for (size_t i = 0; i < w.n_held; i++)
		apply(&w.held[i].packed, w.held[i].cb, w.held[i].data);
	for (size_t i = 0; i < w.n_held; i++)
		assert_int_equal(result_of(&c)->status, STATUS(OK));
	drop_client(&c);
}

/* ---- reading */

static void test_model_without_secrets(void **state)
{
	Gantry__CtlModelRequest request = GANTRY__CTL_MODEL_REQUEST__INIT;
	Gantry__FenceDevice *device = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);
	Gantry__Job *job = PB_NEW(Gantry__Job, gantry__job__init);
	Gantry__HostSoft soft = GANTRY__HOST_SOFT__INIT;
	struct buf packed = {0};
	struct client c;
	Gantry__CtlModel *m;

	for (int i = 0; i < 2; i++) {
		Gantry__FenceParam *p = PB_NEW(Gantry__FenceParam, gantry__fence_param__init);

		pb_set_string(&p->key, i ? "passwd" : "ip");
		pb_set_string(&p->value, i ? "hunter2" : "10.0.0.9");
		p->secret = i;
		PB_APPEND(device, params, p);
	}
	PB_APPEND(w.model.state->hosts[0], fence, device);
	job->id = 5;
	pb_set_bytes(&job->token, "tttttttt", 8);
	PB_APPEND(w.model.state, jobs, job);
	soft.node_id = 1;
	soft.memory_free_bytes = 4096;
	pb_pack(&soft, &packed);
	assert_true(soft_state_put(&w.soft, 1, packed.data, packed.len, 0));
	assert_false(soft_state_put(&w.soft, 2, packed.data, packed.len, 0));
	buf_free(&packed);
	open_unix(&c);
	ASK(&c, 1, MODEL_REQUEST, model_request, &request);
	m = answer(&c)->model;
	assert_true(m->quorate);
	assert_string_equal(m->model->hosts[0]->fence[0]->params[0]->value, "10.0.0.9");
	assert_string_equal(m->model->hosts[0]->fence[0]->params[1]->value, "");
	assert_int_equal(m->model->jobs[0]->token.len, 0);
	assert_int_equal(m->model->n_events, 0);
	assert_int_equal(m->soft[0]->memory_free_bytes, 4096);
	request.events = true;
	ASK(&c, 2, MODEL_REQUEST, model_request, &request);
	assert_true(answer(&c)->model->model->n_events > 0);
	/* The model itself still has them. */
	assert_string_equal(device->params[1]->value, "hunter2");
	assert_int_equal(job->token.len, 8);
	drop_client(&c);
}

static void test_watch_job(void **state)
{
	Gantry__CtlWatchJob request = GANTRY__CTL_WATCH_JOB__INIT;
	Gantry__Job *job = PB_NEW(Gantry__Job, gantry__job__init);
	Gantry__HostSoft soft = GANTRY__HOST_SOFT__INIT;
	Gantry__MigrationProgress progress = GANTRY__MIGRATION_PROGRESS__INIT, *list[] = {&progress};
	struct buf packed = {0};
	struct client c;
	Gantry__CtlJob *a;

	open_unix(&c);
	request.job_id = 77;
	ASK(&c, 1, WATCH_JOB, watch_job, &request);
	EXPECT_ERROR(&c, NO_SUCH, "77");
	job->id = 77;
	pb_set_string(&job->source, "hostA");
	PB_APPEND(w.model.state, jobs, job);
	ASK(&c, 2, WATCH_JOB, watch_job, &request);
	a = answer(&c)->job;
	assert_false(a->ended);
	assert_null(a->progress);
	/* Nothing new: nothing is said. Progress: it is. */
	api_model_changed(w.api);
	soft.node_id = 1;
	soft.progress = list;
	soft.n_progress = 1;
	progress.job_id = 77;
	progress.round = 3;
	pb_pack(&soft, &packed);
	assert_true(soft_state_put(&w.soft, 1, packed.data, packed.len, 0));
	buf_free(&packed);
	api_soft_changed(w.api);
	a = answer(&c)->job;
	assert_int_equal(a->progress->round, 3);
	assert_int_equal(c.n, 3);
	job->state = GANTRY__JOB_STATE__JOB_STATE_DONE;
	api_model_changed(w.api);
	assert_true(answer(&c)->job->ended);
	/* The watch has ended with it. */
	job->ended_ms = 5;
	api_model_changed(w.api);
	note(&c, 3, "x");
	assert_int_equal(answer(&c)->body_case, GANTRY__CTL_MESSAGE__BODY_RESULT);
	drop_client(&c);
}

static void test_watch_events(void **state)
{
	Gantry__CtlWatchEvents request = GANTRY__CTL_WATCH_EVENTS__INIT;
	struct client c, other;
	Gantry__CtlEvents *e;

	open_unix(&c);
	open_unix(&other);
	ASK(&c, 1, WATCH_EVENTS, watch_events, &request);
	e = answer(&c)->events;
	assert_string_equal(e->events[0]->kind, "cluster-created");
	request.after_id = e->events[e->n_events - 1]->id;
	request.follow = true;
	ASK(&c, 2, WATCH_EVENTS, watch_events, &request);
	assert_int_equal(answer(&c)->events->n_events, 0);
	note(&other, 1, "look");
	e = answer(&c)->events;
	assert_int_equal(e->n_events, 1);
	assert_string_equal(e->events[0]->text, "look");
	note(&other, 2, "again");
	assert_string_equal(answer(&c)->events->events[0]->text, "again");
	drop_client(&c);
	drop_client(&other);
}

/* ---- joining */

static char *new_token(struct client *c)
{
	Gantry__CtlToken request = GANTRY__CTL_TOKEN__INIT;
	Gantry__CtlMessage *a;

	ASK(c, 50, TOKEN, token, &request);
	a = answer(c);
	assert_int_equal(a->body_case, GANTRY__CTL_MESSAGE__BODY_TOKEN_IS);
	return a->token_is->token;
}

static void ask_join(struct client *c, const char *token, const char *name, const char *address)
{
	Gantry__CtlJoin join = GANTRY__CTL_JOIN__INIT;
	struct buf csr = {0}, key = {0};

	assert_int_equal(pki_make_request(pki_host_name_ok(name) ? name : "x", &csr, &key, NULL), 0);
	join.token = (char *)token;
	join.name = (char *)name;
	join.address = (char *)address;
	join.certificate_request = (ProtobufCBinaryData){.data = csr.data, .len = csr.len};
	ASK(c, 60, JOIN, join, &join);
	uv_run(&w.loop, UV_RUN_NOWAIT);
	buf_free(&csr);
	buf_free(&key);
}

static void test_join_is_let_in(void **state)
{
	struct tls_context *anonymous = NULL;
	struct client local, c;
	Gantry__CtlJoined *joined;
	char fingerprint[65];
	char *token;

	assert_int_equal(pki_fingerprint(&w.ca, fingerprint, NULL), 0);
	assert_int_equal(tls_context_for_join(fingerprint, &anonymous, NULL), 0);
	open_unix(&local);
	token = new_token(&local);
	assert_int_equal(strlen(token), 64 + 1 + 32);
	assert_memory_equal(token, fingerprint, 64);
	open_tls(&c, anonymous);
	ask_join(&c, token, "hostB", "10.0.0.2");
	joined = answer(&c)->joined;
	assert_int_equal(c.answers[0]->body_case, GANTRY__CTL_MESSAGE__BODY_JOINED);
	assert_int_equal(joined->node_id, 2);
	assert_string_equal(joined->cluster_uuid, UUID);
	assert_int_equal(joined->authkey.len, 9);
	assert_non_null(strstr(joined->corosync_conf, "10.0.0.2"));
	assert_non_null(strstr(joined->corosync_conf, "token: 700"));
	assert_non_null(memmem(joined->certificate.data, joined->certificate.len, "BEGIN CERTIFICATE", 17));
	assert_int_equal(model_host(&w.model, "hostB")->state, GANTRY__HOST_STATE__HOST_STATE_JOINING);
	assert_int_equal(w.model.state->n_voters, 1);
	/* The answer was lost: the same host may ask again, another one may not. */
	ask_join(&c, token, "hostB", "10.0.0.2");
	assert_int_equal(answer(&c)->joined->node_id, 2);
	ask_join(&c, token, "hostC", "10.0.0.3");
	EXPECT_ERROR(&c, PERMISSION, "used by host hostB");
	assert_int_equal(w.model.state->n_hosts, 2);
	drop_client(&c);
	drop_client(&local);
	tls_context_free(anonymous);
}

static void test_join_is_refused(void **state)
{
	struct client c;
	char *token;

	open_unix(&c);
	token = new_token(&c);
	ask_join(&c, "00112233445566778899aabbccddeeff", "hostB", "10.0.0.2");
	EXPECT_ERROR(&c, PERMISSION, "no such join token");
	ask_join(&c, "", "hostB", "10.0.0.2");
	EXPECT_ERROR(&c, PERMISSION, "no such join token");
	ask_join(&c, token, "host B", "10.0.0.2");
	EXPECT_ERROR(&c, BAD_DATA, "host B");
	ask_join(&c, token, "hostB", "10.0.0.2\n}");
	EXPECT_ERROR(&c, BAD_DATA, "IP address");
	ask_join(&c, token, "hostA", "10.0.0.2");
	EXPECT_ERROR(&c, EXISTS, "hostA");
	ask_join(&c, token, "hostB", "10.0.0.1");
	EXPECT_ERROR(&c, EXISTS, "hostA");
	assert_int_equal(w.n_proposed, 0);
	/* A refusal does not use the token up. */
	ask_join(&c, token, "hostB", "10.0.0.2");
	assert_int_equal(answer(&c)->body_case, GANTRY__CTL_MESSAGE__BODY_JOINED);
	drop_client(&c);
}

static void test_join_without_the_ca_key(void **state)
{
	Gantry__CtlToken request = GANTRY__CTL_TOKEN__INIT;
	struct client c;

	unlink(w.path[P_CA_KEY]);
	open_unix(&c);
	ASK(&c, 1, TOKEN, token, &request);
	EXPECT_ERROR(&c, UNAVAILABLE, "CA");
	drop_client(&c);
}

static void test_tokens_are_kept_as_hashes(void **state)
{
	struct buf text = {0};
	struct client c;
	const char *secret;
	struct err err = {0};

	open_unix(&c);
	secret = strchr(new_token(&c), '.') + 1;
	assert_int_equal(atomic_file_read(w.path[P_TOKENS], 4096, &text, &err), 0);
	assert_null(strstr(buf_str(&text), secret));
	assert_int_equal(text.data[64], ' ');
	buf_free(&text);
	drop_client(&c);
}

/* ---- consoles */

static void agent_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	Gantry__AgentMessage *m = gantry__agent_message__unpack(NULL, frame->len, frame->payload);
	Gantry__AgentMessage out = GANTRY__AGENT_MESSAGE__INIT;
	Gantry__ConsoleData text = GANTRY__CONSOLE_DATA__INIT;
	Gantry__ConsoleClose end = GANTRY__CONSOLE_CLOSE__INIT;

	out.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA;
	out.console_data = &text;
	if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_OPEN) {
		text.data = (ProtobufCBinaryData){.data = (uint8_t *)m->console_open->domain, .len = strlen(m->console_open->domain)};
		rpc_send_message(conn, FRAME_AGENT, &out.base);
	} else if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA && m->console_data->data.data[0] == 'q') {
		end.reason = (char *)"the guest ended";
		out.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_CLOSE;
		out.console_close = &end;
		rpc_send_message(conn, FRAME_AGENT, &out.base);
	} else if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA) {
		text.data = m->console_data->data;
		rpc_send_message(conn, FRAME_AGENT, &out.base);
	}
	gantry__agent_message__free_unpacked(m, NULL);
}
static void agent_close(struct rpc_conn *conn, int rc, const struct err *err, void *data) { w.agent_conn = NULL; }
static void agent_accept(struct rpc_conn *conn, void *data)
{
	static const struct rpc_callbacks callbacks = {.on_frame = agent_frame, .on_close = agent_close};

	w.agent_conn = conn;
	rpc_conn_set_callbacks(conn, &callbacks, NULL);
}

static void add_domain(const char *name, const char *uuid, const char *host)
{
	Gantry__Domain *d = PB_NEW(Gantry__Domain, gantry__domain__init);

	d->spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
	pb_set_string(&d->spec->name, name);
	pb_set_string(&d->spec->uuid, uuid);
	pb_set_string(&d->host, host);
	d->id = (uint32_t)w.model.state->n_domains + 1;
	PB_APPEND(w.model.state, domains, d);
}

static void type(struct client *c, const char *text)
{
	Gantry__ConsoleData data = GANTRY__CONSOLE_DATA__INIT;

	data.data = (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
	ASK(c, 5, CONSOLE_DATA, console_data, &data);
}

static void test_console_is_relayed(void **state)
{
	Gantry__ConsoleOpen open = GANTRY__CONSOLE_OPEN__INIT;
	Gantry__CtlMessage *a;
	struct err err = {0};
	struct client c;

	add_domain("web", "aaaaaaaa-0000-0000-0000-000000000001", "hostA");
	assert_int_equal(rpc_listen_unix(&w.loop, w.path[P_AGENT], 1u << FRAME_AGENT, agent_accept, NULL, &w.agent, &err), 0);
	open_unix(&c);
	open.domain = (char *)"web";
	ASK(&c, 5, CONSOLE_OPEN, console_open, &open);
	a = answer(&c);
	assert_int_equal(a->id, 5);
	/* The agent is asked by the uuid. */
	assert_memory_equal(a->console_data->data.data, "aaaaaaaa-0000", 13);
	ASK(&c, 6, CONSOLE_OPEN, console_open, &open);
	EXPECT_ERROR(&c, EXISTS, "open already");
	type(&c, "ls\n");
	assert_memory_equal(answer(&c)->console_data->data.data, "ls\n", 3);
	type(&c, "q");
	a = answer(&c);
	assert_int_equal(a->body_case, GANTRY__CTL_MESSAGE__BODY_CONSOLE_CLOSE);
	assert_string_equal(a->console_close->reason, "the guest ended");
	UNTIL(!w.agent_conn);
	/* Another one on the same connection, and this time the client goes. */
	ASK(&c, 7, CONSOLE_OPEN, console_open, &open);
	assert_int_equal(answer(&c)->body_case, GANTRY__CTL_MESSAGE__BODY_CONSOLE_DATA);
	drop_client(&c);
	UNTIL(!w.agent_conn);
}

static void test_console_that_cannot_be(void **state)
{
	Gantry__ConsoleOpen open = GANTRY__CONSOLE_OPEN__INIT;
	struct client c;

	add_domain("web", "aaaaaaaa-0000-0000-0000-000000000001", "hostA");
	add_domain("off", "aaaaaaaa-0000-0000-0000-000000000002", "");
	open_unix(&c);
	open.domain = (char *)"nope";
	ASK(&c, 1, CONSOLE_OPEN, console_open, &open);
	EXPECT_ERROR(&c, NO_SUCH, "nope");
	open.domain = (char *)"off";
	ASK(&c, 2, CONSOLE_OPEN, console_open, &open);
	EXPECT_ERROR(&c, UNAVAILABLE, "does not run");
	open.domain = (char *)"web";
	ASK(&c, 3, CONSOLE_OPEN, console_open, &open);
	EXPECT_ERROR(&c, UNAVAILABLE, "agent");
	drop_client(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		T(test_status_and_result), T(test_daemons_commands_are_refused), T(test_users_command_is_bound_to_no_epoch),
		T(test_tls_needs_a_members_certificate), T(test_garbage_is_dropped), T(test_host_removal_is_tried_first),
		T(test_migration_token_and_volume_host), T(test_client_that_leaves_before_the_answer), T(test_too_many_requests),
		T(test_model_without_secrets), T(test_watch_job), T(test_watch_events), T(test_join_is_let_in), T(test_join_is_refused),
		T(test_join_without_the_ca_key), T(test_tokens_are_kept_as_hashes), T(test_console_is_relayed),
		T(test_console_that_cannot_be),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
