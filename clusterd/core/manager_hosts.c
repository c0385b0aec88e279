/* The leader and the hosts. */
#include "clusterd/core/manager_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define HEADLESS_MS 2000
#define FENCE_RETRY_MS 5000           /* doubled with each failure */
#define FENCE_RETRY_MAX_MS 60000

/* Said once for each life of the host, not every ten seconds. */
static bool note_due(struct manager *mgr, const Gantry__Host *h, uint64_t state)
{
	if (!manager__may_propose(mgr, "note", h->name, state))
		return false;
	manager__pending(mgr, "note", h->name)->again_ms = UINT64_MAX;
	return true;
}

static void propose_host(struct manager *mgr, const Gantry__Host *h, Gantry__HostState to, const char *reason, const char *proof)
{
	Gantry__Command *c;

	if (!manager__may_propose(mgr, "host", h->name, h->state << 8 | to | h->incarnation << 16))
		return;
	c = manager__propose(mgr, "%s %s: %s", h->name, to == HOST(DEAD) ? "is proven dead" : model__host_word(to), reason);
	c->body_case = GANTRY__COMMAND__BODY_HOST_STATE;
	c->host_state = PB_NEW(Gantry__CmdHostState, gantry__cmd_host_state__init);
	c->host_state->state = to;
	c->host_state->incarnation = h->incarnation + (to == HOST(ONLINE));
	pb_set_string(&c->host_state->name, h->name);
	pb_set_string(&c->host_state->reason, reason);
	pb_set_string(&c->host_state->proof, proof);
}

/* ---- what is known of them ------------------------------------------------- */

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
	return manager__contains(mgr->members, mgr->n_members, h->node_id) || manager__contains(mgr->nodes, mgr->n_nodes, h->node_id);
}

/* When too many of the others seem lost, it is rather the observer who is (no peer's fence storm). */
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
	return lost * 100 > others * model__fence_share(m) && others > 1;
}

static bool hold_storm(struct manager *mgr, const struct model *m, const Gantry__Host *h)
{
	char text[ERR_TEXT_MAX];

	if (!storm(mgr, m))
		return false;
	if (!note_due(mgr, h, h->incarnation | 1ull << 63))
		return true;
	snprintf(text, sizeof(text), "not fenced: more than %u %% of the other hosts seem lost at once, so it is rather this side that is cut off. Confirm hosts "
		 "that are off with 'clusterctl fence confirm', or fence one with 'clusterctl fence run'", model__fence_share(m));
	manager__note(mgr, ERROR, "host", h->name, "fence-held", text);
	return true;
}

static void decide_lost(struct manager *mgr, const struct model *m, const Gantry__Host *h)
{
	if (alive(mgr, h))
		return;   /* here again, but not yet in step: it will be online, or leave again */
	if (!h->n_fence) {
		if (note_due(mgr, h, h->incarnation))
			manager__note(mgr, ERROR, "host", h->name, "host-unfenceable", "it cannot be proven dead: it has no fence device, so its domains stay where they are. Give it one with "
				     "'clusterctl fence set', or confirm that it is off with 'clusterctl fence confirm'");
		return;
	}
	if (manager__is_off(m) || hold_storm(mgr, m, h))
		return;
	propose_host(mgr, h, HOST(FENCING), "it left the membership; a proof of death is sought", "");
}

static void decide_fencing(struct manager *mgr, const struct model *m, const Gantry__Host *h, bool back)
{
	struct fence_state *f = fence_of(mgr, h);
	struct manager_action *a;
	bool asked;

	if (f->proven) {
		propose_host(mgr, h, HOST(DEAD), f->text, f->text);
		return;
	}
	if (MUTANT(restart_before_fencing) || MUTANT(lease_without_proof)) {
		propose_host(mgr, h, HOST(DEAD), "it left the membership", "it left the membership");
		return;
	}
	if (f->running) {
		f->came_back |= alive(mgr, h);
		return;
	}
	/* A person's wish is carried out once; after a failure the host is what it was. */
	asked = h->fence_asked && !(f->failures && alive(mgr, h));
	if (back && !asked && !MUTANT(fence_without_looking)) {
		propose_host(mgr, h, HOST(ONLINE), "it came back before it was fenced", "");
		return;
	}
	/* One that is alive is not fenced, even if it is not in step yet; and a new leader asks itself the question of the storm again. */
	if (mgr->now_ms < f->again_ms || mgr->n_actions >= LIMIT_MANAGER_ACTIONS)
		return;
	if (!asked && ((alive(mgr, h) && !MUTANT(fence_without_looking)) || manager__is_off(m) || hold_storm(mgr, m, h)))
		return;
	f->running = true;
	f->came_back = alive(mgr, h);
	a = manager__action(mgr, MANAGER_ACTION_FENCE, "a lost host must be proven dead before its domains move");
	a->host = h->name;
}

