/* clusterd's API over a stand-in for the cluster: real sockets and TLS, a real model, no log and no corosync.
 * A proposal is applied to the model at once, or kept until the test says so. Included by one test program each. */
#pragma once

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
	bool hold, api_closed, no_quorum;
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
static bool op_current(void *data) { return !w.no_quorum; }

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

static int op_what_if(void *data, char *const *failed, size_t n, Gantry__CtlPlan **ret, struct err *err)
{
	char text[64];

	if (!n)
		return err_set_status(err, EINVAL, STATUS(USAGE), "whose death?");
	snprintf(text, sizeof(text), "%zu failed, the last is %s", n, failed[n - 1]);
	*ret = PB_NEW(Gantry__CtlPlan, gantry__ctl_plan__init);
	pb_set_string(&(*ret)->quorum_text, text);
	return 0;
}

static const struct api_ops ops = {.model = op_model, .soft = op_soft, .is_current = op_current, .status = op_status, .propose = op_propose,
				   .what_if = op_what_if};

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

__attribute__((unused)) static void open_tls(struct client *c, struct tls_context *tls)
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

__attribute__((unused)) static Gantry__CommandResult *result_of(struct client *c)
{
	Gantry__CtlMessage *a = answer(c);

	if (a->body_case == GANTRY__CTL_MESSAGE__BODY_ERROR)
		fail_msg("%s", a->error->text);
	assert_int_equal(a->body_case, GANTRY__CTL_MESSAGE__BODY_RESULT);
	return a->result->result;
}

__attribute__((unused)) static void note(struct client *c, uint64_t id, const char *text)
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

