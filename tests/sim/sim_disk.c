/* The disk under a log: transactions in order, those that wait are done in one (group commit), each answered when it is
 * durable. When the process or the power goes, a part of what was under way got there, in order, and the rest did not. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/core/clog.h"
#include "clusterd/core/model.h"
#include "lib/limits.h"

#define DISK_US 40
#define DISK_SPREAD_US 400
#define DISK_SLOW_US 900000

struct op {
	struct op *next;
	bool own_snapshot, remember;
	uint64_t serial;
	struct clog_disk_batch b;   /* with copies of all it points to */
};

struct sim_disk {
	uint64_t promised, commit, snapshot_index, snapshot_epoch;
	struct buf snapshot;
	uint32_t *voters;
	size_t n_voters;
	Gantry__LogEntry **entries;
	size_t n_entries, cap_entries;
	bool forgetful, full_seen;
	enum disk_mood mood;
	struct op *head, **tail;
	size_t running;             /* ops of the head that are being written */
	disk_done_fn done;
};

/* Plainer and quicker than a clone by descriptors. */
static Gantry__LogEntry *entry_copy(const Gantry__LogEntry *e)
{
	Gantry__LogEntry *copy = mem_dup(e, sizeof(*e));

	copy->command.data = e->command.len ? mem_dup(e->command.data, e->command.len) : NULL;
	return copy;
}

static void op_free(struct op *op)
{
	for (size_t i = 0; i < op->b.n_entries; i++)
		gantry__log_entry__free_unpacked(op->b.entries[i], NULL);
	free((void *)op->b.entries);
	free((void *)op->b.snapshot);
	free((void *)op->b.snapshot_voters);
	free(op);
}

static void entries_cut(struct sim_disk *d, size_t keep)
{
	while (d->n_entries > keep)
		gantry__log_entry__free_unpacked(d->entries[--d->n_entries], NULL);
}

static void entries_add(struct sim_disk *d, Gantry__LogEntry *e)
{
	if (d->n_entries == d->cap_entries) {
		d->cap_entries = d->cap_entries ? 2 * d->cap_entries : 256;
		d->entries = mem_realloc(d->entries, d->cap_entries * sizeof(*d->entries));
	}
	d->entries[d->n_entries++] = e;
}

static void take_snapshot(struct sim_disk *d, struct clog_disk_batch *b)
{
	buf_free(&d->snapshot);
	buf_append(&d->snapshot, b->snapshot, b->snapshot_len);
	d->snapshot_index = b->snapshot_index;
	d->snapshot_epoch = b->snapshot_epoch;
	free(d->voters);
	d->voters = (uint32_t *)b->snapshot_voters;
	d->n_voters = b->n_snapshot_voters;
	b->snapshot_voters = NULL;
}

static void apply_own_snapshot(struct sim_disk *d, struct clog_disk_batch *b)
{
	size_t drop = 0;

	if (d->snapshot_index >= b->snapshot_index)
		return;
	take_snapshot(d, b);
	while (drop < d->n_entries && d->entries[drop]->index + SIM_DISK_KEPT <= b->snapshot_index)
		gantry__log_entry__free_unpacked(d->entries[drop++], NULL);
	memmove(d->entries, d->entries + drop, (d->n_entries - drop) * sizeof(*d->entries));
	d->n_entries -= drop;
}

static void op_apply(struct sim_disk *d, struct op *op)
{
	struct clog_disk_batch *b = &op->b;
	size_t keep = d->n_entries;

	if (op->remember) {
		d->forgetful = false;
		return;
	}
	if (op->own_snapshot) {
		apply_own_snapshot(d, b);
		return;
	}
	d->promised = b->promised_epoch;
	d->commit = b->commit_index;
	if (b->replace_all)
		entries_cut(d, 0);
	while (b->truncate_from && keep && !b->replace_all && d->entries[keep - 1]->index >= b->truncate_from)
		keep--;
	if (!b->replace_all)
		entries_cut(d, keep);
	if (b->snapshot)
		take_snapshot(d, b);
	for (size_t i = 0; i < b->n_entries; i++)
		entries_add(d, b->entries[i]);
	b->n_entries = 0;
}

