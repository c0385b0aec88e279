#include "clusterd/core/node_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/deadlines.h"

/* ---- saying ------------------------------------------------------------------ */

void node__act(struct node *n, const struct node_action *action)
{
	n->act(n->act_data, action);
}

void node__note(struct node *n, enum node_level level, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX + 200];
	struct node_action a = {.type = NODE_ACTION_NOTE};
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	a.u.note.level = level;
	a.u.note.text = text;
	node__act(n, &a);
}

void node_stop(struct node *n, const char *why)
{
	struct node_action a = {.type = NODE_ACTION_STOPPED};

	if (n->stopped)
		return;
	n->stopped = str_dup(why);
	n->membership_changed = true;
	node__note(n, NODE_ERROR, "this host steps out of the cluster: %s", why);
	a.u.stopped.why = n->stopped;
	node__act(n, &a);
}

/* ---- the queue ----------------------------------------------------------------- */

static void keep_bytes(struct node_queued *q, const uint8_t **data, size_t len)
{
	buf_append(&q->bytes, *data, len);
	*data = q->bytes.data;
}

static void enqueue(struct node *n, const struct clog_event *event)
{
	struct node_queued *q = mem_alloc(sizeof(*q));

	q->event = *event;
	switch (event->type) {
	case CLOG_EVENT_VIEW:
		if (event->u.view.n_members)
			q->ids = mem_dup(event->u.view.members, event->u.view.n_members * sizeof(uint32_t));
		q->event.u.view.members = q->ids;
		break;
	case CLOG_EVENT_PROVEN:
		if (event->u.proven.n)
			q->ids = mem_dup(event->u.proven.nodes, event->u.proven.n * sizeof(uint32_t));
		q->event.u.proven.nodes = q->ids;
		break;
	case CLOG_EVENT_MESSAGE:
		keep_bytes(q, &q->event.u.message.data, event->u.message.len);
		break;
	case CLOG_EVENT_PROPOSE:
		keep_bytes(q, &q->event.u.propose.command, event->u.propose.len);
		break;
	case CLOG_EVENT_SNAPSHOT:
		keep_bytes(q, &q->event.u.snapshot.data, event->u.snapshot.len);
		break;
	case CLOG_EVENT_SOFT:
		keep_bytes(q, &q->event.u.soft.data, event->u.soft.len);
		break;
	default:
		break;
	}
	*n->tail = q;
	n->tail = &q->next;
}

static struct node_queued *dequeue(struct node *n)
{
	struct node_queued *q = n->head;

	n->head = q->next;
	if (!n->head)
		n->tail = &n->head;
	return q;
}

static void queued_free(struct node_queued *q)
{
	buf_free(&q->bytes);
	free(q->ids);
	free(q);
}

/* ---- the log's actions ------------------------------------------------------------ */

static void take_snapshot(struct node *n)
{
	const Gantry__ClusterModel *s = n->model.state;
	struct node_action a = {.type = NODE_ACTION_SNAPSHOT};
	struct buf data = {0};

	if (n->snapshot_running || s->applied_index < n->snapshot_index + n->snapshot_every)
		return;
	model_snapshot(&n->model, &data);
	n->snapshot_running = true;
	n->snapshot_index = s->applied_index;
	a.u.snapshot.index = s->applied_index;
	a.u.snapshot.epoch = s->applied_epoch;
	a.u.snapshot.data = data.data;
	a.u.snapshot.len = data.len;
	a.u.snapshot.voters = s->voters;
	a.u.snapshot.n_voters = s->n_voters;
	node__act(n, &a);
	buf_free(&data);
}

static void say_applied(struct node *n, const struct clog_action *c, const Gantry__CommandResult *result)
{
	struct node_action a = {.type = NODE_ACTION_APPLIED};

	a.u.applied.index = c->u.commit.index;
	a.u.applied.epoch = c->u.commit.epoch;
	a.u.applied.command = c->u.commit.command;
	a.u.applied.len = c->u.commit.len;
	a.u.applied.result = result;
	node__act(n, &a);
}

