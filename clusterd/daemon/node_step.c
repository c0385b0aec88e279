#include "clusterd/daemon/cluster_node_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/limits.h"
#include "lib/log.h"

void node__stop(struct cluster_node *node, const char *why)
{
	if (node->stopped)
		return;
	node->stopped = str_dup(why);
	node->membership_changed = true;
	log_error("this host steps out of the cluster: %s", why);
	if (node->link)
		cpg_link_leave(node->link);
}

/* ---- the queue */

static void keep_bytes(struct node_event *e, const uint8_t **data, size_t len)
{
	buf_append(&e->bytes, *data, len);
	*data = e->bytes.data;
}

static void enqueue(struct cluster_node *node, const struct clog_event *event)
{
	struct node_event *e = mem_alloc(sizeof(*e));

	e->event = *event;
	switch (event->type) {
	case CLOG_EVENT_VIEW:
		if (event->u.view.n_members)
			e->members = mem_dup(event->u.view.members, event->u.view.n_members * sizeof(uint32_t));
		e->event.u.view.members = e->members;
		break;
	case CLOG_EVENT_MESSAGE:
		keep_bytes(e, &e->event.u.message.data, event->u.message.len);
		break;
	case CLOG_EVENT_PROPOSE:
		keep_bytes(e, &e->event.u.propose.command, event->u.propose.len);
		break;
	case CLOG_EVENT_SNAPSHOT:
		keep_bytes(e, &e->event.u.snapshot.data, event->u.snapshot.len);
		break;
	case CLOG_EVENT_SOFT:
		keep_bytes(e, &e->event.u.soft.data, event->u.soft.len);
		break;
	default:
		break;
	}
	*node->tail = e;
	node->tail = &e->next;
}

static struct node_event *dequeue(struct cluster_node *node)
{
	struct node_event *e = node->head;

	node->head = e->next;
	if (!node->head)
		node->tail = &node->head;
	return e;
}

static void event_free(struct node_event *e)
{
	buf_free(&e->bytes);
	free(e->members);
	free(e);
}

void node__events_clear(struct cluster_node *node)
{
	while (node->head)
		event_free(dequeue(node));
}

/* ---- the log's actions */

static void take_snapshot(struct cluster_node *node)
{
	const Gantry__ClusterModel *s = node->model.state;
	struct buf data = {0};

	if (node->snapshot_running || node->disk_failed || s->applied_index < node->snapshot_index + LIMIT_STORE_SNAPSHOT_EVERY)
		return;
	model_snapshot(&node->model, &data);
	node->snapshot_running = true;
	node->snapshot_index = s->applied_index;
	store_snapshot(node->store, s->applied_index, s->applied_epoch, data.data, data.len, s->voters, s->n_voters);
	buf_free(&data);
}

static void act_commit(struct cluster_node *node, const struct clog_action *a)
{
	Gantry__CommandResult *result = NULL;
	struct err err = {0};
	int rc;

	if (node->stopped)
		return;
	rc = model_apply(&node->model, a->u.commit.index, a->u.commit.epoch, a->u.commit.command, a->u.commit.len, &result, &err);
	if (rc < 0) {
		char why[ERR_TEXT_MAX + 160];

		snprintf(why, sizeof(why), "command %" PRIu64 " of the log cannot be applied: %s%s", a->u.commit.index,
			 err.text[0] ? err.text : strerror(-rc), rc == -ENOTSUP ? "; install the cluster's newer version here" : "");
		node__stop(node, why);
		return;
	}
	node->model_changed = true;
	if (a->u.commit.own)
		node__committed(node, a->u.commit.cookie, result);
	gantry__command_result__free_unpacked(result, NULL);
	take_snapshot(node);
}

static void act_install(struct cluster_node *node, const struct clog_action *a)
{
	struct err err = {0};
	int rc;

	if (node->stopped)
		return;
	rc = model_install(&node->model, a->u.install.data, a->u.install.len, &err);
	if (rc < 0) {
		char why[ERR_TEXT_MAX + 64];

		snprintf(why, sizeof(why), "the cluster's state cannot be read: %s", err.text[0] ? err.text : strerror(-rc));
		node__stop(node, why);
		return;
	}
	log_notice("the cluster's state as of command %" PRIu64 " was taken over", a->u.install.index);
	node->snapshot_index = a->u.install.index;
	node->model_changed = true;
}

static void act_need_snapshot(struct cluster_node *node)
{
	const Gantry__ClusterModel *s = node->model.state;
	struct buf data = {0};
	struct clog_event event = {.type = CLOG_EVENT_SNAPSHOT};

	if (node->stopped)
		return;
	model_snapshot(&node->model, &data);
	event.u.snapshot.index = s->applied_index;
	event.u.snapshot.epoch = s->applied_epoch;
	event.u.snapshot.data = data.data;
	event.u.snapshot.len = data.len;
	node__event(node, &event);
	buf_free(&data);
}

