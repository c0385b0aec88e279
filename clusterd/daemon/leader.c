#include "clusterd/daemon/leader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/core/manager.h"
#include "clusterd/daemon/fence_runner.h"
#include "lib/limits.h"
#include "lib/log.h"
#include "proto/pb.h"

#define LEADER_TICK_MS 500
/* A quorum that has just formed, after none was here: who has not come yet may be booting and is waited for so long. */
#define LEADER_COLD_PATIENCE_MS 30000
#define LEADER_REFUSED_MS 50

struct leader {
	struct cluster_node *node;
	struct manager *manager;       /* NULL: this node does not lead */
	uint64_t epoch;
	struct fence_runner *fences;
	uv_timer_t tick;
	uv_loop_t *loop;
	bool closing, refused;
	bool cold;                     /* there was no quorum here, or this process has just begun */
	uint64_t patience_until_ms;
	uint32_t seen[LIMIT_HOSTS];    /* in the ring since the quorum formed */
	size_t n_seen;
	uint32_t adding;               /* node id of the host that is being made a voter; 0 none */
	uint64_t add_not_before_ms;
};

/* Which proposal an answer belongs to. */
struct leader_request {
	struct leader *leader;
	uint64_t epoch;
	bool host_add;
};

static void on_tick(uv_timer_t *timer);

static void on_result(void *data, const Gantry__CommandResult *result)
{
	struct leader_request *r = data;
	struct leader *l = r->leader;
	bool refused = result->status != GANTRY__STATUS__STATUS_OK;

	if (r->host_add) {
		l->adding = 0;
		l->add_not_before_ms = uv_now(l->loop) + (refused ? 2000 : 0);
	}
	if (refused)
		log_info("a decision of this leader was refused: %s", result->text);
	/* Not from in here, which may be within the proposing: soon. */
	if (refused && !r->host_add && r->epoch == l->epoch && !l->closing) {
		l->refused = true;
		uv_timer_start(&l->tick, on_tick, LEADER_REFUSED_MS, LEADER_TICK_MS);
	}
	free(r);
}

static void propose(struct leader *l, const Gantry__Command *command, bool host_add)
{
	struct leader_request *r = mem_alloc(sizeof(*r));
	Gantry__Command *copy = pb_clone(command);

	r->leader = l;
	r->epoch = l->epoch;
	r->host_add = host_add;
	cluster_node_propose(l->node, copy, false, on_result, r);
	gantry__command__free_unpacked(copy, NULL);
}

static void give(struct leader *l, struct manager_event *event)
{
	const struct manager_action *actions;
	Gantry__Command **commands;
	size_t n, n_commands = 0;

	event->now_ms = uv_now(l->loop);
	event->epoch = l->epoch;
	manager_step(l->manager, cluster_node_model(l->node), event, &actions, &n);
	commands = mem_alloc((n + 1) * sizeof(*commands));
	for (size_t i = 0; i < n; i++) {
		const Gantry__Host *host;

		if (actions[i].type == MANAGER_ACTION_PROPOSE) {
			log_info("leader: %s", actions[i].reason);
			commands[n_commands++] = pb_clone(actions[i].command);
			continue;
		}
		host = model_host(cluster_node_model(l->node), actions[i].host);
		if (host)
			fence_runner_start(l->fences, host);
	}
	/* Copies: proposing may apply commands, which steps the manager again and ends the life of its actions. */
	for (size_t i = 0; i < n_commands; i++) {
		propose(l, commands[i], false);
		gantry__command__free_unpacked(commands[i], NULL);
	}
	free(commands);
}

static void give_members(struct leader *l)
{
	struct manager_event event = {.type = MANAGER_EVENT_MEMBERS};
	struct clog_status st;

	cluster_node_log_status(l->node, &st);
	event.u.members.members = st.members;
	event.u.members.n_members = st.n_members;
	event.u.members.synced = st.synced;
	event.u.members.n_synced = st.n_synced;
	event.u.members.patience_until_ms = l->patience_until_ms;
	event.u.members.seen = l->seen;
	event.u.members.n_seen = l->n_seen;
	event.u.members.n_nodes = cluster_node_corosync_nodes(l->node, &event.u.members.nodes);
	give(l, &event);
}

static void step_down(struct leader *l)
{
	if (!l->manager)
		return;
	log_notice("this host leads no more (epoch %" PRIu64 ")", l->epoch);
	manager_free(l->manager);
	l->manager = NULL;
	l->adding = 0;
	fence_runner_cancel_all(l->fences);
}

