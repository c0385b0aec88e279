/* A host and its clusterd: what corosync, the disk, the agent and the clock say goes into the shipped member
 * (clusterd/core/node.h), what that wants done is done here. This file stands where clusterd/daemon stands. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/core/node.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"

#define TICK_US 100000            /* of a clusterd */
#define BOOT_US 3000000
#define VOTEQUORUM_US 1000000
#define AGENT_RETRY_US 500000     /* clusterd looks for its agent so often */
#define OPERATOR_US 20000000      /* a clusterd that stepped out is started again by somebody, about so much later */
#define SNAPSHOT_EVERY 600
#define AUDIT_EVERY 100

struct sim_member {
	struct node *node;        /* NULL: the process does not run */
	struct sim_disk *disk;
	bool hung, stopped, agent_linked, ring_waits;
};

static void step(struct sim *s, struct sim_host *h, struct node_event *e)
{
	if (!h->member->node)
		return;
	e->now_ms = sim_clock_ms(s, h);
	e->wall_ms = sim_wall_ms(s, h);
	node_step(h->member->node, e);
}

struct node *host_node(const struct sim_host *h)
{
	return h->member->node;
}

struct sim_disk *host_disk(const struct sim_host *h)
{
	return h->member->disk;
}

bool host_clusterd_answers(const struct sim_host *h)
{
	return h->powered && !h->frozen && h->member->node && !h->member->hung;
}

static void look_at_all(struct sim *s);

/* ---- what the member wants done ----------------------------------------------------- */

static void operator_restarts(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	sim_trace(s, "%s: somebody starts clusterd again", h->name);
	host_clusterd_stop(s, h);
	disk_set_mood(h->member->disk, DISK_WORKS);
	host_clusterd_start(s, h);
}

static void stepped_out(struct sim *s, struct sim_host *h, const char *why)
{
	sim_trace(s, "%s: steps out: %s", h->name, why);
	h->member->stopped = true;
	host_ailing(s, h);
	/* Not from within the step. */
	sim_after(s, OPERATOR_US / 2 + sim_random(s, OPERATOR_US), h, LIFE_CLUSTERD, operator_restarts, 0, NULL, NULL);
}

static void leave(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	group_leave(s, h);
	if (h->member->agent_linked) {
		h->member->agent_linked = false;
		agent_connected(s, h, false);
	}
}

/* True: a person asked for it. By itself the cluster fences only while that is on. */
static bool check_fence_wanted(struct sim *s, struct sim_host *by, const Gantry__Host *target)
{
	const Gantry__HaState *ha = node_model(host_node(by))->state->ha;

	/* Its clock may be wrong: as long as was asked for is long enough. */
	if (!target->fence_asked && ha && ha->disarmed && sim_wall_ms(s, by) < ha->until_ms && s->now_us - s->disarmed_us < ha->for_ms * 900)
		sim_violation(s, "disarmed", "%s fences %s by itself although automatic action is off", by->name, target->name);
	return target->fence_asked;
}

static void act(void *data, const struct node_action *a)
{
	struct sim_host *h = data;
	struct sim *s = h->sim;

	switch (a->type) {
	case NODE_ACTION_SEND:
		group_send(s, h, a->u.send.data, a->u.send.len);
		break;
	case NODE_ACTION_DISK:
		disk_write(s, h, h->member->disk, a->u.disk);
		break;
	case NODE_ACTION_SNAPSHOT:
		disk_snapshot(s, h, h->member->disk, a->u.snapshot.index, a->u.snapshot.epoch, a->u.snapshot.data, a->u.snapshot.len,
			      a->u.snapshot.voters, a->u.snapshot.n_voters);
		break;
	case NODE_ACTION_REMEMBER:
		disk_remember(s, h, h->member->disk);
		break;
	case NODE_ACTION_FENCE:
		look_at_all(s);
		fence_run(s, h, a->u.fence.host->name, check_fence_wanted(s, h, a->u.fence.host));
		break;
	case NODE_ACTION_FENCE_CANCEL:
		fence_cancel_all(s, h);
		break;
	case NODE_ACTION_GOALS:
		agent_take_goals(s, h, a->u.goals);
		break;
	case NODE_ACTION_QUORUM:
		agent_take_quorum(s, h, a->u.quorum.quorate, a->u.quorum.epoch);
		break;
	case NODE_ACTION_APPLIED:
		check_applied(s, h, a);
		break;
	case NODE_ACTION_STOPPED:
		stepped_out(s, h, a->u.stopped.why);
		sim_after(s, 0, h, LIFE_CLUSTERD, leave, 0, NULL, NULL);
		break;
	case NODE_ACTION_NOTE:
		if (a->u.note.level != NODE_DEBUG)
			sim_trace(s, "%s: %s", h->name, a->u.note.text);
		break;
	case NODE_ACTION_SOFT:
	case NODE_ACTION_CHANGED:
		break;
	}
}

