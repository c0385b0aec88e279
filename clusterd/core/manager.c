/* The leader's decisions. Each look at the model goes through the same steps: hosts (who is lost, who is back, whom to
 * fence), migrations (whom to abort), domains (whom to place). What was proposed is not proposed again until the model has
 * changed there, or the proposal was refused, or a while has passed. Nothing here must survive the process. */
#include "clusterd/core/manager_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define PROPOSAL_PATIENCE_MS 10000    /* an unanswered proposal is made again */
#define PENDING_KEPT_MS 600000
#define REFUSED_PAUSE_MS 500
#define SINCE_GAP_MS 4000             /* not asked for so long: it was not so meanwhile */

struct manager *manager_new(void)
{
	return mem_alloc(sizeof(struct manager));
}

static void step_clear(struct manager *mgr)
{
	for (size_t i = 0; i < mgr->n_commands; i++)
		gantry__command__free_unpacked(mgr->commands[i], NULL);
	for (size_t i = 0; i < mgr->n_texts; i++)
		free(mgr->texts[i]);
	mgr->n_actions = mgr->n_commands = mgr->n_texts = mgr->n_extra = 0;
}

void manager_free(struct manager *mgr)
{
	if (!mgr)
		return;
	step_clear(mgr);
	free(mgr->members);
	free(mgr->nodes);
	free(mgr->seen);
	free(mgr->synced);
	free(mgr->pending);
	free(mgr->fences);
	free(mgr->actions);
	free(mgr->commands);
	free(mgr->texts);
	free(mgr->extra);
	free(mgr);
}

/* ---- actions --------------------------------------------------------------- */

static const char *text_new(struct manager *mgr, const char *fmt, va_list args)
{
	char text[ERR_TEXT_MAX];

	vsnprintf(text, sizeof(text), fmt, args);
	mgr->texts = mem_realloc(mgr->texts, (mgr->n_texts + 1) * sizeof(*mgr->texts));
	return mgr->texts[mgr->n_texts++] = str_dup(text);
}

struct manager_action *manager__action(struct manager *mgr, enum manager_action_type type, const char *reason)
{
	struct manager_action *a;

	mgr->actions = mem_realloc(mgr->actions, (mgr->n_actions + 1) * sizeof(*mgr->actions));
	a = &mgr->actions[mgr->n_actions++];
	*a = (struct manager_action){.type = type, .reason = reason};
	return a;
}

/* Decisions whose time is over long since say nothing any more; those of things that are gone would pile up. */
static void pending_prune(struct manager *mgr)
{
	size_t n = 0;

	for (size_t i = 0; i < mgr->n_pending; i++)
		if (mgr->pending[i].again_ms > mgr->now_ms || mgr->now_ms - mgr->pending[i].again_ms < PENDING_KEPT_MS)
			mgr->pending[n++] = mgr->pending[i];
	mgr->n_pending = n;
}

struct pending *manager__pending(struct manager *mgr, const char *kind, const char *name)
{
	char key[sizeof(mgr->pending->key)];
	struct pending *p;

	snprintf(key, sizeof(key), "%s %s", kind, name);
	for (size_t i = 0; i < mgr->n_pending; i++)
		if (model__is(mgr->pending[i].key, key))
			return &mgr->pending[i];
	mgr->pending = mem_realloc(mgr->pending, (mgr->n_pending + 1) * sizeof(*mgr->pending));
	p = &mgr->pending[mgr->n_pending++];
	*p = (struct pending){.state = PENDING_NONE};
	memcpy(p->key, key, sizeof(key));
	return p;
}

bool manager__may_propose(struct manager *mgr, const char *kind, const char *name, uint64_t state)
{
	struct pending *p = manager__pending(mgr, kind, name);

	/* What is over the limit of a step is decided again in the next one. */
	if (mgr->n_actions >= LIMIT_MANAGER_ACTIONS || (p->state == state && mgr->now_ms < p->again_ms))
		return false;
	p->state = state;
	p->again_ms = mgr->now_ms + PROPOSAL_PATIENCE_MS;
	return true;
}

Gantry__Command *manager__propose(struct manager *mgr, const char *fmt, ...)
{
	Gantry__Command *c = PB_NEW(Gantry__Command, gantry__command__init);
	const char *reason;
	va_list args;

	va_start(args, fmt);
	reason = text_new(mgr, fmt, args);
	va_end(args);
	c->version = MODEL_COMMAND_VERSION;
	c->epoch = mgr->epoch;
	mgr->commands = mem_realloc(mgr->commands, (mgr->n_commands + 1) * sizeof(*mgr->commands));
	mgr->commands[mgr->n_commands++] = c;
	manager__action(mgr, MANAGER_ACTION_PROPOSE, reason)->command = c;
	return c;
}

void manager__note(struct manager *mgr, Gantry__EventSeverity severity, const char *subject, const char *name, const char *kind, const char *text)
{
	Gantry__Command *c = manager__propose(mgr, "%s: %s", name, text);
	char what[LIMIT_NAME_CHARS + 16];

	snprintf(what, sizeof(what), "%s %s", subject, name);
	c->body_case = GANTRY__COMMAND__BODY_EVENT_NOTE;
	c->event_note = PB_NEW(Gantry__CmdEventNote, gantry__cmd_event_note__init);
	c->event_note->severity = severity;
	pb_set_string(&c->event_note->subject, what);
	pb_set_string(&c->event_note->kind, kind);
	pb_set_string(&c->event_note->text, text);
}