static void note_seen(struct leader *l)
{
	const uint32_t *nodes;
	size_t n = cluster_node_corosync_nodes(l->node, &nodes);

	for (size_t i = 0; i < n; i++) {
		bool known = false;

		for (size_t k = 0; k < l->n_seen && !known; k++)
			known = l->seen[k] == nodes[i];
		if (!known && l->n_seen < LIMIT_HOSTS)
			l->seen[l->n_seen++] = nodes[i];
	}
}

/* On every node, leading or not: was there a quorum just before this one? */
static void note_current(struct leader *l)
{
	struct clog_status st;

	cluster_node_log_status(l->node, &st);
	if (st.phase == CLOG_IDLE)
		l->cold = true;
	if (!cluster_node_is_current(l->node))
		return;
	if (l->cold) {
		l->cold = false;
		l->n_seen = 0;
		l->patience_until_ms = uv_now(l->loop) + LEADER_COLD_PATIENCE_MS;
	}
	note_seen(l);
}

/* True: this node leads, with a manager of this epoch. */
static bool review(struct leader *l)
{
	struct clog_status st;
	bool leads;

	note_current(l);
	cluster_node_log_status(l->node, &st);
	leads = cluster_node_is_current(l->node) && st.leader == cluster_node_id(l->node);
	if (l->manager && (!leads || l->epoch != st.epoch))
		step_down(l);
	if (!leads || l->closing)
		return false;
	if (!l->manager) {
		log_notice("this host leads epoch %" PRIu64, st.epoch);
		l->manager = manager_new();
		l->epoch = st.epoch;
		give_members(l);
	}
	return true;
}

/* A host that was let in votes from the moment at which it is here and has the log: earlier the others could not
 * reach a quorum with it, and without it could not add it. */
static void add_voter(struct leader *l)
{
	const Gantry__ClusterModel *s = cluster_node_model(l->node)->state;
	struct clog_status st;

	if (l->adding || uv_now(l->loop) < l->add_not_before_ms)
		return;
	cluster_node_log_status(l->node, &st);
	for (size_t i = 0; i < st.n_synced; i++) {
		Gantry__Command command = GANTRY__COMMAND__INIT;
		Gantry__CmdHostAdd add = GANTRY__CMD_HOST_ADD__INIT;
		Gantry__Host *host = model_host_by_node(cluster_node_model(l->node), st.synced[i]);
		bool votes = false;

		for (size_t k = 0; k < s->n_voters; k++)
			votes = votes || s->voters[k] == st.synced[i];
		if (!host || votes)
			continue;
		log_notice("host %s holds the log: it gets a vote", host->name);
		add.host = host;
		command.epoch = l->epoch;
		command.body_case = GANTRY__COMMAND__BODY_HOST_ADD;
		command.host_add = &add;
		l->adding = st.synced[i];
		propose(l, &command, true);
		return;
	}
}

static void on_model(void *data)
{
	struct manager_event event = {.type = MANAGER_EVENT_MODEL};

	if (!review(data))
		return;
	give(data, &event);
	add_voter(data);
}

static void on_membership(void *data)
{
	if (!review(data))
		return;
	give_members(data);
	add_voter(data);
}

static void on_tick(uv_timer_t *timer)
{
	struct leader *l = timer->data;
	struct manager_event tick = {.type = MANAGER_EVENT_TICK}, refused = {.type = MANAGER_EVENT_REFUSED};

	if (!review(l))
		return;
	if (l->refused) {
		l->refused = false;
		give(l, &refused);
	}
	give(l, &tick);
	add_voter(l);
}

static void on_fenced(void *data, const char *host, int rc, const char *text)
{
	struct leader *l = data;
	struct manager_event event = {.type = MANAGER_EVENT_FENCED};

	if (!review(l))
		return;
	event.u.fenced.host = host;
	event.u.fenced.rc = rc;
	event.u.fenced.text = text;
	give(l, &event);
}

struct leader *leader_new(uv_loop_t *loop, struct cluster_node *node)
{
	struct leader *l = mem_alloc(sizeof(*l));
	struct cluster_node_listener listener = {.on_model = on_model, .on_membership = on_membership, .data = l};

	l->loop = loop;
	l->cold = true;
	l->node = node;
	l->fences = fence_runner_new(loop, on_fenced, l);
	uv_timer_init(loop, &l->tick);
	l->tick.data = l;
	uv_timer_start(&l->tick, on_tick, LEADER_TICK_MS, LEADER_TICK_MS);
	cluster_node_listen(node, &listener);
	return l;
}

static void on_tick_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void leader_close(struct leader *l)
{
	l->closing = true;
	step_down(l);
	fence_runner_free(l->fences);
	uv_close((uv_handle_t *)&l->tick, on_tick_closed);
}
