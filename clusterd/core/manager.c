/* The leader's decisions. Each look at the model goes through the same steps: hosts (who is lost, who is back, whom to
 * fence), migrations (whom to abort), domains (whom to place). What was proposed is not proposed again until the model has
 * changed there, or the proposal was refused, or a while has passed. Nothing here must survive the process. */
#include "clusterd/core/manager.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "clusterd/core/model_internal.h"

#define PROPOSAL_PATIENCE_MS 10000    /* an unanswered proposal is made again */
#define PENDING_KEPT_MS 600000
#define HEADLESS_MS 2000
#define STATE_NONE UINT64_MAX
#define REFUSED_PAUSE_MS 500
#define FENCE_RETRY_MS 5000           /* doubled with each failure */
#define FENCE_RETRY_MAX_MS 60000
#define START_RETRY_MS 60000          /* a domain that no host could start, but that shall run */

/* A decision that is under way, and the state that it was made for. */
struct pending {
	char key[LIMIT_NAME_CHARS + 16];
	uint64_t state;
	uint64_t again_ms;
};

struct fence_state {
	char host[LIMIT_NAME_CHARS + 1];
	uint64_t incarnation;
	bool running, proven;
	unsigned failures;
	uint64_t again_ms;
	char text[256];           /* the proof, or the last failure */
};

struct manager {
	uint64_t now_ms, epoch;
	uint32_t *members, *synced, *nodes, *seen;
	size_t n_members, n_synced, n_nodes, n_seen;
	uint64_t patience_until_ms;
	struct pending *pending;
	size_t n_pending;
	struct fence_state *fences;
	size_t n_fences;
	/* of the step */
	struct manager_action *actions;
	size_t n_actions;
	Gantry__Command **commands;
	char **texts;
	size_t n_commands, n_texts;
	struct placement_extra *extra;
	size_t n_extra;
};

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

static struct manager_action *action_new(struct manager *mgr, enum manager_action_type type, const char *reason)
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

/* Made if it is new; STATE_NONE is none that a thing is ever in. */
static struct pending *pending_of(struct manager *mgr, const char *kind, const char *name)
{
	char key[sizeof(mgr->pending->key)];
	struct pending *p;

	snprintf(key, sizeof(key), "%s %s", kind, name);
	for (size_t i = 0; i < mgr->n_pending; i++)
		if (model__is(mgr->pending[i].key, key))
			return &mgr->pending[i];
	mgr->pending = mem_realloc(mgr->pending, (mgr->n_pending + 1) * sizeof(*mgr->pending));
	p = &mgr->pending[mgr->n_pending++];
	*p = (struct pending){.state = STATE_NONE};
	memcpy(p->key, key, sizeof(key));
	return p;
}

/* True if this has not been proposed for this state of the thing, or long ago. */
static bool may_propose(struct manager *mgr, const char *kind, const char *name, uint64_t state)
{
	struct pending *p = pending_of(mgr, kind, name);

	/* What is over the limit of a step is decided again in the next one. */
	if (mgr->n_actions >= LIMIT_MANAGER_ACTIONS || (p->state == state && mgr->now_ms < p->again_ms))
		return false;
	p->state = state;
	p->again_ms = mgr->now_ms + PROPOSAL_PATIENCE_MS;
	return true;
}

/* A command of this epoch with a reason; the caller fills its body. */
static Gantry__Command *propose(struct manager *mgr, const char *fmt, ...)
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
	action_new(mgr, MANAGER_ACTION_PROPOSE, reason)->command = c;
	return c;
}

static void propose_note(struct manager *mgr, const Gantry__Host *h, const char *kind, const char *text)
{
	Gantry__Command *c = propose(mgr, "%s: %s", h->name, text);
	char subject[LIMIT_NAME_CHARS + 8];

	snprintf(subject, sizeof(subject), "host %s", h->name);
	c->body_case = GANTRY__COMMAND__BODY_EVENT_NOTE;
	c->event_note = PB_NEW(Gantry__CmdEventNote, gantry__cmd_event_note__init);
	c->event_note->severity = ERROR;
	pb_set_string(&c->event_note->subject, subject);
	pb_set_string(&c->event_note->kind, kind);
	pb_set_string(&c->event_note->text, text);
}

