/* One simulated host: what stands behind the log's actions (disk, model, clients). The log is the shipped code. */
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/pb.h"

#define KEPT 40            /* entries behind a snapshot: few, so that snapshots are needed */
#define COMPACT_EVERY 50

/* A command is 13 bytes: kind, number, argument. 'I' and 'A' add the host `arg` to the voters, 'R' removes it. */
struct command { char kind; uint64_t number; uint32_t arg; } __attribute__((packed));

struct snapshot { uint64_t applied, chain; };

static bool voters_of(const uint8_t *data, size_t len, const uint32_t *old, size_t n_old, uint32_t **ret, size_t *ret_n)
{
	const struct command *c = (const void *)data;
	uint32_t *now;
	size_t n = 0;

	if (len != sizeof(*c) || (c->kind != 'I' && c->kind != 'A' && c->kind != 'R'))
		return false;
	now = mem_alloc((n_old + 1) * sizeof(*now));
	for (size_t i = 0; i < n_old; i++)
		if (old[i] != c->arg)
			now[n++] = old[i];
	if (c->kind != 'R')
		now[n++] = c->arg;
	*ret = now;
	*ret_n = n;
	return true;
}

static uint64_t mix(uint64_t chain, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		chain = (chain ^ data[i]) * 1099511628211ull;
	return chain;
}

/* ---- the disk */

struct write {
	uint64_t serial;
	struct clog_disk_batch b;
};

static void write_free(struct write *w)
{
	for (size_t i = 0; i < w->b.n_entries; i++)
		gantry__log_entry__free_unpacked(w->b.entries[i], NULL);
	free((void *)w->b.entries);
	free((void *)w->b.snapshot);
	free((void *)w->b.snapshot_voters);
	free(w);
}

static struct write *write_copy(const struct clog_disk_batch *b)
{
	struct write *w = mem_alloc(sizeof(*w));
	Gantry__LogEntry **entries = mem_alloc((b->n_entries + 1) * sizeof(*entries));

	w->b = *b;
	for (size_t i = 0; i < b->n_entries; i++)
		entries[i] = pb_clone(b->entries[i]);
	w->b.entries = entries;
	w->b.snapshot = b->snapshot ? mem_dup(b->snapshot, b->snapshot_len) : NULL;
	w->b.snapshot_voters =
		b->n_snapshot_voters ? mem_dup(b->snapshot_voters, b->n_snapshot_voters * sizeof(uint32_t)) : NULL;
	return w;
}

static void disk_cut(struct sim_disk *d, uint64_t from)
{
	while (d->n_entries && d->entries[d->n_entries - 1]->index >= from)
		gantry__log_entry__free_unpacked(d->entries[--d->n_entries], NULL);
}

static void disk_apply(struct sim_disk *d, struct clog_disk_batch *b)
{
	d->promised = b->promised_epoch;
	d->commit = b->commit_index;
	if (b->replace_all)
		disk_cut(d, 0);
	else if (b->truncate_from)
		disk_cut(d, b->truncate_from);
	if (b->snapshot) {
		buf_free(&d->snapshot);
		buf_append(&d->snapshot, b->snapshot, b->snapshot_len);
		d->snapshot_index = b->snapshot_index;
		d->snapshot_epoch = b->snapshot_epoch;
		free(d->voters);
		d->voters = (uint32_t *)b->snapshot_voters;
		d->n_voters = b->n_snapshot_voters;
		b->snapshot_voters = NULL;
	}
	d->entries = mem_realloc(d->entries, (d->n_entries + b->n_entries + 1) * sizeof(*d->entries));
	for (size_t i = 0; i < b->n_entries; i++)
		d->entries[d->n_entries++] = b->entries[i];
	b->n_entries = 0;
}

static void run(struct sim *s, struct sim_host *h, const struct clog_event *event);

/* A frozen host's disk does its work; the host hears of it when it goes on. */
void host_disk_answers(struct sim *s, struct sim_host *h)
{
	while (h->n_done && h->state == HOST_UP && !h->hung) {
		struct clog_event e = {.type = CLOG_EVENT_DISK_DONE, .now_ms = s->now_us / 1000};

		e.u.disk_done.serial = h->done[0];
		memmove(h->done, h->done + 1, --h->n_done * sizeof(*h->done));
		run(s, h, &e);
	}
}

static void disk_done(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	struct write *w = p;

	if (life == h->life && h->state != HOST_OFF) {
		disk_apply(&h->disk, &w->b);
		h->done = mem_realloc(h->done, (h->n_done + 1) * sizeof(*h->done));
		h->done[h->n_done++] = w->serial;
		host_disk_answers(s, h);
	}
	write_free(w);
}

static void disk_write(struct sim *s, struct sim_host *h, const struct clog_disk_batch *b)
{
	struct write *w = write_copy(b);
	uint64_t takes = h->slow_disk ? sim_random(s, 900000) : 30 + sim_random(s, 400);

	w->serial = b->serial;
	if (h->disk_free_at < s->now_us)
		h->disk_free_at = s->now_us;
	h->disk_free_at += takes;
	sim_after(s, h->disk_free_at - s->now_us, disk_done, h, 0, w);
}

