/* What an agent's report asks to be proposed: only what the model does not say yet. */
#include <stdio.h>

#include "clusterd/core/model_internal.h"

struct wish {
	Gantry__Command **list;
	size_t n;
};

static Gantry__Command *wish_new(struct wish *w)
{
	Gantry__Command *c = PB_NEW(Gantry__Command, gantry__command__init);

	c->version = MODEL_COMMAND_VERSION;
	w->list = mem_realloc(w->list, (w->n + 1) * sizeof(*w->list));
	return w->list[w->n++] = c;
}

/* ---- the host itself -------------------------------------------------------- */

static void wish_host(struct wish *w, const Gantry__Host *known, const Gantry__Host *said)
{
	Gantry__Command *c;
	Gantry__Host *h;

	if (known->agent_connected && known->memory_bytes == said->memory_bytes && known->cpus == said->cpus &&
	    model__is(known->qemu_version, said->qemu_version) && model__is(known->accel, said->accel) &&
	    model__is(known->agent_version, said->agent_version) && model__is(known->default_bridge, said->default_bridge))
		return;
	c = wish_new(w);
	c->body_case = GANTRY__COMMAND__BODY_HOST_INFO;
	c->host_info = PB_NEW(Gantry__CmdHostInfo, gantry__cmd_host_info__init);
	h = c->host_info->host = PB_NEW(Gantry__Host, gantry__host__init);
	pb_set_string(&h->name, known->name);
	h->agent_connected = true;
	h->memory_bytes = said->memory_bytes;
	h->cpus = said->cpus;
	pb_set_string(&h->qemu_version, said->qemu_version);
	pb_set_string(&h->accel, said->accel);
	pb_set_string(&h->agent_version, said->agent_version);
	pb_set_string(&h->default_bridge, said->default_bridge);
}

/* ---- domains ---------------------------------------------------------------- */

/* Is what the owner says news to the model? */
static bool domain_news(const struct model *m, const Gantry__Domain *d, const Gantry__DomainReport *r)
{
	const Gantry__Job *migration = model__domain_migration(m, d);

	switch (r->state) {
	case DOM(RUNNING):
	case DOM(PAUSED):
		/* Between COMMIT and the end of the job the guest is on its way from paused to running. */
		if (migration && migration->committed && r->state == DOM(PAUSED))
			return false;
		return d->state != DOM(STOPPING) && d->state != r->state;
	case DOM(STARTING):
		if (d->state == DOM(STOPPING) || (migration && migration->committed))
			return false;
		return d->state != DOM(STARTING) || (!model__empty(r->reason) && !model__is(r->reason, d->reason));
	case DOM(STOPPED):
	case DOM(CRASHED):
	case DOM(FAILED):
		return true;
	default:
		return false;
	}
}

static void wish_domain(const struct model *m, struct wish *w, const char *host, const Gantry__DomainReport *r, bool host_fault)
{
	const Gantry__Domain *d = model_domain(m, r->uuid);
	Gantry__Command *c;

	if (!d || !model__is(d->host, host) || d->generation != r->generation || !domain_news(m, d, r))
		return;
	c = wish_new(w);
	c->body_case = GANTRY__COMMAND__BODY_DOMAIN_REPORT;
	c->domain_report = PB_NEW(Gantry__CmdDomainReport, gantry__cmd_domain_report__init);
	pb_set_string(&c->domain_report->uuid, r->uuid);
	pb_set_string(&c->domain_report->host, host);
	pb_set_string(&c->domain_report->reason, r->reason);
	c->domain_report->generation = r->generation;
	c->domain_report->state = r->state;
	c->domain_report->guest_shutdown = r->guest_shutdown;
	c->domain_report->guest_reboot = r->guest_reboot;
	c->domain_report->host_fault = host_fault;
}

/* ---- migrations -------------------------------------------------------------- */

static void wish_commit(struct wish *w, const Gantry__Job *job)
{
	Gantry__Command *c = wish_new(w);

	c->body_case = GANTRY__COMMAND__BODY_MIGRATE_COMMIT;
	c->migrate_commit = PB_NEW(Gantry__CmdMigrateCommit, gantry__cmd_migrate_commit__init);
	c->migrate_commit->job_id = job->id;
	c->migrate_commit->generation = job->generation;
}

