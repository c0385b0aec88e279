/* Users and operators: each asks for one thing at a time, of any host, and asks again elsewhere with the same request id when
 * the answer is lost. The first of them makes the cluster. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/core/node.h"
#include "lib/buf.h"
#include "proto/pb.h"

#define POOL "vms"
#define SET_UP_US 600000000ull
#define ABREAST 64           /* commands under way during the set-up */
#define TRIES 12             /* of one wish; then its outcome stays unknown */

#define GOAL(x) GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_##x
#define DOM(x) GANTRY__DOMAIN_STATE__DOMAIN_STATE_##x

struct user {
	struct sim *s;
	char client[16];
	uint64_t seq;
	unsigned tries;
	Gantry__Command *command;   /* the wish, until it is answered */
	struct sim_host *at;        /* who was asked; NULL: nobody now */
	uint64_t round;             /* of asking: an answer to an older one is void */
	bool set_up;
};

/* A command of a burst: asked once, and either acknowledged or not heard of again. */
struct shot {
	struct sim *s;
	struct sim_host *at;
	uint64_t seq;
	struct shot *next;
};

struct sim_users {
	struct shot *shots;         /* under way */
	uint64_t next_shot;
	struct user *list;
	size_t n;
	bool stopped;
	unsigned next_domain, next_note;
	/* the set-up */
	size_t under_way, failed;
	char why[300];
};

/* ---- asking ----------------------------------------------------------------------- */

static void think(struct sim *s, struct sim_host *none, uint64_t which, void *p);
static void ask(struct sim *s, struct user *u);
static void shot_over(struct sim *s, struct shot *shot);

static void wish_over(struct user *u)
{
	if (u->command)
		gantry__command__free_unpacked(u->command, NULL);
	u->command = NULL;
	u->at = NULL;
	u->tries = 0;
}

static void again(struct sim *s, struct sim_host *none, uint64_t which, void *p)
{
	struct user *u = &s->users->list[which];

	if (u->command && !u->at)
		ask(s, u);
}

static void ask_again(struct sim *s, struct user *u)
{
	u->at = NULL;
	if (++u->tries > TRIES && !u->set_up) {
		wish_over(u);
		sim_after(s, 1000000 + sim_random(s, 1000000), NULL, LIFE_POWER, think, (uint64_t)(u - s->users->list), NULL, NULL);
		return;
	}
	s->r->retries++;
	sim_after(s, 100000 + sim_random(s, 3000000), NULL, LIFE_POWER, again, (uint64_t)(u - s->users->list), NULL, NULL);
}

static void on_answer(void *data, const Gantry__CommandResult *result)
{
	struct user *u = data;
	struct sim *s = u->s;

	if (!u->command || !u->at)
		return;
	sim_trace(s, "%s is answered by %s: %d %s", u->client, u->at->name, result->status, result->text);
	switch (result->status) {
	case GANTRY__STATUS__STATUS_OK:
		check_acknowledged(s, u->client, u->seq, result->log_index);
		break;
	case GANTRY__STATUS__STATUS_RETRY:
	case GANTRY__STATUS__STATUS_NO_QUORUM:
	case GANTRY__STATUS__STATUS_UNAVAILABLE:
		/* A refusal by the model is an answer; one without a place in the log may have been done or not. */
		if (!result->log_index) {
			ask_again(s, u);
			return;
		}
		break;
	default:
		break;
	}
	wish_over(u);
	sim_after(s, 500000 + sim_random(s, 4000000), NULL, LIFE_POWER, think, (uint64_t)(u - s->users->list), NULL, NULL);
}

static struct sim_host *any_host(struct sim *s)
{
	for (unsigned i = 0; i < 4; i++) {
		struct sim_host *h = &s->host[1 + sim_random(s, s->o.hosts)];

		if (host_clusterd_answers(h))
			return h;
	}
	return NULL;
}

/* Without a quorum the operator's word is also that no other host ran longer than the one where he says it (docs/log.md). */
static bool may_confirm(const struct sim *s, const struct sim_host *h)
{
	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (disk_is_ahead(host_disk(&s->host[i]), host_disk(h)))
			return false;
	return true;
}

