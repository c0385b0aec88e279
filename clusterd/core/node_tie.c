/* Exactly half of the voters are here (one of two, two of four). They hold all that was ever committed, since every quorum has
 * one of them; but so may the other half think. They go on alone only when all of the others are *proven dead*: then the log
 * is decided by this half, which makes itself the voters from then on (clog.h, CLOG_EVENT_PROVEN). The entry that says so says of
 * the others that they are dead (model__epoch_start). Who comes back is outvoted by the newer log and made a voter again.
 *
 * Who may seek the proof:
 *   - a process that has been NORMAL in its life. One that has just begun may have slept through commits of the other half: it waits
 *     for all, as corosync's wait_for_all does, or for a person who confirms that the others are off.
 *   - with a quorum device, the side that has its vote. With two voters and none, both: the lower node id first, the other one
 *     after TIE_DELAY_MS, so that they do not kill each other. With four voters and no device, nobody.
 *   - on each side the lowest node id.
 * Of whom: a host whose corosync is in the ring is alive, whatever its clusterd does. It is not fenced. */
#include "clusterd/core/model_internal.h"
#include "clusterd/core/node_internal.h"

#include <stdio.h>
#include <string.h>

#define TIE_DELAY_MS 6000
#define TIE_RETRY_MS 5000
#define TIE_RETRY_MAX_MS 60000

static void add(uint32_t *list, size_t *count, uint32_t id)
{
	if (!node__listed(list, *count, id) && *count < LIMIT_HOSTS)
		list[(*count)++] = id;
}

static void forget(struct node_tie *t)
{
	t->running = t->said = t->given = false;
	t->failures = 0;
	t->again_ms = 0;
	t->n_proven = t->n_fencing = 0;
	t->failure[0] = '\0';
	/* What the device said of the view before this one may be true of both sides; so of the ring (node__tie_ring). */
	t->corosync.quorate = t->corosync.device_votes = false;
}

/* Half of the voters are here and no quorum. */
static bool is_tie(const struct node *n, const struct clog_status *st)
{
	size_t here = 0;

	for (size_t i = 0; i < st->n_voters; i++)
		here += node__listed(st->members, st->n_members, st->voters[i]);
	if (MUTANT(fence_storm))
		return st->phase == CLOG_IDLE && here;
	return st->phase == CLOG_IDLE && st->n_voters >= 2 && 2 * here == st->n_voters && clog_is_half(n->clog);
}

/* The lowest voter of this side speaks for it; 0: none. */
static uint32_t speaker(const struct clog_status *st)
{
	uint32_t lowest = 0;

	for (size_t i = 0; i < st->n_voters; i++)
		if (node__listed(st->members, st->n_members, st->voters[i]) && (!lowest || st->voters[i] < lowest))
			lowest = st->voters[i];
	return lowest;
}

static bool any_missing_in(const struct clog_status *st, const uint32_t *list, size_t n)
{
	for (size_t i = 0; i < st->n_voters; i++)
		if (!node__listed(st->members, st->n_members, st->voters[i]) && node__listed(list, n, st->voters[i]))
			return true;
	return false;
}

/* With two voters and no device: how long this side leaves the other one to go first. A corosync that has just begun sees itself alone
 * before it finds the others: it waits for longer than they do. */
static uint64_t courtesy_ms(const struct node *n, const struct clog_status *st)
{
	if (!any_missing_in(st, n->tie.seen, n->tie.n_seen))
		return 2 * TIE_DELAY_MS;
	return st->voters[0] < n->node_id || st->voters[1] < n->node_id ? TIE_DELAY_MS : 0;
}

enum node_tie_wait node__tie_waits_for(const struct node *n, const struct clog_status *st)
{
	const struct node_tie *t = &n->tie;

	if (!is_tie(n, st))
		return NODE_TIE_NONE;
	if (t->given)
		return NODE_TIE_DECISION;
	/* Nobody can arm it again without a quorum: the time alone does it. */
	if (model__disarmed(&n->model) && n->wall_ms < n->model.state->ha->until_ms && n->now_ms - t->since_ms < n->model.state->ha->for_ms)
		return NODE_TIE_DISARMED;
	if (MUTANT(fence_storm))
		return t->was_normal && speaker(st) == n->node_id ? NODE_TIE_PROOF : NODE_TIE_OTHERS;
	if (any_missing_in(st, n->ring, n->n_ring))
		return NODE_TIE_CLUSTERD;
	if (speaker(st) != n->node_id)
		return NODE_TIE_OTHERS;
	if (!t->was_normal && !MUTANT(alone_after_restart))
		return NODE_TIE_PERSON;
	if (!t->corosync.known)
		return NODE_TIE_COROSYNC;
	if (t->corosync.device_configured)
		return t->corosync.quorate && t->corosync.device_votes ? NODE_TIE_PROOF : NODE_TIE_DEVICE;
	if (st->n_voters != 2)
		return NODE_TIE_NO_DEVICE;
	return n->now_ms - t->since_ms >= courtesy_ms(n, st) ? NODE_TIE_PROOF : NODE_TIE_COURTESY;
}