static void act_commit(struct node *n, const struct clog_action *a)
{
	uint64_t epoch = n->model.state->applied_epoch;
	Gantry__CommandResult *result = NULL;
	struct err err = {0};
	int rc;

	if (n->stopped)
		return;
	rc = model_apply(&n->model, a->u.commit.index, a->u.commit.epoch, a->u.commit.command, a->u.commit.len, &result, &err);
	if (rc < 0) {
		char why[ERR_TEXT_MAX + 160];

		snprintf(why, sizeof(why), "command %" PRIu64 " of the log cannot be applied: %s%s", a->u.commit.index,
			 err.text[0] ? err.text : strerror(-rc), rc == -ENOTSUP ? "; install the cluster's newer version here" : "");
		node_stop(n, why);
		return;
	}
	n->model_changed = true;
	say_applied(n, a, result);
	if (a->u.commit.own)
		node__committed(n, a->u.commit.cookie, result);
	gantry__command_result__free_unpacked(result, NULL);
	node__audit_applied(n, epoch != n->model.state->applied_epoch);
	if (!n->stopped)
		take_snapshot(n);
}

static void act_install(struct node *n, const struct clog_action *a)
{
	struct node_action said = {.type = NODE_ACTION_APPLIED};
	struct err err = {0};
	int rc;

	if (n->stopped)
		return;
	rc = model_install(&n->model, a->u.install.data, a->u.install.len, &err);
	if (rc < 0) {
		char why[ERR_TEXT_MAX + 64];

		snprintf(why, sizeof(why), "the cluster's state cannot be read: %s", err.text[0] ? err.text : strerror(-rc));
		node_stop(n, why);
		return;
	}
	node__note(n, NODE_NOTICE, "the cluster's state as of command %" PRIu64 " was taken over", a->u.install.index);
	n->snapshot_index = a->u.install.index;
	n->model_changed = true;
	said.u.applied.index = a->u.install.index;
	said.u.applied.epoch = a->u.install.epoch;
	said.u.applied.installed = true;
	node__act(n, &said);
}

static void act_need_snapshot(struct node *n)
{
	const Gantry__ClusterModel *s = n->model.state;
	struct buf data = {0};
	struct clog_event event = {.type = CLOG_EVENT_SNAPSHOT};

	if (n->stopped)
		return;
	model_snapshot(&n->model, &data);
	event.u.snapshot.index = s->applied_index;
	event.u.snapshot.epoch = s->applied_epoch;
	event.u.snapshot.data = data.data;
	event.u.snapshot.len = data.len;
	node__clog(n, &event);
	buf_free(&data);
}

static void act_multicast(struct node *n, const struct clog_action *a)
{
	struct node_action send = {.type = NODE_ACTION_SEND};

	if (n->stopped)
		return;
	send.u.send.data = a->u.multicast.data;
	send.u.send.len = a->u.multicast.len;
	send.u.send.reason = a->reason;
	node__act(n, &send);
}

static void act_soft(struct node *n, const struct clog_action *a)
{
	struct node_action soft = {.type = NODE_ACTION_SOFT};

	if (a->u.soft.kind == NODE_SOFT_KIND_AUDIT) {
		node__audit_heard(n, a->u.soft.sender, a->u.soft.data, a->u.soft.len);
		return;
	}
	soft.u.soft.sender = a->u.soft.sender;
	soft.u.soft.kind = a->u.soft.kind;
	soft.u.soft.data = a->u.soft.data;
	soft.u.soft.len = a->u.soft.len;
	node__act(n, &soft);
}

static void act_phase(struct node *n, const struct clog_action *a)
{
	struct clog_status st;

	node__note(n, NODE_DEBUG, "log: %s", a->reason);
	n->membership_changed = true;
	clog_get_status(n->clog, &st);
	/* A log that cannot go on takes its member with it: the others must see that nothing is decided here. */
	if (st.phase == CLOG_FAULTY)
		node_stop(n, st.text);
}

