/* What one agent shall do, out of the model. */
#include <stdlib.h>

#include "clusterd/core/model_internal.h"

static void goal_of_domain(const struct model *m, Gantry__AgentGoals *goals, const Gantry__Domain *d)
{
	Gantry__DomainGoal *g = PB_NEW(Gantry__DomainGoal, gantry__domain_goal__init);

	g->spec = d->spec;
	g->generation = d->generation;
	g->goal = model__empty(d->evicted) ? d->goal : GOAL(STOPPED);
	/* Disarmed: the self-fence is an automatic action too. */
	g->ha = d->ha && !model__disarmed(m);
	g->policy = d->policy;
	g->stop_how = d->stop_how;
	/* Every earlier owner has given up with a proof (model__domain_leave, COMMIT): its lease need not be waited for. */
	if (!model__empty(d->previous_host) && !model__empty(d->previous_proof) && d->generation > 1) {
		g->lease_from = d->previous_host;
		g->lease_from_generation = d->generation - 1;
		g->lease_proof = d->previous_proof;
	}
	PB_APPEND(goals, domains, g);
}

static void goal_of_migration(const struct model *m, Gantry__AgentGoals *goals, const Gantry__Job *job, bool incoming)
{
	const Gantry__Domain *d = model__domain_by_uuid(m, job->domain_uuid);
	const char *peer_name = incoming ? job->source : job->destination;
	const Gantry__Host *peer = model_host(m, peer_name);
	Gantry__MigrationGoal *g;

	if (!d)
		return;
	g = PB_NEW(Gantry__MigrationGoal, gantry__migration_goal__init);
	g->job = (Gantry__Job *)job;
	g->incoming = incoming;
	g->spec = d->spec;
	g->peer_host = (char *)peer_name;
	g->peer_address = peer ? peer->address : (char *)"";
	g->source_generation = job->generation - 1;
	PB_APPEND(goals, migrations, g);
}

static void goals_of_jobs(const struct model *m, Gantry__AgentGoals *goals, const char *host)
{
	for (size_t i = 0; i < m->state->n_jobs; i++) {
		const Gantry__Job *job = m->state->jobs[i];

		/* An ended one is not here: that is how its two sides learn that it has ended. */
		if (job->kind != KIND(MIGRATE) || job->state != JOB(RUNNING))
			continue;
		if (model__is(job->destination, host))
			goal_of_migration(m, goals, job, true);
		else if (model__is(job->source, host))
			goal_of_migration(m, goals, job, false);
	}
}

static void goals_of_storage(const struct model *m, Gantry__AgentGoals *goals, const char *host)
{
	for (size_t i = 0; i < m->state->n_pools; i++)
		PB_APPEND(goals, pools, m->state->pools[i]);
	for (size_t i = 0; i < m->state->n_volumes; i++) {
		const Gantry__Volume *v = m->state->volumes[i];
		Gantry__VolumeGoal *g;

		if (!model__is(v->host, host) || (v->state != VOL(CREATING) && v->state != VOL(DELETING)))
			continue;
		g = PB_NEW(Gantry__VolumeGoal, gantry__volume_goal__init);
		g->volume = (Gantry__Volume *)v;
		PB_APPEND(goals, volumes, g);
	}
}

/* What a report has to have seen before it counts (model_report.c). */
static uint64_t life_of(const struct model *m, const char *host)
{
	const Gantry__Host *h = model_host(m, host);
	uint64_t life = h ? h->online_index : 0, armed = m->state->ha ? m->state->ha->armed_index : 0;

	return life > armed ? life : armed;
}

Gantry__AgentGoals *model_goals_view(const struct model *m, const char *host, uint64_t epoch, uint64_t index)
{
	Gantry__AgentGoals *goals = PB_NEW(Gantry__AgentGoals, gantry__agent_goals__init);

	goals->epoch = epoch;
	goals->index = index;
	goals->host = (char *)host;
	goals->life = life_of(m, host);
	goals->disarmed = model__disarmed(m);
	goals->cluster_name = m->state->cluster_name;
	goals->cluster_uuid = m->state->cluster_uuid;
	for (size_t i = 0; i < m->state->n_domains; i++)
		if (model__is(m->state->domains[i]->host, host))
			goal_of_domain(m, goals, m->state->domains[i]);
	goals_of_jobs(m, goals, host);
	goals_of_storage(m, goals, host);
	for (size_t i = 0; i < m->state->n_hosts; i++) {
		const Gantry__Host *h = m->state->hosts[i];
		Gantry__PeerHost *peer;

		if (model__is(h->name, host))
			continue;
		peer = PB_NEW(Gantry__PeerHost, gantry__peer_host__init);
		peer->node_id = h->node_id;
		peer->name = h->name;
		peer->address = h->address;
		PB_APPEND(goals, peers, peer);
	}
	return goals;
}

/* The lists are ours, what is in them is the model's. */
static void free_list(void *list, size_t n)
{
	void **items = list;

	for (size_t i = 0; i < n; i++)
		free(items[i]);
	free(items);
}

void model_goals_view_free(Gantry__AgentGoals *view)
{
	free_list(view->domains, view->n_domains);
	free_list(view->migrations, view->n_migrations);
	free_list(view->volumes, view->n_volumes);
	free_list(view->peers, view->n_peers);
	free(view->pools);
	free(view);
}

Gantry__AgentGoals *model_goals(const struct model *m, const char *host, uint64_t epoch, uint64_t index)
{
	Gantry__AgentGoals *view = model_goals_view(m, host, epoch, index), *goals = pb_clone(view);

	model_goals_view_free(view);
	return goals;
}
