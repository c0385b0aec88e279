#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#include "clusterd/core/model_internal.h"

#define MIB(bytes) ((unsigned long long)(bytes) >> 20)

static int no_domain(struct model_apply *a, const char *key)
{
	return model__refuse(a, STATUS(NO_SUCH), "no domain '%s'; see 'clusterctl list'", key);
}

/* Another task has it in hand: wait for that one. */
static int in_hand(struct model_apply *a, const Gantry__Domain *d, const Gantry__Job *job)
{
	char doing[LIMIT_NAME_CHARS + 64];

	return model__refuse(a, STATUS(RETRY), "domain '%s' is %s: wait for it ('clusterctl task watch %llu')", d->spec->name,
			     model__job_doing(job, doing, sizeof(doing)), (unsigned long long)job->id);
}

/* ---- create and undefine ------------------------------------------------------ */

static bool uuid_ok(const char *uuid)
{
	if (strlen(uuid) != 36)
		return false;
	for (size_t i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? uuid[i] != '-' : !isxdigit((unsigned char)uuid[i]) || isupper((unsigned char)uuid[i]))
			return false;
	}
	return true;
}

static int check_identity(struct model_apply *a, const Gantry__DomainSpec *spec)
{
	if (!spec || !model__name_ok(spec->name))
		return model__refuse(a, STATUS(BAD_DATA), "a domain needs a name of letters, digits and . _ - + : @, at most %d characters",
				     LIMIT_NAME_CHARS);
	if (!uuid_ok(spec->uuid))
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': '%s' is not a uuid in lower case", spec->name, spec->uuid);
	if (!spec->memory_bytes || !spec->vcpus)
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': it needs memory and at least one vCPU", spec->name);
	if (a->s->n_domains >= LIMIT_DOMAINS)
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s': there are %d domains already, the most there can be", spec->name, LIMIT_DOMAINS);
	for (size_t i = 0; i < a->s->n_domains; i++) {
		const Gantry__DomainSpec *other = a->s->domains[i]->spec;

		if (model__is(other->name, spec->name))
			return model__refuse(a, STATUS(EXISTS), "domain '%s' exists already: take another name, or undefine it first", spec->name);
		if (model__is(other->uuid, spec->uuid))
			return model__refuse(a, STATUS(EXISTS), "domain '%s': its uuid %s is that of domain '%s'", spec->name, spec->uuid, other->name);
	}
	return 0;
}

static int check_mac(struct model_apply *a, const Gantry__DomainSpec *spec, size_t nic)
{
	const char *mac = spec->nics[nic]->mac;

	if (model__empty(mac))
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': its network interface %zu has no MAC address", spec->name, nic);
	for (size_t i = 0; i < nic; i++)
		if (strcasecmp(spec->nics[i]->mac, mac) == 0)
			return model__refuse(a, STATUS(BAD_DATA), "domain '%s': two interfaces with the MAC address %s", spec->name, mac);
	for (size_t i = 0; i < a->s->n_domains; i++) {
		const Gantry__DomainSpec *other = a->s->domains[i]->spec;

		for (size_t k = 0; k < other->n_nics; k++)
			if (strcasecmp(other->nics[k]->mac, mac) == 0)
				return model__refuse(a, STATUS(EXISTS), "domain '%s': MAC address %s is that of domain '%s'", spec->name, mac, other->name);
	}
	return 0;
}

/* Could any host ever take it? What no start could change is said at once. */
static int check_size(struct model_apply *a, const Gantry__DomainSpec *spec)
{
	struct buf figures = {0};
	bool known = false;
	int rc = 0;

	for (size_t i = 0; i < a->s->n_hosts; i++) {
		const Gantry__Host *h = a->s->hosts[i];

		if (!h->memory_bytes)
			continue;
		known = true;
		if (h->memory_bytes >= spec->memory_bytes)
			goto out;
		buf_printf(&figures, "%s%s has %llu MiB", figures.len ? ", " : "", h->name, MIB(h->memory_bytes));
	}
	if (known)
		rc = model__refuse(a, STATUS(CONSTRAINT), "domain '%s' needs %llu MiB and no host has that: %s", spec->name, MIB(spec->memory_bytes),
				   buf_str(&figures));
out:
	buf_free(&figures);
	return rc;
}

/* A start that nobody can carry out now is refused, rather than left waiting behind the user's back. */
static int check_start(struct model_apply *a, const Gantry__DomainSpec *spec, const char *wanted)
{
	struct buf reason = {0};
	int rc = 0;

	if (*wanted && !model_host(a->m, wanted))
		return model__refuse(a, STATUS(NO_SUCH), "domain '%s': no host '%s'; see 'clusterctl host list'", spec->name, wanted);
	if (!placement__choose(a->m, spec, &(struct placement_wish){.host = wanted}, &reason))
		rc = model__refuse(a, STATUS(CONSTRAINT), "domain '%s' can be started nowhere now: %s", spec->name, buf_str(&reason));
	buf_free(&reason);
	return rc;
}

