#include "clusterd/daemon/daemon_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/core/whatif.h"
#include "clusterd/daemon/agent_link.h"
#include "clusterd/daemon/api.h"
#include "clusterd/daemon/cluster_node.h"
#include "clusterd/daemon/quorum_link.h"
#include "lib/log.h"
#include "lib/paths.h"
#include "proto/pb.h"

#define TLS_RETRY_MS 2000
#define RELOAD_TAKES_MS 15000   /* until corosync has read new hosts, and we have asked it again */

struct daemon_parts {
	uv_loop_t *loop;
	const struct hostconf *conf;
	struct cluster_node *node;
	struct agent_link *agent;
	struct quorum_link *quorum;
	struct api *api;
	uv_timer_t tls_retry;
	bool said_tls;
	size_t n_hosts;
	uint64_t hosts_changed_ms;
	unsigned open_parts;
	void (*on_stopped)(void *data);
	void *stopped_data;
};

/* ---- what the API sees */

static const struct model *ops_model(void *data)
{
	return cluster_node_model(((struct daemon_parts *)data)->node);
}

static const struct soft_state *ops_soft(void *data)
{
	return cluster_node_soft(((struct daemon_parts *)data)->node);
}

static bool ops_is_current(void *data)
{
	return node_is_current(cluster_node_core(((struct daemon_parts *)data)->node));
}

static void ops_propose(void *data, Gantry__Command *command, proposal_cb cb, void *cb_data)
{
	cluster_node_propose(((struct daemon_parts *)data)->node, command, cb, cb_data);
}

static int ops_what_if(void *data, char *const *failed, size_t n, Gantry__CtlPlan **ret, struct err *err)
{
	return whatif_fail(cluster_node_model(((struct daemon_parts *)data)->node), failed, n, ret, err);
}

static bool listed(const uint32_t *list, size_t n, uint32_t node_id)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == node_id)
			return true;
	return false;
}

static Gantry__MemberInfo *member_info(const struct clog_status *st, const Gantry__Host *host)
{
	Gantry__MemberInfo *m = PB_NEW(Gantry__MemberInfo, gantry__member_info__init);

	m->node_id = host->node_id;
	pb_set_string(&m->name, host->name);
	pb_set_string(&m->address, host->address);
	m->member = listed(st->members, st->n_members, host->node_id);
	m->synced = listed(st->synced, st->n_synced, host->node_id);
	m->voter = listed(st->voters, st->n_voters, host->node_id);
	m->leader = st->leader == host->node_id;
	return m;
}

/* A quorum device's votes are expected too, however many it has. */
static bool expects_others(const struct quorum_info *info, size_t n_hosts)
{
	if (!info->known || !n_hosts)
		return false;
	return info->device_configured ? info->expected_votes < n_hosts : info->expected_votes != n_hosts;
}

static Gantry__CtlStatus *ops_status(void *data)
{
	struct daemon_parts *parts = data;
	const Gantry__ClusterModel *s = cluster_node_model(parts->node)->state;
	Gantry__CtlStatus *status = PB_NEW(Gantry__CtlStatus, gantry__ctl_status__init);
	struct quorum_info corosync = quorum_link_info(parts->quorum);
	struct clog_status st;
	struct buf text = {0};

	node_log_status(cluster_node_core(parts->node), &st);
	node_state_text(cluster_node_core(parts->node), &text);
	if (expects_others(&corosync, s->n_hosts) && uv_now(parts->loop) - parts->hosts_changed_ms > RELOAD_TAKES_MS)
		buf_printf(&text, " (corosync expects %u votes, the cluster has %zu hosts: it has not read its new configuration)",
			   corosync.expected_votes, s->n_hosts);
	pb_set_string(&status->cluster_name, s->cluster_name);
	pb_set_string(&status->cluster_uuid, s->cluster_uuid);
	pb_set_string(&status->host, parts->conf->name);
	pb_set_string(&status->version, GANTRY_VERSION);
	pb_set_string(&status->log_state, buf_str(&text));
	status->quorate = node_is_current(cluster_node_core(parts->node));
	status->epoch = st.epoch;
	status->commit_index = st.commit_index;
	status->applied_index = s->applied_index;
	status->agent_connected = agent_link_is_connected(parts->agent);
	status->quorum = (uint32_t)st.quorum;
	for (size_t i = 0; i < s->n_hosts; i++)
		PB_APPEND(status, members, member_info(&st, s->hosts[i]));
	for (size_t i = 0; i < status->n_members; i++)
		status->votes += status->members[i]->voter && status->members[i]->member;
	buf_free(&text);
	return status;
}

/* ---- listening */

static void on_tls_retry(uv_timer_t *timer);

