#include <assert.h>
#include <stdio.h>

#include "clusterd/core/model_internal.h"

/* ---- the mover ------------------------------------------------------------- */

#define TO(x) (1u << DOM(x))

/* From a state to which ones. Staying (with a new owner, generation or reason) is a transition too. */
static const unsigned may_move[] = {
	[DOM(STOPPED)] = TO(WAITING),
	[DOM(STARTING)] = TO(STARTING) | TO(RUNNING) | TO(PAUSED) | TO(STOPPING) | TO(STOPPED) | TO(CRASHED) | TO(FAILED) | TO(WAITING),
	[DOM(RUNNING)] = TO(RUNNING) | TO(STARTING) | TO(PAUSED) | TO(STOPPING) | TO(STOPPED) | TO(CRASHED) | TO(FAILED) | TO(WAITING),
	[DOM(PAUSED)] = TO(PAUSED) | TO(STARTING) | TO(RUNNING) | TO(STOPPING) | TO(STOPPED) | TO(CRASHED) | TO(FAILED) | TO(WAITING),
	[DOM(STOPPING)] = TO(STOPPING) | TO(STOPPED) | TO(WAITING),
	[DOM(CRASHED)] = TO(WAITING),
	[DOM(FAILED)] = TO(WAITING) | TO(STARTING) | TO(STOPPED),
	[DOM(WAITING)] = TO(WAITING) | TO(STARTING) | TO(STOPPED) | TO(FAILED),
};
/* The states in which a host has the domain in hand. */
#define OWNED (TO(STARTING) | TO(RUNNING) | TO(PAUSED) | TO(STOPPING))

void model__domain_move(struct model_apply *a, Gantry__Domain *d, Gantry__DomainState to, const char *host, uint64_t generation,
			const char *reason)
{
	bool owned = OWNED & (1u << to), new_owner = *host && !model__is(host, d->host);

	assert(may_move[d->state] & (1u << to));
	assert(owned == (*host != '\0'));
	assert(generation == d->generation || (generation == d->generation + 1 && *host));
	assert(!new_owner || generation == d->generation + 1);
	if (!model__is(host, d->host)) {
		model__use_remove(a->m, d->host, d->spec, true);
		model__use_add(a->m, host, d->spec, true);
	}
	if (to != d->state)
		d->state_since_ms = a->cmd->time_ms;
	d->state = to;
	if (generation != d->generation)
		d->owned_index = a->index;
	/* A guest that moved is the same guest. */
	if (to != DOM(RUNNING) && to != DOM(PAUSED))
		d->ready = false;
	d->generation = generation;
	pb_set_string(&d->reason, reason);
	if (owned)
		pb_set_string(&d->last_host, host);
	/* Last: host may be the very text that is replaced here. */
	pb_set_string(&d->host, host);
}

void model__domain_leave(struct model_apply *a, Gantry__Domain *d, Gantry__DomainState to, const char *reason, const char *proof)
{
	assert(*d->host);
	pb_set_string(&d->previous_host, d->host);
	pb_set_string(&d->previous_proof, MUTANT(lease_without_proof) ? "" : proof);
	pb_set_string(&d->evicted, NULL);
	model__domain_move(a, d, to, "", d->generation, reason);
}

bool model__domain_wants_place(const Gantry__Domain *d)
{
	return d->goal != GOAL(STOPPED) && (d->state == DOM(WAITING) || d->state == DOM(FAILED));
}

/* ---- the ends of a run ------------------------------------------------------ */

/* The task that has the domain in hand can not be done any more, unless it is the one that starts it. */
static void fail_other_job(struct model_apply *a, Gantry__Domain *d, bool starts_go_on, const char *reason)
{
	Gantry__Job *job = model__domain_job(a->m, d);

	if (!job || (starts_go_on && (job->kind == KIND(START) || job->kind == KIND(FAILOVER))))
		return;
	if (job->kind == KIND(MIGRATE))
		model__event(a, ERROR, "domain", d->spec->name, "migration-failed", "task %llu, %s to %s: %s", (unsigned long long)job->id,
			     job->source, job->destination, reason);
	model__job_end(a, job, JOB(FAILED), reason);
}

/* For good: only a user starts it again. */
static void end_for_good(struct model_apply *a, Gantry__Domain *d, Gantry__DomainState to, const char *reason, const char *proof)
{
	fail_other_job(a, d, false, reason);
	d->goal = GOAL(STOPPED);
	model__domain_leave(a, d, to, reason, proof);
}