static void ask(struct sim *s, struct user *u)
{
	struct node_event e = {.type = NODE_EVENT_PROPOSE};
	struct sim_host *h = any_host(s);

	if (!h || (u->command->body_case == GANTRY__COMMAND__BODY_FENCE_CONFIRM && !node_is_current(host_node(h)) && !may_confirm(s, h))) {
		ask_again(s, u);
		return;
	}
	u->at = h;
	e.now_ms = sim_clock_ms(s, h);
	e.wall_ms = sim_wall_ms(s, h);
	e.u.propose.command = u->command;
	e.u.propose.patient = true;
	e.u.propose.cb = on_answer;
	e.u.propose.data = u;
	node_step(host_node(h), &e);
}

void users_host_gone(struct sim *s, struct sim_host *h)
{
	for (size_t i = 0; i < s->users->n; i++)
		if (s->users->list[i].at == h)
			ask_again(s, &s->users->list[i]);
	for (struct shot *shot = s->users->shots, *next; shot; shot = next) {
		next = shot->next;
		if (shot->at == h)
			shot_over(s, shot);
	}
}

/* ---- wishes ----------------------------------------------------------------------------- */

static Gantry__Command *wish(struct user *u, Gantry__Command__BodyCase body)
{
	Gantry__Command *c = PB_NEW(Gantry__Command, gantry__command__init);

	c->body_case = body;
	pb_set_string(&c->client, u->client);
	c->seq = ++u->seq;
	return c;
}

static Gantry__Command *wish_note(struct sim *s, struct user *u)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_EVENT_NOTE);
	char text[64];

	c->event_note = PB_NEW(Gantry__CmdEventNote, gantry__cmd_event_note__init);
	snprintf(text, sizeof(text), "note %u", ++s->users->next_note);
	pb_set_string(&c->event_note->subject, "cluster");
	pb_set_string(&c->event_note->kind, "user-note");
	pb_set_string(&c->event_note->text, text);
	return c;
}

static Gantry__Command *wish_goal(struct user *u, const Gantry__Domain *d, Gantry__DomainGoalState goal, const char *how)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_DOMAIN_GOAL);

	c->domain_goal = PB_NEW(Gantry__CmdDomainGoal, gantry__cmd_domain_goal__init);
	pb_set_string(&c->domain_goal->domain, d->spec->name);
	c->domain_goal->goal = goal;
	pb_set_string(&c->domain_goal->how, how);
	return c;
}

static Gantry__Command *wish_start(struct user *u, const Gantry__Domain *d)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_DOMAIN_START);

	c->domain_start = PB_NEW(Gantry__CmdDomainStart, gantry__cmd_domain_start__init);
	pb_set_string(&c->domain_start->domain, d->spec->name);
	return c;
}

static Gantry__Command *wish_migrate(struct sim *s, struct user *u, const Gantry__Domain *d)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_MIGRATE_START);
	uint64_t token[4];

	c->migrate_start = PB_NEW(Gantry__CmdMigrateStart, gantry__cmd_migrate_start__init);
	for (size_t i = 0; i < 4; i++)
		token[i] = sim_random(s, 0) ^ s->rng;
	pb_set_string(&c->migrate_start->domain, d->spec->name);
	pb_set_string(&c->migrate_start->destination, s->host[1 + sim_random(s, s->o.hosts)].name);
	pb_set_bytes(&c->migrate_start->token, token, sizeof(token));
	return c;
}

static Gantry__Command *wish_cancel(struct user *u, const Gantry__ClusterModel *m)
{
	Gantry__Command *c;

	for (size_t i = m->n_jobs; i-- > 0;) {
		if (m->jobs[i]->state != GANTRY__JOB_STATE__JOB_STATE_RUNNING || m->jobs[i]->kind != GANTRY__JOB_KIND__JOB_KIND_MIGRATE)
			continue;
		c = wish(u, GANTRY__COMMAND__BODY_JOB_CANCEL);
		c->job_cancel = PB_NEW(Gantry__CmdJobCancel, gantry__cmd_job_cancel__init);
		c->job_cancel->job_id = m->jobs[i]->id;
		return c;
	}
	return NULL;
}

