#include "agent/daemon/agent_clients.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/agent_goals.h"
#include "agent/daemon/console.h"
#include "agent/daemon/goals_note.h"
#include "agent/daemon/migration_host.h"
#include "agent/daemon/reporter.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "lib/log.h"
#include "lib/paths.h"
#include "proto/pb.h"

#define CHANNEL_HELD_MS 10000 /* the source's goals may be this much earlier here than the destination's */
#define TLS_AGAIN_MS 1000

void agent_clients_send(struct client *c, const Gantry__AgentMessage *message)
{
	if (c->conn != NULL)
		rpc_send_message(c->conn, FRAME_AGENT, &message->base);
}

void agent_clients_send_error(struct client *c, Gantry__Status status, const char *text)
{
	Gantry__AgentError error = GANTRY__AGENT_ERROR__INIT;
	Gantry__AgentMessage message = GANTRY__AGENT_MESSAGE__INIT;

	error.status = status;
	error.text = (char *)text;
	message.body_case = GANTRY__AGENT_MESSAGE__BODY_ERROR;
	message.error = &error;
	agent_clients_send(c, &message);
}

void agent_clients_broadcast(struct agent *a, const Gantry__AgentMessage *message)
{
	for (struct client *c = a->clients; c != NULL; c = c->next)
		if (c->wants_reports)
			agent_clients_send(c, message);
}

static void agent_clients__free(struct client *c)
{
	for (struct client **p = &c->agent->clients; *p != NULL; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			c->agent->n_clients--;
			break;
		}
	console_client_gone(c);
	if (c->hello != NULL)
		gantry__migration_hello__free_unpacked(c->hello, NULL);
	if (c->agent->stopping && c->agent->n_clients == 0)
		uv_stop(c->agent->loop);
	free(c);
}

static void agent_clients__hello(struct client *c, const Gantry__AgentHello *hello)
{
	Gantry__AgentHello mine = GANTRY__AGENT_HELLO__INIT;
	Gantry__AgentMessage message = GANTRY__AGENT_MESSAGE__INIT;

	mine.program = "gantry-agent";
	mine.version = GANTRY_VERSION;
	mine.host = c->agent->conf.name;
	message.body_case = GANTRY__AGENT_MESSAGE__BODY_HELLO;
	message.hello = &mine;
	agent_clients_send(c, &message);
	if (!c->remote && strcmp(hello->program, "clusterd") == 0) {
		log_notice("clusterd %s has connected", hello->version);
		c->wants_reports = true;
		selffence_clusterd(&c->agent->selffence, true, goals_note_boot_ms());
		reporter_send_now(c->agent);
	}
}

static void agent_clients__on_agent(struct client *c, Gantry__AgentMessage *message)
{
	struct err err;
	int rc;

	switch (message->body_case) {
	case GANTRY__AGENT_MESSAGE__BODY_HELLO:
		agent_clients__hello(c, message->hello);
		return;
	case GANTRY__AGENT_MESSAGE__BODY_CONSOLE_OPEN:
		rc = console_open(c, message->console_open, &err);
		if (rc < 0)
			agent_clients_send_error(c, (Gantry__Status)err_status(&err, rc), err.text);
		return;
	case GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA:
		console_input(c, message->console_data->data.data, message->console_data->data.len);
		return;
	case GANTRY__AGENT_MESSAGE__BODY_CONSOLE_CLOSE:
		console_client_gone(c);
		return;
	default:
		break;
	}
	if (c->remote) {
		rpc_conn_close(c->conn, "only consoles may be opened from another host");
	} else if (message->body_case == GANTRY__AGENT_MESSAGE__BODY_GOALS) {
		rc = agent_goals_take(c->agent, message, &err);
		if (rc < 0)
			agent_clients_send_error(c, (Gantry__Status)err_status(&err, rc), err.text);
	} else if (message->body_case == GANTRY__AGENT_MESSAGE__BODY_QUORUM) {
		agent_goals_heartbeat(c->agent, message->quorum);
	} else {
		rpc_conn_close(c->conn, "this message is not for an agent");
	}
}

/* 0: taken over or kept waiting. */
static int agent_clients__channel(struct client *c, struct err *err)
{
	int rc = migration_host_accept(c->agent, c->conn, c->hello, err);

	if (rc == 0) {
		/* The engine has set its own callbacks: on_close will not come here any more. */
		c->conn = NULL;
		agent_clients__free(c);
	}
	return rc;
}

/* A channel that is refused is closing: it is not offered to an engine again. */
static void agent_clients__refuse_channel(struct client *c, const char *why)
{
	c->hello_until_ms = 0;
	rpc_conn_close(c->conn, why);
}

static size_t agent_clients__held(const struct agent *a)
{
	size_t n = 0;

	for (struct client *c = a->clients; c != NULL; c = c->next)
		n += c->hello != NULL;
	return n;
}

