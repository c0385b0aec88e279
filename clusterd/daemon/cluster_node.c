#include "clusterd/daemon/cluster_node.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clusterd/daemon/corosync_config.h"
#include "clusterd/daemon/cpg_link.h"
#include "clusterd/daemon/fence_runner.h"
#include "clusterd/daemon/store.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "lib/log.h"

struct cluster_node {
	uv_loop_t *loop;
	struct node *core;
	char *address, *corosync_path;
	struct clog_disk_state disk;       /* until the log begins */
	bool forgetful;                    /* see store_db_is_forgetful() */
	struct store *store;
	struct store_db *db;               /* until the store takes it */
	struct cpg_link *link;
	struct fence_runner *fences;
	struct corosync_config *corosync;
	struct soft_state soft;
	struct cluster_node_listener listeners[CLUSTER_NODE_LISTENERS];
	size_t n_listeners;
	uint32_t ring_node;                /* corosync's present ring */
	uint64_t ring_seq;
	uv_timer_t tick;
	bool closing;
	unsigned open_parts;
	void (*on_closed)(void *data);
	void *closed_data;
};

static void give(struct cluster_node *node, struct node_event *event)
{
	struct timespec now;

	if (node->closing)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	event->now_ms = uv_now(node->loop);
	event->wall_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	node_step(node->core, event);
}

/* ---- what the core wants done */

static void on_soft(struct cluster_node *node, const struct node_action *a)
{
	if (a->u.soft.kind != SOFT_KIND_HOST ||
	    !soft_state_put(&node->soft, a->u.soft.sender, a->u.soft.data, a->u.soft.len, uv_now(node->loop)))
		return;
	for (size_t i = 0; i < node->n_listeners; i++)
		if (node->listeners[i].on_soft)
			node->listeners[i].on_soft(node->listeners[i].data, a->u.soft.sender);
}

static void on_changed(struct cluster_node *node, bool model, bool membership)
{
	if (node_is_current(node->core) && node->corosync)
		corosync_config_follow(node->corosync, node_model(node->core));
	for (size_t i = 0; i < node->n_listeners; i++) {
		const struct cluster_node_listener *l = &node->listeners[i];

		if (model && l->on_model)
			l->on_model(l->data);
		if (membership && l->on_membership)
			l->on_membership(l->data);
	}
}

static void on_stopped(struct cluster_node *node)
{
	if (node->link)
		cpg_link_leave(node->link);
	for (size_t i = 0; i < node->n_listeners; i++)
		if (node->listeners[i].on_stopped)
			node->listeners[i].on_stopped(node->listeners[i].data);
}

static void tell_agent(struct cluster_node *node, const struct node_action *a)
{
	for (size_t i = 0; i < node->n_listeners; i++) {
		const struct cluster_node_listener *l = &node->listeners[i];

		if (a->type == NODE_ACTION_GOALS && l->on_goals)
			l->on_goals(l->data, a->u.goals);
		if (a->type == NODE_ACTION_QUORUM && l->on_quorum)
			l->on_quorum(l->data, a->u.quorum.quorate, a->u.quorum.epoch);
	}
}

static void note(enum node_level level, const char *text)
{
	switch (level) {
	case NODE_ERROR:
		log_error("%s", text);
		break;
	case NODE_WARNING:
		log_warning("%s", text);
		break;
	case NODE_NOTICE:
		log_notice("%s", text);
		break;
	case NODE_INFO:
		log_info("%s", text);
		break;
	case NODE_DEBUG:
		log_debug("%s", text);
		break;
	}
}