/* An operator goes and looks: he confirms only what is off. */
static Gantry__Command *wish_confirm(struct sim *s, struct user *u, const Gantry__ClusterModel *m)
{
	for (size_t i = 0; i < m->n_hosts; i++) {
		const struct sim_host *h = sim_host_by_name(s, m->hosts[i]->name);
		Gantry__Command *c;

		if (!h || h->powered || m->hosts[i]->state == GANTRY__HOST_STATE__HOST_STATE_ONLINE)
			continue;
		c = wish(u, GANTRY__COMMAND__BODY_FENCE_CONFIRM);
		c->fence_confirm = PB_NEW(Gantry__CmdFenceConfirm, gantry__cmd_fence_confirm__init);
		pb_set_string(&c->fence_confirm->host, h->name);
		return c;
	}
	return NULL;
}

/* Over the whole of what may be set: whoever breaks the leader by a policy finds it here. */
static Gantry__HaPolicy *any_policy(struct sim *s, bool leased)
{
	Gantry__HaPolicy *p = PB_NEW(Gantry__HaPolicy, gantry__ha_policy__init);

	p->priority = (uint32_t)sim_random(s, 256);
	p->order = sim_chance(s, 0.5) ? 0 : 1 + (uint32_t)sim_random(s, 3);
	p->delay_s = (uint32_t)sim_random(s, 4);
	p->ready_by = sim_chance(s, 0.5) ? GANTRY__READY_BY__READY_BY_RUNNING : GANTRY__READY_BY__READY_BY_TIME;
	p->ready_s = 1 + (uint32_t)sim_random(s, 20);
	p->restarts = 1 + (uint32_t)sim_random(s, 4);
	p->gives_way = sim_chance(s, 0.3);
	if (leased && sim_chance(s, 0.2))
		p->isolation = GANTRY__ISOLATION__ISOLATION_LEAVE;
	return p;
}

static Gantry__Command *wish_policy(struct sim *s, struct user *u, const char *domain, bool leased)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_HA_SET);

	c->ha_set = PB_NEW(Gantry__CmdHaSet, gantry__cmd_ha_set__init);
	pb_set_string(&c->ha_set->domain, domain);
	c->ha_set->policy = any_policy(s, leased);
	return c;
}

static Gantry__Command *wish_arm(struct sim *s, struct user *u, bool armed)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_HA_ARM);

	c->ha_arm = PB_NEW(Gantry__CmdHaArm, gantry__cmd_ha_arm__init);
	c->ha_arm->armed = armed;
	c->ha_arm->for_ms = armed ? 0 : 5000 + sim_random(s, 40000);
	return c;
}

static Gantry__Command *wish_fence(struct sim *s, struct user *u)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_FENCE_RUN);

	c->fence_run = PB_NEW(Gantry__CmdFenceRun, gantry__cmd_fence_run__init);
	pb_set_string(&c->fence_run->host, s->host[1 + sim_random(s, s->o.hosts)].name);
	return c;
}

static Gantry__Command *wish_ha(struct sim *s, struct user *u, const Gantry__ClusterModel *m)
{
	const Gantry__Domain *d = m->domains[sim_random(s, m->n_domains)];
	uint64_t kind = sim_random(s, 20);

	if (kind == 0 && s->o.hosts > 2)
		return wish_fence(s, u);
	if (kind < 3)
		return wish_arm(s, u, false);
	if (kind < 5)
		return wish_arm(s, u, true);
	return wish_policy(s, u, d->spec->name, d->spec->n_disks);
}

static Gantry__Command *wish_domain(struct sim *s, struct user *u, const Gantry__Domain *d)
{
	uint64_t kind = sim_random(s, 100);

	if (!*d->host && d->state != DOM(WAITING))
		return wish_start(u, d);
	if (d->state == DOM(PAUSED) && d->goal == GOAL(PAUSED))
		return wish_goal(u, d, GOAL(RUNNING), "");
	if (kind < 60)
		return wish_migrate(s, u, d);
	if (kind < 75)
		return wish_goal(u, d, GOAL(STOPPED), kind < 68 ? "shutdown" : "destroy");
	if (kind < 85)
		return wish_goal(u, d, GOAL(PAUSED), "");
	return NULL;
}