static void seek(struct node *n, const struct clog_status *st)
{
	struct node_tie *t = &n->tie;

	for (size_t i = 0; i < st->n_voters; i++) {
		struct node_action a = {.type = NODE_ACTION_FENCE};
		uint32_t id = st->voters[i];

		if (node__listed(st->members, st->n_members, id) || node__listed(t->proven, t->n_proven, id) ||
		    node__listed(t->fencing, t->n_fencing, id))
			continue;
		a.u.fence.host = model_host_by_node(&n->model, id);
		if (!a.u.fence.host || !a.u.fence.host->n_fence) {
			snprintf(t->failure, sizeof(t->failure), "%s has no fence device", a.u.fence.host ? a.u.fence.host->name : "a host");
			if (!t->said)
				node__note(n, NODE_ERROR, "%s: confirm that it is off with 'clusterctl fence confirm', or bring it back", t->failure);
			t->said = true;
			continue;
		}
		node__note(n, NODE_WARNING, "half of the voters are here: %s must be proven dead before they go on alone",
			   a.u.fence.host->name);
		add(t->fencing, &t->n_fencing, id);
		t->running = true;
		node__act(n, &a);
	}
}

static void give(struct node *n, const struct clog_status *st)
{
	struct clog_event event = {.type = CLOG_EVENT_PROVEN};
	struct node_tie *t = &n->tie;

	for (size_t i = 0; i < st->n_voters; i++)
		if (!node__listed(st->members, st->n_members, st->voters[i]) && !node__listed(t->proven, t->n_proven, st->voters[i]))
			return;
	t->given = true;
	node__note(n, NODE_WARNING, "all other voters are proven dead: this half goes on alone");
	event.u.proven.nodes = t->proven;
	event.u.proven.n = t->n_proven;
	node__clog(n, &event);
}

void node__tie_membership(struct node *n)
{
	struct node_tie *t = &n->tie;
	struct clog_status st;

	node_log_status(n, &st);
	if (st.phase == CLOG_NORMAL)
		t->was_normal = true;
	if (st.view == t->view && st.phase != CLOG_NORMAL)
		return;
	if (t->running)
		node__act(n, &(struct node_action){.type = NODE_ACTION_FENCE_CANCEL});
	forget(t);
	t->view = st.view;
	t->since_ms = n->now_ms;
}

void node__tie_ring(struct node *n)
{
	if (!n->n_ring)
		n->tie.n_seen = 0;
	n->tie.corosync.quorate = n->tie.corosync.device_votes = false;
	for (size_t i = 0; i < n->n_ring; i++)
		add(n->tie.seen, &n->tie.n_seen, n->ring[i]);
}

void node__tie_tick(struct node *n)
{
	struct clog_status st;

	node_log_status(n, &st);
	if (n->stopped || n->now_ms < n->tie.again_ms || node__tie_waits_for(n, &st) != NODE_TIE_PROOF)
		return;
	seek(n, &st);
	give(n, &st);
}

bool node__tie_fenced(struct node *n, const char *host, int rc, const char *text, bool by_time)
{
	const Gantry__Host *h = model_host(&n->model, host);
	struct node_tie *t = &n->tie;
	uint64_t wait;

	if (!h || !node__listed(t->fencing, t->n_fencing, h->node_id))
		return false;
	for (size_t i = 0; i < t->n_fencing; i++)
		if (t->fencing[i] == h->node_id)
			t->fencing[i--] = t->fencing[--t->n_fencing];
	/* Both halves would wait for the other's watchdog, and both go on. */
	if (by_time && !MUTANT(time_proves_all)) {
		rc = -1;
		text = "only its watchdog says so, and it would say the same of us over there";
	}
	if (rc == 0) {
		node__note(n, NODE_NOTICE, "%s is proven dead: %s", host, text);
		add(t->proven, &t->n_proven, h->node_id);
		t->failure[0] = '\0';
		return true;
	}
	wait = (uint64_t)TIE_RETRY_MS << (t->failures < 4 ? t->failures : 4);
	t->failures++;
	t->again_ms = n->now_ms + (wait < TIE_RETRY_MAX_MS ? wait : TIE_RETRY_MAX_MS);
	snprintf(t->failure, sizeof(t->failure), "%s could not be proven dead: %s", host, text);
	node__note(n, NODE_ERROR, "%s", t->failure);
	return true;
}

void node__tie_confirm(struct node *n, const char *host)
{
	const Gantry__Host *h = model_host(&n->model, host);
	struct clog_status st;

	node_log_status(n, &st);
	if (!h || n->stopped || !is_tie(n, &st) || node__listed(st.members, st.n_members, h->node_id))
		return;
	if (node__listed(n->ring, n->n_ring, h->node_id)) {
		node__note(n, NODE_WARNING, "%s is not off: its corosync is here", host);
		return;
	}
	node__note(n, NODE_WARNING, "a person vouches that %s is off", host);
	add(n->tie.proven, &n->tie.n_proven, h->node_id);
	if (!n->tie.given)
		give(n, &st);
}