/* ---- the model and its checkers */

static void check_entry(struct sim *s, struct sim_host *h, uint64_t index, uint64_t epoch)
{
	if (index >= s->n_truth) {
		s->truth = mem_realloc(s->truth, (index + 1024) * sizeof(*s->truth));
		memset(s->truth + s->n_truth, 0, (index + 1024 - s->n_truth) * sizeof(*s->truth));
		s->n_truth = index + 1024;
	}
	if (!s->truth[index].chain) {
		s->truth[index].chain = h->chain;
		s->truth[index].epoch = epoch;
		s->r->commits++;
	} else if (s->truth[index].chain != h->chain) {
		sim_violation(s, "agreement: host %u applied another command at %lu than a host before it", h->id, index);
	}
}

static void committed(struct sim *s, struct sim_host *h, const struct clog_action *a)
{
	if (a->u.commit.index != h->applied + 1)
		sim_violation(s, "order: host %u applies %lu after %lu", h->id, a->u.commit.index, h->applied);
	h->applied = a->u.commit.index;
	h->chain = mix(h->chain ^ a->u.commit.epoch, a->u.commit.command, a->u.commit.len);
	check_entry(s, h, h->applied, a->u.commit.epoch);
	if (a->u.commit.own && h->applied > s->acked_index)
		s->acked_index = h->applied;
}

static void install(struct sim *s, struct sim_host *h, const struct clog_action *a)
{
	struct snapshot snap;

	assert(a->u.install.len == sizeof(snap));
	memcpy(&snap, a->u.install.data, sizeof(snap));
	if (snap.applied != a->u.install.index)
		sim_violation(s, "snapshot: of %lu, said to be of %lu", snap.applied, a->u.install.index);
	if (snap.applied < h->applied)
		sim_violation(s, "snapshot: host %u goes back from %lu to %lu", h->id, h->applied, snap.applied);
	h->applied = h->compacted = snap.applied;
	h->chain = snap.chain;
	check_entry(s, h, h->applied, a->u.install.epoch);
	s->r->snapshots++;
}

static void compact(struct sim *s, struct sim_host *h)
{
	struct clog_event e = {.type = CLOG_EVENT_COMPACT, .now_ms = s->now_us / 1000, .u.compact.index = h->applied};
	struct snapshot snap = {h->applied, h->chain};
	struct sim_disk *d = &h->disk;
	uint32_t *voters = d->n_voters ? mem_dup(d->voters, d->n_voters * sizeof(*voters)) : NULL;
	size_t n = d->n_voters, drop = 0;

	/* Only what is on the disk can be left to the snapshot. */
	if (!d->n_entries || d->entries[d->n_entries - 1]->index < h->applied)
		return free(voters);
	for (size_t i = 0; i < d->n_entries && d->entries[i]->index <= h->applied; i++) {
		uint32_t *now;
		const Gantry__LogEntry *entry = d->entries[i];

		if (entry->index > d->snapshot_index && voters_of(entry->command.data, entry->command.len, voters, n, &now, &n)) {
			free(voters);
			voters = now;
		}
		if (entry->index == h->applied)
			d->snapshot_epoch = entry->epoch;
	}
	d->snapshot_index = h->applied;
	buf_free(&d->snapshot);
	buf_append(&d->snapshot, &snap, sizeof(snap));
	free(d->voters);
	d->voters = voters;
	d->n_voters = n;
	while (drop < d->n_entries && d->entries[drop]->index + KEPT <= h->applied)
		gantry__log_entry__free_unpacked(d->entries[drop++], NULL);
	memmove(d->entries, d->entries + drop, (d->n_entries - drop) * sizeof(*d->entries));
	d->n_entries -= drop;
	h->compacted = h->applied;
	run(s, h, &e);
}

static void act(struct sim *s, struct sim_host *h, const struct clog_action *a, bool *ret_snapshot)
{
	struct clog_status st;

	switch (a->type) {
	case CLOG_ACTION_MULTICAST:
		group_send(s, h, a->u.multicast.data, a->u.multicast.len);
		break;
	case CLOG_ACTION_DISK:
		disk_write(s, h, a->u.disk);
		break;
	case CLOG_ACTION_COMMIT:
		committed(s, h, a);
		break;
	case CLOG_ACTION_DROPPED:
		s->r->unknown += a->u.dropped.rc == -EAGAIN;
		break;
	case CLOG_ACTION_NEED_SNAPSHOT:
		*ret_snapshot = true;
		break;
	case CLOG_ACTION_INSTALL:
		install(s, h, a);
		break;
	case CLOG_ACTION_PHASE:
		clog_get_status(h->clog, &st);
		if (st.phase == CLOG_NORMAL && st.leader == h->id)
			s->r->epochs++;
		sim_trace(s, "host %u: %s, epoch %lu leader %u log %lu.%lu commit %lu (%s)", h->id, st.text, st.epoch, st.leader,
			  st.last_epoch, st.last_index, st.commit_index, a->reason);
		if (st.phase == CLOG_FAULTY)
			sim_violation(s, "host %u is faulty: %s", h->id, st.text);
		break;
	case CLOG_ACTION_SOFT:
		break;
	}
}