static void end_to_restart(struct model_apply *a, Gantry__Domain *d, const char *reason, const char *proof)
{
	fail_other_job(a, d, true, reason);
	model__domain_leave(a, d, DOM(WAITING), reason, proof);
	model__event(a, WARNING, "domain", d->spec->name, "domain-restarting", "%s; it is started again", reason);
}

static void ended_as_wished(struct model_apply *a, Gantry__Domain *d, const char *reason, const char *proof)
{
	Gantry__Job *job = model__domain_job(a->m, d);

	if (job)
		model__job_end(a, job, job->kind == KIND(STOP) ? JOB(DONE) : JOB(CANCELLED), reason);
	model__domain_leave(a, d, DOM(STOPPED), reason, proof);
	model__event(a, INFO, "domain", d->spec->name, "domain-stopped", "%s is stopped%s%s", d->spec->name, *reason ? ": " : "", reason);
}

/* A restart by policy: so many in a row on one host, as many elsewhere, then no more. A run that was long enough begins a new row. */
static void restart_counted(struct model_apply *a, Gantry__Domain *d, const char *reason, const char *proof)
{
	char text[ERR_TEXT_MAX];

	if (d->state != DOM(STARTING) && a->cmd->time_ms >= d->state_since_ms + LIMIT_RESTART_STEADY_MS) {
		d->restart_failures = 0;
		pb_set_string(&d->crashed_on, NULL);
	}
	d->restart_failures++;
	/* It may be the host. */
	if (d->restart_failures == d->policy->restarts + 1)
		pb_set_string(&d->crashed_on, d->host);
	if (d->restart_failures <= 2 * d->policy->restarts) {
		end_to_restart(a, d, reason, proof);
		return;
	}
	snprintf(text, sizeof(text), "%s; it was restarted %u times in a row: look for the cause, then start it", reason, d->restart_failures - 1);
	end_for_good(a, d, DOM(FAILED), text, proof);
	model__event(a, ERROR, "domain", d->spec->name, "domain-failed", "%s", text);
}

static bool action_restarts(Gantry__LifecycleAction action, bool by_default)
{
	switch (action) {
	case GANTRY__LIFECYCLE_ACTION__LIFECYCLE_DEFAULT:
		return by_default;
	case GANTRY__LIFECYCLE_ACTION__LIFECYCLE_RESTART:
	case GANTRY__LIFECYCLE_ACTION__LIFECYCLE_RENAME_RESTART:
	case GANTRY__LIFECYCLE_ACTION__LIFECYCLE_COREDUMP_RESTART:
	case GANTRY__LIFECYCLE_ACTION__LIFECYCLE_SOFT_RESET:
		return true;
	default:
		return false;
	}
}

static void ended_crashed(struct model_apply *a, Gantry__Domain *d, const char *why, const char *proof)
{
	char reason[ERR_TEXT_MAX];

	snprintf(reason, sizeof(reason), "%s crashed on %s: %s", d->spec->name, d->host, why);
	if (action_restarts(d->spec->on_crash, d->ha)) {
		restart_counted(a, d, reason, proof);
		return;
	}
	end_for_good(a, d, DOM(CRASHED), reason, proof);
	model__event(a, ERROR, "domain", d->spec->name, "domain-crashed", "%s", reason);
}

static void ended_hung(struct model_apply *a, Gantry__Domain *d, const char *why, const char *proof)
{
	char reason[ERR_TEXT_MAX];

	snprintf(reason, sizeof(reason), "%s hung on %s: %s", d->spec->name, d->host, why);
	if (action_restarts(d->spec->on_watchdog, d->ha)) {
		restart_counted(a, d, reason, proof);
		return;
	}
	end_for_good(a, d, DOM(CRASHED), reason, proof);
	model__event(a, ERROR, "domain", d->spec->name, "domain-crashed", "%s", reason);
}

/* The cluster wanted it to leave its host, and to go on elsewhere or later. */
static void ended_evicted(struct model_apply *a, Gantry__Domain *d, const char *proof)
{
	char reason[ERR_TEXT_MAX];

	snprintf(reason, sizeof(reason), "%s", d->evicted);
	fail_other_job(a, d, true, reason);
	model__domain_leave(a, d, DOM(WAITING), reason, proof);
	model__event(a, INFO, "domain", d->spec->name, "domain-restarting", "%s has ended on %s and is started again where it can be", d->spec->name,
		     d->previous_host);
}

