/* High availability as users set it: policies of domains, automatic action on and off, a host that is to be fenced, a domain
 * that its host gives up, one that seems to kill its hosts. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "clusterd/core/model_internal.h"
#include "lib/ha_defaults.h"

/* ---- policies -------------------------------------------------------------- */

void model__policy_default(Gantry__Domain *d)
{
	Gantry__HaPolicy *p = PB_NEW(Gantry__HaPolicy, gantry__ha_policy__init);

	assert(!d->policy);
	p->priority = HA_PRIORITY_DEFAULT;
	p->ready_s = HA_READY_S_DEFAULT;
	p->restarts = HA_RESTARTS_DEFAULT;
	d->policy = p;
}

static bool disk_is_written(const Gantry__Disk *disk)
{
	return !disk->readonly && !disk->cdrom && !disk->empty;
}

/* A domain that goes on behind a cut cable needs a lock on what it writes, which the next owner meets. */
static bool all_leased(const Gantry__DomainSpec *spec)
{
	size_t written = 0;

	for (size_t i = 0; i < spec->n_disks; i++) {
		if (!disk_is_written(spec->disks[i]))
			continue;
		written++;
		if (model__empty(spec->disks[i]->pool))
			return false;
	}
	return written > 0;
}

static int check_ready(struct model_apply *a, const Gantry__Domain *d, const Gantry__HaPolicy *p)
{
	switch (p->ready_by) {
	case GANTRY__READY_BY__READY_BY_RUNNING:
	case GANTRY__READY_BY__READY_BY_AGENT:
	case GANTRY__READY_BY__READY_BY_TIME:
		return 0;
	case GANTRY__READY_BY__READY_BY_PORT:
		if (!model__empty(p->ready_address) && p->ready_port && p->ready_port <= 65535)
			return 0;
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': readiness by a port needs the guest's address and a port from 1 to 65535", d->spec->name);
	default:
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': an unknown kind of readiness (%d)", d->spec->name, p->ready_by);
	}
}

static int check_policy(struct model_apply *a, const Gantry__Domain *d, const Gantry__HaPolicy *p)
{
	const char *name = d->spec->name;

	if (p->priority > HA_PRIORITY_MAX)
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': priority %u is not from 0 to %d", name, p->priority, HA_PRIORITY_MAX);
	if (p->order > HA_ORDER_MAX)
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': order %u is not from 0 to %d", name, p->order, HA_ORDER_MAX);
	if (p->restarts > HA_RESTARTS_MAX)
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': %u restarts in a row are more than %d", name, p->restarts, HA_RESTARTS_MAX);
	if (p->delay_s > HA_SECONDS_MAX || p->ready_s > HA_SECONDS_MAX || p->hung_s > HA_SECONDS_MAX)
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': delay, readiness and hung are at most %d s", name, HA_SECONDS_MAX);
	if (p->hung_s && p->hung_s < HA_HUNG_S_MIN)
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': a guest counts as hung after %d s at the earliest, or never (0)", name, HA_HUNG_S_MIN);
	if (p->isolation == GANTRY__ISOLATION__ISOLATION_LEAVE && !all_leased(d->spec))
		return model__refuse(a, STATUS(CONSTRAINT), "domain '%s' cannot be left running on a host without quorum: only a lease keeps a second one from "
				     "its disks, and not all that it writes are volumes of a pool", name);
	return check_ready(a, d, p);
}

int model__ha_set(struct model_apply *a, const Gantry__CmdHaSet *c)
{
	Gantry__Domain *d = model_domain(a->m, c->domain);
	int rc;

	if (!d)
		return model__refuse(a, STATUS(NO_SUCH), "no domain '%s'; see 'clusterctl list'", c->domain);
	if (!c->policy)
		return model__refuse(a, STATUS(BAD_DATA), "domain '%s': a policy is missing", d->spec->name);
	rc = check_policy(a, d, c->policy);
	if (rc)
		return rc;
	gantry__ha_policy__free_unpacked(d->policy, NULL);
	d->policy = pb_clone(c->policy);
	pb_set_string(&a->result->uuid, d->spec->uuid);
	model__event(a, INFO, "domain", d->spec->name, "ha-set", "%s has priority %u, order %u, %u restarts in a row%s", d->spec->name, d->policy->priority,
		     d->policy->order, d->policy->restarts, d->policy->gives_way ? ", and gives way" : "");
	return 0;
}

/* ---- on and off -------------------------------------------------------------- */

static Gantry__HaState *ha_state(struct model_apply *a)
{
	if (!a->s->ha)
		a->s->ha = PB_NEW(Gantry__HaState, gantry__ha_state__init);
	return a->s->ha;
}

bool model__disarmed(const struct model *m)
{
	return m->state->ha && m->state->ha->disarmed;
}

unsigned model__fence_share(const struct model *m)
{
	return m->state->ha && m->state->ha->fence_share_percent ? m->state->ha->fence_share_percent : HA_FENCE_SHARE_DEFAULT;
}