static void act(struct node *n, const struct clog_action *a)
{
	switch (a->type) {
	case CLOG_ACTION_MULTICAST:
		act_multicast(n, a);
		break;
	case CLOG_ACTION_DISK: {
		struct node_action disk = {.type = NODE_ACTION_DISK, .u.disk = a->u.disk};

		node__act(n, &disk);
		break;
	}
	case CLOG_ACTION_COMMIT:
		act_commit(n, a);
		break;
	case CLOG_ACTION_DROPPED:
		node__dropped(n, a->u.dropped.cookie, a->u.dropped.rc);
		break;
	case CLOG_ACTION_NEED_SNAPSHOT:
		act_need_snapshot(n);
		break;
	case CLOG_ACTION_INSTALL:
		act_install(n, a);
		break;
	case CLOG_ACTION_PHASE:
		act_phase(n, a);
		break;
	case CLOG_ACTION_SOFT:
		act_soft(n, a);
		break;
	}
}

static void step_log(struct node *n, struct clog_event *event)
{
	const struct clog_action *actions;
	size_t count;

	event->now_ms = n->now_ms;
	clog_step(n->clog, event, &actions, &count);
	for (size_t i = 0; i < count; i++)
		act(n, &actions[i]);
}

/* ---- what follows ------------------------------------------------------------------ */

static void say_phase(struct node *n)
{
	struct clog_status st;
	struct buf text = {0};

	node_log_status(n, &st);
	if (st.phase == n->said_phase)
		return;
	n->said_phase = st.phase;
	node_state_text(n, &text);
	if (st.phase == CLOG_NORMAL)
		node__note(n, NODE_NOTICE, "log: normal, epoch %" PRIu64 ", leader node %" PRIu32 ", %zu of %zu members synced", st.epoch,
			   st.leader, st.n_synced, st.n_members);
	else
		node__note(n, st.phase == CLOG_FAULTY ? NODE_ERROR : NODE_NOTICE, "log: %s", buf_str(&text));
	buf_free(&text);
}

/* A log has been taken over, or made. */
void node__remember(struct node *n)
{
	n->forgetful = false;
	clog_mute(n->clog, false);
	node__act(n, &(struct node_action){.type = NODE_ACTION_REMEMBER});
}

/* What follows from a model that is of now. */
static void follow_model(struct node *n)
{
	const Gantry__ClusterModel *s = n->model.state;

	if (!node_is_current(n))
		return;
	if (n->forgetful) {
		node__remember(n);
		node__note(n, NODE_NOTICE, "the log was taken over from the other hosts");
	}
	if (s->n_hosts && !model_host(&n->model, n->host)) {
		char why[300];

		snprintf(why, sizeof(why), "host %s is not in cluster %s (any more); to let it in again, use 'clusterctl cluster join'",
			 n->host, s->cluster_name);
		node_stop(n, why);
	}
}

static void follow(struct node *n)
{
	bool model = n->model_changed, membership = n->membership_changed;
	struct node_action changed = {.type = NODE_ACTION_CHANGED, .u.changed = {.model = model, .membership = membership}};

	if (membership)
		say_phase(n);
	if (membership || n->review_wanted)
		node__proposals_review(n);
	n->model_changed = n->membership_changed = n->review_wanted = false;
	if (!model && !membership)
		return;
	follow_model(n);
	if (membership) {
		node__tie_membership(n);
		node__lead_membership(n);
		node__agent_membership(n);
	}
	if (model) {
		node__lead_model(n);
		node__agent_model(n);
	}
	node__act(n, &changed);
}

static void pump(struct node *n)
{
	if (n->pumping)
		return;
	n->pumping = true;
	while (n->head || n->model_changed || n->membership_changed || n->review_wanted) {
		if (n->head) {
			struct node_queued *q = dequeue(n);

			step_log(n, &q->event);
			queued_free(q);
		} else {
			follow(n);
		}
	}
	n->pumping = false;
}

void node__clog(struct node *n, struct clog_event *event)
{
	if (!n->clog)
		return;
	if (n->pumping || n->head) {
		enqueue(n, event);
		return;
	}
	n->pumping = true;
	step_log(n, event);
	n->pumping = false;
	pump(n);
}

/* ---- events --------------------------------------------------------------------------- */

static void note_heard(struct node *n, uint32_t sender)
{
	size_t i = 0;

	while (i < n->n_heard && n->heard[i].node_id != sender)
		i++;
	if (i == LIMIT_HOSTS)
		return;
	if (i == n->n_heard)
		n->n_heard++;
	n->heard[i] = (struct node_heard){.node_id = sender, .ms = n->now_ms};
}