static void ended_by_guest(struct model_apply *a, Gantry__Domain *d, const char *why, const char *proof)
{
	char reason[ERR_TEXT_MAX];

	snprintf(reason, sizeof(reason), "%s on %s: %s", d->spec->name, d->host, *why ? why : "the guest shut down");
	model__event(a, INFO, "domain", d->spec->name, "domain-shutdown", "%s", reason);
	if (action_restarts(d->spec->on_poweroff, false))
		restart_counted(a, d, reason, proof);
	else
		end_for_good(a, d, DOM(STOPPED), reason, proof);
}

/* Neither the guest nor a user: its host ended it (self-fence, restart of the host). */
static void ended_by_host(struct model_apply *a, Gantry__Domain *d, const char *why, const char *proof)
{
	char reason[ERR_TEXT_MAX];

	snprintf(reason, sizeof(reason), "%s ended on %s: %s", d->spec->name, d->host, *why ? why : "its host ended it");
	if (d->ha) {
		end_to_restart(a, d, reason, proof);
		return;
	}
	end_for_good(a, d, DOM(STOPPED), reason, proof);
	model__event(a, WARNING, "domain", d->spec->name, "domain-stopped", "%s; it is not HA", reason);
}

/* No host could start it. What a user has just asked for is answered with the reason; what ran before and is kept
 * up by the cluster is tried again from time to time (the manager's back-off). */
static void start_given_up(struct model_apply *a, Gantry__Domain *d, const char *reason)
{
	Gantry__Job *job = model__domain_job(a->m, d);

	if (job && job->kind == KIND(START))
		d->goal = GOAL(STOPPED);
	if (job)
		model__job_end(a, job, JOB(FAILED), reason);
	model__event(a, ERROR, "domain", d->spec->name, "domain-failed", "%s%s", reason,
		     d->goal == GOAL(STOPPED) ? "" : "; it is tried again later");
}

static void ended_start_failed(struct model_apply *a, Gantry__Domain *d, const char *why, const char *proof)
{
	const Gantry__Job *job = model__domain_job(a->m, d);
	bool bound = job && job->kind == KIND(START) && *job->destination;
	char reason[ERR_TEXT_MAX];

	snprintf(reason, sizeof(reason), "%s could not be started on %s: %s", d->spec->name, d->host, why);
	d->start_failures++;
	pb_set_string(&d->failed_on, d->host);
	if (d->start_failures < LIMIT_START_TRIES && !bound) {
		fail_other_job(a, d, true, reason);
		model__domain_leave(a, d, DOM(WAITING), reason, proof);
		model__event(a, WARNING, "domain", d->spec->name, "domain-start-failed", "%s; another host is tried", reason);
		return;
	}
	fail_other_job(a, d, true, reason);
	model__domain_leave(a, d, DOM(FAILED), reason, proof);
	start_given_up(a, d, reason);
}

/* Three hosts in a row: a fourth is not risked for it. */
static void quarantine(struct model_apply *a, Gantry__Domain *d, const char *proof)
{
	char reason[ERR_TEXT_MAX];
	struct buf hosts = {0};

	for (size_t i = 0; i < d->n_deaths; i++)
		buf_printf(&hosts, "%s%s", i ? ", " : "", d->deaths[i]);
	snprintf(reason, sizeof(reason), "quarantine: %s died in a row, each soon after it began to run there; if it is not to blame, start it "
		 "('clusterctl start %s')", buf_str(&hosts), d->spec->name);
	buf_free(&hosts);
	d->quarantined = true;
	end_for_good(a, d, DOM(FAILED), reason, proof);
	model__event(a, ERROR, "domain", d->spec->name, "domain-quarantined", "%s: %s", d->spec->name, reason);
}