/* The files may come later than the daemon, and so may the address: it tries until both are there. */
static void listen_tls(struct daemon_parts *parts)
{
	struct tls_context *tls = NULL;
	struct err err = {0};
	int rc = tls_context_load(PATH_PKI_CA, PATH_PKI_CERT, PATH_PKI_KEY, &tls, &err);

	if (rc == 0) {
		rc = api_listen_tls(parts->api, parts->conf->address, PORT_CTL, tls, &err);
		if (rc < 0)
			tls_context_free(tls);
	}
	if (rc == 0) {
		log_notice("listening on %s port %d", parts->conf->address, PORT_CTL);
		return;
	}
	if (!parts->said_tls)
		log_warning("not reachable over the network yet: %s", err.text);
	parts->said_tls = true;
	uv_timer_start(&parts->tls_retry, on_tls_retry, TLS_RETRY_MS, 0);
}

static void on_tls_retry(uv_timer_t *timer)
{
	listen_tls(timer->data);
}

static void on_model(void *data)
{
	struct daemon_parts *parts = data;
	size_t n_hosts = cluster_node_model(parts->node)->state->n_hosts;

	if (n_hosts != parts->n_hosts) {
		parts->n_hosts = n_hosts;
		parts->hosts_changed_ms = uv_now(parts->loop);
	}
	api_model_changed(parts->api);
}

static void on_soft(void *data, uint32_t node_id)
{
	api_soft_changed(((struct daemon_parts *)data)->api);
}

static void on_quorum_asked(void *data, const struct quorum_info *info)
{
	cluster_node_votequorum(((struct daemon_parts *)data)->node, info);
}

/* ---- beginning and end */

static int start_api(struct daemon_parts *parts, struct err *err)
{
	static const struct api_ops ops = {.model = ops_model, .soft = ops_soft, .is_current = ops_is_current, .status = ops_status,
					   .propose = ops_propose, .what_if = ops_what_if};
	struct cluster_node_listener listener = {.on_model = on_model, .on_soft = on_soft, .data = parts};
	struct api_config config = {
		.host = parts->conf->name, .agent_socket = PATH_AGENT_SOCKET, .agent_port = PORT_MIGRATION, .ca_cert = PATH_PKI_CA,
		.ca_key = PATH_PKI_CA_KEY, .corosync_conf = PATH_COROSYNC_CONF, .corosync_authkey = PATH_COROSYNC_AUTHKEY,
		.tokens = PATH_STATE "/join-tokens"};
	int rc;

	parts->api = api_new(parts->loop, &config, &ops, parts);
	cluster_node_listen(parts->node, &listener);
	rc = api_listen_unix(parts->api, PATH_CTL_SOCKET, err);
	if (rc == 0)
		listen_tls(parts);
	return rc;
}

int daemon_parts_start(uv_loop_t *loop, const struct hostconf *conf, struct daemon_parts **ret, struct err *err)
{
	struct daemon_parts *parts = mem_alloc(sizeof(*parts));
	struct cluster_node_options options = {
		.host = conf->name, .address = conf->address, .db_path = PATH_CLUSTER_DB, .corosync_path = PATH_COROSYNC_CONF};
	int rc = cluster_node_new(loop, &options, &parts->node, err);

	if (rc < 0) {
		free(parts);
		return rc;
	}
	parts->loop = loop;
	parts->conf = conf;
	uv_timer_init(loop, &parts->tls_retry);
	parts->tls_retry.data = parts;
	parts->agent = agent_link_new(loop, PATH_AGENT_SOCKET, parts->node);
	parts->quorum = quorum_link_new(loop, on_quorum_asked, parts);
	*ret = parts;
	/* From here on a failure is ended by daemon_parts_stop() as well. */
	return start_api(parts, err);
}

static void part_stopped(void *data)
{
	struct daemon_parts *parts = data;
	void (*on_stopped)(void *) = parts->on_stopped;
	void *stopped_data = parts->stopped_data;

	if (--parts->open_parts)
		return;
	free(parts);
	on_stopped(stopped_data);
}

static void on_timer_closed(uv_handle_t *handle)
{
	part_stopped(handle->data);
}

void daemon_parts_stop(struct daemon_parts *parts, void (*on_stopped)(void *data), void *data)
{
	parts->on_stopped = on_stopped;
	parts->stopped_data = data;
	parts->open_parts = 3;
	uv_close((uv_handle_t *)&parts->tls_retry, on_timer_closed);
	api_close(parts->api, part_stopped, parts);
	agent_link_close(parts->agent);
	quorum_link_close(parts->quorum);
	cluster_node_close(parts->node, part_stopped, parts);
}
