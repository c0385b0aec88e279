#include <stdlib.h>

#include "clusterd/core/model_internal.h"

/* The commands that one report asks for. */
struct findings {
	const struct model *m;
	const char *host;
	const Gantry__AgentReport *report;
	Gantry__Command **commands;
	size_t n;
};

static Gantry__Command *add(struct findings *f, Gantry__Command__BodyCase body)
{
	Gantry__Command *c = PB_NEW(Gantry__Command, gantry__command__init);

	c->version = MODEL_COMMAND_VERSION;
	c->body_case = body;
	pb_array_insert(&f->commands, &f->n, f->n, c);
	return c;
}

/* ---- the host ------------------------------------------------------------------ */

static bool pool_is_lost(const struct findings *f, const Gantry__PoolReport *said)
{
	return said->checked && !said->ok && model_pool(f->m, said->name);
}

static bool same_lost_pools(const struct findings *f, const Gantry__Host *h)
{
	size_t lost = 0;

	for (size_t i = 0; i < f->report->n_pools; i++) {
		bool listed = false;

		if (!pool_is_lost(f, f->report->pools[i]))
			continue;
		for (size_t k = 0; k < h->n_lost_pools; k++)
			listed |= model__is(h->lost_pools[k], f->report->pools[i]->name);
		if (!listed)
			return false;
		lost++;
	}
	return lost == h->n_lost_pools;
}

/* A host that has come back is clean before it gets work: the QEMUs of its earlier life have ended, as far as goals of this life say. */
static bool agent_is_ready(const struct findings *f, const Gantry__Host *h)
{
	return h->agent_connected || (!f->report->host->leftovers && f->report->goals_index >= h->online_index);
}

static bool guards_again(const struct findings *f, const Gantry__Host *h)
{
	return h->unguarded && !model__disarmed(f->m) && f->m->state->ha && f->report->goals_index >= f->m->state->ha->armed_index;
}

static void report_host(struct findings *f)
{
	const Gantry__Host *said = f->report->host, *h = model_host(f->m, f->host);
	Gantry__Command *c;
	bool ready;

	if (!said || !h || !said->memory_bytes)
		return;
	ready = agent_is_ready(f, h);
	if (h->agent_connected == ready && (ready || h->leftovers == said->leftovers) && !guards_again(f, h) && same_lost_pools(f, h) &&
	    model__is(h->watchdog, said->watchdog) && h->memory_bytes == said->memory_bytes && h->cpus == said->cpus && model__is(h->qemu_version, said->qemu_version) &&
	    model__is(h->accel, said->accel) && model__is(h->agent_version, said->agent_version) &&
	    model__is(h->default_bridge, said->default_bridge))
		return;
	c = add(f, GANTRY__COMMAND__BODY_HOST_INFO);
	c->host_info = PB_NEW(Gantry__CmdHostInfo, gantry__cmd_host_info__init);
	c->host_info->host = pb_clone(said);
	c->host_info->host->agent_connected = ready;
	if (ready)
		c->host_info->host->leftovers = 0;
	c->host_info->host->unguarded = !guards_again(f, h) && h->unguarded;
	for (size_t i = 0; i < f->report->n_pools; i++)
		if (pool_is_lost(f, f->report->pools[i]))
			pb_string_append(&c->host_info->host->lost_pools, &c->host_info->host->n_lost_pools, f->report->pools[i]->name);
	pb_set_string(&c->host_info->host->name, f->host);
}

/* ---- migrations ------------------------------------------------------------------ */

static const Gantry__DomainReport *domain_said(const struct findings *f, const char *uuid)
{
	for (size_t i = 0; i < f->report->n_domains; i++)
		if (model__is(f->report->domains[i]->uuid, uuid))
			return f->report->domains[i];
	return NULL;
}

static const Gantry__MigrationReport *migration_said(const struct findings *f, uint64_t job_id)
{
	for (size_t i = 0; i < f->report->n_migrations; i++)
		if (f->report->migrations[i]->job_id == job_id)
			return f->report->migrations[i];
	return NULL;
}

static void say_commit(struct findings *f, const Gantry__Job *job)
{
	Gantry__Command *c = add(f, GANTRY__COMMAND__BODY_MIGRATE_COMMIT);

	c->migrate_commit = PB_NEW(Gantry__CmdMigrateCommit, gantry__cmd_migrate_commit__init);
	c->migrate_commit->job_id = job->id;
	c->migrate_commit->generation = job->generation;
}