static struct op *pop(struct sim_disk *d)
{
	struct op *op = d->head;

	d->head = op->next;
	if (!d->head)
		d->tail = &d->head;
	return op;
}

static void start(struct sim *s, struct sim_host *h, struct sim_disk *d);

/* The ops that were being written, out of the queue. */
static struct op *take_running(struct sim_disk *d)
{
	struct op *list = d->head, **end = &list;

	for (; d->running; d->running--)
		end = &(*end)->next;
	d->head = *end;
	*end = NULL;
	if (!d->head)
		d->tail = &d->head;
	return list;
}

/* One transaction: all of it is there before any of it is answered. An answer may bring the next write, or the end of this process. */
static void finished(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_disk *d = p;
	struct op *list = take_running(d), *next;
	uint64_t life = h->life[LIFE_CLUSTERD];
	int rc;

	/* What a failed fsync left is unknown: the store writes nothing more in this process's life. */
	d->full_seen = d->full_seen || d->mood == DISK_FULL;
	rc = d->full_seen ? -ENOSPC : 0;
	for (struct op *op = list; op && rc == 0; op = op->next)
		op_apply(d, op);
	for (struct op *op = list; op; op = next) {
		next = op->next;
		if (!op->remember && h->life[LIFE_CLUSTERD] == life)
			d->done(s, h, op->own_snapshot, op->own_snapshot ? op->b.snapshot_index : op->serial, rc);
		op_free(op);
	}
	if (h->life[LIFE_CLUSTERD] == life)
		start(s, h, d);
}

static void start(struct sim *s, struct sim_host *h, struct sim_disk *d)
{
	uint64_t takes = DISK_US + sim_random(s, DISK_SPREAD_US);

	if (d->running || !d->head)
		return;
	if (d->mood == DISK_SLOW)
		takes = sim_random(s, DISK_SLOW_US);
	for (struct op *op = d->head; op && d->running < LIMIT_STORE_MERGE; op = op->next)
		d->running++;
	sim_after(s, takes, h, LIFE_CLUSTERD, finished, 0, d, NULL);
}

static void push(struct sim *s, struct sim_host *h, struct sim_disk *d, struct op *op)
{
	*d->tail = op;
	d->tail = &op->next;
	start(s, h, d);
}

void disk_write(struct sim *s, struct sim_host *h, struct sim_disk *d, const struct clog_disk_batch *b)
{
	struct op *op = mem_alloc(sizeof(*op));
	Gantry__LogEntry **entries = mem_alloc((b->n_entries + 1) * sizeof(*entries));

	op->b = *b;
	op->serial = b->serial;
	for (size_t i = 0; i < b->n_entries; i++)
		entries[i] = entry_copy(b->entries[i]);
	op->b.entries = entries;
	op->b.snapshot = b->snapshot ? mem_dup(b->snapshot, b->snapshot_len) : NULL;
	op->b.snapshot_voters = b->n_snapshot_voters ? mem_dup(b->snapshot_voters, b->n_snapshot_voters * sizeof(uint32_t)) : NULL;
	push(s, h, d, op);
}

void disk_snapshot(struct sim *s, struct sim_host *h, struct sim_disk *d, uint64_t index, uint64_t epoch, const uint8_t *data, size_t len,
		   const uint32_t *voters, size_t n_voters)
{
	struct op *op = mem_alloc(sizeof(*op));

	op->own_snapshot = true;
	op->b.snapshot_index = index;
	op->b.snapshot_epoch = epoch;
	op->b.snapshot = mem_dup(data, len);
	op->b.snapshot_len = len;
	op->b.snapshot_voters = n_voters ? mem_dup(voters, n_voters * sizeof(uint32_t)) : NULL;
	op->b.n_snapshot_voters = n_voters;
	push(s, h, d, op);
}

void disk_remember(struct sim *s, struct sim_host *h, struct sim_disk *d)
{
	struct op *op = mem_alloc(sizeof(*op));

	op->remember = true;
	push(s, h, d, op);
}

