/* What only the leader does: runs the manager over the model while this node leads an epoch and is current in it, carries
 * its decisions out, and makes hosts that were let in voters once they hold the log. A new epoch begins with a fresh
 * manager: it finds everything in the model. */
#include "clusterd/core/node_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A leader acts on what it knows of the present: one of its own messages, sent no longer ago than this, has come back through the group, and
 * with it all that was ordered before. A process that was stopped may find its timers due, and the membership of an hour ago in its
 * memory, before it reads that it leads no more. */
#define LEAD_CONFIRMED_MS 3000
#define LEAD_CONFIRM_AGAIN_MS 20
#define LEAD_TICK_MS 500
#define LEAD_REFUSED_MS 50
#define LEAD_ADD_AGAIN_MS 2000
/* A quorum that has just formed, after none was here: who has not come yet may be booting and is waited for so long. */
#define LEAD_COLD_PATIENCE_MS 30000

/* Which proposal an answer belongs to. */
struct lead_request {
	struct node *node;
	uint64_t epoch;
	bool host_add;
};

static void on_result(void *data, const Gantry__CommandResult *result)
{
	const struct lead_request *r = data;
	struct node *n = r->node;
	struct node_lead *l = &n->lead;
	bool refused = result->status != GANTRY__STATUS__STATUS_OK;

	if (r->host_add) {
		l->adding = 0;
		l->add_not_before_ms = n->now_ms + (refused ? LEAD_ADD_AGAIN_MS : 0);
	}
	if (refused)
		node__note(n, NODE_INFO, "a decision of this leader was refused: %s", result->text);
	/* Not from in here, which may be within the proposing: soon. */
	if (refused && !r->host_add && r->epoch == l->epoch) {
		l->refused = true;
		l->due_ms = n->now_ms + LEAD_REFUSED_MS;
	}
}

static void propose(struct node *n, Gantry__Command *command, bool host_add)
{
	struct lead_request *r = mem_alloc(sizeof(*r));

	*r = (struct lead_request){.node = n, .epoch = n->lead.epoch, .host_add = host_add};
	node__propose(n, command, false, on_result, r, true);
}

static void fence(struct node *n, const char *name)
{
	struct node_action a = {.type = NODE_ACTION_FENCE};

	a.u.fence.host = model_host(&n->model, name);
	if (a.u.fence.host)
		node__act(n, &a);
}

static void give(struct node *n, struct manager_event *event)
{
	const struct manager_action *actions;
	Gantry__Command **commands;
	size_t count, n_commands = 0;

	event->now_ms = n->now_ms;
	event->wall_ms = n->wall_ms;
	event->epoch = n->lead.epoch;
	manager_step(n->lead.manager, &n->model, event, &actions, &count);
	if (!count)
		return;
	commands = mem_alloc(count * sizeof(*commands));
	for (size_t i = 0; i < count; i++) {
		if (actions[i].type == MANAGER_ACTION_FENCE) {
			fence(n, actions[i].host);
			continue;
		}
		node__note(n, NODE_INFO, "leader: %s", actions[i].reason);
		commands[n_commands++] = pb_clone(actions[i].command);
	}
	/* Copies: what is proposed may step the manager again, which ends the life of its actions. */
	for (size_t i = 0; i < n_commands; i++) {
		propose(n, commands[i], false);
		gantry__command__free_unpacked(commands[i], NULL);
	}
	free(commands);
}

static void give_members(struct node *n)
{
	struct manager_event event = {.type = MANAGER_EVENT_MEMBERS};
	struct clog_status st;

	node_log_status(n, &st);
	event.u.members.members = st.members;
	event.u.members.n_members = st.n_members;
	event.u.members.synced = st.synced;
	event.u.members.n_synced = st.n_synced;
	event.u.members.patience_until_ms = n->lead.patience_until_ms;
	event.u.members.seen = n->lead.seen;
	event.u.members.n_seen = n->lead.n_seen;
	event.u.members.nodes = n->ring;
	event.u.members.n_nodes = n->n_ring;
	give(n, &event);
}

static void step_down(struct node *n)
{
	if (!n->lead.manager)
		return;
	node__note(n, NODE_NOTICE, "this host leads no more (epoch %" PRIu64 ")", n->lead.epoch);
	manager_free(n->lead.manager);
	n->lead.manager = NULL;
	n->lead.adding = 0;
	n->lead.n_fenced = 0;
	node__act(n, &(struct node_action){.type = NODE_ACTION_FENCE_CANCEL});
}

static void note_seen(struct node *n)
{
	struct node_lead *l = &n->lead;

	for (size_t i = 0; i < n->n_ring; i++)
		if (!node__listed(l->seen, l->n_seen, n->ring[i]) && l->n_seen < LIMIT_HOSTS)
			l->seen[l->n_seen++] = n->ring[i];
}

/* Most of the voters' hosts are there, whatever their clusterds do. */
static bool ring_stands(const struct node *n, const struct clog_status *st)
{
	size_t here = 0;

	for (size_t i = 0; i < st->n_voters; i++)
		here += node__listed(n->ring, n->n_ring, st->voters[i]);
	return here * 2 > st->n_voters;
}