/* Its host is there and its clusterd is not: nothing new goes there until it is back. */
static void decide_headless(struct manager *mgr, const Gantry__Host *h)
{
	Gantry__Command *c;

	/* The group's news and the ring's come on two ways: a host that is lost looks so for a moment. */
	if (mgr->now_ms - manager__since(mgr, "headless", h->name, h->incarnation) < HEADLESS_MS)
		return;
	if (!h->agent_connected || !manager__may_propose(mgr, "info", h->name, h->incarnation))
		return;
	manager__note(mgr, ERROR, "host", h->name, "clusterd-gone",
		      "its clusterd does not run, although its corosync does: its domains go on as they are, and are not moved or restarted "
		      "meanwhile. See 'journalctl -u clusterd' there");
	c = manager__propose(mgr, "%s takes nothing new until its clusterd is back", h->name);
	c->body_case = GANTRY__COMMAND__BODY_HOST_INFO;
	c->host_info = PB_NEW(Gantry__CmdHostInfo, gantry__cmd_host_info__init);
	c->host_info->host = PB_NEW(Gantry__Host, gantry__host__init);
	pb_set_string(&c->host_info->host->name, h->name);
}

/* When the quorum has just formed, after a power cut perhaps, those who have not come yet are waited for. One who was here and
 * has left is lost at once. */
static bool may_be_booting(const struct manager *mgr, const Gantry__Host *h)
{
	return mgr->now_ms < mgr->patience_until_ms && !manager__contains(mgr->seen, mgr->n_seen, h->node_id);
}

static void decide_host(struct manager *mgr, const struct model *m, const Gantry__Host *h)
{
	bool member = manager__contains(mgr->members, mgr->n_members, h->node_id);
	bool synced = member && manager__contains(mgr->synced, mgr->n_synced, h->node_id);

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

/* Time proves something about a host only if it fenced itself meanwhile: not if it was here again, nor if its agent was not told to. */
static const char *time_proves_nothing(const struct fence_state *f, const Gantry__Host *h)
{
	if (f->came_back && !MUTANT(time_proves_all))
		return "it was here again while its watchdog was waited for";
	return h->unguarded && !MUTANT(time_proves_all) ? "automatic action was off, and so was its self-fence: its watchdog proves nothing" : NULL;
}

void manager__fenced(struct manager *mgr, const struct model *m, const struct manager_event *event)
{
	const Gantry__Host *h = model_host(m, event->u.fenced.host);
	const char *text = event->u.fenced.text, *void_because = NULL;
	struct fence_state *f = h ? fence_of(mgr, h) : NULL;
	char note[ERR_TEXT_MAX];
	uint64_t wait;

	if (!f)
		return;
	f->running = false;
	/* The host had another life since: a proof about the old one says nothing about this one. */
	if (f->incarnation != h->incarnation)
		return;
	if (event->u.fenced.rc == 0 && event->u.fenced.by_time)
		void_because = time_proves_nothing(f, h);
	snprintf(f->text, sizeof(f->text), "%s", void_because ? void_because : text ? text : "");
	if ((event->u.fenced.rc == 0 && !void_because) || MUTANT(failed_fence_counts)) {
		f->proven = true;
		return;
	}
	wait = (uint64_t)FENCE_RETRY_MS << (f->failures < 4 ? f->failures : 4);
	f->failures++;
	f->again_ms = mgr->now_ms + (wait < FENCE_RETRY_MAX_MS ? wait : FENCE_RETRY_MAX_MS);
	if (h->fence_asked && alive(mgr, h))
		snprintf(note, sizeof(note), "fencing failed: %s; the host is alive, so it is not tried again", f->text);
	else
		snprintf(note, sizeof(note), "fencing failed (attempt %u): %s; again in %" PRIu64 " s", f->failures, f->text,
			 (f->again_ms - mgr->now_ms) / 1000);
	manager__note(mgr, ERROR, "host", h->name, "fence-failed", note);
}

void manager__decide_hosts(struct manager *mgr, const struct model *m)
{
	for (size_t i = 0; i < m->state->n_hosts; i++)
		decide_host(mgr, m, m->state->hosts[i]);
}