static void say_abort(struct findings *f, const Gantry__Job *job, const char *reason)
{
	Gantry__Command *c = add(f, GANTRY__COMMAND__BODY_MIGRATE_ABORT);
	char *text = str_printf("%s: %s", f->host, *reason ? reason : "it cannot go on");

	c->migrate_abort = PB_NEW(Gantry__CmdMigrateAbort, gantry__cmd_migrate_abort__init);
	c->migrate_abort->job_id = job->id;
	pb_set_string(&c->migrate_abort->reason, text);
	free(text);
}

static void say_stage(struct findings *f, const Gantry__Job *job, const Gantry__MigrationReport *said)
{
	Gantry__Command *c;

	/* The same figure again and again would fill the log: stages only go forward, and each is said once. */
	if (said->stage <= job->stage || said->stage > STAGE(COMMITMENT))
		return;
	c = add(f, GANTRY__COMMAND__BODY_JOB_STAGE);
	c->job_stage = PB_NEW(Gantry__CmdJobStage, gantry__cmd_job_stage__init);
	c->job_stage->job_id = job->id;
	c->job_stage->stage = said->stage;
	pb_set_string(&c->job_stage->host, f->host);
	if (said->figures)
		c->job_stage->figures = pb_clone(said->figures);
}

static void say_done(struct findings *f, const Gantry__Job *job, const Gantry__MigrationReport *said)
{
	Gantry__Command *c = add(f, GANTRY__COMMAND__BODY_JOB_DONE);

	c->job_done = PB_NEW(Gantry__CmdJobDone, gantry__cmd_job_done__init);
	c->job_done->job_id = job->id;
	if (said && said->figures)
		c->job_done->figures = pb_clone(said->figures);
}

static void say_domain(struct findings *f, const Gantry__Domain *d, Gantry__DomainState state, const char *reason, bool host_fault,
		       const Gantry__DomainReport *said)
{
	Gantry__Command *c = add(f, GANTRY__COMMAND__BODY_DOMAIN_REPORT);
	Gantry__CmdDomainReport *r = PB_NEW(Gantry__CmdDomainReport, gantry__cmd_domain_report__init);

	c->domain_report = r;
	pb_set_string(&r->uuid, d->spec->uuid);
	r->generation = d->generation;
	pb_set_string(&r->host, f->host);
	r->state = state;
	pb_set_string(&r->reason, reason);
	r->host_fault = host_fault;
	r->guest_shutdown = said && said->guest_shutdown;
	r->guest_reboot = said && said->guest_reboot;
	r->hung = said && said->hung;
	r->ready = said && said->ready;
}

/* COMMIT is applied and the destination reports. A report from before it saw COMMIT proves nothing. */
static void report_activation(struct findings *f, const Gantry__Domain *d, const Gantry__Job *job, const Gantry__MigrationReport *said)
{
	const Gantry__DomainReport *domain = domain_said(f, d->spec->uuid);
	bool here = domain && domain->generation == d->generation;
	bool runs = here && domain->state == DOM(RUNNING);
	bool paused = here && domain->state == DOM(PAUSED) && d->goal == GOAL(PAUSED);

	if (said && said->incoming && (said->running || (said->settled && (runs || paused)))) {
		say_done(f, job, said);
		return;
	}
	if (f->report->goals_index < job->committed_index)
		return;
	/* Also when an agent that was restarted meanwhile knows no more of the task. A complete copy that waits is paused too. */
	if ((runs || paused) && !(said && said->ready_to_commit))
		say_done(f, job, said);
	else if (!runs && !paused && (said ? said->failed && !said->ready_to_commit : !here))
		say_domain(f, d, DOM(CRASHED), said && *said->reason ? said->reason : "its image was lost after the commit", false, NULL);
}

static void report_migration(struct findings *f, const Gantry__Domain *d, const Gantry__Job *job)
{
	const Gantry__MigrationReport *said = migration_said(f, job->id);
	bool destination = model__is(job->destination, f->host);

	if (job->committed) {
		if (destination)
			report_activation(f, d, job, said);
		return;
	}
	if (!said || (!destination && !model__is(job->source, f->host)))
		return;
	/* Nothing is put before COMMIT in the log: the guest stands still. */
	if (said->failed)
		say_abort(f, job, said->reason);
	else if (destination && said->incoming && said->ready_to_commit)
		say_commit(f, job);
	else
		say_stage(f, job, said);
}