static void on_disconnected(struct node *n, const char *text)
{
	free(n->disconnected_why);
	n->disconnected_why = str_dup(text);
	n->connected = false;
	n->n_heard = n->n_ring = 0;
	node__tie_ring(n);
	n->membership_changed = true;
	node__clog(n, &(struct clog_event){.type = CLOG_EVENT_DISCONNECTED});
}

static void on_disk_done(struct node *n, const struct node_event *e)
{
	struct clog_event event = {.type = CLOG_EVENT_DISK_DONE};

	if (e->u.disk_done.rc < 0) {
		struct buf why = {0};

		buf_printf(&why, "its log cannot be written: %s; mend the disk, then restart clusterd",
			   e->u.disk_done.text ? e->u.disk_done.text : strerror(-e->u.disk_done.rc));
		node_stop(n, buf_str(&why));
		buf_free(&why);
	}
	event.u.disk_done.serial = e->u.disk_done.serial;
	event.u.disk_done.rc = e->u.disk_done.rc;
	node__clog(n, &event);
}

static void on_snapshot_done(struct node *n, uint64_t index, int rc)
{
	struct clog_event event = {.type = CLOG_EVENT_COMPACT, .u.compact.index = index};

	n->snapshot_running = false;
	if (rc == 0)
		node__clog(n, &event);
	else
		node__note(n, NODE_WARNING, "the snapshot at %" PRIu64 " was not stored: %s", index, strerror(-rc));
}

static void on_tick(struct node *n)
{
	n->review_wanted = n->review_wanted || node__proposals_wait(n);
	node__clog(n, &(struct clog_event){.type = CLOG_EVENT_TICK});
	node__tie_tick(n);
	node__lead_tick(n);
	node__agent_tick(n);
}

static void on_group(struct node *n, const struct node_event *e)
{
	struct clog_event event = {0};

	switch (e->type) {
	case NODE_EVENT_VIEW:
		event.type = CLOG_EVENT_VIEW;
		event.u.view.id = e->u.view.id;
		event.u.view.members = e->u.view.members;
		event.u.view.n_members = e->u.view.n_members;
		node__clog(n, &event);
		break;
	case NODE_EVENT_MESSAGE:
		note_heard(n, e->u.message.sender);
		event.type = CLOG_EVENT_MESSAGE;
		event.u.message.sender = e->u.message.sender;
		event.u.message.data = e->u.message.data;
		event.u.message.len = e->u.message.len;
		node__clog(n, &event);
		break;
	case NODE_EVENT_RING:
		n->n_ring = e->u.ring.n < LIMIT_HOSTS ? e->u.ring.n : LIMIT_HOSTS;
		memcpy(n->ring, e->u.ring.nodes, n->n_ring * sizeof(*n->ring));
		node__tie_ring(n);
		n->membership_changed = true;
		break;
	case NODE_EVENT_VOTEQUORUM:
		n->tie.corosync.known = e->u.votequorum.known;
		n->tie.corosync.quorate = e->u.votequorum.quorate;
		n->tie.corosync.device_configured = e->u.votequorum.device_configured;
		n->tie.corosync.device_votes = e->u.votequorum.device_votes;
		break;
	case NODE_EVENT_SOFT:
		if (n->stopped)
			break;
		event.type = CLOG_EVENT_SOFT;
		event.u.soft.kind = e->u.soft.kind;
		event.u.soft.data = e->u.soft.data;
		event.u.soft.len = e->u.soft.len;
		node__clog(n, &event);
		break;
	default:
		break;
	}
}

