#include <assert.h>
#include <stdio.h>

#include "clusterd/core/model_internal.h"

#define TOKEN_BYTES_MIN 16

/* ---- jobs ------------------------------------------------------------------ */

Gantry__Job *model__domain_job(const struct model *m, const Gantry__Domain *d)
{
	Gantry__Job *job = d->job_id ? model_job(m, d->job_id) : NULL;

	return job && job->state == JOB(RUNNING) ? job : NULL;
}

Gantry__Job *model__domain_migration(const struct model *m, const Gantry__Domain *d)
{
	Gantry__Job *job = model__domain_job(m, d);

	return job && job->kind == KIND(MIGRATE) ? job : NULL;
}

static void forget_oldest(Gantry__ClusterModel *s)
{
	size_t ended = 0;

	for (size_t i = 0; i < s->n_jobs; i++)
		ended += s->jobs[i]->state != JOB(RUNNING);
	for (size_t i = 0; ended > LIMIT_JOBS_KEPT && i < s->n_jobs;) {
		if (s->jobs[i]->state == JOB(RUNNING)) {
			i++;
			continue;
		}
		PB_REMOVE(s, jobs, i);
		ended--;
	}
}

Gantry__Job *model__job_new(struct model_apply *a, Gantry__JobKind kind, Gantry__Domain *d)
{
	Gantry__Job *job = PB_NEW(Gantry__Job, gantry__job__init);
	const Gantry__Host *by = model_host_by_node(a->m, a->cmd->proposer);

	assert(!d || !model__domain_job(a->m, d));
	job->id = a->s->next_job_id++;
	job->kind = kind;
	job->created_ms = a->cmd->time_ms;
	pb_set_string(&job->requested_by, by ? by->name : "");
	if (d) {
		pb_set_string(&job->domain_uuid, d->spec->uuid);
		pb_set_string(&job->domain_name, d->spec->name);
		d->job_id = job->id;
	}
	PB_APPEND(a->s, jobs, job);
	forget_oldest(a->s);
	return job;
}

void model__job_end(struct model_apply *a, Gantry__Job *job, Gantry__JobState state, const char *reason)
{
	Gantry__Domain *d = *job->domain_uuid ? model__domain_by_uuid(a->m, job->domain_uuid) : NULL;

	assert(job->state == JOB(RUNNING) && state != JOB(RUNNING));
	if (job->kind == KIND(MIGRATE) && !job->committed && d && d->job_id == job->id)
		model__use_remove(a->m, job->destination, d->spec, false);
	job->state = state;
	job->ended_ms = a->cmd->time_ms;
	pb_set_string(&job->reason, reason);
	/* The one-time secret is of no use any more. */
	pb_set_bytes(&job->token, NULL, 0);
	if (d && d->job_id == job->id)
		d->job_id = 0;
}

const char *model__job_doing(const Gantry__Job *job, char *buf, size_t size)
{
	static const char *const words[] = {
		[KIND(START)] = "being started",
		[KIND(STOP)] = "being stopped",
		[KIND(PAUSE)] = "being paused",
		[KIND(UNPAUSE)] = "being unpaused",
		[KIND(FAILOVER)] = "being restarted after the death of its host",
	};

	if (job->kind == KIND(MIGRATE))
		snprintf(buf, size, "already being migrated to %s by task %llu", job->destination, (unsigned long long)job->id);
	else
		snprintf(buf, size, "%s by task %llu", (size_t)job->kind < sizeof(words) / sizeof(*words) && words[job->kind] ? words[job->kind] : "in hand",
			 (unsigned long long)job->id);
	return buf;
}

static int no_job(struct model_apply *a, uint64_t id)
{
	return model__refuse(a, STATUS(NO_SUCH), "no task %llu; see 'clusterctl task list'", (unsigned long long)id);
}

/* ---- the start of a migration -------------------------------------------------- */

