#include "clusterd/daemon/cluster_node.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clusterd/daemon/cluster_node_internal.h"
#include "lib/cleanup.h"
#include "lib/deadlines.h"
#include "lib/limits.h"
#include "lib/log.h"

/* ---- what is */

const struct model *cluster_node_model(const struct cluster_node *node)
{
	return &node->model;
}

const struct soft_state *cluster_node_soft(const struct cluster_node *node)
{
	return &node->soft;
}

const char *cluster_node_host(const struct cluster_node *node)
{
	return node->host;
}

uint32_t cluster_node_id(const struct cluster_node *node)
{
	return node->node_id;
}

void cluster_node_log_status(const struct cluster_node *node, struct clog_status *ret)
{
	*ret = (struct clog_status){.text = "waits for corosync"};
	if (node->clog)
		clog_get_status(node->clog, ret);
}

bool cluster_node_is_current(const struct cluster_node *node)
{
	struct clog_status st;

	if (node->stopped || !node->clog)
		return false;
	clog_get_status(node->clog, &st);
	return st.phase == CLOG_NORMAL && st.quorate && node->model.state->applied_epoch == st.epoch;
}

bool cluster_node_is_quorate(const struct cluster_node *node)
{
	struct clog_status st;
	uint64_t now = uv_now(node->loop);
	size_t votes = 0;

	if (!cluster_node_is_current(node))
		return false;
	clog_get_status(node->clog, &st);
	for (size_t i = 0; i < st.n_voters; i++) {
		bool fresh = st.voters[i] == node->node_id;

		for (size_t k = 0; k < node->n_heard && !fresh; k++)
			fresh = node->heard[k].node_id == st.voters[i] && now - node->heard[k].ms < DEADLINE_HEARD_MS;
		votes += fresh;
	}
	return votes >= st.quorum;
}

static void note_heard(struct cluster_node *node, uint32_t sender)
{
	size_t i = 0;

	while (i < node->n_heard && node->heard[i].node_id != sender)
		i++;
	if (i == LIMIT_HOSTS)
		return;
	if (i == node->n_heard)
		node->n_heard++;
	node->heard[i] = (struct node_heard){.node_id = sender, .ms = uv_now(node->loop)};
}

/* ---- corosync */

static int begin_log(struct cluster_node *node, uint32_t node_id, struct err *err);
static void on_store_closed(void *data);
static void on_link_closed(void *data);

static bool on_connected(void *data, uint32_t node_id)
{
	struct cluster_node *node = data;
	struct err err = {0};

	if (node->stopped)
		return false;
	if (!node->clog && begin_log(node, node_id, &err) < 0) {
		node__stop(node, err.text);
		return false;
	}
	if (node->node_id != node_id) {
		char why[200];

		snprintf(why, sizeof(why), "corosync.conf gives this host the node id %" PRIu32 ", its log was written as node %" PRIu32
			 ": set the old nodeid again", node_id, node->node_id);
		node__stop(node, why);
		return false;
	}
	node->connected = true;
	log_notice("joining corosync's group as node %" PRIu32, node_id);
	return true;
}

static void on_nodes(void *data, const uint32_t *nodes, size_t n)
{
	struct cluster_node *node = data;

	node->n_nodes = n < LIMIT_HOSTS ? n : LIMIT_HOSTS;
	memcpy(node->nodes, nodes, node->n_nodes * sizeof(*nodes));
	node->membership_changed = true;
}

static void on_view(void *data, uint64_t id, const uint32_t *members, size_t n)
{
	struct clog_event event = {.type = CLOG_EVENT_VIEW};

	log_info("view %016" PRIx64 " with %zu members", id, n);
	event.u.view.id = id;
	event.u.view.members = members;
	event.u.view.n_members = n;
	node__event(data, &event);
}

static void on_message(void *data, uint32_t sender, const uint8_t *message, size_t len)
{
	struct clog_event event = {.type = CLOG_EVENT_MESSAGE};

	note_heard(data, sender);
	event.u.message.sender = sender;
	event.u.message.data = message;
	event.u.message.len = len;
	node__event(data, &event);
}

static void on_disconnected(void *data, const char *why)
{
	struct cluster_node *node = data;
	struct clog_event event = {.type = CLOG_EVENT_DISCONNECTED};

	log_warning("corosync: %s; trying again every %d ms", why, CPG_LINK_RETRY_MS);
	free(node->disconnected_why);
	node->disconnected_why = str_dup(why);
	node->connected = false;
	node->n_heard = 0;
	node->n_nodes = 0;
	node->membership_changed = true;
	node__event(node, &event);
}

/* ---- the disk */