void disk_cut(struct sim *s, struct sim_disk *d)
{
	size_t n = 0, got;

	for (struct op *op = d->head; op; op = op->next)
		n++;
	/* One transaction is whole or not at all; those that were merged into one share its fate. */
	got = d->running && d->mood != DISK_FULL && !d->full_seen && sim_chance(s, 0.5) ? d->running : 0;
	for (size_t i = 0; i < n; i++) {
		struct op *op = pop(d);

		if (i < got)
			op_apply(d, op);
		op_free(op);
	}
	d->running = 0;
	d->full_seen = false;
}

void disk_lose(struct sim_disk *d)
{
	entries_cut(d, 0);
	buf_free(&d->snapshot);
	free(d->voters);
	d->voters = NULL;
	d->n_voters = 0;
	d->promised = d->commit = d->snapshot_index = d->snapshot_epoch = 0;
	d->forgetful = true;
}

void disk_set_mood(struct sim_disk *d, enum disk_mood mood)
{
	d->mood = mood;
}

static uint64_t last_epoch(const struct sim_disk *d)
{
	return d->n_entries ? d->entries[d->n_entries - 1]->epoch : d->snapshot_epoch;
}

static uint64_t last_index(const struct sim_disk *d)
{
	return d->n_entries ? d->entries[d->n_entries - 1]->index : d->snapshot_index;
}

bool disk_is_ahead(const struct sim_disk *a, const struct sim_disk *b)
{
	return last_epoch(a) != last_epoch(b) ? last_epoch(a) > last_epoch(b) : last_index(a) > last_index(b);
}

bool disk_is_forgetful(const struct sim_disk *d)
{
	return d->forgetful;
}

void disk_mark_forgetful(struct sim_disk *d)
{
	d->forgetful = true;
}

const char *disk_fault(const struct sim_disk *d)
{
	uint64_t first = d->n_entries ? d->entries[0]->index : d->snapshot_index + 1, last = first + d->n_entries - 1;

	for (size_t i = 1; i < d->n_entries; i++) {
		if (d->entries[i]->index != d->entries[i - 1]->index + 1)
			return "log entries are missing in the middle, or there twice";
		if (d->entries[i]->epoch < d->entries[i - 1]->epoch)
			return "the epochs of its log entries go back";
	}
	if (first > d->snapshot_index + 1)
		return "log entries are missing behind the snapshot";
	if (last < d->snapshot_index)
		return "the log ends before the snapshot";
	if (d->commit > last)
		return "entries that were committed are missing";
	if (d->n_entries && d->entries[d->n_entries - 1]->epoch > d->promised)
		return "the log is of a later epoch than was promised";
	return NULL;
}

bool disk_load(const struct sim_disk *d, struct clog_disk_state *ret, struct buf *ret_snapshot, bool *ret_forgetful)
{
	*ret = (struct clog_disk_state){.promised_epoch = d->promised, .commit_index = d->commit, .snapshot_index = d->snapshot_index,
					.snapshot_epoch = d->snapshot_epoch, .n_entries = d->n_entries, .n_voters = d->n_voters,
					.voters_index = d->snapshot_index, .kept_entries = SIM_DISK_KEPT};
	ret->entries = mem_alloc((d->n_entries + 1) * sizeof(*ret->entries));
	for (size_t i = 0; i < d->n_entries; i++)
		ret->entries[i] = entry_copy(d->entries[i]);
	ret->voters = d->n_voters ? mem_dup(d->voters, d->n_voters * sizeof(*d->voters)) : NULL;
	buf_append(ret_snapshot, d->snapshot.data, d->snapshot.len);
	*ret_forgetful = d->forgetful;
	return d->n_entries || d->snapshot_index || d->promised;
}

struct sim_disk *disk_new(disk_done_fn done)
{
	struct sim_disk *d = mem_alloc(sizeof(*d));

	d->done = done;
	d->tail = &d->head;
	return d;
}

void disk_free(struct sim_disk *d)
{
	while (d->head)
		op_free(pop(d));
	entries_cut(d, 0);
	free(d->entries);
	free(d->voters);
	buf_free(&d->snapshot);
	free(d);
}