static void start(struct model_apply *a, Gantry__Domain *d, const char *wanted)
{
	Gantry__Job *job = model__job_new(a, KIND(START), d);

	pb_set_string(&job->destination, wanted);
	a->result->job_id = job->id;
	d->goal = GOAL(RUNNING);
	d->restart_failures = 0;
	d->start_failures = 0;
	d->quarantined = false;
	model__deaths_forget(d);
	pb_set_string(&d->failed_on, NULL);
	pb_set_string(&d->crashed_on, NULL);
	pb_set_string(&d->stop_how, NULL);
	model__domain_move(a, d, DOM(WAITING), "", d->generation, "");
}

int model__domain_create(struct model_apply *a, const Gantry__CmdDomainCreate *c)
{
	Gantry__Domain *d;
	int rc = check_identity(a, c->spec);

	for (size_t i = 0; !rc && i < c->spec->n_nics; i++)
		rc = check_mac(a, c->spec, i);
	if (!rc)
		rc = model__volumes_check(a, c->spec);
	if (!rc)
		rc = check_size(a, c->spec);
	if (!rc && *c->host && !model_host(a->m, c->host))
		rc = model__refuse(a, STATUS(NO_SUCH), "domain '%s': no host '%s'; see 'clusterctl host list'", c->spec->name, c->host);
	if (!rc && c->start)
		rc = check_start(a, c->spec, c->host);
	if (rc)
		return rc;
	d = PB_NEW(Gantry__Domain, gantry__domain__init);
	d->spec = pb_clone(c->spec);
	d->id = a->s->next_domain_id++;
	d->ha = !c->no_ha;
	model__policy_default(d);
	d->created_ms = d->state_since_ms = a->cmd->time_ms;
	PB_APPEND(a->s, domains, d);
	pb_set_string(&a->result->uuid, d->spec->uuid);
	model__event(a, INFO, "domain", d->spec->name, "domain-created", "%s was created (%llu MiB, %u vCPU%s)", d->spec->name,
		     MIB(d->spec->memory_bytes), d->spec->vcpus, d->ha ? ", HA" : "");
	if (c->start)
		start(a, d, c->host);
	return 0;
}

int model__domain_undefine(struct model_apply *a, const Gantry__CmdDomainUndefine *c)
{
	const Gantry__Domain *d = model_domain(a->m, c->domain);
	const Gantry__Job *job;

	if (!d)
		return no_domain(a, c->domain);
	job = model__domain_job(a->m, d);
	if (job)
		return in_hand(a, d, job);
	if (*d->host || model__domain_wants_place(d))
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' is %s: stop it first ('clusterctl destroy %s')", d->spec->name,
				     model__domain_word(d->state), d->spec->name);
	pb_set_string(&a->result->uuid, d->spec->uuid);
	model__event(a, INFO, "domain", d->spec->name, "domain-undefined", "%s was removed; its volumes stay", d->spec->name);
	for (size_t i = 0; i < a->s->n_domains; i++) {
		if (a->s->domains[i] == d) {
			PB_REMOVE(a->s, domains, i);
			break;
		}
	}
	return 0;
}

/* ---- start, stop, pause ---------------------------------------------------------- */

int model__domain_start(struct model_apply *a, const Gantry__CmdDomainStart *c)
{
	Gantry__Domain *d = model_domain(a->m, c->domain);
	const Gantry__Job *job;
	int rc;

	if (!d)
		return no_domain(a, c->domain);
	pb_set_string(&a->result->uuid, d->spec->uuid);
	job = model__domain_job(a->m, d);
	if (job)
		return in_hand(a, d, job);
	if (*d->host)
		return model__refuse(a, STATUS(EXISTS), "domain '%s' is %s on %s already", d->spec->name, model__domain_word(d->state), d->host);
	if (d->state == DOM(WAITING))
		return model__refuse(a, STATUS(RETRY), "domain '%s' waits for a host already: %s", d->spec->name, d->reason);
	rc = model__volumes_check(a, d->spec);
	if (!rc)
		rc = check_start(a, d->spec, c->host);
	if (!rc)
		start(a, d, c->host);
	return rc;
}

/* A task that has nothing left to do. */
static int done_at_once(struct model_apply *a, Gantry__Domain *d, Gantry__JobKind kind, const char *text)
{
	Gantry__Job *job = model__job_new(a, kind, d);

	a->result->job_id = job->id;
	model__job_end(a, job, JOB(DONE), text);
	return 0;
}