static void run(struct sim *s, struct sim_host *h, const struct clog_event *event)
{
	const struct clog_action *actions;
	bool snapshot = false;
	size_t n;

	clog_step(h->clog, event, &actions, &n);
	for (size_t i = 0; i < n; i++)
		act(s, h, &actions[i], &snapshot);
	if (snapshot) {
		struct snapshot snap = {h->applied, h->chain};
		struct clog_event e = {.type = CLOG_EVENT_SNAPSHOT, .now_ms = s->now_us / 1000};

		e.u.snapshot.index = h->applied;
		e.u.snapshot.epoch = h->applied < s->n_truth ? s->truth[h->applied].epoch : 0;
		e.u.snapshot.data = (const uint8_t *)&snap;
		e.u.snapshot.len = sizeof(snap);
		run(s, h, &e);
	}
	if (h->applied >= h->compacted + COMPACT_EVERY && event->type != CLOG_EVENT_COMPACT)
		compact(s, h);
}

void host_deliver(struct sim *s, struct sim_host *h, const struct sim_item *item)
{
	struct clog_event e = {.now_ms = s->now_us / 1000};

	if (item->view) {
		e.type = CLOG_EVENT_VIEW;
		e.u.view.id = item->view_id;
		e.u.view.members = item->members;
		e.u.view.n_members = item->n_members;
	} else {
		e.type = CLOG_EVENT_MESSAGE;
		e.u.message.sender = item->sender;
		e.u.message.data = item->data;
		e.u.message.len = item->len;
	}
	run(s, h, &e);
}

void host_propose(struct sim *s, struct sim_host *h, char kind, uint32_t arg)
{
	struct command c = {kind, ++s->next_command, arg};
	struct clog_event e = {.type = CLOG_EVENT_PROPOSE, .now_ms = s->now_us / 1000};

	e.u.propose.command = (const uint8_t *)&c;
	e.u.propose.len = sizeof(c);
	e.u.propose.cookie = c.number;
	s->r->proposals++;
	run(s, h, &e);
}

/* What the leader's daemon does: a host that has caught up becomes a voter. */
static void add_voters(struct sim *s, struct sim_host *h)
{
	struct clog_status st;

	clog_get_status(h->clog, &st);
	if (h->id == 1 && !st.last_index && !st.n_voters && st.n_members) {
		host_propose(s, h, 'I', 1);
		return;
	}
	if (st.phase != CLOG_NORMAL || st.leader != h->id || st.commit_index != st.last_index)
		return;
	for (size_t i = 0; i < st.n_synced; i++) {
		bool votes = false;

		for (size_t k = 0; k < st.n_voters; k++)
			votes |= st.voters[k] == st.synced[i];
		if (!votes) {
			host_propose(s, h, 'A', st.synced[i]);
			return;
		}
	}
}

void host_tick(struct sim *s, struct sim_host *h)
{
	struct clog_event e = {.type = CLOG_EVENT_TICK, .now_ms = s->now_us / 1000};

	if (h->state != HOST_UP || h->hung)
		return;
	run(s, h, &e);
	add_voters(s, h);
}

void host_start_daemon(struct sim *s, struct sim_host *h)
{
	struct sim_disk *d = &h->disk;
	struct clog_disk_state st = {.promised_epoch = d->promised, .commit_index = d->commit,
				     .snapshot_index = d->snapshot_index, .snapshot_epoch = d->snapshot_epoch,
				     .n_entries = d->n_entries, .n_voters = d->n_voters, .voters_index = d->snapshot_index,
				     .kept_entries = KEPT};
	struct snapshot snap = {0};

	h->life++;
	h->state = HOST_UP;
	h->hung = false;
	h->disk_free_at = s->now_us;
	st.entries = mem_alloc((d->n_entries + 1) * sizeof(*st.entries));
	for (size_t i = 0; i < d->n_entries; i++)
		st.entries[i] = pb_clone(d->entries[i]);
	st.voters = d->n_voters ? mem_dup(d->voters, d->n_voters * sizeof(*d->voters)) : NULL;
	if (d->snapshot.len)
		memcpy(&snap, d->snapshot.data, sizeof(snap));
	h->applied = h->compacted = snap.applied;
	h->chain = snap.chain;
	h->clog = clog_new(h->id, &st, voters_of);
}

void host_stop_daemon(struct sim *s, struct sim_host *h)
{
	h->life++;
	h->hung = false;
	h->config = NULL;
	h->n_done = 0;
	clog_free(h->clog);
	h->clog = NULL;
	group_clear(h, true);
}

void host_free(struct sim_host *h)
{
	clog_free(h->clog);
	free(h->done);
	disk_cut(&h->disk, 0);
	free(h->disk.entries);
	free(h->disk.voters);
	buf_free(&h->disk.snapshot);
}