static int migrate_check_domain(struct model_apply *a, const Gantry__Domain *d)
{
	const Gantry__Job *job = model__domain_job(a->m, d);
	const Gantry__Host *source = model_host(a->m, d->host);
	char doing[LIMIT_NAME_CHARS + 64];

	if (job)
		return model__refuse(a, STATUS(RETRY), "domain '%s' is %s: wait for it%s ('clusterctl task %s %llu')", d->spec->name,
				     model__job_doing(job, doing, sizeof(doing)), job->kind == KIND(MIGRATE) ? ", or cancel it" : "",
				     job->kind == KIND(MIGRATE) ? "cancel" : "watch", (unsigned long long)job->id);
	if (!*d->host)
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' is %s: only a running domain can be migrated; start it where you want it "
				     "('clusterctl start %s')", d->spec->name, model__domain_word(d->state), d->spec->name);
	if (d->state != DOM(RUNNING) && d->state != DOM(PAUSED))
		return model__refuse(a, STATUS(RETRY), "domain '%s' is %s on %s: try again when it runs", d->spec->name,
				     model__domain_word(d->state), d->host);
	if (!source || source->state != HOST(ONLINE))
		return model__refuse(a, STATUS(RETRY), "domain '%s': its host %s is %s: nothing can be moved from there; it is restarted elsewhere "
				     "once %s is proven dead", d->spec->name, d->host, source ? model__host_word(source->state) : "unknown", d->host);
	if (!source->agent_connected)
		return model__refuse(a, STATUS(RETRY), "domain '%s': the agent of %s is not connected: see the service gantry-agent there", d->spec->name, d->host);
	if (d->spec->nomigrate)
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' must not be migrated (nomigrate)", d->spec->name);
	return 0;
}

static int migrate_check_destination(struct model_apply *a, const Gantry__Domain *d, const char *name)
{
	const Gantry__Host *source = model_host(a->m, d->host), *h = model_host(a->m, name);
	const Gantry__Volume *v;
	const char *obstacle;
	char text[256];

	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "no host '%s'; see 'clusterctl host list'", name);
	if (h == source)
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' runs on %s already", d->spec->name, name);
	if (h->state != HOST(ONLINE))
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' cannot move to %s: it is %s; choose another host ('clusterctl host list')",
				     d->spec->name, name, model__host_word(h->state));
	if (!h->agent_connected)
		return model__refuse(a, STATUS(RETRY), "domain '%s' cannot move to %s: its agent is not connected; see the service gantry-agent there",
				     d->spec->name, name);
	v = model__volume_elsewhere(a->m, d->spec, name);
	if (v)
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' cannot move to %s: volume '%s/%s' is on %s alone; only domains on shared pools can move",
				     d->spec->name, name, v->pool, v->name, v->host);
	/* A guest cannot change its CPU under way: kvm to kvm, tcg to tcg. */
	if (!model__is(d->spec->accel, "tcg") && !model__is(source->accel, h->accel))
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' cannot move to %s: %s runs domains by %s, %s by %s; choose a host of the same kind",
				     d->spec->name, name, source->name, source->accel, name, *h->accel ? h->accel : "nothing known");
	obstacle = placement__obstacle(a->m, h, d->spec, NULL, 0, text, sizeof(text));
	if (obstacle)
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' cannot move to %s: %s; free some room there or choose another host",
				     d->spec->name, name, obstacle);
	return 0;
}

int model__migrate_start(struct model_apply *a, const Gantry__CmdMigrateStart *c)
{
	Gantry__Domain *d = model_domain(a->m, c->domain);
	Gantry__Job *job;
	int rc;

	if (!d)
		return model__refuse(a, STATUS(NO_SUCH), "no domain '%s'; see 'clusterctl list'", c->domain);
	rc = migrate_check_domain(a, d);
	if (!rc)
		rc = migrate_check_destination(a, d, c->destination);
	if (!rc && c->token.len < TOKEN_BYTES_MIN)
		rc = model__refuse(a, STATUS(BAD_DATA), "domain '%s': a migration needs a token of at least %d bytes", d->spec->name, TOKEN_BYTES_MIN);
	if (rc)
		return rc;
	job = model__job_new(a, KIND(MIGRATE), d);
	pb_set_string(&job->source, d->host);
	pb_set_string(&job->destination, c->destination);
	model__use_add(a->m, job->destination, d->spec, false);
	job->generation = d->generation + 1;
	job->stage = STAGE(PRE_MIGRATION);
	pb_set_bytes(&job->token, c->token.data, c->token.len);
	job->max_downtime_ms = c->max_downtime_ms;
	job->bandwidth_bytes_per_s = c->bandwidth_bytes_per_s;
	a->result->job_id = job->id;
	pb_set_string(&a->result->uuid, d->spec->uuid);
	model__event(a, INFO, "domain", d->spec->name, "migration-started", "task %llu moves %s from %s to %s", (unsigned long long)job->id,
		     d->spec->name, job->source, job->destination);
	return 0;
}