/* It runs nowhere: nothing but the wish has to go. */
static int stop_nowhere(struct model_apply *a, Gantry__Domain *d, Gantry__Job *job, const char *how)
{
	if (job)
		model__job_end(a, job, JOB(CANCELLED), "the domain was stopped");
	d->goal = GOAL(STOPPED);
	pb_set_string(&d->stop_how, how);
	if (d->state == DOM(WAITING) || d->state == DOM(FAILED)) {
		model__domain_move(a, d, DOM(STOPPED), "", d->generation, "");
		model__event(a, INFO, "domain", d->spec->name, "domain-stopped", "%s is stopped; it ran nowhere", d->spec->name);
	}
	return done_at_once(a, d, KIND(STOP), "it ran nowhere");
}

/* What may be left undone for the sake of a stop. */
static int stop_check_job(struct model_apply *a, const Gantry__Domain *d, const Gantry__Job *job, bool destroy)
{
	if (!job || job->kind != KIND(MIGRATE))
		return 0;
	if (job->committed)
		return in_hand(a, d, job);
	if (!destroy)
		return model__refuse(a, STATUS(RETRY), "domain '%s' is being migrated to %s by task %llu: wait for it, or cancel it ('clusterctl task cancel %llu')",
				     d->spec->name, job->destination, (unsigned long long)job->id, (unsigned long long)job->id);
	return 0;
}

static int goal_stop(struct model_apply *a, Gantry__Domain *d, const char *how)
{
	Gantry__Job *job = model__domain_job(a->m, d);
	bool destroy = model__is(how, "destroy");
	int rc;

	if (!destroy && !model__is(how, "shutdown"))
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': '%s' is no way to stop it (shutdown or destroy)", d->spec->name, how);
	if (!*d->host)
		return stop_nowhere(a, d, job, how);
	rc = stop_check_job(a, d, job, destroy);
	if (rc)
		return rc;
	if (job && job->kind == KIND(STOP)) {
		/* A destroy hurries a shutdown; a shutdown does not hold a destroy up. */
		if (destroy)
			pb_set_string(&d->stop_how, how);
		a->result->job_id = job->id;
		return 0;
	}
	if (job)
		model__job_end(a, job, JOB(CANCELLED), "the domain was stopped");
	d->goal = GOAL(STOPPED);
	pb_set_string(&d->evicted, NULL);
	pb_set_string(&d->stop_how, how);
	a->result->job_id = model__job_new(a, KIND(STOP), d)->id;
	if (d->state != DOM(STOPPING))
		model__domain_move(a, d, DOM(STOPPING), d->host, d->generation, destroy ? "is being destroyed" : "is being shut down");
	model__event(a, INFO, "domain", d->spec->name, "domain-stopping", "%s on %s %s", d->spec->name, d->host, d->reason);
	return 0;
}

static int goal_pause(struct model_apply *a, Gantry__Domain *d, bool paused)
{
	Gantry__Job *job = model__domain_job(a->m, d);
	Gantry__JobKind kind = paused ? KIND(PAUSE) : KIND(UNPAUSE);

	if (!*d->host)
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' is %s: start it first ('clusterctl start %s')", d->spec->name,
				     model__domain_word(d->state), d->spec->name);
	if (job && job->kind == kind) {
		a->result->job_id = job->id;
		return 0;
	}
	if (job && job->kind != KIND(PAUSE) && job->kind != KIND(UNPAUSE))
		return in_hand(a, d, job);
	if (d->state != DOM(RUNNING) && d->state != DOM(PAUSED))
		return model__refuse(a, STATUS(RETRY), "domain '%s' is %s: try again when it runs", d->spec->name, model__domain_word(d->state));
	if (job)
		model__job_end(a, job, JOB(CANCELLED), "the opposite was asked for");
	d->goal = paused ? GOAL(PAUSED) : GOAL(RUNNING);
	if (d->state == (paused ? DOM(PAUSED) : DOM(RUNNING)))
		return done_at_once(a, d, kind, "it was so already");
	a->result->job_id = model__job_new(a, kind, d)->id;
	return 0;
}

int model__domain_goal(struct model_apply *a, const Gantry__CmdDomainGoal *c)
{
	Gantry__Domain *d = model_domain(a->m, c->domain);

	if (!d)
		return no_domain(a, c->domain);
	pb_set_string(&a->result->uuid, d->spec->uuid);
	switch (c->goal) {
	case GOAL(STOPPED):
		return goal_stop(a, d, c->how);
	case GOAL(PAUSED):
		return goal_pause(a, d, true);
	case GOAL(RUNNING):
		return goal_pause(a, d, false);
	default:
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': an unknown goal (%d)", d->spec->name, c->goal);
	}
}