static void act(void *data, const struct node_action *a)
{
	struct cluster_node *node = data;

	switch (a->type) {
	case NODE_ACTION_SEND:
		/* A link that is down says so by a view without members; nothing else is to be done about it here. */
		if (cpg_link_send(node->link, a->u.send.data, a->u.send.len) == -EMSGSIZE)
			log_error("a message of %zu bytes (%s) is too large for corosync and was not sent", a->u.send.len, a->u.send.reason);
		break;
	case NODE_ACTION_DISK:
		store_write(node->store, a->u.disk);
		break;
	case NODE_ACTION_SNAPSHOT:
		store_snapshot(node->store, a->u.snapshot.index, a->u.snapshot.epoch, a->u.snapshot.data, a->u.snapshot.len,
			       a->u.snapshot.voters, a->u.snapshot.n_voters);
		break;
	case NODE_ACTION_REMEMBER:
		store_remember(node->store);
		break;
	case NODE_ACTION_FENCE:
		fence_runner_start(node->fences, a->u.fence.host);
		break;
	case NODE_ACTION_FENCE_CANCEL:
		fence_runner_cancel_all(node->fences);
		break;
	case NODE_ACTION_GOALS:
	case NODE_ACTION_QUORUM:
		tell_agent(node, a);
		break;
	case NODE_ACTION_SOFT:
		on_soft(node, a);
		break;
	case NODE_ACTION_APPLIED:
		break;
	case NODE_ACTION_CHANGED:
		on_changed(node, a->u.changed.model, a->u.changed.membership);
		break;
	case NODE_ACTION_STOPPED:
		on_stopped(node);
		break;
	case NODE_ACTION_NOTE:
		note(a->u.note.level, a->u.note.text);
		break;
	}
}

/* ---- what is */

const struct node *cluster_node_core(const struct cluster_node *node)
{
	return node->core;
}

const struct model *cluster_node_model(const struct cluster_node *node)
{
	return node_model(node->core);
}

const struct soft_state *cluster_node_soft(const struct cluster_node *node)
{
	return &node->soft;
}

const char *cluster_node_host(const struct cluster_node *node)
{
	return node_host(node->core);
}

uint32_t cluster_node_id(const struct cluster_node *node)
{
	return node_id(node->core);
}

/* ---- corosync */

static int begin_log(struct cluster_node *node, uint32_t id, struct err *err);
static void on_store_closed(void *data);
static void on_link_closed(void *data);

static bool on_connected(void *data, uint32_t id)
{
	struct cluster_node *node = data;
	struct err err = {0};

	if (node_is_stopped(node->core))
		return false;
	if (!node_has_log(node->core) && begin_log(node, id, &err) < 0) {
		node_stop(node->core, err.text);
		return false;
	}
	if (node_id(node->core) != id) {
		char why[200];

		snprintf(why, sizeof(why), "corosync.conf gives this host the node id %" PRIu32 ", its log was written as node %" PRIu32
			 ": set the old nodeid again", id, node_id(node->core));
		node_stop(node->core, why);
		return false;
	}
	give(node, &(struct node_event){.type = NODE_EVENT_CONNECTED});
	log_notice("joining corosync's group as node %" PRIu32, id);
	return true;
}

static void on_nodes(void *data, uint32_t ring_node, uint64_t ring_seq, const uint32_t *nodes, size_t n)
{
	struct cluster_node *node = data;

	node->ring_node = ring_node;
	node->ring_seq = ring_seq;
	give(node, &(struct node_event){.type = NODE_EVENT_RING, .u.ring = {.nodes = nodes, .n = n}});
}

static void on_view(void *data, uint64_t id, const uint32_t *members, size_t n)
{
	log_info("view %016" PRIx64 " with %zu members", id, n);
	give(data, &(struct node_event){.type = NODE_EVENT_VIEW, .u.view = {.id = id, .members = members, .n_members = n}});
}

static void on_message(void *data, uint32_t sender, const uint8_t *message, size_t len)
{
	give(data, &(struct node_event){.type = NODE_EVENT_MESSAGE, .u.message = {.sender = sender, .data = message, .len = len}});
}

static void on_disconnected(void *data, const char *why)
{
	log_warning("corosync: %s; trying again every %d ms", why, CPG_LINK_RETRY_MS);
	give(data, &(struct node_event){.type = NODE_EVENT_DISCONNECTED, .u.disconnected.text = why});
}

/* ---- the disk */

static void on_batch(void *data, uint64_t serial, int rc, const struct err *err)
{
	give(data, &(struct node_event){.type = NODE_EVENT_DISK_DONE, .u.disk_done = {.serial = serial, .rc = rc, .text = rc < 0 ? err->text : NULL}});
}

static void on_snapshot(void *data, uint64_t index, int rc, const struct err *err)
{
	give(data, &(struct node_event){.type = NODE_EVENT_SNAPSHOT_DONE, .u.snapshot_done = {.index = index, .rc = rc}});
}

/* ---- fences */

static void on_fenced(void *data, const char *host, int rc, bool by_time, const char *text)
{
	give(data, &(struct node_event){.type = NODE_EVENT_FENCED, .u.fenced = {.host = host, .rc = rc, .text = text, .by_time = by_time}});
}