static void on_batch(void *data, uint64_t serial, int rc, const struct err *err)
{
	struct cluster_node *node = data;
	struct clog_event event = {.type = CLOG_EVENT_DISK_DONE};

	if (rc < 0 && !node->disk_failed) {
		node->disk_failed = str_dup(err->text);
		log_error("the log cannot be written, this host takes no part in the cluster: %s", err->text);
	}
	event.u.disk_done.serial = serial;
	event.u.disk_done.rc = rc;
	node__event(node, &event);
}

static void on_snapshot(void *data, uint64_t index, int rc, const struct err *err)
{
	struct cluster_node *node = data;
	struct clog_event event = {.type = CLOG_EVENT_COMPACT};

	node->snapshot_running = false;
	if (rc < 0 && !node->disk_failed)
		log_warning("the snapshot at %" PRIu64 " was not stored: %s", index, err->text);
	if (rc < 0)
		return;
	event.u.compact.index = index;
	node__event(node, &event);
}

/* ---- beginning */

/* The node id is known: from here on there is a log. */
static int begin_log(struct cluster_node *node, uint32_t node_id, struct err *err)
{
	static const struct store_callbacks callbacks = {
		.on_batch = on_batch, .on_snapshot = on_snapshot, .on_closed = on_store_closed};
	struct clog_event event = {.type = CLOG_EVENT_TICK};
	int rc = store_db_set_node_id(node->db, node_id, err);

	if (rc < 0)
		return rc;
	node->node_id = node_id;
	node->store = store_new(node->loop, TAKE_PTR(node->db), &callbacks, node);
	node->clog = clog_new(node_id, &node->disk, model_voters_of);
	node->disk_taken = true;
	/* What is known to be committed is applied at once, so that questions can be answered without a quorum. */
	node__event(node, &event);
	return 0;
}

static void on_tick(uv_timer_t *timer)
{
	struct cluster_node *node = timer->data;
	struct clog_event event = {.type = CLOG_EVENT_TICK};

	soft_state_age(&node->soft, uv_now(node->loop));
	if (node->clog) {
		node->review_wanted = node->review_wanted || node__proposals_wait(node);
		node__event(node, &event);
	} else {
		node__proposals_review(node);
	}
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
		rc = model_install(&node->model, snapshot.data, snapshot.len, err);
	node->snapshot_index = node->disk.snapshot_index;
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
		own = corosync_seen_find(&seen, node->host, node->address);
		id = own ? own->node_id : 0;
	}
	corosync_seen_free(&seen);
	return id;
}

static void node_free(struct cluster_node *node)
{
	node__events_clear(node);
	clog_free(node->clog);
	if (!node->disk_taken)
		store_db_state_free(&node->disk);
	store_db_close(node->db);
	model_free(&node->model);
	soft_state_free(&node->soft);
	proposals_free(&node->proposals);
	corosync_config_free(node->corosync);
	free(node->disconnected_why);
	free(node->disk_failed);
	free(node->stopped);
	free(node->host);
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
	uint32_t node_id;
	int rc;

	node->loop = loop;
	node->host = str_dup(options->host);
	node->address = str_dup(options->address);
	node->corosync_path = str_dup(options->corosync_path);
	node->tail = &node->head;
	model_init(&node->model);
	node->corosync = corosync_config_new(loop, options->corosync_path, node->host);
	rc = open_log(node, options, err);
	node_id = rc == 0 ? known_node_id(node, err) : 0;
	if (node_id)
		rc = begin_log(node, node_id, err);
	if (rc < 0) {
		node_free(node);
		return rc;
	}
	node->link = cpg_link_new(loop, &callbacks, node);
	if (node->stopped)
		cpg_link_leave(node->link);
	uv_timer_init(loop, &node->tick);
	node->tick.data = node;
	uv_timer_start(&node->tick, on_tick, CLUSTER_NODE_TICK_MS, CLUSTER_NODE_TICK_MS);
	*ret = node;
	return 0;
}

void cluster_node_listen(struct cluster_node *node, const struct cluster_node_listener *listener)
{
	assert(node->n_listeners < CLUSTER_NODE_LISTENERS);
	node->listeners[node->n_listeners++] = *listener;
}

void cluster_node_gossip(struct cluster_node *node, uint32_t kind, const uint8_t *data, size_t len)
{
	struct clog_event event = {.type = CLOG_EVENT_SOFT};

	event.u.soft.kind = kind;
	event.u.soft.data = data;
	event.u.soft.len = len;
	node__event(node, &event);
}

/* ---- end */

static void part_closed(struct cluster_node *node)
{
	void (*on_closed)(void *) = node->on_closed;
	void *data = node->closed_data;

	if (--node->open_parts)
		return;
	node_free(node);
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