static void act_soft(struct cluster_node *node, const struct clog_action *a)
{
	if (a->u.soft.kind != SOFT_KIND_HOST ||
	    !soft_state_put(&node->soft, a->u.soft.sender, a->u.soft.data, a->u.soft.len, uv_now(node->loop)))
		return;
	for (size_t i = 0; i < node->n_listeners; i++)
		if (node->listeners[i].on_soft)
			node->listeners[i].on_soft(node->listeners[i].data, a->u.soft.sender);
}

/* A statement for the sync. One that has lost its log keeps silent: the others agree without it, or not at all,
 * as its empty log must not outvote a host that has what both of them once acknowledged. */
static bool is_statement(const struct clog_action *a)
{
	Gantry__ClogMessage *m = gantry__clog_message__unpack(NULL, a->u.multicast.len, a->u.multicast.data);
	bool is = m && m->body_case == GANTRY__CLOG_MESSAGE__BODY_SYNC;

	if (m)
		gantry__clog_message__free_unpacked(m, NULL);
	return is;
}

static void act(struct cluster_node *node, const struct clog_action *a)
{
	switch (a->type) {
	case CLOG_ACTION_MULTICAST:
		if (node->forgetful && is_statement(a))
			break;
		/* A link that is down says so by a view without members; nothing else is to be done about it here. */
		if (cpg_link_send(node->link, a->u.multicast.data, a->u.multicast.len) == -EMSGSIZE)
			log_error("a message of %zu bytes (%s) is too large for corosync and was not sent", a->u.multicast.len, a->reason);
		break;
	case CLOG_ACTION_DISK:
		store_write(node->store, a->u.disk);
		break;
	case CLOG_ACTION_COMMIT:
		act_commit(node, a);
		break;
	case CLOG_ACTION_DROPPED:
		node__dropped(node, a->u.dropped.cookie, a->u.dropped.rc);
		break;
	case CLOG_ACTION_NEED_SNAPSHOT:
		act_need_snapshot(node);
		break;
	case CLOG_ACTION_INSTALL:
		act_install(node, a);
		break;
	case CLOG_ACTION_PHASE:
		log_debug("log: %s", a->reason);
		node->membership_changed = true;
		break;
	case CLOG_ACTION_SOFT:
		act_soft(node, a);
		break;
	}
}

static void step(struct cluster_node *node, struct clog_event *event)
{
	const struct clog_action *actions;
	size_t n;

	event->now_ms = uv_now(node->loop);
	clog_step(node->clog, event, &actions, &n);
	for (size_t i = 0; i < n; i++)
		act(node, &actions[i]);
}

/* ---- telling the listeners */

static void say_phase(struct cluster_node *node)
{
	struct clog_status st;
	struct buf text = {0};

	cluster_node_log_status(node, &st);
	if (st.phase == node->said_phase)
		return;
	node->said_phase = st.phase;
	cluster_node_state_text(node, &text);
	if (st.phase == CLOG_NORMAL)
		log_notice("log: normal, epoch %" PRIu64 ", leader node %" PRIu32 ", %zu of %zu members synced", st.epoch, st.leader,
			   st.n_synced, st.n_members);
	else if (st.phase == CLOG_FAULTY)
		log_error("log: %s", buf_str(&text));
	else
		log_notice("log: %s", buf_str(&text));
	buf_free(&text);
}

/* What follows from a model that is of now. */
static void follow_model(struct cluster_node *node)
{
	const Gantry__ClusterModel *s = node->model.state;

	if (!cluster_node_is_current(node))
		return;
	if (node->forgetful) {
		node->forgetful = false;
		store_remember(node->store);
		log_notice("the log was taken over from the other hosts");
	}
	if (s->n_hosts && !model_host(&node->model, node->host)) {
		char why[300];

		snprintf(why, sizeof(why), "host %s is not in cluster %s (any more); to let it in again, use 'clusterctl cluster join'",
			 node->host, s->cluster_name);
		node__stop(node, why);
		return;
	}
	corosync_config_follow(node->corosync, &node->model);
}

static void notify(struct cluster_node *node)
{
	bool model = node->model_changed, membership = node->membership_changed;

	if (membership)
		say_phase(node);
	if (membership || node->review_wanted)
		node__proposals_review(node);
	node->model_changed = node->membership_changed = node->review_wanted = false;
	if (model || membership)
		follow_model(node);
	for (size_t i = 0; i < node->n_listeners; i++) {
		const struct cluster_node_listener *l = &node->listeners[i];

		if (model && l->on_model)
			l->on_model(l->data);
		if (membership && l->on_membership)
			l->on_membership(l->data);
	}
}

void node__event(struct cluster_node *node, const struct clog_event *event)
{
	struct clog_event first = *event;

	if (!node->clog || node->closing)
		return;
	if (node->stepping) {
		enqueue(node, event);
		return;
	}
	node->stepping = true;
	step(node, &first);
	while (node->head || node->model_changed || node->membership_changed || node->review_wanted) {
		if (node->head) {
			struct node_event *e = dequeue(node);

			step(node, &e->event);
			event_free(e);
		} else {
			notify(node);
		}
	}
	node->stepping = false;
}