/* ---- what corosync, the disk and fences say -------------------------------------------- */

void host_on_view(struct sim *s, struct sim_host *h, uint64_t id, const uint32_t *members, size_t n)
{
	step(s, h, &(struct node_event){.type = NODE_EVENT_VIEW, .u.view = {.id = id, .members = members, .n_members = n}});
}

void host_on_ring(struct sim *s, struct sim_host *h, const uint32_t *nodes, size_t n)
{
	/* It is read when the process goes on. */
	h->member->ring_waits = h->member->hung;
	if (h->member->hung)
		return;
	step(s, h, &(struct node_event){.type = NODE_EVENT_RING, .u.ring = {.nodes = nodes, .n = n}});
}

void host_on_message(struct sim *s, struct sim_host *h, uint32_t sender, const uint8_t *data, size_t len)
{
	step(s, h, &(struct node_event){.type = NODE_EVENT_MESSAGE, .u.message = {.sender = sender, .data = data, .len = len}});
}

static void disk_done(struct sim *s, struct sim_host *h, bool snapshot, uint64_t which, int rc)
{
	struct node_event e = {.type = snapshot ? NODE_EVENT_SNAPSHOT_DONE : NODE_EVENT_DISK_DONE};

	if (snapshot) {
		e.u.snapshot_done.index = which;
		e.u.snapshot_done.rc = rc;
	} else {
		e.u.disk_done.serial = which;
		e.u.disk_done.rc = rc;
		e.u.disk_done.text = rc < 0 ? "no space left" : NULL;
	}
	step(s, h, &e);
}

struct fence_answer { char target[16], text[160]; int rc; bool by_time; };

static void fence_answered(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct fence_answer *f = p;
	struct node_event e = {.type = NODE_EVENT_FENCED, .u.fenced = {.host = f->target, .rc = f->rc, .text = f->text, .by_time = f->by_time}};

	step(s, h, &e);
	free(f);
}

void host_fence_answer(struct sim *s, struct sim_host *by, const char *target, int rc, const char *text, bool by_time)
{
	struct fence_answer *f = mem_alloc(sizeof(*f));

	snprintf(f->target, sizeof(f->target), "%s", target);
	snprintf(f->text, sizeof(f->text), "%s", text);
	f->rc = rc;
	f->by_time = by_time;
	sim_after(s, 100 + sim_random(s, 1000), by, LIFE_CLUSTERD, fence_answered, 0, f, free);
}

/* ---- the agent's connection --------------------------------------------------------------- */

static void report_arrives(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct node_event e = {.type = NODE_EVENT_REPORT, .u.report.report = p};

	if (h->member->agent_linked && host_clusterd_answers(h))
		step(s, h, &e);
	else
		gantry__agent_report__free_unpacked(p, NULL);
}

static void drop_report(void *p)
{
	gantry__agent_report__free_unpacked(p, NULL);
}

void host_agent_report(struct sim *s, struct sim_host *h, Gantry__AgentReport *report)
{
	if (!h->member->agent_linked) {
		gantry__agent_report__free_unpacked(report, NULL);
		return;
	}
	sim_after(s, 200, h, LIFE_CLUSTERD, report_arrives, 0, report, drop_report);
}

static void link_agent(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_member *m = h->member;

	if (m->node && !m->hung && !m->agent_linked && !m->stopped && agent_is_running(h)) {
		m->agent_linked = true;
		agent_connected(s, h, true);
		step(s, h, &(struct node_event){.type = NODE_EVENT_AGENT, .u.agent.connected = true});
	}
	if (m->node)
		sim_after(s, AGENT_RETRY_US, h, LIFE_CLUSTERD, link_agent, 0, NULL, NULL);
}

/* ---- clusterd ---------------------------------------------------------------------------------- */