/* ---- beginning */

/* The node id is known: from here on there is a log. */
static int begin_log(struct cluster_node *node, uint32_t id, struct err *err)
{
	static const struct store_callbacks callbacks = {
		.on_batch = on_batch, .on_snapshot = on_snapshot, .on_closed = on_store_closed};
	struct clog_disk_state disk = node->disk;
	int rc = store_db_set_node_id(node->db, id, err);

	if (rc < 0)
		return rc;
	node->store = store_new(node->loop, TAKE_PTR(node->db), &callbacks, node);
	node->disk = (struct clog_disk_state){0};
	node_begin(node->core, id, &disk, node->forgetful, uv_now(node->loop));
	return 0;
}

static void on_tick(uv_timer_t *timer)
{
	struct cluster_node *node = timer->data;

	soft_state_age(&node->soft, uv_now(node->loop));
	give(node, &(struct node_event){.type = NODE_EVENT_TICK});
}

static bool names_other_hosts(const char *corosync_path)
{
	struct corosync_seen seen = {0};
	bool others = corosync_config_read(corosync_path, &seen, NULL) == 0 && seen.n_nodes > 1;

	corosync_seen_free(&seen);
	return others;
}

/* A corrupt log is set aside only where others can give it back; alone it is all there is. */
static int open_corrupt(const struct cluster_node_options *options, struct store_db **ret, struct err *err)
{
	_cleanup_free_ char *aside = NULL;
	char found[ERR_TEXT_MAX];
	int rc;

	snprintf(found, sizeof(found), "%s", err->text);
	if (!names_other_hosts(options->corosync_path))
		return err_set(err, EBADMSG, "%s; no other host has a copy: restore this file from a backup, or move it away to begin anew "
			       "(the cluster's state is lost then)", found);
	rc = store_db_set_aside(options->db_path, time(NULL), &aside, err);
	if (rc < 0)
		return rc;
	log_error("%s; it was moved to %s, the other hosts give the log back", found, aside);
	return store_db_open(options->db_path, ret, err);
}

static bool log_is_empty(const struct cluster_node *node)
{
	return !node->disk.n_entries && !node->disk.snapshot_index && !node->disk.promised_epoch;
}

/* An empty log beside other hosts: perhaps a new host's, perhaps what is left of one that has voted. It keeps silent
 * until it has taken over the others' log; a new host loses nothing by that. */
static int note_forgetful(struct cluster_node *node, struct err *err)
{
	int rc = store_db_is_forgetful(node->db, &node->forgetful, err);

	if (rc < 0 || node->forgetful || !log_is_empty(node) || !names_other_hosts(node->corosync_path))
		return rc;
	node->forgetful = true;
	return store_db_set_forgetful(node->db, err);
}

static int open_log(struct cluster_node *node, const struct cluster_node_options *options, struct err *err)
{
	struct buf snapshot = {0};
	int rc = store_db_open(options->db_path, &node->db, err);

	if (rc == 0) {
		rc = store_db_load(node->db, &node->disk, &snapshot, err);
		if (rc < 0) {
			store_db_close(node->db);
			node->db = NULL;
		}
	}
	if (rc == -EBADMSG) {
		rc = open_corrupt(options, &node->db, err);
		if (rc == 0)
			rc = store_db_load(node->db, &node->disk, &snapshot, err);
	}
	if (rc == 0)
		rc = note_forgetful(node, err);
	if (rc == 0 && snapshot.len)
		rc = node_install(node->core, snapshot.data, snapshot.len, err);
	buf_free(&snapshot);
	return rc;
}

/* The node id without corosync: the log's own, else corosync.conf's. 0: wait for corosync. */
static uint32_t known_node_id(struct cluster_node *node, struct err *err)
{
	struct corosync_seen seen = {0};
	const struct corosync_seen_node *own;
	uint32_t id = 0;

	if (store_db_node_id(node->db, &id, err) == 0 && id && !log_is_empty(node))
		return id;
	id = 0;
	if (corosync_config_read(node->corosync_path, &seen, NULL) == 0) {
		own = corosync_seen_find(&seen, node_host(node->core), node->address);
		id = own ? own->node_id : 0;
	}
	corosync_seen_free(&seen);
	return id;
}