/* Said once for each life of the host, not every ten seconds. */
static bool note_due(struct manager *mgr, const Gantry__Host *h, uint64_t state)
{
	if (!may_propose(mgr, "note", h->name, state))
		return false;
	pending_of(mgr, "note", h->name)->again_ms = UINT64_MAX;
	return true;
}

static void propose_host(struct manager *mgr, const Gantry__Host *h, Gantry__HostState to, const char *reason, const char *proof)
{
	Gantry__Command *c;

	if (!may_propose(mgr, "host", h->name, h->state << 8 | to | h->incarnation << 16))
		return;
	c = propose(mgr, "%s %s: %s", h->name, to == HOST(DEAD) ? "is proven dead" : model__host_word(to), reason);
	c->body_case = GANTRY__COMMAND__BODY_HOST_STATE;
	c->host_state = PB_NEW(Gantry__CmdHostState, gantry__cmd_host_state__init);
	c->host_state->state = to;
	c->host_state->incarnation = h->incarnation + (to == HOST(ONLINE));
	pb_set_string(&c->host_state->name, h->name);
	pb_set_string(&c->host_state->reason, reason);
	pb_set_string(&c->host_state->proof, proof);
}

/* ---- hosts ----------------------------------------------------------------- */

static bool contains(const uint32_t *ids, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

static struct fence_state *fence_of(struct manager *mgr, const Gantry__Host *h)
{
	struct fence_state *f = NULL;

	for (size_t i = 0; i < mgr->n_fences && !f; i++)
		if (model__is(mgr->fences[i].host, h->name))
			f = &mgr->fences[i];
	if (!f) {
		mgr->fences = mem_realloc(mgr->fences, (mgr->n_fences + 1) * sizeof(*mgr->fences));
		f = &mgr->fences[mgr->n_fences++];
		*f = (struct fence_state){.incarnation = h->incarnation};
		snprintf(f->host, sizeof(f->host), "%s", h->name);
	}
	/* What was found out about an earlier life of the host is over; a run that is still going on is waited for. */
	if (f->incarnation != h->incarnation && !f->running) {
		f->incarnation = h->incarnation;
		f->proven = false;
		f->failures = 0;
		f->again_ms = 0;
	}
	return f;
}

/* Alive: its clusterd is in the group, or at least its corosync in the ring. A clusterd that crashed or is being upgraded
 * loses no host: its domains go on, and nothing about them is decided without it. */
static bool alive(const struct manager *mgr, const Gantry__Host *h)
{
	return contains(mgr->members, mgr->n_members, h->node_id) || contains(mgr->nodes, mgr->n_nodes, h->node_id);
}

/* When most of the others seem lost, it is rather the observer who is (no peer's fence storm). */
static bool storm(const struct manager *mgr, const struct model *m)
{
	size_t lost = 0, others = 0;

	for (size_t i = 0; i < m->state->n_hosts; i++) {
		const Gantry__Host *h = m->state->hosts[i];

		if (h->state == HOST(DEAD) || h->state == HOST(JOINING) || h->node_id == m->state->leader)
			continue;
		others++;
		lost += h->state == HOST(LOST) || h->state == HOST(FENCING) || !alive(mgr, h);
	}
	return lost * 2 > others && others > 1;
}

static bool hold_storm(struct manager *mgr, const struct model *m, const Gantry__Host *h)
{
	if (!storm(mgr, m))
		return false;
	if (note_due(mgr, h, h->incarnation | 1ull << 63))
		propose_note(mgr, h, "fence-held",
			     "not fenced: more than half of the other hosts seem lost at once, so it is rather this side that is cut off. "
			     "Confirm hosts that are off with 'clusterctl fence confirm'");
	return true;
}

static void decide_lost(struct manager *mgr, const struct model *m, const Gantry__Host *h)
{
	if (alive(mgr, h))
		return;   /* here again, but not yet in step: it will be online, or leave again */
	if (!h->n_fence) {
		if (note_due(mgr, h, h->incarnation))
			propose_note(mgr, h, "host-unfenceable",
				     "it cannot be proven dead: it has no fence device, so its domains stay where they are. Give it one with "
				     "'clusterctl fence set', or confirm that it is off with 'clusterctl fence confirm'");
		return;
	}
	if (hold_storm(mgr, m, h))
		return;
	propose_host(mgr, h, HOST(FENCING), "it left the membership; a proof of death is sought", "");
}

static void decide_fencing(struct manager *mgr, const struct model *m, const Gantry__Host *h, bool back)
{
	struct fence_state *f = fence_of(mgr, h);
	struct manager_action *a;

	if (f->proven) {
		propose_host(mgr, h, HOST(DEAD), f->text, f->text);
		return;
	}
	if (MUTANT(restart_before_fencing) || MUTANT(lease_without_proof)) {
		propose_host(mgr, h, HOST(DEAD), "it left the membership", "it left the membership");
		return;
	}
	if (f->running)
		return;
	if (back && !MUTANT(fence_without_looking)) {
		propose_host(mgr, h, HOST(ONLINE), "it came back before it was fenced", "");
		return;
	}
	/* One that is alive is not fenced, even if it is not in step yet; and a new leader asks itself the question of the storm again. */
	if ((alive(mgr, h) && !MUTANT(fence_without_looking)) || mgr->now_ms < f->again_ms || hold_storm(mgr, m, h) || mgr->n_actions >= LIMIT_MANAGER_ACTIONS)
		return;
	f->running = true;
	a = action_new(mgr, MANAGER_ACTION_FENCE, "a lost host must be proven dead before its domains move");
	a->host = h->name;
}

/* Its host is there and its clusterd is not: nothing new goes there until it is back. */
static void decide_headless(struct manager *mgr, const Gantry__Host *h)
{
	Gantry__Command *c;

	struct pending *since = pending_of(mgr, "headless", h->name);

	/* The group's news and the ring's come on two ways: a host that is lost looks so for a moment. */
	if (since->state != h->incarnation || mgr->now_ms - since->again_ms > 2 * HEADLESS_MS) {
		since->state = h->incarnation;
		since->again_ms = mgr->now_ms;
	}
	if (mgr->now_ms - since->again_ms < HEADLESS_MS)
		return;
	since->again_ms = mgr->now_ms - HEADLESS_MS;
	if (!h->agent_connected || !may_propose(mgr, "info", h->name, h->incarnation))
		return;
	propose_note(mgr, h, "clusterd-gone",
		     "its clusterd does not run, although its corosync does: its domains go on as they are, and are not moved or restarted "
		     "meanwhile. See 'journalctl -u clusterd' there");
	c = propose(mgr, "%s takes nothing new until its clusterd is back", h->name);
	c->body_case = GANTRY__COMMAND__BODY_HOST_INFO;
	c->host_info = PB_NEW(Gantry__CmdHostInfo, gantry__cmd_host_info__init);
	c->host_info->host = PB_NEW(Gantry__Host, gantry__host__init);
	pb_set_string(&c->host_info->host->name, h->name);
}

/* When the quorum has just formed, after a power cut perhaps, those who have not come yet are waited for. One who was here and
 * has left is lost at once. */
static bool may_be_booting(const struct manager *mgr, const Gantry__Host *h)
{
	return mgr->now_ms < mgr->patience_until_ms && !contains(mgr->seen, mgr->n_seen, h->node_id);
}

static void decide_host(struct manager *mgr, const struct model *m, const Gantry__Host *h)
{
	bool member = contains(mgr->members, mgr->n_members, h->node_id);
	bool synced = member && contains(mgr->synced, mgr->n_synced, h->node_id);

	switch (h->state) {
	case HOST(ONLINE):
		if (!alive(mgr, h) && !may_be_booting(mgr, h))
			propose_host(mgr, h, HOST(LOST), "it left the membership", "");
		else if (alive(mgr, h) && !member)
			decide_headless(mgr, h);
		break;
	case HOST(LOST):
		if (synced)
			propose_host(mgr, h, HOST(ONLINE), "it came back before it was fenced", "");
		else
			decide_lost(mgr, m, h);
		break;
	case HOST(FENCING):
		decide_fencing(mgr, m, h, synced);
		break;
	case HOST(JOINING):
	case HOST(DEAD):
	case HOST(UNKNOWN):
		if (synced)
			propose_host(mgr, h, HOST(ONLINE), h->state == HOST(DEAD) ? "it is back" : "it is here", "");
		break;
	default:
		break;
	}
}

static void on_fenced(struct manager *mgr, const struct model *m, const char *host, int rc, const char *text)
{
	const Gantry__Host *h = model_host(m, host);
	struct fence_state *f = h ? fence_of(mgr, h) : NULL;
	char note[ERR_TEXT_MAX];
	uint64_t wait;

	if (!f)
		return;
	f->running = false;
	/* The host had another life since: a proof about the old one says nothing about this one. */
	if (f->incarnation != h->incarnation)
		return;
	snprintf(f->text, sizeof(f->text), "%s", text ? text : "");
	if (rc == 0 || MUTANT(failed_fence_counts)) {
		f->proven = true;
		return;
	}
	wait = (uint64_t)FENCE_RETRY_MS << (f->failures < 4 ? f->failures : 4);
	f->failures++;
	f->again_ms = mgr->now_ms + (wait < FENCE_RETRY_MAX_MS ? wait : FENCE_RETRY_MAX_MS);
	snprintf(note, sizeof(note), "fencing failed (attempt %u): %s; again in %" PRIu64 " s", f->failures, f->text,
		 (f->again_ms - mgr->now_ms) / 1000);
	propose_note(mgr, h, "fence-failed", note);
}

/* ---- migrations ------------------------------------------------------------ */

static void propose_abort(struct manager *mgr, const Gantry__Job *j, bool cancelled, const char *reason)
{
	char id[24];
	Gantry__Command *c;

	snprintf(id, sizeof(id), "%" PRIu64, j->id);
	if (!may_propose(mgr, "job", id, cancelled))
		return;
	c = propose(mgr, "task %" PRIu64 " is aborted: %s", j->id, reason);
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

/* ---- domains --------------------------------------------------------------- */

static uint64_t text_hash(const char *s)
{
	uint64_t h = 14695981039346656037ull;

	while (*s)
		h = (h ^ (uint8_t)*s++) * 1099511628211ull;
	return h;
}

static void propose_wait(struct manager *mgr, const Gantry__Domain *d, const char *reason)
{
	Gantry__Command *c;

	/* Said once: the model remembers the reason. */
	if (d->state == DOM(WAITING) && strstr(d->reason, reason))
		return;
	if (!may_propose(mgr, "wait", d->spec->uuid, d->generation ^ text_hash(reason)))
		return;
	c = propose(mgr, "%s waits: %s", d->spec->name, reason);
	c->body_case = GANTRY__COMMAND__BODY_DOMAIN_WAIT;
	c->domain_wait = PB_NEW(Gantry__CmdDomainWait, gantry__cmd_domain_wait__init);
	c->domain_wait->generation = d->generation;
	pb_set_string(&c->domain_wait->uuid, d->spec->uuid);
	pb_set_string(&c->domain_wait->reason, reason);
}

static void promise(struct manager *mgr, const char *host, const Gantry__DomainSpec *spec)
{
	mgr->extra = mem_realloc(mgr->extra, (mgr->n_extra + 1) * sizeof(*mgr->extra));
	mgr->extra[mgr->n_extra++] =
		(struct placement_extra){.host = host, .memory_bytes = spec->memory_bytes, .vcpus = spec->vcpus};
}

static void propose_place(struct manager *mgr, const Gantry__Domain *d, const Gantry__Host *h, const char *reason)
{
	Gantry__Command *c;

	promise(mgr, h->name, d->spec);
	if (!may_propose(mgr, "place", d->spec->uuid, d->generation << 8 | d->state))
		return;
	c = propose(mgr, "%s goes to %s: %s", d->spec->name, h->name, reason);
	c->body_case = GANTRY__COMMAND__BODY_DOMAIN_PLACE;
	c->domain_place = PB_NEW(Gantry__CmdDomainPlace, gantry__cmd_domain_place__init);
	c->domain_place->generation = d->generation + 1;
	c->domain_place->job_id = d->job_id;
	pb_set_string(&c->domain_place->uuid, d->spec->uuid);
	pb_set_string(&c->domain_place->host, h->name);
	pb_set_string(&c->domain_place->reason, reason);
	pb_set_string(&c->domain_place->proof, d->previous_proof);
}

static void retry_later(struct manager *mgr, const Gantry__Domain *d)
{
	struct pending *p = pending_of(mgr, "retry", d->spec->uuid);

	p->state = d->generation;
	p->again_ms = mgr->now_ms + START_RETRY_MS;
}

/* A start that failed everywhere is tried again, but not at once. */
static bool retry_due(struct manager *mgr, const Gantry__Domain *d)
{
	struct pending *p = pending_of(mgr, "retry", d->spec->uuid);

	if (p->state == d->generation)
		return mgr->now_ms >= p->again_ms;
	retry_later(mgr, d);
	return false;
}

static void decide_domain(struct manager *mgr, const struct model *m, const Gantry__Domain *d)
{
	const Gantry__Job *job = model__domain_job(m, d);
	const char *wanted = job && job->kind == KIND(START) ? job->destination : NULL;
	const Gantry__Host *h;
	struct buf reason = {0};

	if (d->state == DOM(FAILED) && !retry_due(mgr, d))
		return;
	h = placement__choose(m, d->spec, wanted, d->state != DOM(FAILED) && d->start_failures ? d->failed_on : NULL, mgr->extra, mgr->n_extra, &reason);
	if (h)
		propose_place(mgr, d, h, buf_str(&reason));
	else if (d->state == DOM(FAILED))
		retry_later(mgr, d);
	else
		propose_wait(mgr, d, buf_str(&reason));
	buf_free(&reason);
}

static int by_name(const void *x, const void *y)
{
	const Gantry__Domain *const *a = x, *const *b = y;

	return strcmp((*a)->spec->name, (*b)->spec->name);
}

/* Where there is not room for all, those that come first by name get it. */
static void decide_domains(struct manager *mgr, const struct model *m)
{
	const Gantry__Domain **wanting = NULL;
	size_t n = 0;

	for (size_t i = 0; i < m->state->n_domains; i++) {
		if (!model__domain_wants_place(m->state->domains[i]))
			continue;
		wanting = mem_realloc(wanting, (n + 1) * sizeof(*wanting));
		wanting[n++] = m->state->domains[i];
	}
	if (n)
		qsort(wanting, n, sizeof(*wanting), by_name);
	for (size_t i = 0; i < n; i++)
		decide_domain(mgr, m, wanting[i]);
	free(wanting);
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
	pending_prune(mgr);
	mgr->epoch = event->epoch;
	if (event->type == MANAGER_EVENT_MEMBERS)
		take_members(mgr, event);
	if (event->type == MANAGER_EVENT_FENCED)
		on_fenced(mgr, m, event->u.fenced.host, event->u.fenced.rc, event->u.fenced.text);
	if (event->type == MANAGER_EVENT_REFUSED)
		for (size_t i = 0; i < mgr->n_pending; i++)
			if (strncmp(mgr->pending[i].key, "retry ", 6) && strncmp(mgr->pending[i].key, "note ", 5) &&
			    mgr->pending[i].again_ms > mgr->now_ms + REFUSED_PAUSE_MS)
				mgr->pending[i].again_ms = mgr->now_ms + REFUSED_PAUSE_MS;
	/* Without members nothing was seen yet: nobody is lost. And what the model says must be of this reign: else another
	 * leader's last commands may still be on their way. */
	if (mgr->n_members && m->state->applied_epoch == mgr->epoch) {
		for (size_t i = 0; i < m->state->n_hosts; i++)
			decide_host(mgr, m, m->state->hosts[i]);
		for (size_t i = 0; i < m->state->n_jobs; i++)
			decide_job(mgr, m, m->state->jobs[i]);
		decide_domains(mgr, m);
	}
	*ret = mgr->actions;
	*ret_n = mgr->n_actions;
}