static void tick(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	if (!h->member->hung)
		step(s, h, &(struct node_event){.type = NODE_EVENT_TICK});
	sim_after(s, TICK_US, h, LIFE_CLUSTERD, tick, 0, NULL, NULL);
}

/* With four hosts every second seed has a quorum device; two hosts have none. */
static void ask_votequorum(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct node_event e = {.type = NODE_EVENT_VOTEQUORUM, .u.votequorum.known = true};

	e.u.votequorum.device_configured = s->o.hosts == 4 && s->o.seed % 2;
	e.u.votequorum.device_votes = e.u.votequorum.device_configured && group_device_votes(s, h);
	e.u.votequorum.quorate = e.u.votequorum.device_votes;
	if (!h->member->hung)
		step(s, h, &e);
	sim_after(s, VOTEQUORUM_US, h, LIFE_CLUSTERD, ask_votequorum, 0, NULL, NULL);
}

static void joins(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	if (!h->member->node || h->member->stopped)
		return;
	step(s, h, &(struct node_event){.type = NODE_EVENT_CONNECTED});
	ask_votequorum(s, h, 0, NULL);
	group_join(s, h);
}

void host_clusterd_start(struct sim *s, struct sim_host *h)
{
	struct sim_member *m = h->member;
	struct node_options o = {.host = h->name, .act = act, .data = h, .snapshot_every = SNAPSHOT_EVERY + 6 * s->o.domains, .audit_every = AUDIT_EVERY + 4 * s->o.domains};
	struct clog_disk_state disk;
	struct buf snapshot = {0};
	bool forgetful;

	if (!h->powered || m->node)
		return;
	m->hung = m->stopped = false;
	if (disk_fault(m->disk))
		sim_violation(s, "durability", "%s: what its log wrote is refused as corrupt: %s", h->name, disk_fault(m->disk));
	/* An empty log beside other hosts: perhaps a new host's, perhaps what is left of one that has voted. */
	if (!disk_load(m->disk, &disk, &snapshot, &forgetful) && h->id != 1 && !forgetful) {
		disk_mark_forgetful(m->disk);
		forgetful = true;
	}
	m->node = node_new(&o);
	if (snapshot.len && node_install(m->node, snapshot.data, snapshot.len, NULL) < 0)
		sim_violation(s, "durability", "%s: the snapshot on its disk cannot be read", h->name);
	buf_free(&snapshot);
	check_member_began(s, h);
	sim_trace(s, "%s: clusterd begins%s", h->name, forgetful ? " with a log that was lost" : "");
	node_begin(m->node, h->id, &disk, forgetful, sim_clock_ms(s, h));
	sim_after(s, 20000 + sim_random(s, 100000), h, LIFE_CLUSTERD, joins, 0, NULL, NULL);
	sim_after(s, sim_random(s, TICK_US), h, LIFE_CLUSTERD, tick, 0, NULL, NULL);
	sim_after(s, sim_random(s, AGENT_RETRY_US), h, LIFE_CLUSTERD, link_agent, 0, NULL, NULL);
}

void host_clusterd_stop(struct sim *s, struct sim_host *h)
{
	struct sim_member *m = h->member;

	if (!m->node)
		return;
	sim_trace(s, "%s: clusterd ends", h->name);
	h->life[LIFE_CLUSTERD]++;
	group_leave(s, h);
	disk_cut(s, m->disk);
	fence_cancel_all(s, h);
	if (m->agent_linked) {
		m->agent_linked = false;
		agent_connected(s, h, false);
	}
	node_free(TAKE_PTR(m->node));
	users_host_gone(s, h);
	host_ailing(s, h);
}

void host_clusterd_hang(struct sim *s, struct sim_host *h, bool hung)
{
	struct sim_member *m = h->member;

	if (m->hung == hung)
		return;
	m->hung = hung;
	if (hung) {
		host_ailing(s, h);
		return;
	}
	/* Timers, the ring's news and the group's messages: which comes first is chance. */
	if (sim_chance(s, 0.5))
		step(s, h, &(struct node_event){.type = NODE_EVENT_TICK});
	if (m->ring_waits)
		group_tell_ring(s, h);
	if (sim_chance(s, 0.5))
		step(s, h, &(struct node_event){.type = NODE_EVENT_TICK});
	group_kick(s, h);
}

/* ---- the agent's process ------------------------------------------------------------------------- */

void host_agent_start(struct sim *s, struct sim_host *h)
{
	if (h->powered && !agent_is_running(h))
		agent_start(s, h);
}

