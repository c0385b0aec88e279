/* Is our state that of the others? At each EpochStart and every audit_every commands each member says a hash of its state
 * as of that entry. One whose hash differs from that of a quorum has gone astray (a bug, a bad memory cell): it steps out,
 * loudly, before it decides anything more. Where no side has a quorum nobody knows who is right: all step out. */
#include "clusterd/core/node_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

/* index, hash: little endian by hand, as all hosts must read it alike. */
#define AUDIT_BYTES 16

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 1099511628211ull;
	return h ^ h >> 29;
}

/* FNV-1a, eight bytes at a time: it finds accidents, not attacks. Of what is long and does not change any more (the history, ended
 * tasks, clients' requests) only what tells the items apart. */
static uint64_t state_hash(const struct model *m)
{
	Gantry__ClusterModel view = *m->state;
	Gantry__Job **running = mem_alloc((view.n_jobs + 1) * sizeof(*running));
	struct buf packed = {0};
	uint64_t h = 14695981039346656037ull, word;
	size_t i = 0, n_running = 0;

	for (size_t k = 0; k < view.n_jobs; k++) {
		if (view.jobs[k]->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING)
			running[n_running++] = view.jobs[k];
		else
			h = mix(h, view.jobs[k]->id ^ (uint64_t)view.jobs[k]->state << 40 ^ view.jobs[k]->ended_ms << 8);
	}
	view.jobs = running;
	view.n_jobs = n_running;
	for (size_t k = 0; k < view.n_events; k++)
		h = mix(h, view.events[k]->id ^ view.events[k]->time_ms << 20);
	for (size_t k = 0; k < view.n_requests; k++)
		h = mix(h, view.requests[k]->seq ^ (uint64_t)view.requests[k]->result->status << 40 ^ view.requests[k]->result->log_index << 8);
	view.n_events = view.n_requests = 0;
	pb_pack(&view, &packed);
	for (; i + sizeof(word) <= packed.len; i += sizeof(word)) {
		memcpy(&word, packed.data + i, sizeof(word));
		h = mix(h, word);
	}
	for (; i < packed.len; i++)
		h = (h ^ packed.data[i]) * 1099511628211ull;
	buf_free(&packed);
	free(running);
	return h;
}

static void put64(uint8_t *to, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get64(const uint8_t *from)
{
	uint64_t value = 0;

	for (int i = 7; i >= 0; i--)
		value = value << 8 | from[i];
	return value;
}

static const uint64_t *own_hash(const struct node_audit *a, uint64_t index)
{
	for (size_t i = 0; i < NODE_AUDITS_KEPT; i++)
		if (index && a->own[i].index == index)
			return &a->own[i].hash;
	return NULL;
}

/* How many voters say this hash (or any hash) of this entry; we ourselves are one. */
static size_t say_so(const struct node *n, uint64_t index, const uint64_t *hash, uint64_t own)
{
	const Gantry__ClusterModel *s = n->model.state;
	size_t votes = 0;

	for (size_t i = 0; i < s->n_voters; i++) {
		bool says = s->voters[i] == n->node_id && (!hash || own == *hash);

		for (size_t k = 0; k < ARRAY_SIZE(n->audit.claims) && !says; k++) {
			const struct node_audit_claim *c = &n->audit.claims[k];

			says = c->index == index && c->node_id == s->voters[i] && (!hash || c->hash == *hash);
		}
		votes += says;
	}
	return votes;
}

static void compare(struct node *n, const struct node_audit_claim *claim)
{
	const uint64_t *own = own_hash(&n->audit, claim->index);
	const Gantry__Host *h = model_host_by_node(&n->model, claim->node_id);
	size_t quorum = n->model.state->n_voters / 2 + 1, ours, theirs;
	char why[400];

	if (!own || *own == claim->hash || n->stopped)
		return;
	ours = say_so(n, claim->index, own, *own);
	theirs = say_so(n, claim->index, &claim->hash, *own);
	node__note(n, NODE_ERROR, "the state of host %s differs from ours as of command %" PRIu64 " (%016" PRIx64 ", ours %016" PRIx64 ")",
		   h ? h->name : "?", claim->index, claim->hash, *own);
	if (ours >= quorum)
		return;
	/* Others may still agree with us, while not all have spoken. */
	if (theirs < quorum && say_so(n, claim->index, NULL, 0) < n->model.state->n_voters)
		return;
	snprintf(why, sizeof(why), "its state differs from that of %s as of command %" PRIu64 ": the state is kept in clusterd.db for "
		 "examination; move that file away and restart clusterd to take the others' state over",
		 theirs >= quorum ? "the other hosts" : "other hosts, and nobody has a majority,", claim->index);
	node_stop(n, why);
}

void node__audit_heard(struct node *n, uint32_t sender, const uint8_t *data, size_t len)
{
	struct node_audit *a = &n->audit;
	struct node_audit_claim *claim = &a->claims[a->next_claim];

	if (len != AUDIT_BYTES || sender == n->node_id)
		return;
	a->next_claim = (a->next_claim + 1) % ARRAY_SIZE(a->claims);
	*claim = (struct node_audit_claim){.node_id = sender, .index = get64(data), .hash = get64(data + 8)};
	compare(n, claim);
}

void node__audit_applied(struct node *n, bool epoch_start)
{
	struct clog_event event = {.type = CLOG_EVENT_SOFT};
	struct node_audit *a = &n->audit;
	uint64_t index = n->model.state->applied_index;
	uint8_t said[AUDIT_BYTES];

	/* While the log is read again after a start there is nobody to compare with. */
	if (!n->connected || (!epoch_start && index % n->audit_every))
		return;
	a->own[a->next_own].index = index;
	a->own[a->next_own].hash = state_hash(&n->model);
	put64(said, index);
	put64(said + 8, a->own[a->next_own].hash);
	a->next_own = (a->next_own + 1) % NODE_AUDITS_KEPT;
	event.u.soft.kind = NODE_SOFT_KIND_AUDIT;
	event.u.soft.data = said;
	event.u.soft.len = sizeof(said);
	node__clog(n, &event);
	for (size_t i = 0; i < ARRAY_SIZE(a->claims); i++)
		if (a->claims[i].index == index)
			compare(n, &a->claims[i]);
}
