#include "clusterd/daemon/agent_link.h"

#include <stdlib.h>
#include <string.h>

#include "lib/deadlines.h"
#include "lib/limits.h"
#include "lib/log.h"
#include "proto/pb.h"
#include "proto/rpc.h"

/* A command that was proposed for the last report: not again while it is under way or was just refused. */
struct agent_request {
	struct agent_request *next;
	struct agent_link *al;        /* NULL: the link is gone, the answer is still to come */
	struct buf body;
	bool in_flight;
	uint64_t not_before_ms;
};

struct agent_link {
	uv_loop_t *loop;
	struct cluster_node *node;
	char *path;
	struct rpc_conn *conn;
	bool open, closing, said_why, evaluating, evaluate_again;
	uv_timer_t retry, beat, gossip;
	unsigned handles;
	Gantry__AgentReport *report;  /* the newest of this connection */
	uint64_t gone_since_ms;       /* no agent since then */
	struct buf goals_sent;        /* packed, without epoch and index */
	struct agent_request *requests;
};

bool agent_link_is_connected(const struct agent_link *al)
{
	return al->open && al->report;
}

/* ---- proposing what a report asks for */

static void evaluate(struct agent_link *al);

static void request_remove(struct agent_link *al, struct agent_request *r)
{
	struct agent_request **at = &al->requests;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	buf_free(&r->body);
	free(r);
}

static void on_result(void *data, const Gantry__CommandResult *result)
{
	struct agent_request *r = data;
	struct agent_link *al = r->al;

	if (!al) {
		buf_free(&r->body);
		free(r);
		return;
	}
	r->in_flight = false;
	if (result->status == GANTRY__STATUS__STATUS_OK) {
		request_remove(al, r);
		return;
	}
	if (result->status != GANTRY__STATUS__STATUS_RETRY)
		log_info("what the agent reported was refused: %s", result->text);
	r->not_before_ms = uv_now(al->loop) + AGENT_LINK_REFUSED_MS;
}

static struct agent_request *request_find(struct agent_link *al, const struct buf *body)
{
	for (struct agent_request *r = al->requests; r; r = r->next)
		if (r->body.len == body->len && !memcmp(r->body.data, body->data, body->len))
			return r;
	return NULL;
}

static void requests_age(struct agent_link *al)
{
	for (struct agent_request *r = al->requests, *next; r; r = next) {
		next = r->next;
		if (!r->in_flight && uv_now(al->loop) >= r->not_before_ms)
			request_remove(al, r);
	}
}

static void propose_once(struct agent_link *al, Gantry__Command *command)
{
	struct buf body = {0};
	struct agent_request *r;

	pb_pack(command, &body);
	if (request_find(al, &body)) {
		buf_free(&body);
		return;
	}
	r = mem_alloc(sizeof(*r));
	r->al = al;
	r->body = body;
	r->in_flight = true;
	r->next = al->requests;
	al->requests = r;
	cluster_node_propose(al->node, command, false, on_result, r);
}

static void propose_for_report(struct agent_link *al)
{
	Gantry__Command **commands = NULL;
	size_t n = 0;

	model_commands_for_report(cluster_node_model(al->node), cluster_node_host(al->node), al->report, &commands, &n);
	for (size_t i = 0; i < n; i++) {
		propose_once(al, commands[i]);
		gantry__command__free_unpacked(commands[i], NULL);
	}
	free(commands);
}

/* The cluster is told that this host has no agent only after a while: agents are restarted. */
static void propose_agent_gone(struct agent_link *al)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHostInfo info = GANTRY__CMD_HOST_INFO__INIT;
	Gantry__Host host = GANTRY__HOST__INIT;
	const Gantry__Host *known = model_host(cluster_node_model(al->node), cluster_node_host(al->node));

	if (!known || !known->agent_connected || uv_now(al->loop) - al->gone_since_ms < AGENT_LINK_GONE_MS)
		return;
	host.node_id = known->node_id;
	host.name = known->name;
	host.address = known->address;
	info.host = &host;
	command.body_case = GANTRY__COMMAND__BODY_HOST_INFO;
	command.host_info = &info;
	propose_once(al, &command);
}

/* Applying what was proposed brings us here again: only one at a time, the outer one goes round once more. */
static void evaluate(struct agent_link *al)
{
	if (al->evaluating || al->closing) {
		al->evaluate_again = true;
		return;
	}
	al->evaluating = true;
	do {
		al->evaluate_again = false;
		requests_age(al);
		if (!cluster_node_is_current(al->node) || !model_host(cluster_node_model(al->node), cluster_node_host(al->node)))
			break;
		if (al->report)
			propose_for_report(al);
		else
			propose_agent_gone(al);
	} while (al->evaluate_again);
	al->evaluating = false;
}

/* ---- goals and heartbeats */

static int send_agent(struct agent_link *al, Gantry__AgentMessage *m)
{
	return rpc_send_message(al->conn, FRAME_AGENT, &m->base);
}