void model__domain_host_died(struct model_apply *a, Gantry__Domain *d, const char *proof)
{
	const Gantry__Job *job = model__domain_job(a->m, d);
	char reason[ERR_TEXT_MAX], host[LIMIT_NAME_CHARS + 1];

	snprintf(host, sizeof(host), "%s", d->host);
	if (d->goal == GOAL(STOPPED)) {
		ended_as_wished(a, d, proof, proof);
	} else if (d->ha && model__death_counted(a, d)) {
		quarantine(a, d, proof);
	} else if (d->ha || (job && job->kind == KIND(START))) {
		snprintf(reason, sizeof(reason), "%s", proof);
		fail_other_job(a, d, true, reason);
		model__domain_leave(a, d, DOM(WAITING), reason, proof);
		model__event(a, WARNING, "domain", d->spec->name, "domain-lost", "%s was lost: %s; it is restarted elsewhere", d->spec->name, proof);
		if (!d->job_id) {
			Gantry__Job *failover = model__job_new(a, KIND(FAILOVER), d);

			pb_set_string(&failover->source, host);
		}
	} else {
		snprintf(reason, sizeof(reason), "%s; it is not HA: start it by hand", proof);
		end_for_good(a, d, DOM(STOPPED), reason, proof);
		model__event(a, ERROR, "domain", d->spec->name, "domain-lost", "%s was lost: %s", d->spec->name, reason);
	}
}

/* ---- commands of the leader --------------------------------------------------- */

/* decided_at: the domain's generation when the leader decided. */
static int check_decision(struct model_apply *a, const Gantry__Domain *d, const char *uuid, uint64_t decided_at)
{
	if (!d)
		return model__refuse(a, STATUS(NO_SUCH), "no domain '%s'", uuid);
	if (decided_at != d->generation)
		return model__refuse(a, STATUS(RETRY), "domain '%s': decided at generation %llu, which is not the present one (%llu)", d->spec->name,
				     (unsigned long long)decided_at, (unsigned long long)d->generation);
	if (!model__domain_wants_place(d))
		return model__refuse(a, STATUS(RETRY), "domain '%s' is %s and shall not be placed now", d->spec->name, model__domain_word(d->state));
	return 0;
}

int model__domain_place(struct model_apply *a, const Gantry__CmdDomainPlace *c)
{
	Gantry__Domain *d = model__domain_by_uuid(a->m, c->uuid);
	const Gantry__Host *h = model_host(a->m, c->host);
	Gantry__Job *job;
	const char *obstacle;
	char text[256];
	int rc = check_decision(a, d, c->uuid, c->generation - 1);

	if (rc)
		return rc;
	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "domain '%s': no host '%s'", d->spec->name, c->host);
	obstacle = placement__obstacle(a->m, h, d->spec, NULL, 0, text, sizeof(text));
	if (obstacle)
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' cannot be placed on %s: %s", d->spec->name, h->name, obstacle);
	/* A domain that nobody owns was left with a proof (model__domain_leave); the leader may say it better. */
	assert(!*d->host);
	if (*c->proof)
		pb_set_string(&d->previous_proof, c->proof);
	job = model__domain_job(a->m, d);
	if (job && job->kind == KIND(FAILOVER))
		pb_set_string(&job->destination, h->name);
	model__domain_move(a, d, DOM(STARTING), h->name, c->generation, c->reason);
	model__event(a, INFO, "domain", d->spec->name, "domain-placed", "%s starts on %s (generation %llu): %s", d->spec->name, h->name,
		     (unsigned long long)d->generation, c->reason);
	return 0;
}

int model__domain_wait(struct model_apply *a, const Gantry__CmdDomainWait *c)
{
	Gantry__Domain *d = model__domain_by_uuid(a->m, c->uuid);
	Gantry__Job *job;
	char reason[ERR_TEXT_MAX];
	int rc = check_decision(a, d, c->uuid, c->generation);

	if (rc)
		return rc;
	if (d->state != DOM(WAITING))
		return model__refuse(a, STATUS(RETRY), "domain '%s' is %s, not waiting", d->spec->name, model__domain_word(d->state));
	if (!c->held && (d->start_failures || !model__empty(d->crashed_on))) {
		snprintf(reason, sizeof(reason), "%s; no other host can take it: %s", d->reason, c->reason);
		if (!d->start_failures)
			d->goal = GOAL(STOPPED);
		model__domain_move(a, d, DOM(FAILED), "", d->generation, reason);
		start_given_up(a, d, reason);
		return 0;
	}
	if (model__is(d->reason, c->reason))
		return 0;
	model__domain_move(a, d, DOM(WAITING), "", d->generation, c->reason);
	/* Who watches the task is told what it waits for. */
	job = model__domain_job(a->m, d);
	if (job)
		pb_set_string(&job->reason, c->reason);
	model__event(a, WARNING, "domain", d->spec->name, "domain-waiting", "%s waits: %s", d->spec->name, c->reason);
	return 0;
}

/* ---- what the owner says --------------------------------------------------------- */

