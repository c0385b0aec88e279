#include "clusterd/daemon/agent_link.h"

#include <stdlib.h>
#include <string.h>

#include "lib/deadlines.h"
#include "lib/limits.h"
#include "lib/log.h"
#include "proto/pb.h"
#include "proto/rpc.h"

struct agent_link {
	uv_loop_t *loop;
	struct cluster_node *node;
	char *path;
	struct rpc_conn *conn;
	bool open, closing, said_why;
	bool left;                    /* this member has stepped out: the agent goes on without it */
	uv_timer_t retry, gossip;
	unsigned handles;
};

bool agent_link_is_connected(const struct agent_link *al)
{
	return al->open && node_agent_reports(cluster_node_core(al->node));
}

/* ---- what the member says to it */

static int send_agent(struct agent_link *al, Gantry__AgentMessage *m)
{
	return rpc_send_message(al->conn, FRAME_AGENT, &m->base);
}

static void on_goals(void *data, const Gantry__AgentGoals *goals)
{
	struct agent_link *al = data;
	Gantry__AgentMessage m = GANTRY__AGENT_MESSAGE__INIT;

	if (!al->open)
		return;
	m.body_case = GANTRY__AGENT_MESSAGE__BODY_GOALS;
	m.goals = (Gantry__AgentGoals *)goals;
	send_agent(al, &m);
}

static void on_quorum(void *data, bool quorate, uint64_t epoch)
{
	struct agent_link *al = data;
	Gantry__AgentMessage m = GANTRY__AGENT_MESSAGE__INIT;
	Gantry__AgentQuorum quorum = GANTRY__AGENT_QUORUM__INIT;

	if (!al->open)
		return;
	quorum.quorate = quorate;
	quorum.epoch = epoch;
	m.body_case = GANTRY__AGENT_MESSAGE__BODY_QUORUM;
	m.quorum = &quorum;
	send_agent(al, &m);
}

/* ---- gossip about this host */

static void gossip(struct agent_link *al)
{
	Gantry__HostSoft soft = GANTRY__HOST_SOFT__INIT;
	struct buf packed = {0};
	const Gantry__AgentReport *report = node_agent_report(cluster_node_core(al->node));
	Gantry__MigrationProgress **progress = NULL;

	soft.node_id = cluster_node_id(al->node);
	if (!soft.node_id)
		return;
	soft.version = (char *)GANTRY_VERSION;
	if (report) {
		soft.memory_free_bytes = report->memory_free_bytes;
		soft.domains = report->domains;
		soft.n_domains = report->n_domains;
		soft.pools = report->pools;
		soft.n_pools = report->n_pools;
		progress = mem_alloc((report->n_migrations + 1) * sizeof(*progress));
		for (size_t i = 0; i < report->n_migrations; i++)
			if (report->migrations[i]->progress && !report->migrations[i]->incoming)
				progress[soft.n_progress++] = report->migrations[i]->progress;
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
	const Gantry__AgentReport *report = node_agent_report(cluster_node_core(al->node));
	bool migrating = report && report->n_migrations;

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
	cluster_node_agent(al->node, true);
}

static void take_report(struct agent_link *al, Gantry__AgentMessage *m)
{
	const Gantry__AgentReport *last = node_agent_report(cluster_node_core(al->node));
	bool was_migrating = last && last->n_migrations, migrating = m->report->n_migrations > 0;
	Gantry__AgentReport *report = m->report;

	m->report = NULL;
	m->body_case = GANTRY__AGENT_MESSAGE__BODY__NOT_SET;
	if (migrating && !was_migrating)
		uv_timer_start(&al->gossip, on_gossip, 0, 0);
	cluster_node_report(al->node, report);
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
		cluster_node_agent(al->node, true);
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
	free(al->path);
	free(al);
}

static void finish_close(struct agent_link *al)
{
	al->handles = 2;
	uv_close((uv_handle_t *)&al->retry, on_handle_closed);
	uv_close((uv_handle_t *)&al->gossip, on_handle_closed);
}

static void on_retry(uv_timer_t *timer);

static void on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct agent_link *al = data;

	if (al->open && !al->closing)
		cluster_node_agent(al->node, false);
	al->open = false;
	al->conn = NULL;
	if (al->closing) {
		finish_close(al);
		return;
	}
	if (al->left)
		return;
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

/* Without us the agent's countdown to its self-fence stands still and its domains go on. */
static void on_stopped(void *data)
{
	struct agent_link *al = data;

	al->left = true;
	uv_timer_stop(&al->retry);
	if (al->conn)
		rpc_conn_close(al->conn, NULL);
}

struct agent_link *agent_link_new(uv_loop_t *loop, const char *socket_path, struct cluster_node *node)
{
	struct agent_link *al = mem_alloc(sizeof(*al));
	struct cluster_node_listener listener = {.on_goals = on_goals, .on_quorum = on_quorum, .on_stopped = on_stopped, .data = al};

	al->loop = loop;
	al->node = node;
	al->path = str_dup(socket_path);
	al->left = node_is_stopped(cluster_node_core(node));
	uv_timer_init(loop, &al->retry);
	uv_timer_init(loop, &al->gossip);
	al->retry.data = al->gossip.data = al;
	if (!al->left)
		uv_timer_start(&al->retry, on_retry, 0, 0);
	uv_timer_start(&al->gossip, on_gossip, DEADLINE_GOSSIP_MS, 0);
	cluster_node_listen(node, &listener);
	return al;
}

void agent_link_close(struct agent_link *al)
{
	al->closing = true;
	/* The member goes before the connection does: nothing may look at it any more. */
	al->open = false;
	uv_timer_stop(&al->retry);
	uv_timer_stop(&al->gossip);
	if (al->conn)
		rpc_conn_close(al->conn, NULL);
	else
		finish_close(al);
}