static void cluster_node_free(struct cluster_node *node)
{
	node_free(node->core);
	store_db_state_free(&node->disk);
	store_db_close(node->db);
	soft_state_free(&node->soft);
	corosync_config_free(node->corosync);
	fence_runner_free(node->fences);
	free(node->address);
	free(node->corosync_path);
	free(node);
}

int cluster_node_new(uv_loop_t *loop, const struct cluster_node_options *options, struct cluster_node **ret, struct err *err)
{
	static const struct cpg_link_callbacks callbacks = {
		.on_connected = on_connected, .on_nodes = on_nodes, .on_view = on_view, .on_message = on_message, .on_disconnected = on_disconnected,
		.on_closed = on_link_closed};
	struct cluster_node *node = mem_alloc(sizeof(*node));
	struct node_options core = {.host = options->host, .act = act, .data = node};
	uint32_t id;
	int rc;

	node->loop = loop;
	node->address = str_dup(options->address);
	node->corosync_path = str_dup(options->corosync_path);
	node->core = node_new(&core);
	node->corosync = corosync_config_new(loop, options->corosync_path, options->host);
	node->fences = fence_runner_new(loop, on_fenced, node);
	rc = open_log(node, options, err);
	id = rc == 0 ? known_node_id(node, err) : 0;
	if (id)
		rc = begin_log(node, id, err);
	if (rc < 0) {
		cluster_node_free(node);
		return rc;
	}
	node->link = cpg_link_new(loop, &callbacks, node);
	if (node_is_stopped(node->core))
		cpg_link_leave(node->link);
	uv_timer_init(loop, &node->tick);
	node->tick.data = node;
	uv_timer_start(&node->tick, on_tick, NODE_TICK_MS, NODE_TICK_MS);
	*ret = node;
	return 0;
}

void cluster_node_listen(struct cluster_node *node, const struct cluster_node_listener *listener)
{
	assert(node->n_listeners < CLUSTER_NODE_LISTENERS);
	node->listeners[node->n_listeners++] = *listener;
}

/* ---- what to do */

void cluster_node_propose(struct cluster_node *node, Gantry__Command *command, proposal_cb cb, void *data)
{
	give(node, &(struct node_event){.type = NODE_EVENT_PROPOSE, .u.propose = {.command = command, .patient = true, .cb = cb, .data = data}});
}

void cluster_node_gossip(struct cluster_node *node, uint32_t kind, const uint8_t *data, size_t len)
{
	give(node, &(struct node_event){.type = NODE_EVENT_SOFT, .u.soft = {.kind = kind, .data = data, .len = len}});
}

void cluster_node_agent(struct cluster_node *node, bool connected)
{
	give(node, &(struct node_event){.type = NODE_EVENT_AGENT, .u.agent.connected = connected});
}

void cluster_node_report(struct cluster_node *node, Gantry__AgentReport *report)
{
	struct node_event event = {.type = NODE_EVENT_REPORT, .u.report.report = report};

	if (node->closing)
		gantry__agent_report__free_unpacked(report, NULL);
	else
		give(node, &event);
}

void cluster_node_votequorum(struct cluster_node *node, const struct quorum_info *info)
{
	struct node_event event = {.type = NODE_EVENT_VOTEQUORUM};

	event.u.votequorum.known = info->known;
	event.u.votequorum.quorate = info->quorate && info->ring_node == node->ring_node && info->ring_seq == node->ring_seq;
	event.u.votequorum.device_configured = info->device_configured;
	event.u.votequorum.device_votes = info->device_votes;
	give(node, &event);
}

/* ---- end */

static void part_closed(struct cluster_node *node)
{
	void (*on_closed)(void *) = node->on_closed;
	void *data = node->closed_data;

	if (--node->open_parts)
		return;
	cluster_node_free(node);
	on_closed(data);
}

static void on_store_closed(void *data)
{
	part_closed(data);
}

static void on_link_closed(void *data)
{
	part_closed(data);
}

static void on_tick_closed(uv_handle_t *handle)
{
	part_closed(handle->data);
}

void cluster_node_close(struct cluster_node *node, void (*on_closed)(void *data), void *data)
{
	node->closing = true;
	node->on_closed = on_closed;
	node->closed_data = data;
	node->open_parts = 2;
	cpg_link_close(node->link);
	if (node->store) {
		node->open_parts++;
		store_close(node->store);
	}
	uv_close((uv_handle_t *)&node->tick, on_tick_closed);
}