/* ---- its way ------------------------------------------------------------------------ */

static int running_migration(struct model_apply *a, uint64_t id, Gantry__Job **ret)
{
	Gantry__Job *job = model_job(a->m, id);

	if (!job || job->kind != KIND(MIGRATE))
		return no_job(a, id);
	if (job->state != JOB(RUNNING))
		return model__refuse(a, STATUS(RETRY), "task %llu has ended already%s%s", (unsigned long long)id, *job->reason ? ": " : "", job->reason);
	*ret = job;
	return 0;
}

static void set_figures(Gantry__Job *job, const Gantry__MigrationFigures *figures)
{
	if (!figures)
		return;
	if (job->figures)
		gantry__migration_figures__free_unpacked(job->figures, NULL);
	job->figures = pb_clone(figures);
}

int model__job_stage(struct model_apply *a, const Gantry__CmdJobStage *c)
{
	Gantry__Job *job = NULL;
	int rc = running_migration(a, c->job_id, &job);

	if (rc)
		return rc;
	if (!model__is(c->host, job->source) && !model__is(c->host, job->destination))
		return model__refuse(a, STATUS(BAD_DATA), "task %llu: %s has no part in it", (unsigned long long)job->id, c->host);
	if (job->committed || c->stage <= job->stage || c->stage > STAGE(COMMITMENT))
		return model__refuse(a, STATUS(RETRY), "task %llu is beyond this stage", (unsigned long long)job->id);
	job->stage = c->stage;
	set_figures(job, c->figures);
	return 0;
}

static int commit_check(struct model_apply *a, const Gantry__CmdMigrateCommit *c, const Gantry__Job *job, const Gantry__Domain *d)
{
	const Gantry__Host *destination = model_host(a->m, job->destination);
	unsigned long long id = job->id;

	if (job->committed)
		return model__refuse(a, STATUS(RETRY), "task %llu is committed already", id);
	if (!d || c->generation != job->generation || d->generation + 1 != job->generation || !model__is(d->host, job->source) || d->job_id != job->id)
		return model__refuse(a, STATUS(RETRY), "task %llu: %s is not the owner of generation %llu any more", id, job->source,
				     (unsigned long long)job->generation - 1);
	if (d->state != DOM(RUNNING) && d->state != DOM(PAUSED))
		return model__refuse(a, STATUS(RETRY), "task %llu: the domain is %s on %s", id, model__domain_word(d->state), d->host);
	/* The source still has the whole guest: to give it to a host that may be fenced next would throw it away. */
	if (!destination || destination->state != HOST(ONLINE))
		return model__refuse(a, STATUS(RETRY), "task %llu: %s is %s", id, job->destination,
				     destination ? model__host_word(destination->state) : "gone");
	return 0;
}