static void send_goals(struct agent_link *al)
{
	const struct model *model = cluster_node_model(al->node);
	Gantry__AgentMessage m = GANTRY__AGENT_MESSAGE__INIT;
	Gantry__AgentGoals *goals;
	struct buf packed = {0};

	if (!al->open || !cluster_node_is_current(al->node) || !model_host(model, cluster_node_host(al->node)))
		return;
	goals = model_goals(model, cluster_node_host(al->node), 0, 0);
	pb_pack(goals, &packed);
	if (packed.len == al->goals_sent.len && al->goals_sent.data && !memcmp(packed.data, al->goals_sent.data, packed.len)) {
		buf_free(&packed);
	} else {
		goals->epoch = model->state->applied_epoch;
		goals->index = model->state->applied_index;
		m.body_case = GANTRY__AGENT_MESSAGE__BODY_GOALS;
		m.goals = goals;
		if (send_agent(al, &m) == 0) {
			buf_free(&al->goals_sent);
			al->goals_sent = packed;
		} else {
			buf_free(&packed);
		}
	}
	gantry__agent_goals__free_unpacked(goals, NULL);
}

static void send_quorum(struct agent_link *al)
{
	Gantry__AgentMessage m = GANTRY__AGENT_MESSAGE__INIT;
	Gantry__AgentQuorum quorum = GANTRY__AGENT_QUORUM__INIT;
	struct clog_status st;

	if (!al->open)
		return;
	cluster_node_log_status(al->node, &st);
	quorum.quorate = cluster_node_is_quorate(al->node);
	quorum.epoch = st.epoch;
	m.body_case = GANTRY__AGENT_MESSAGE__BODY_QUORUM;
	m.quorum = &quorum;
	send_agent(al, &m);
}

static void on_beat(uv_timer_t *timer)
{
	send_quorum(timer->data);
	evaluate(timer->data);
}

/* ---- gossip about this host */

static void gossip(struct agent_link *al)
{
	Gantry__HostSoft soft = GANTRY__HOST_SOFT__INIT;
	struct buf packed = {0};
	Gantry__MigrationProgress **progress = NULL;

	soft.node_id = cluster_node_id(al->node);
	if (!soft.node_id)
		return;
	soft.version = (char *)GANTRY_VERSION;
	if (al->report) {
		soft.memory_free_bytes = al->report->memory_free_bytes;
		soft.domains = al->report->domains;
		soft.n_domains = al->report->n_domains;
		soft.pools = al->report->pools;
		soft.n_pools = al->report->n_pools;
		progress = mem_alloc((al->report->n_migrations + 1) * sizeof(*progress));
		for (size_t i = 0; i < al->report->n_migrations; i++)
			if (al->report->migrations[i]->progress && !al->report->migrations[i]->incoming)
				progress[soft.n_progress++] = al->report->migrations[i]->progress;
		soft.progress = progress;
	}
	pb_pack(&soft, &packed);
	if (packed.len > LIMIT_CLOG_COMMAND_BYTES) {
		/* Thousands of domains: the figures of the host still go. */
		soft.n_domains = 0;
		buf_consume(&packed, packed.len);
		pb_pack(&soft, &packed);
	}
	cluster_node_gossip(al->node, SOFT_KIND_HOST, packed.data, packed.len);
	free(progress);
	buf_free(&packed);
}

static void on_gossip(uv_timer_t *timer)
{
	struct agent_link *al = timer->data;
	bool migrating = al->report && al->report->n_migrations;

	gossip(al);
	uv_timer_start(timer, on_gossip, migrating ? DEADLINE_GOSSIP_MIGRATION_MS : DEADLINE_GOSSIP_MS, 0);
}

/* ---- the connection */

static void on_open(struct rpc_conn *conn, void *data)
{
	struct agent_link *al = data;
	Gantry__AgentMessage m = GANTRY__AGENT_MESSAGE__INIT;
	Gantry__AgentHello hello = GANTRY__AGENT_HELLO__INIT;

	if (al->closing)
		return;
	al->open = true;
	al->said_why = false;
	log_notice("connected to this host's agent");
	hello.program = (char *)"clusterd";
	hello.version = (char *)GANTRY_VERSION;
	hello.host = (char *)cluster_node_host(al->node);
	m.body_case = GANTRY__AGENT_MESSAGE__BODY_HELLO;
	m.hello = &hello;
	send_agent(al, &m);
	send_quorum(al);
	send_goals(al);
}

static void take_report(struct agent_link *al, Gantry__AgentMessage *m)
{
	bool was_migrating = al->report && al->report->n_migrations;

	if (al->report)
		gantry__agent_report__free_unpacked(al->report, NULL);
	al->report = m->report;
	m->report = NULL;
	m->body_case = GANTRY__AGENT_MESSAGE__BODY__NOT_SET;
	if (al->report->host)
		al->report->host->agent_connected = true;
	if (al->report->n_migrations && !was_migrating)
		uv_timer_start(&al->gossip, on_gossip, 0, 0);
	evaluate(al);
}