static void think(struct sim *s, struct sim_host *none, uint64_t which, void *p)
{
	struct user *u = &s->users->list[which];
	struct sim_host *h = any_host(s);
	const Gantry__ClusterModel *m = h ? node_model(host_node(h))->state : NULL;
	uint64_t kind = sim_random(s, 100);

	if (s->users->stopped || u->command)
		return;
	if (m && m->n_domains && kind < 70)
		u->command = wish_domain(s, u, m->domains[sim_random(s, m->n_domains)]);
	else if (m && m->n_domains && kind < 73)
		u->command = wish_ha(s, u, m);
	else if (m && kind < 75)
		u->command = wish_cancel(u, m);
	else if (m && kind < 80)
		u->command = wish_confirm(s, u, m);
	else if (m && m->n_domains && kind < 83)
		qemu_guest_ends(s, m->domains[sim_random(s, m->n_domains)]->spec->uuid, sim_chance(s, 0.5));
	else
		u->command = wish_note(s, u);
	if (u->command)
		ask(s, u);
	else
		sim_after(s, 200000 + sim_random(s, 2000000), NULL, LIFE_POWER, think, which, NULL, NULL);
}

/* ---- bursts ------------------------------------------------------------------------------ */

static void shot_over(struct sim *s, struct shot *shot)
{
	struct shot **at = &s->users->shots;

	while (*at != shot)
		at = &(*at)->next;
	*at = shot->next;
	free(shot);
}

static void on_shot(void *data, const Gantry__CommandResult *result)
{
	struct shot *shot = data;

	if (result->status == GANTRY__STATUS__STATUS_OK)
		check_acknowledged(shot->s, "burst", shot->seq, result->log_index);
	shot_over(shot->s, shot);
}

void users_burst(struct sim *s, struct sim_host *h, unsigned n)
{
	for (unsigned i = 0; i < n && host_clusterd_answers(h); i++) {
		struct node_event e = {.type = NODE_EVENT_PROPOSE, .now_ms = sim_clock_ms(s, h), .wall_ms = sim_wall_ms(s, h)};
		struct user u = {.client = "burst", .seq = s->users->next_shot++};
		struct shot *shot = mem_alloc(sizeof(*shot));

		*shot = (struct shot){.s = s, .at = h, .seq = s->users->next_shot, .next = s->users->shots};
		s->users->shots = shot;
		e.u.propose.command = wish_note(s, &u);
		/* Not patient: its fate is decided with this configuration. */
		e.u.propose.patient = sim_chance(s, 0.3);
		e.u.propose.cb = on_shot;
		e.u.propose.data = shot;
		node_step(host_node(h), &e);
		gantry__command__free_unpacked(e.u.propose.command, NULL);
	}
}

/* ---- the set-up ----------------------------------------------------------------------------- */

static void on_set_up(void *data, const Gantry__CommandResult *result)
{
	struct sim *s = data;

	s->users->under_way--;
	if (result->status == GANTRY__STATUS__STATUS_OK)
		return;
	s->users->failed++;
	snprintf(s->users->why, sizeof(s->users->why), "%d %s", result->status, result->text);
}

/* Takes the command over; waits while too many are under way. */
static void set_up(struct sim *s, Gantry__Command *c)
{
	struct sim_host *h = &s->host[1];
	struct node_event e = {.type = NODE_EVENT_PROPOSE, .now_ms = sim_clock_ms(s, h), .wall_ms = sim_wall_ms(s, h)};

	e.u.propose.command = c;
	e.u.propose.patient = true;
	e.u.propose.cb = on_set_up;
	e.u.propose.data = s;
	s->users->under_way++;
	node_step(host_node(h), &e);
	gantry__command__free_unpacked(c, NULL);
	while (s->users->under_way >= ABREAST && !s->r->violation[0] && s->now_us < SET_UP_US)
		sim_run_until(s, s->now_us + 1000);
}

static bool set_up_done(struct sim *s, const char *what)
{
	while (s->users->under_way && !s->r->violation[0] && s->now_us < SET_UP_US)
		sim_run_until(s, s->now_us + 1000);
	if (s->users->under_way || s->users->failed)
		sim_violation(s, "set-up", "%s: %zu commands without answer, %zu failed: %s", what, s->users->under_way, s->users->failed, s->users->why);
	return !s->r->violation[0];
}