static void wish_abort(struct wish *w, const Gantry__Job *job, const char *host, const char *reason)
{
	Gantry__Command *c = wish_new(w);
	char text[ERR_TEXT_MAX];

	snprintf(text, sizeof(text), "%s: %s", host, model__empty(reason) ? "this side cannot go on" : reason);
	c->body_case = GANTRY__COMMAND__BODY_MIGRATE_ABORT;
	c->migrate_abort = PB_NEW(Gantry__CmdMigrateAbort, gantry__cmd_migrate_abort__init);
	c->migrate_abort->job_id = job->id;
	c->migrate_abort->cancelled = job->cancel_requested;
	pb_set_string(&c->migrate_abort->reason, text);
}

static void wish_done(struct wish *w, const Gantry__Job *job, const Gantry__MigrationFigures *figures)
{
	Gantry__Command *c = wish_new(w);

	c->body_case = GANTRY__COMMAND__BODY_JOB_DONE;
	c->job_done = PB_NEW(Gantry__CmdJobDone, gantry__cmd_job_done__init);
	c->job_done->job_id = job->id;
	c->job_done->figures = figures ? pb_clone(figures) : NULL;
}

static void wish_stage(struct wish *w, const Gantry__Job *job, const char *host, const Gantry__MigrationReport *r)
{
	Gantry__Command *c = wish_new(w);

	c->body_case = GANTRY__COMMAND__BODY_JOB_STAGE;
	c->job_stage = PB_NEW(Gantry__CmdJobStage, gantry__cmd_job_stage__init);
	c->job_stage->job_id = job->id;
	c->job_stage->stage = r->stage;
	c->job_stage->figures = r->figures ? pb_clone(r->figures) : NULL;
	pb_set_string(&c->job_stage->host, host);
}

static void wish_migration(const struct model *m, struct wish *w, const char *host, const Gantry__MigrationReport *r)
{
	const Gantry__Job *job = model_job(m, r->job_id);

	if (!job || job->kind != KIND(MIGRATE) || job->state != JOB(RUNNING) ||
	    !model__is(r->incoming ? job->destination : job->source, host))
		return;
	if (job->committed) {
		if (r->incoming && r->running)
			wish_done(w, job, r->figures);
		return;
	}
	if (r->failed)
		wish_abort(w, job, host, r->reason);
	else if (r->incoming && r->ready_to_commit)
		wish_commit(w, job);
	else if (r->stage > job->stage && r->stage <= STAGE(COMMITMENT))
		wish_stage(w, job, host, r);
}

/* ---- volumes ----------------------------------------------------------------- */

static void wish_volume(const struct model *m, struct wish *w, const char *host, const Gantry__VolumeReport *r)
{
	const Gantry__Volume *v = model_volume(m, r->pool, r->name);
	Gantry__Command *c;

	if (!v || v->job_id != r->job_id || !model__is(v->host, host) || (v->state != VOL(CREATING) && v->state != VOL(DELETING)))
		return;
	c = wish_new(w);
	c->body_case = GANTRY__COMMAND__BODY_VOLUME_REPORT;
	c->volume_report = PB_NEW(Gantry__CmdVolumeReport, gantry__cmd_volume_report__init);
	pb_set_string(&c->volume_report->pool, r->pool);
	pb_set_string(&c->volume_report->name, r->name);
	pb_set_string(&c->volume_report->host, host);
	pb_set_string(&c->volume_report->reason, r->reason);
	c->volume_report->job_id = r->job_id;
	c->volume_report->ok = r->ok;
	c->volume_report->size_bytes = r->size_bytes;
}

void model_commands_for_report(const struct model *m, const char *host, const Gantry__AgentReport *report, Gantry__Command ***ret, size_t *ret_n)
{
	const Gantry__Host *known = model_host(m, host);
	struct wish w = {0};

	if (known) {
		if (report->host)
			wish_host(&w, known, report->host);
		/* Migrations first: a COMMIT must not wait behind anything. */
		for (size_t i = 0; i < report->n_migrations; i++)
			wish_migration(m, &w, host, report->migrations[i]);
		for (size_t i = 0; i < report->n_domains; i++)
			wish_domain(m, &w, host, report->domains[i], report->self_fenced);
		for (size_t i = 0; i < report->n_volumes; i++)
			wish_volume(m, &w, host, report->volumes[i]);
	}
	*ret = w.list;
	*ret_n = w.n;
}