int model__ha_arm(struct model_apply *a, const Gantry__CmdHaArm *c)
{
	const char *name = a->s->cluster_name;
	Gantry__HaState *ha;

	if (!c->armed && (!c->for_ms || c->for_ms > HA_DISARM_MS_MAX))
		return model__refuse(a, STATUS(BAD_DATA), "cluster '%s': HA is disarmed for at least a moment and at most %d hours", name, HA_DISARM_MS_MAX / 3600000);
	if (c->armed && !model__disarmed(a->m))
		return 0;
	ha = ha_state(a);
	ha->disarmed = !c->armed;
	if (c->armed)
		ha->armed_index = a->index;
	/* Each until its agent says that it has seen the other word. */
	for (size_t i = 0; i < a->s->n_hosts; i++)
		a->s->hosts[i]->unguarded = true;
	ha->until_ms = c->armed ? 0 : a->cmd->time_ms + c->for_ms;
	ha->for_ms = c->armed ? 0 : c->for_ms;
	pb_set_string(&ha->reason, c->armed ? "" : c->reason);
	if (c->armed)
		model__event(a, INFO, "cluster", name, "ha-armed", "automatic action is on again%s%s", *c->reason ? ": " : "", c->reason);
	else
		model__event(a, WARNING, "cluster", name, "ha-disarmed", "automatic action is off for %llu s: nothing is fenced, restarted or moved by itself%s%s",
			     (unsigned long long)c->for_ms / 1000, *c->reason ? ": " : "", c->reason);
	return 0;
}

int model__cluster_set(struct model_apply *a, const Gantry__CmdClusterSet *c)
{
	if (!c->fence_share_percent || c->fence_share_percent > 100)
		return model__refuse(a, STATUS(BAD_DATA), "cluster '%s': the share of hosts that may be fenced at once is from 1 to 100 per cent", a->s->cluster_name);
	ha_state(a)->fence_share_percent = c->fence_share_percent;
	model__event(a, INFO, "cluster", a->s->cluster_name, "cluster-set", "at most %u %% of the other hosts are fenced at once", c->fence_share_percent);
	return 0;
}

/* ---- a domain is to leave its host ---------------------------------------------- */

int model__domain_evict(struct model_apply *a, const Gantry__CmdDomainEvict *c)
{
	Gantry__Domain *d = model__domain_by_uuid(a->m, c->uuid);
	const Gantry__Job *job;

	if (!d)
		return model__refuse(a, STATUS(NO_SUCH), "no domain '%s'", c->uuid);
	if (!*d->host || !model__is(d->host, c->host) || d->generation != c->generation || d->goal == GOAL(STOPPED))
		return model__refuse(a, STATUS(RETRY), "domain '%s': generation %llu on %s is not to be ended any more", d->spec->name,
				     (unsigned long long)c->generation, c->host);
	job = model__domain_job(a->m, d);
	if (job && job->kind == KIND(MIGRATE))
		return model__refuse(a, STATUS(RETRY), "domain '%s' is being migrated by task %llu", d->spec->name, (unsigned long long)job->id);
	if (job && job->kind != KIND(FAILOVER))
		return model__refuse(a, STATUS(RETRY), "domain '%s' is in the hands of task %llu", d->spec->name, (unsigned long long)job->id);
	pb_set_string(&d->stop_how, c->shutdown ? "shutdown" : "destroy");
	/* Being ended already: only harder. */
	if (!model__empty(d->evicted))
		return 0;
	pb_set_string(&d->evicted, c->reason);
	model__domain_move(a, d, DOM(STOPPING), d->host, d->generation, c->reason);
	model__event(a, WARNING, "domain", d->spec->name, "domain-evicted", "%s on %s is ended: %s", d->spec->name, d->host, c->reason);
	return 0;
}

/* ---- a person wants a host off ---------------------------------------------------- */

int model__fence_run(struct model_apply *a, const Gantry__CmdFenceRun *c)
{
	Gantry__Host *h = model_host(a->m, c->host);

	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "no host '%s'; see 'clusterctl host list'", c->host);
	if (h->state != HOST(ONLINE) && h->state != HOST(LOST) && h->state != HOST(FENCING))
		return model__refuse(a, STATUS(CONSTRAINT), "host '%s' is %s: there is nothing to fence", h->name, model__host_word(h->state));
	if (!h->n_fence)
		return model__refuse(a, STATUS(CONSTRAINT), "host '%s' has no fence device: give it one with 'clusterctl fence set %s AGENT key=value...'", h->name,
				     h->name);
	h->fence_asked = true;
	if (h->state != HOST(FENCING)) {
		h->state = HOST(FENCING);
		h->state_since_ms = a->cmd->time_ms;
		pb_set_string(&h->state_reason, "a person asked for it");
	}
	model__event(a, WARNING, "host", h->name, "host-fencing", "%s is being fenced: a person asked for it%s%s", h->name, *c->reason ? ": " : "", c->reason);
	return 0;
}

/* ---- domains that kill hosts ------------------------------------------------------- */

/* True: hosts that ran it have died one after the other, too many to be chance. */
bool model__death_counted(struct model_apply *a, Gantry__Domain *d)
{
	bool new_to_it = d->state == DOM(STARTING) || a->cmd->time_ms < d->state_since_ms + LIMIT_KILLER_RUN_MS;

	if (!new_to_it)
		model__deaths_forget(d);
	for (size_t i = 0; i < d->n_deaths; i++)
		if (model__is(d->deaths[i], d->host))
			return false;
	pb_array_insert(&d->deaths, &d->n_deaths, d->n_deaths, str_dup(d->host));
	return d->n_deaths >= LIMIT_KILLER_HOSTS;
}

void model__deaths_forget(Gantry__Domain *d)
{
	while (d->n_deaths)
		free(d->deaths[--d->n_deaths]);
	free(d->deaths);
	d->deaths = NULL;
}