bool manager__contains(const uint32_t *ids, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

uint64_t manager__since(struct manager *mgr, const char *kind, const char *name, uint64_t state)
{
	struct pending *p = manager__pending(mgr, kind, name);

	/* again_ms: when it was asked for last; since_ms: from when on. */
	if (p->state != state || mgr->now_ms - p->again_ms > SINCE_GAP_MS) {
		p->state = state;
		p->since_ms = mgr->now_ms;
	}
	p->again_ms = mgr->now_ms;
	return p->since_ms;
}

/* ---- migrations ------------------------------------------------------------ */

static void propose_abort(struct manager *mgr, const Gantry__Job *j, bool cancelled, const char *reason)
{
	char id[24];
	Gantry__Command *c;

	snprintf(id, sizeof(id), "%" PRIu64, j->id);
	if (!manager__may_propose(mgr, "job", id, cancelled))
		return;
	c = manager__propose(mgr, "task %" PRIu64 " is aborted: %s", j->id, reason);
	c->body_case = GANTRY__COMMAND__BODY_MIGRATE_ABORT;
	c->migrate_abort = PB_NEW(Gantry__CmdMigrateAbort, gantry__cmd_migrate_abort__init);
	c->migrate_abort->job_id = j->id;
	c->migrate_abort->cancelled = cancelled;
	pb_set_string(&c->migrate_abort->reason, reason);
}

static void decide_job(struct manager *mgr, const struct model *m, const Gantry__Job *j)
{
	const Gantry__Host *source, *destination;
	char reason[2 * LIMIT_NAME_CHARS];

	if (j->kind != KIND(MIGRATE) || j->state != JOB(RUNNING) || j->committed)
		return;
	if (j->cancel_requested) {
		propose_abort(mgr, j, true, "cancelled by the user");
		return;
	}
	source = model_host(m, j->source);
	destination = model_host(m, j->destination);
	if (source && source->state == HOST(ONLINE) && destination && destination->state == HOST(ONLINE))
		return;
	if (!destination || destination->state != HOST(ONLINE))
		snprintf(reason, sizeof(reason), "the destination %s is %s", j->destination,
			 destination ? model__host_word(destination->state) : "removed");
	else
		snprintf(reason, sizeof(reason), "the source %s is %s", j->source, source ? model__host_word(source->state) : "removed");
	propose_abort(mgr, j, false, reason);
}

/* ---- automatic action ------------------------------------------------------- */

/* Off for a time only: by the leader's clock, or, should that be wrong, as long as was asked for since it leads. */
static void decide_arming(struct manager *mgr, const struct model *m)
{
	const Gantry__HaState *ha = m->state->ha;
	Gantry__Command *c;

	if (!model__disarmed(m))
		return;
	if (mgr->wall_ms < ha->until_ms && mgr->now_ms - manager__since(mgr, "disarmed", "cluster", ha->until_ms) < ha->for_ms)
		return;
	if (!manager__may_propose(mgr, "arm", "cluster", ha->until_ms))
		return;
	c = manager__propose(mgr, "automatic action is on again: its time was over");
	c->body_case = GANTRY__COMMAND__BODY_HA_ARM;
	c->ha_arm = PB_NEW(Gantry__CmdHaArm, gantry__cmd_ha_arm__init);
	c->ha_arm->armed = true;
	pb_set_string(&c->ha_arm->reason, "the time for which it was off is over");
}

/* ---- the step -------------------------------------------------------------- */

static void take_members(struct manager *mgr, const struct manager_event *event)
{
	free(mgr->members);
	free(mgr->synced);
	mgr->n_members = event->u.members.n_members;
	mgr->n_synced = event->u.members.n_synced;
	mgr->members = mgr->n_members ? mem_dup(event->u.members.members, mgr->n_members * sizeof(uint32_t)) : NULL;
	mgr->synced = mgr->n_synced ? mem_dup(event->u.members.synced, mgr->n_synced * sizeof(uint32_t)) : NULL;
	mgr->patience_until_ms = event->u.members.patience_until_ms;
	mgr->n_seen = event->u.members.n_seen;
	free(mgr->seen);
	mgr->seen = mgr->n_seen ? mem_dup(event->u.members.seen, mgr->n_seen * sizeof(uint32_t)) : NULL;
	mgr->n_nodes = event->u.members.n_nodes;
	free(mgr->nodes);
	mgr->nodes = mgr->n_nodes ? mem_dup(event->u.members.nodes, mgr->n_nodes * sizeof(uint32_t)) : NULL;
}

void manager_step(struct manager *mgr, const struct model *m, const struct manager_event *event, const struct manager_action **ret,
		  size_t *ret_n)
{
	step_clear(mgr);
	mgr->now_ms = event->now_ms;
	mgr->wall_ms = event->wall_ms;
	pending_prune(mgr);
	mgr->epoch = event->epoch;
	if (event->type == MANAGER_EVENT_MEMBERS)
		take_members(mgr, event);
	if (event->type == MANAGER_EVENT_FENCED)
		manager__fenced(mgr, m, event);
	if (event->type == MANAGER_EVENT_REFUSED)
		for (size_t i = 0; i < mgr->n_pending; i++)
			if (strncmp(mgr->pending[i].key, "retry ", 6) && strncmp(mgr->pending[i].key, "note ", 5) &&
			    mgr->pending[i].again_ms > mgr->now_ms + REFUSED_PAUSE_MS)
				mgr->pending[i].again_ms = mgr->now_ms + REFUSED_PAUSE_MS;
	/* Without members nothing was seen yet: nobody is lost. And what the model says must be of this reign: else another
	 * leader's last commands may still be on their way. */
	if (mgr->n_members && m->state->applied_epoch == mgr->epoch) {
		decide_arming(mgr, m);
		manager__decide_hosts(mgr, m);
		for (size_t i = 0; i < m->state->n_jobs; i++)
			decide_job(mgr, m, m->state->jobs[i]);
		manager__decide_domains(mgr, m);
	}
	*ret = mgr->actions;
	*ret_n = mgr->n_actions;
}