/* ---- domains ------------------------------------------------------------------------ */

/* The owner has seen the goals with the domain and knows nothing of it although it ran there, or was to stop: the host was restarted under it. */
static void report_absent(struct findings *f, const Gantry__Domain *d)
{
	char *reason;

	if (!f->report->goals_index || f->report->goals_index < d->owned_index || d->state == DOM(STARTING))
		return;
	reason = str_printf("%s was restarted and the domain is gone", f->host);
	say_domain(f, d, d->state == DOM(STOPPING) ? DOM(STOPPED) : DOM(CRASHED), reason, true, NULL);
	free(reason);
}

static void report_alive(struct findings *f, const Gantry__Domain *d, const Gantry__DomainReport *said, bool migrating)
{
	bool news;

	/* While it is being moved or stopped, the domain pauses and runs as the operation needs. */
	if (d->state == DOM(STOPPING) || (migrating && d->state != DOM(STARTING)))
		return;
	if (said->state == DOM(STARTING) && d->state == DOM(STARTING) && (model__empty(said->reason) || model__is(said->reason, d->reason)))
		return;
	news = said->state == DOM(RUNNING) ? said->ready && !d->ready : !model__is(said->reason, d->reason);
	if (said->state == d->state && said->state != DOM(STARTING) && !news)
		return;
	say_domain(f, d, said->state, said->reason, false, said);
}

static void report_domain(struct findings *f, const Gantry__Domain *d, bool migrating)
{
	const Gantry__DomainReport *said = domain_said(f, d->spec->uuid);

	if (!said) {
		const Gantry__Job *job = model__domain_migration(f->m, d);

		if (!job || !job->committed)
			report_absent(f, d);
		return;
	}
	if (said->generation != d->generation)
		return;
	switch (said->state) {
	case DOM(STARTING):
	case DOM(RUNNING):
	case DOM(PAUSED):
		report_alive(f, d, said, migrating);
		break;
	case DOM(STOPPED):
	case DOM(CRASHED):
	case DOM(FAILED):
		say_domain(f, d, said->state, said->reason, f->report->self_fenced && d->ha, said);
		break;
	default:
		break;
	}
}

/* ---- volumes ------------------------------------------------------------------------- */

static void report_volume(struct findings *f, const Gantry__VolumeReport *said)
{
	const Gantry__Volume *v = model_volume(f->m, said->pool, said->name);
	Gantry__CmdVolumeReport *r;

	if (!v || v->job_id != said->job_id || !model__is(v->host, f->host) || (v->state != VOL(CREATING) && v->state != VOL(DELETING)))
		return;
	r = PB_NEW(Gantry__CmdVolumeReport, gantry__cmd_volume_report__init);
	add(f, GANTRY__COMMAND__BODY_VOLUME_REPORT)->volume_report = r;
	pb_set_string(&r->pool, said->pool);
	pb_set_string(&r->name, said->name);
	pb_set_string(&r->host, f->host);
	r->job_id = said->job_id;
	r->ok = said->ok;
	pb_set_string(&r->reason, said->reason);
	r->size_bytes = said->size_bytes;
}

void model_commands_for_report(const struct model *m, const char *host, const Gantry__AgentReport *report, Gantry__Command ***ret, size_t *ret_n)
{
	struct findings f = {.m = m, .host = host, .report = report};

	for (size_t i = 0; i < m->state->n_domains; i++) {
		const Gantry__Domain *d = m->state->domains[i];
		const Gantry__Job *job = model__domain_migration(m, d);
		size_t before = f.n;

		if (job)
			report_migration(&f, d, job);
		/* The word about an activation is the word about the domain too. */
		if (model__is(d->host, host) && !(job && job->committed && f.n > before))
			report_domain(&f, d, job != NULL);
	}
	for (size_t i = 0; i < report->n_volumes; i++)
		report_volume(&f, report->volumes[i]);
	report_host(&f);
	*ret = f.commands;
	*ret_n = f.n;
}