void node_step(struct node *n, const struct node_event *e)
{
	n->now_ms = e->now_ms;
	n->wall_ms = e->wall_ms;
	switch (e->type) {
	case NODE_EVENT_TICK:
		on_tick(n);
		break;
	case NODE_EVENT_CONNECTED:
		n->connected = true;
		break;
	case NODE_EVENT_DISCONNECTED:
		on_disconnected(n, e->u.disconnected.text);
		break;
	case NODE_EVENT_DISK_DONE:
		on_disk_done(n, e);
		break;
	case NODE_EVENT_SNAPSHOT_DONE:
		on_snapshot_done(n, e->u.snapshot_done.index, e->u.snapshot_done.rc);
		break;
	case NODE_EVENT_PROPOSE:
		node__propose(n, e->u.propose.command, e->u.propose.patient, e->u.propose.cb, e->u.propose.data, false);
		break;
	case NODE_EVENT_AGENT:
		node__agent_connected(n, e->u.agent.connected);
		break;
	case NODE_EVENT_REPORT:
		node__agent_report(n, e->u.report.report);
		break;
	case NODE_EVENT_FENCED:
		if (!node__tie_fenced(n, e->u.fenced.host, e->u.fenced.rc, e->u.fenced.text, e->u.fenced.by_time))
			node__lead_fenced(n, e->u.fenced.host, e->u.fenced.rc, e->u.fenced.text, e->u.fenced.by_time);
		break;
	default:
		on_group(n, e);
		break;
	}
	pump(n);
}

/* ---- beginning and end ---------------------------------------------------------------------- */

struct node *node_new(const struct node_options *options)
{
	struct node *n = mem_alloc(sizeof(*n));

	n->act = options->act;
	n->act_data = options->data;
	n->snapshot_every = options->snapshot_every ? options->snapshot_every : LIMIT_STORE_SNAPSHOT_EVERY;
	n->audit_every = options->audit_every ? options->audit_every : LIMIT_AUDIT_EVERY;
	n->host = str_dup(options->host);
	n->tail = &n->head;
	n->lead.cold = true;
	model_init(&n->model);
	n->model.own_host = n->host;
	return n;
}

int node_install(struct node *n, const uint8_t *snapshot, size_t len, struct err *err)
{
	assert(!n->clog);
	return model_install(&n->model, snapshot, len, err);
}

void node_begin(struct node *n, uint32_t node_id, struct clog_disk_state *disk, bool forgetful, uint64_t now_ms)
{
	assert(!n->clog);
	n->now_ms = now_ms;
	n->node_id = node_id;
	n->forgetful = forgetful;
	n->snapshot_index = disk->snapshot_index;
	n->agent.gone_since_ms = now_ms;
	n->clog = clog_new(node_id, disk, model_voters_of);
	clog_mute(n->clog, forgetful);
	/* What is known to be committed is applied at once, so that questions can be answered without a quorum. */
	node__clog(n, &(struct clog_event){.type = CLOG_EVENT_TICK});
}

void node_free(struct node *n)
{
	if (!n)
		return;
	while (n->head)
		queued_free(dequeue(n));
	node__lead_free(n);
	node__agent_free(n);
	proposals_free(&n->proposals);
	clog_free(n->clog);
	model_free(&n->model);
	free(n->disconnected_why);
	free(n->stopped);
	free(n->host);
	free(n);
}

/* ---- what is ------------------------------------------------------------------------------------ */

const struct model *node_model(const struct node *n)
{
	return &n->model;
}

const char *node_host(const struct node *n)
{
	return n->host;
}

uint32_t node_id(const struct node *n)
{
	return n->node_id;
}

bool node_is_stopped(const struct node *n)
{
	return n->stopped != NULL;
}

bool node_has_log(const struct node *n)
{
	return n->clog != NULL;
}

void node_log_status(const struct node *n, struct clog_status *ret)
{
	*ret = (struct clog_status){.text = "waits for corosync"};
	if (n->clog)
		clog_get_status(n->clog, ret);
}

bool node_is_current(const struct node *n)
{
	struct clog_status st;

	if (n->stopped || !n->clog)
		return false;
	clog_get_status(n->clog, &st);
	return st.phase == CLOG_NORMAL && st.quorate && n->model.state->applied_epoch == st.epoch;
}

bool node_is_quorate(const struct node *n)
{
	struct clog_status st;
	size_t votes = 0;

	if (!node_is_current(n))
		return false;
	clog_get_status(n->clog, &st);
	for (size_t i = 0; i < st.n_voters; i++) {
		bool fresh = st.voters[i] == n->node_id;

		for (size_t k = 0; k < n->n_heard && !fresh; k++)
			fresh = n->heard[k].node_id == st.voters[i] && n->now_ms - n->heard[k].ms < DEADLINE_HEARD_MS;
		votes += fresh;
	}
	return votes >= st.quorum;
}