static bool wait_for(struct sim *s, const char *what, bool (*there)(const struct sim *s, const Gantry__ClusterModel *m))
{
	while (!s->r->violation[0] && s->now_us < SET_UP_US) {
		if (there(s, node_model(host_node(&s->host[1]))->state))
			return true;
		sim_run_until(s, s->now_us + 100000);
	}
	sim_violation(s, "set-up", "waited in vain: %s", what);
	return false;
}

static bool all_vote(const struct sim *s, const Gantry__ClusterModel *m)
{
	size_t there = 0;

	for (size_t i = 0; i < m->n_hosts; i++)
		there += m->hosts[i]->state == GANTRY__HOST_STATE__HOST_STATE_ONLINE && m->hosts[i]->agent_connected;
	return there == s->o.hosts && m->n_voters == s->o.hosts;
}

static bool all_ready(const struct sim *s, const Gantry__ClusterModel *m)
{
	size_t there = 0;

	for (size_t i = 0; i < m->n_volumes; i++)
		there += m->volumes[i]->state == GANTRY__VOLUME_STATE__VOLUME_STATE_READY;
	return there == m->n_volumes;
}

static bool all_run(const struct sim *s, const Gantry__ClusterModel *m)
{
	size_t there = 0;

	for (size_t i = 0; i < m->n_domains; i++)
		there += m->domains[i]->state == DOM(RUNNING);
	return there == s->o.domains;
}

static Gantry__Host *new_host(const struct sim_host *h)
{
	Gantry__Host *host = PB_NEW(Gantry__Host, gantry__host__init);
	char address[32];

	snprintf(address, sizeof(address), "192.0.2.%u", h->id);
	host->node_id = h->id;
	pb_set_string(&host->name, h->name);
	pb_set_string(&host->address, address);
	return host;
}

static bool make_cluster(struct sim *s, struct user *u)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_CLUSTER_INIT);

	host_power_on(s, &s->host[1]);
	sim_run_until(s, 1000000);
	c->cluster_init = PB_NEW(Gantry__CmdClusterInit, gantry__cmd_cluster_init__init);
	pb_set_string(&c->cluster_init->name, "sim");
	pb_set_string(&c->cluster_init->uuid, "00000000-0000-0000-0000-000000000000");
	c->cluster_init->host = new_host(&s->host[1]);
	set_up(s, c);
	if (!set_up_done(s, "cluster init"))
		return false;
	for (unsigned i = 2; i <= s->o.hosts; i++) {
		c = wish(u, GANTRY__COMMAND__BODY_HOST_ADMIT);
		c->host_admit = PB_NEW(Gantry__CmdHostAdmit, gantry__cmd_host_admit__init);
		c->host_admit->host = new_host(&s->host[i]);
		set_up(s, c);
	}
	if (!set_up_done(s, "letting the hosts in"))
		return false;
	for (unsigned i = 2; i <= s->o.hosts; i++)
		host_power_on(s, &s->host[i]);
	return wait_for(s, "every host is online and votes", all_vote);
}

static void make_fence(struct sim *s, struct user *u, const char *host)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_FENCE_SET);
	const struct sim_host *h = sim_host_by_name(s, host);
	Gantry__FenceDevice *device;

	c->fence_set = PB_NEW(Gantry__CmdFenceSet, gantry__cmd_fence_set__init);
	pb_set_string(&c->fence_set->host, host);
	if (host_has_power_control(h)) {
		device = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);
		pb_set_string(&device->agent, "fence_sim");
		device->level = 1;
		PB_APPEND(c->fence_set, devices, device);
	}
	if (host_has_watchdog(h)) {
		device = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);
		pb_set_string(&device->agent, MODEL_WATCHDOG_DEVICE);
		device->level = 2;
		PB_APPEND(c->fence_set, devices, device);
	}
	set_up(s, c);
}

/* One domain in four has none: no lease stands behind the cluster's word there. */
static bool has_volume(unsigned i)
{
	return i % 4;
}

static void make_volume(struct sim *s, struct user *u, unsigned i)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_VOLUME_CREATE);
	Gantry__Volume *v = PB_NEW(Gantry__Volume, gantry__volume__init);
	char name[32];

	snprintf(name, sizeof(name), "vol%u", i);
	c->volume_create = PB_NEW(Gantry__CmdVolumeCreate, gantry__cmd_volume_create__init);
	c->volume_create->volume = v;
	pb_set_string(&v->pool, POOL);
	pb_set_string(&v->name, name);
	pb_set_string(&v->host, s->host[1 + i % s->o.hosts].name);
	v->size_bytes = 1u << 30;
	set_up(s, c);
}