static void reported_ready(struct model_apply *a, Gantry__Domain *d)
{
	if (d->ready)
		return;
	d->ready = true;
	d->ready_ms = a->cmd->time_ms;
	if (d->policy->ready_by != GANTRY__READY_BY__READY_BY_RUNNING)
		model__event(a, INFO, "domain", d->spec->name, "domain-ready", "%s is ready", d->spec->name);
}

static void reported_alive(struct model_apply *a, Gantry__Domain *d, Gantry__DomainState to, const char *reason)
{
	Gantry__Job *job = model__domain_job(a->m, d);
	Gantry__DomainState from = d->state;
	const char *name = d->spec->name;

	model__domain_move(a, d, to, d->host, d->generation, reason);
	if (from == DOM(STARTING)) {
		d->starts++;
		d->start_failures = 0;
		pb_set_string(&d->failed_on, NULL);
		model__event(a, INFO, "domain", name, "domain-started", "%s runs on %s", name, d->host);
		if (job && (job->kind == KIND(START) || job->kind == KIND(FAILOVER))) {
			pb_set_string(&job->destination, d->host);
			model__job_end(a, job, JOB(DONE), "");
			job = NULL;
		}
	} else if (from != to && to == DOM(PAUSED)) {
		model__event(a, d->goal == GOAL(PAUSED) ? INFO : WARNING, "domain", name, "domain-paused", "%s is paused%s%s", name,
			     *reason ? ": " : "", reason);
	} else if (from != to) {
		model__event(a, INFO, "domain", name, "domain-unpaused", "%s runs again", name);
	}
	if (job && ((job->kind == KIND(PAUSE) && to == DOM(PAUSED)) || (job->kind == KIND(UNPAUSE) && to == DOM(RUNNING))))
		model__job_end(a, job, JOB(DONE), "");
}

static void reported_ended(struct model_apply *a, Gantry__Domain *d, const Gantry__CmdDomainReport *c)
{
	char proof[ERR_TEXT_MAX];

	/* The owner's own word is the best proof there is. */
	snprintf(proof, sizeof(proof), "%s said that it has ended", d->host);
	if (d->goal == GOAL(STOPPED))
		ended_as_wished(a, d, c->reason, proof);
	else if (!model__empty(d->evicted))
		ended_evicted(a, d, proof);
	else if (c->state == DOM(CRASHED) && c->hung)
		ended_hung(a, d, c->reason, proof);
	else if (c->host_fault)
		ended_by_host(a, d, c->reason, proof);
	else if (c->state == DOM(FAILED))
		ended_start_failed(a, d, c->reason, proof);
	else if (c->state == DOM(CRASHED))
		ended_crashed(a, d, c->reason, proof);
	else if (c->guest_shutdown || c->guest_reboot)
		ended_by_guest(a, d, c->reason, proof);
	else
		ended_by_host(a, d, c->reason, proof);
}

int model__domain_report(struct model_apply *a, const Gantry__CmdDomainReport *c)
{
	Gantry__Domain *d = model__domain_by_uuid(a->m, c->uuid);

	if (!d)
		return model__refuse(a, STATUS(NO_SUCH), "no domain '%s'", c->uuid);
	if (!*c->host || !model__is(d->host, c->host) || d->generation != c->generation)
		return model__refuse(a, STATUS(RETRY), "domain '%s': %s speaks of generation %llu; generation %llu is %s%s", d->spec->name, c->host,
				     (unsigned long long)c->generation, (unsigned long long)d->generation, *d->host ? "on " : "nowhere", d->host);
	switch (c->state) {
	case DOM(RUNNING):
	case DOM(PAUSED):
		if (d->state != DOM(STOPPING))
			reported_alive(a, d, c->state, c->reason);
		if (c->ready && d->state == DOM(RUNNING))
			reported_ready(a, d);
		return 0;
	case DOM(STARTING):
		if (d->state == DOM(STOPPING))
			return 0;
		if (d->state != DOM(STARTING))
			model__event(a, WARNING, "domain", d->spec->name, "domain-restarting", "%s starts %s again%s%s", d->host, d->spec->name,
				     *c->reason ? ": " : "", c->reason);
		model__domain_move(a, d, DOM(STARTING), d->host, d->generation, c->reason);
		return 0;
	case DOM(STOPPED):
	case DOM(CRASHED):
	case DOM(FAILED):
		reported_ended(a, d, c);
		return 0;
	default:
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': '%s' is not for a host to say", d->spec->name, model__domain_word(c->state));
	}
}