static void on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct agent_link *al = data;
	Gantry__AgentMessage *m = al->closing ? NULL : gantry__agent_message__unpack(NULL, frame->len, frame->payload);

	if (al->closing)
		return;
	if (!m) {
		rpc_conn_close(conn, "clusterd cannot read this message");
		return;
	}
	switch (m->body_case) {
	case GANTRY__AGENT_MESSAGE__BODY_HELLO:
		if (m->hello->host[0] && strcmp(m->hello->host, cluster_node_host(al->node)) != 0)
			log_warning("the agent says that this is host %s, host.yaml says %s", m->hello->host, cluster_node_host(al->node));
		break;
	case GANTRY__AGENT_MESSAGE__BODY_REPORT:
		take_report(al, m);
		break;
	case GANTRY__AGENT_MESSAGE__BODY_ERROR:
		log_warning("the agent refused a message: %s", m->error->text);
		/* Whatever it was: the whole of the goals again. */
		buf_consume(&al->goals_sent, al->goals_sent.len);
		break;
	default:
		break;
	}
	gantry__agent_message__free_unpacked(m, NULL);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct agent_link *al = handle->data;

	if (--al->handles)
		return;
	buf_free(&al->goals_sent);
	free(al->path);
	free(al);
}

static void finish_close(struct agent_link *al)
{
	al->handles = 3;
	uv_close((uv_handle_t *)&al->retry, on_handle_closed);
	uv_close((uv_handle_t *)&al->beat, on_handle_closed);
	uv_close((uv_handle_t *)&al->gossip, on_handle_closed);
}

static void on_retry(uv_timer_t *timer);

static void forget_connection(struct agent_link *al)
{
	if (al->report)
		gantry__agent_report__free_unpacked(al->report, NULL);
	al->report = NULL;
	if (al->open)
		al->gone_since_ms = uv_now(al->loop);
	al->open = false;
	al->conn = NULL;
	buf_consume(&al->goals_sent, al->goals_sent.len);
}

static void on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct agent_link *al = data;

	forget_connection(al);
	if (al->closing) {
		finish_close(al);
		return;
	}
	if (!al->said_why)
		log_warning("no agent on this host: %s; trying again every %d ms", rc < 0 ? err->text : "it closed the connection",
			    AGENT_LINK_RETRY_MS);
	al->said_why = true;
	uv_timer_start(&al->retry, on_retry, AGENT_LINK_RETRY_MS, 0);
}

static void on_retry(uv_timer_t *timer)
{
	static const struct rpc_callbacks callbacks = {.on_open = on_open, .on_frame = on_frame, .on_close = on_close};
	struct agent_link *al = timer->data;
	struct err err = {0};

	if (rpc_connect_unix(al->loop, al->path, 1u << FRAME_AGENT, &callbacks, al, &al->conn, &err) == 0)
		return;
	if (!al->said_why)
		log_warning("no agent on this host: %s; trying again every %d ms", err.text, AGENT_LINK_RETRY_MS);
	al->said_why = true;
	uv_timer_start(&al->retry, on_retry, AGENT_LINK_RETRY_MS, 0);
}

static void on_model(void *data)
{
	send_goals(data);
	evaluate(data);
}

static void on_membership(void *data)
{
	send_quorum(data);
	send_goals(data);
	evaluate(data);
}

struct agent_link *agent_link_new(uv_loop_t *loop, const char *socket_path, struct cluster_node *node)
{
	struct agent_link *al = mem_alloc(sizeof(*al));
	struct cluster_node_listener listener = {.on_model = on_model, .on_membership = on_membership, .data = al};

	al->loop = loop;
	al->node = node;
	al->path = str_dup(socket_path);
	al->gone_since_ms = uv_now(loop);
	uv_timer_init(loop, &al->retry);
	uv_timer_init(loop, &al->beat);
	uv_timer_init(loop, &al->gossip);
	al->retry.data = al->beat.data = al->gossip.data = al;
	uv_timer_start(&al->retry, on_retry, 0, 0);
	uv_timer_start(&al->beat, on_beat, DEADLINE_HEARTBEAT_MS, DEADLINE_HEARTBEAT_MS);
	uv_timer_start(&al->gossip, on_gossip, DEADLINE_GOSSIP_MS, 0);
	cluster_node_listen(node, &listener);
	return al;
}

void agent_link_close(struct agent_link *al)
{
	al->closing = true;
	for (struct agent_request *r = al->requests, *next; r; r = next) {
		next = r->next;
		r->al = NULL;
		if (!r->in_flight) {
			buf_free(&r->body);
			free(r);
		}
	}
	al->requests = NULL;
	/* The member goes before the connection does: nothing may look at it any more. */
	al->open = false;
	uv_timer_stop(&al->retry);
	uv_timer_stop(&al->beat);
	uv_timer_stop(&al->gossip);
	if (al->conn)
		rpc_conn_close(al->conn, NULL);
	else
		finish_close(al);
}