int model__migrate_commit(struct model_apply *a, const Gantry__CmdMigrateCommit *c)
{
	Gantry__Job *job = NULL;
	Gantry__Domain *d;
	char proof[64];
	int rc = running_migration(a, c->job_id, &job);

	if (rc)
		return rc;
	d = model__domain_by_uuid(a->m, job->domain_uuid);
	rc = commit_check(a, c, job, d);
	if (rc)
		return rc;
	model__use_remove(a->m, job->destination, d->spec, false);
	job->committed = true;
	job->committed_index = a->index;
	job->stage = STAGE(ACTIVATION);
	snprintf(proof, sizeof(proof), "migrated by task %llu", (unsigned long long)job->id);
	pb_set_string(&d->previous_host, job->source);
	pb_set_string(&d->previous_proof, proof);
	model__domain_move(a, d, d->state, job->destination, job->generation, "");
	model__event(a, INFO, "domain", d->spec->name, "migration-committed", "task %llu: %s is %s's now (generation %llu)", (unsigned long long)job->id,
		     d->spec->name, d->host, (unsigned long long)d->generation);
	return 0;
}

int model__migrate_abort(struct model_apply *a, const Gantry__CmdMigrateAbort *c)
{
	Gantry__Job *job = NULL;
	int rc = running_migration(a, c->job_id, &job);

	if (rc)
		return rc;
	if (job->committed && !MUTANT(abort_after_commit))
		return model__refuse(a, STATUS(CONSTRAINT), "task %llu is committed: it can only be finished now", (unsigned long long)job->id);
	model__event(a, c->cancelled ? INFO : ERROR, "domain", job->domain_name, c->cancelled ? "migration-cancelled" : "migration-failed",
		     "task %llu, %s to %s: %s", (unsigned long long)job->id, job->source, job->destination, *c->reason ? c->reason : "no reason was given");
	model__job_end(a, job, c->cancelled ? JOB(CANCELLED) : JOB(FAILED), c->reason);
	return 0;
}

int model__job_cancel(struct model_apply *a, const Gantry__CmdJobCancel *c)
{
	Gantry__Job *job = model_job(a->m, c->job_id);

	if (!job)
		return no_job(a, c->job_id);
	a->result->job_id = job->id;
	if (job->state != JOB(RUNNING))
		return model__refuse(a, STATUS(CONSTRAINT), "task %llu has ended already", (unsigned long long)job->id);
	if (job->kind != KIND(MIGRATE))
		return model__refuse(a, STATUS(CONSTRAINT), "task %llu is no migration and cannot be cancelled%s%s", (unsigned long long)job->id,
				     *job->domain_name ? "; to stop the domain: clusterctl destroy " : "", job->domain_name);
	if (job->committed)
		return model__refuse(a, STATUS(CONSTRAINT), "task %llu is committed: %s runs on %s from now on", (unsigned long long)job->id,
				     job->domain_name, job->destination);
	if (!job->cancel_requested)
		model__event(a, INFO, "domain", job->domain_name, "migration-cancel-requested", "task %llu is to be cancelled", (unsigned long long)job->id);
	job->cancel_requested = true;
	return 0;
}

int model__job_done(struct model_apply *a, const Gantry__CmdJobDone *c)
{
	Gantry__Job *job = NULL;
	int rc = running_migration(a, c->job_id, &job);

	if (rc)
		return rc;
	if (!job->committed)
		return model__refuse(a, STATUS(RETRY), "task %llu is not committed: it cannot be done", (unsigned long long)job->id);
	set_figures(job, c->figures);
	model__event(a, INFO, "domain", job->domain_name, "migration-done", "task %llu: %s moved from %s to %s%s", (unsigned long long)job->id,
		     job->domain_name, job->source, job->destination, job->cancel_requested ? "; the wish to cancel came too late" : "");
	model__job_end(a, job, JOB(DONE), "");
	return 0;
}

void model__job_host_died(struct model_apply *a, Gantry__Job *job, const char *host)
{
	bool source = model__is(job->source, host), destination = model__is(job->destination, host);
	char reason[LIMIT_NAME_CHARS + 64];

	if (job->committed ? !destination : !source && !destination)
		return;
	snprintf(reason, sizeof(reason), "%s, the %s, died%s", host, destination ? "destination" : "source", job->committed ? " after the commit" : "");
	model__event(a, ERROR, "domain", job->domain_name, "migration-failed", "task %llu, %s to %s: %s", (unsigned long long)job->id, job->source,
		     job->destination, reason);
	model__job_end(a, job, JOB(FAILED), reason);
}