/* c may be gone afterwards. */
static void agent_clients__on_migration(struct client *c, const struct frame *frame)
{
	Gantry__MigrationMessage *message = gantry__migration_message__unpack(NULL, frame->len, frame->payload);
	struct err err;

	if (message == NULL || message->body_case != GANTRY__MIGRATION_MESSAGE__BODY_HELLO || c->hello != NULL) {
		agent_clients__refuse_channel(c, "a migration channel begins with its hello and waits for the answer");
	} else if (agent_clients__held(c->agent) >= LIMIT_AGENT_CHANNELS_HELD) {
		agent_clients__refuse_channel(c, "too many migration channels wait here; try again");
	} else {
		c->hello = TAKE_PTR(message->hello);
		message->body_case = GANTRY__MIGRATION_MESSAGE__BODY__NOT_SET;
		c->hello_until_ms = agent_now_ms(c->agent) + CHANNEL_HELD_MS;
		if (agent_clients__channel(c, &err) < 0)
			agent_clients__refuse_channel(c, err.text);
	}
	if (message != NULL)
		gantry__migration_message__free_unpacked(message, NULL);
}

void agent_clients_retry_channels(struct agent *a)
{
	struct err err;

	for (struct client *c = a->clients, *next; c != NULL; c = next) {
		next = c->next;
		if (c->hello == NULL || c->conn == NULL || c->hello_until_ms == 0)
			continue;
		int rc = agent_clients__channel(c, &err);
		if (rc > 0 && agent_now_ms(a) >= c->hello_until_ms)
			rc = err_set(&err, ENOENT, "host '%s' knows no such task", a->conf.name);
		if (rc < 0)
			agent_clients__refuse_channel(c, err.text);
	}
}

static void agent_clients__on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct client *c = data;
	Gantry__AgentMessage *message;

	if (frame->kind == FRAME_MIGRATION && c->remote) {
		agent_clients__on_migration(c, frame);
		return;
	}
	if (frame->kind != FRAME_AGENT) {
		rpc_conn_close(conn, "this kind of frame has no meaning here");
		return;
	}
	message = gantry__agent_message__unpack(NULL, frame->len, frame->payload);
	if (message == NULL) {
		rpc_conn_close(conn, "the frame holds no AgentMessage");
		return;
	}
	agent_clients__on_agent(c, message);
	gantry__agent_message__free_unpacked(message, NULL);
}

static bool agent_clients__other_clusterd(const struct client *gone)
{
	for (const struct client *c = gone->agent->clients; c != NULL; c = c->next)
		if (c != gone && c->wants_reports)
			return true;
	return false;
}

static void agent_clients__on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct client *c = data;

	if (c->wants_reports)
		log_warning("clusterd has gone%s%s; the domains go on by the goals in force", rc < 0 ? ": " : "",
			    rc < 0 ? err->text : "");
	else if (rc < 0)
		log_info("a client was dropped: %s", err->text);
	if (c->wants_reports)
		selffence_clusterd(&c->agent->selffence, agent_clients__other_clusterd(c), goals_note_boot_ms());
	c->conn = NULL;
	agent_clients__free(c);
}

static const struct rpc_callbacks client_callbacks = {
    .on_frame = agent_clients__on_frame,
    .on_close = agent_clients__on_close,
};

static void agent_clients__add(struct agent *a, struct rpc_conn *conn, bool remote)
{
	struct client *c = mem_alloc(sizeof(*c));

	c->agent = a;
	c->conn = conn;
	c->remote = remote;
	c->next = a->clients;
	a->clients = c;
	a->n_clients++;
	rpc_conn_set_callbacks(conn, &client_callbacks, c);
}

static void agent_clients__on_local(struct rpc_conn *conn, void *data)
{
	agent_clients__add(data, conn, false);
}

static void agent_clients__on_remote(struct rpc_conn *conn, void *data)
{
	agent_clients__add(data, conn, true);
}

int agent_clients_listen(struct agent *a, struct err *err)
{
	return rpc_listen_unix(a->loop, PATH_AGENT_SOCKET, 1u << FRAME_AGENT, agent_clients__on_local, a, &a->local,
			       err);
}

void agent_clients_listen_remote(struct agent *a)
{
	static const uint32_t kinds = 1u << FRAME_AGENT | 1u << FRAME_MIGRATION | 1u << FRAME_DATA;
	uint64_t now = agent_now_ms(a);
	struct err err;
	int rc = 0;

	if (a->remote != NULL || (a->tls_retry_ms != 0 && now < a->tls_retry_ms))
		return;
	if (a->tls == NULL)
		rc = tls_context_load(PATH_PKI_CA, PATH_PKI_CERT, PATH_PKI_KEY, &a->tls, &err);
	if (rc == 0)
		rc = rpc_listen_tls(a->loop, a->conf.address, PORT_MIGRATION, a->tls, true, kinds,
				    agent_clients__on_remote, a, &a->remote, &err);
	if (rc == 0) {
		log_notice("migrations are taken at %s port %d", a->conf.address, PORT_MIGRATION);
		return;
	}
	if (a->tls_retry_ms == 0)
		log_warning("no migrations yet: %s; tried again until it works", err.text);
	a->tls_retry_ms = now + TLS_AGAIN_MS;
}

void agent_clients_close(struct agent *a)
{
	if (a->local != NULL)
		rpc_listener_close(a->local);
	if (a->remote != NULL)
		rpc_listener_close(a->remote);
	a->local = a->remote = NULL;
	for (struct client *c = a->clients; c != NULL; c = c->next)
		if (c->conn != NULL)
			rpc_conn_close(c->conn, NULL);
}