static void make_domain(struct sim *s, struct user *u, unsigned i)
{
	Gantry__Command *c = wish(u, GANTRY__COMMAND__BODY_DOMAIN_CREATE);
	Gantry__DomainSpec *spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
	char text[48];

	c->domain_create = PB_NEW(Gantry__CmdDomainCreate, gantry__cmd_domain_create__init);
	c->domain_create->spec = spec;
	c->domain_create->start = true;
	snprintf(text, sizeof(text), "web%u", i);
	pb_set_string(&spec->name, text);
	snprintf(text, sizeof(text), "%08x-0000-0000-0000-000000000000", i);
	pb_set_string(&spec->uuid, text);
	spec->memory_bytes = spec->max_memory_bytes = 1u << 30;
	spec->vcpus = spec->max_vcpus = 1;
	pb_set_string(&spec->accel, "tcg");
	if (has_volume(i)) {
		Gantry__Disk *disk = PB_NEW(Gantry__Disk, gantry__disk__init);

		snprintf(text, sizeof(text), "vol%u", i);
		pb_set_string(&disk->vdev, "xvda");
		pb_set_string(&disk->pool, POOL);
		pb_set_string(&disk->volume, text);
		PB_APPEND(spec, disks, disk);
	}
	set_up(s, c);
	snprintf(text, sizeof(text), "web%u", i);
	set_up(s, wish_policy(s, u, text, has_volume(i)));
}

bool users_set_up(struct sim *s)
{
	struct user *u = &s->users->list[0];
	Gantry__Command *c;

	if (!make_cluster(s, u))
		return false;
	for (unsigned i = 1; i <= s->o.hosts; i++)
		make_fence(s, u, s->host[i].name);
	c = wish(u, GANTRY__COMMAND__BODY_POOL_ADD);
	c->pool_add = PB_NEW(Gantry__CmdPoolAdd, gantry__cmd_pool_add__init);
	c->pool_add->pool = PB_NEW(Gantry__Pool, gantry__pool__init);
	pb_set_string(&c->pool_add->pool->name, POOL);
	c->pool_add->pool->type = GANTRY__POOL_TYPE__POOL_TYPE_NFS;
	pb_set_string(&c->pool_add->pool->target, "nfs://192.0.2.254/vms");
	set_up(s, c);
	if (!set_up_done(s, "fences and pool"))
		return false;
	for (unsigned i = 1; i <= s->o.domains; i++)
		if (has_volume(i))
			make_volume(s, u, i);
	if (!set_up_done(s, "volumes") || !wait_for(s, "every volume is ready", all_ready))
		return false;
	for (unsigned i = 1; i <= s->o.domains; i++)
		make_domain(s, u, i);
	return set_up_done(s, "domains") && wait_for(s, "every domain runs", all_run);
}

/* ---- the run ---------------------------------------------------------------------------------------- */

void users_new(struct sim *s)
{
	size_t n = 4;

	s->users = mem_alloc(sizeof(*s->users));
	s->users->list = mem_alloc(n * sizeof(*s->users->list));
	s->users->n = n;
	for (size_t i = 0; i < n; i++) {
		s->users->list[i].s = s;
		snprintf(s->users->list[i].client, sizeof(s->users->list[i].client), "user%zu", i);
	}
}

void users_begin(struct sim *s)
{
	for (size_t i = 0; i < s->users->n; i++)
		sim_after(s, sim_random(s, 2000000), NULL, LIFE_POWER, think, i, NULL, NULL);
}

void users_stop(struct sim *s)
{
	s->users->stopped = true;
}

void users_check(struct sim *s)
{
	for (size_t i = 0; i < s->users->n; i++)
		if (s->users->list[i].command)
			sim_violation(s, "liveness", "%s still waits for an answer to request %lu", s->users->list[i].client, s->users->list[i].seq);
}

void users_free(struct sim *s)
{
	for (size_t i = 0; i < s->users->n; i++)
		wish_over(&s->users->list[i]);
	while (s->users->shots)
		shot_over(s, s->users->shots);
	free(s->users->list);
	free(s->users);
}