/* On every node, leading or not: was there a quorum just before this one? A clusterd that hangs takes the log's, not the hosts'. */
static void note_current(struct node *n, const struct clog_status *st)
{
	struct node_lead *l = &n->lead;

	if (st->phase == CLOG_IDLE && !ring_stands(n, st))
		l->cold = true;
	if (!node_is_current(n))
		return;
	if (l->cold) {
		l->cold = false;
		l->n_seen = 0;
		l->patience_until_ms = n->now_ms + LEAD_COLD_PATIENCE_MS;
	}
	note_seen(n);
}

static bool is_confirmed(struct node *n, const struct clog_status *st)
{
	if (MUTANT(two_leaders_decide) || (st->confirmed_ms && n->now_ms - st->confirmed_ms <= LEAD_CONFIRMED_MS))
		return true;
	if (n->lead.due_ms > n->now_ms + LEAD_CONFIRM_AGAIN_MS)
		n->lead.due_ms = n->now_ms + LEAD_CONFIRM_AGAIN_MS;
	return false;
}

/* True: this node leads, with a manager of this epoch, and knows the present. */
static bool review(struct node *n)
{
	struct node_lead *l = &n->lead;
	struct clog_status st;
	bool leads;

	node_log_status(n, &st);
	note_current(n, &st);
	if (node_is_current(n) && l->manager && l->epoch == st.epoch && !is_confirmed(n, &st))
		return false;
	leads = (node_is_current(n) && st.leader == n->node_id) || (MUTANT(two_leaders_decide) && n->model.state->n_hosts);
	if (l->manager && (!leads || l->epoch != st.epoch))
		step_down(n);
	if (!leads)
		return false;
	if (!is_confirmed(n, &st))
		return false;
	if (!l->manager) {
		node__note(n, NODE_NOTICE, "this host leads epoch %" PRIu64, st.epoch);
		l->manager = manager_new();
		l->epoch = st.epoch;
		give_members(n);
	}
	return true;
}

/* A host that was let in votes from the moment at which it is here and has the log: earlier the others could not
 * reach a quorum with it, and without it could not add it. */
static void add_voter(struct node *n)
{
	const Gantry__ClusterModel *s = n->model.state;
	struct clog_status st;

	if (n->lead.adding || n->now_ms < n->lead.add_not_before_ms)
		return;
	node_log_status(n, &st);
	for (size_t i = 0; i < st.n_synced; i++) {
		Gantry__Command command = GANTRY__COMMAND__INIT;
		Gantry__CmdHostAdd add = GANTRY__CMD_HOST_ADD__INIT;
		Gantry__Host *host = model_host_by_node(&n->model, st.synced[i]);

		if (!host || node__listed(s->voters, s->n_voters, st.synced[i]))
			continue;
		node__note(n, NODE_NOTICE, "host %s holds the log: it gets a vote", host->name);
		add.host = host;
		command.epoch = n->lead.epoch;
		command.body_case = GANTRY__COMMAND__BODY_HOST_ADD;
		command.host_add = &add;
		n->lead.adding = st.synced[i];
		propose(n, &command, true);
		return;
	}
}

static void give_fenced(struct node *n)
{
	struct node_lead *l = &n->lead;

	for (size_t i = 0; i < l->n_fenced; i++) {
		struct manager_event event = {.type = MANAGER_EVENT_FENCED};

		event.u.fenced.host = l->fenced[i].host;
		event.u.fenced.rc = l->fenced[i].rc;
		event.u.fenced.text = l->fenced[i].text;
		event.u.fenced.by_time = l->fenced[i].by_time;
		give(n, &event);
	}
	l->n_fenced = 0;
}

void node__lead_model(struct node *n)
{
	struct manager_event event = {.type = MANAGER_EVENT_MODEL};

	if (!review(n))
		return;
	give(n, &event);
	add_voter(n);
}

void node__lead_membership(struct node *n)
{
	if (!review(n))
		return;
	give_members(n);
	add_voter(n);
}

void node__lead_tick(struct node *n)
{
	struct manager_event tick = {.type = MANAGER_EVENT_TICK}, refused = {.type = MANAGER_EVENT_REFUSED};

	if (n->now_ms < n->lead.due_ms)
		return;
	n->lead.due_ms = n->now_ms + LEAD_TICK_MS;
	if (!review(n))
		return;
	give_fenced(n);
	if (n->lead.refused) {
		n->lead.refused = false;
		give(n, &refused);
	}
	give(n, &tick);
	add_voter(n);
}

/* Kept until it is certain that we still lead: the run was ours, and its end must not be lost. */
void node__lead_fenced(struct node *n, const char *host, int rc, const char *text, bool by_time)
{
	struct node_lead *l = &n->lead;

	if (!l->manager || l->n_fenced == LIMIT_HOSTS)
		return;
	l->fenced[l->n_fenced].rc = rc;
	l->fenced[l->n_fenced].by_time = by_time;
	snprintf(l->fenced[l->n_fenced].host, sizeof(l->fenced->host), "%s", host);
	snprintf(l->fenced[l->n_fenced++].text, sizeof(l->fenced->text), "%s", text ? text : "");
	if (review(n))
		give_fenced(n);
}

void node__lead_free(struct node *n)
{
	manager_free(n->lead.manager);
	n->lead.manager = NULL;
}