void host_agent_stop(struct sim *s, struct sim_host *h)
{
	if (!agent_is_running(h))
		return;
	h->life[LIFE_AGENT]++;
	agent_stop(s, h);
	if (!h->member->agent_linked)
		return;
	h->member->agent_linked = false;
	step(s, h, &(struct node_event){.type = NODE_EVENT_AGENT, .u.agent.connected = false});
}

/* ---- power ----------------------------------------------------------------------------------------- */

void host_power_off(struct sim *s, struct sim_host *h, const char *why)
{
	if (!h->powered)
		return;
	sim_trace(s, "%s: no power any more: %s", h->name, why);
	host_ailing(s, h);
	h->frozen = false;
	/* All of it at once: nobody hears of anybody's end. */
	h->life[LIFE_POWER]++;
	h->life[LIFE_AGENT]++;
	h->member->agent_linked = false;
	if (agent_is_running(h))
		agent_stop(s, h);
	agent_power_lost(s, h);
	host_clusterd_stop(s, h);
	group_corosync(s, h, false);
	h->powered = false;
	group_changed(s, 0);
}

static void boots(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	group_corosync(s, h, true);
	group_changed(s, 100000 + sim_random(s, 1000000));
	host_agent_start(s, h);
	host_clusterd_start(s, h);
}

void host_power_on(struct sim *s, struct sim_host *h)
{
	if (h->powered)
		return;
	sim_trace(s, "%s: has power", h->name);
	h->powered = true;
	h->powered_us = s->now_us;
	h->store_cut = false;
	h->lied_about = false;
	sim_after(s, s->now_us ? BOOT_US / 2 + sim_random(s, BOOT_US) : 0, h, LIFE_POWER, boots, 0, NULL, NULL);
}

void host_freeze(struct sim *s, struct sim_host *h)
{
	if (!h->powered || h->frozen)
		return;
	h->frozen = true;
	host_ailing(s, h);
	group_changed(s, 0);
}

/* ---- well or not -------------------------------------------------------------------------------------- */

void host_ailing(struct sim *s, struct sim_host *h)
{
	h->healthy_us = 0;
}

static bool linked(const struct sim *s, const struct sim_host *a, const struct sim_host *b)
{
	return net_reaches(s, a, b) && net_reaches(s, b, a);
}

static bool links_most(const struct sim *s, const struct sim_host *h)
{
	unsigned reached = 0;

	for (unsigned i = 1; i <= s->o.hosts; i++)
		reached += linked(s, h, &s->host[i]);
	return 2 * reached > s->o.hosts;
}

/* Nothing that is wrong with it could make the others miss it. */
static bool is_well(const struct sim *s, const struct sim_host *h)
{
	if (!host_clusterd_answers(h) || h->member->stopped || !group_is_connected(h) || h->store_cut || !links_most(s, h))
		return false;
	/* One link that is down between two who reach most of the others: a ring holds only one of them. */
	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (s->host[i].powered && !s->host[i].frozen && !linked(s, h, &s->host[i]) && links_most(s, &s->host[i]))
			return false;
	return node_is_current(h->member->node);
}

static void look_at_all(struct sim *s)
{
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct sim_host *one = &s->host[i];

		if (!is_well(s, one))
			one->healthy_us = 0;
		else if (!one->healthy_us)
			one->healthy_us = s->now_us;
	}
}

static void look(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	look_at_all(s);
	sim_after(s, 500000, NULL, LIFE_POWER, look, 0, NULL, NULL);
}

void host_thaw(struct sim *s, struct sim_host *h)
{
	if (!h->frozen)
		return;
	h->frozen = false;
	sim_thawed(s, h);
	group_kick(s, h);
	group_changed(s, 100 + sim_random(s, 200000));
	/* Those that it cannot reach are not well from now on. */
	look_at_all(s);
}

void host_new(struct sim *s, struct sim_host *h)
{
	h->member = mem_alloc(sizeof(*h->member));
	h->member->disk = disk_new(disk_done);
	group_port_new(h);
	if (h->id == 1)
		sim_after(s, 500000, NULL, LIFE_POWER, look, 0, NULL, NULL);
}

void host_free(struct sim *s, struct sim_host *h)
{
	node_free(h->member->node);
	agent_free(s, h);
	disk_free(h->member->disk);
	free(h->member);
}
