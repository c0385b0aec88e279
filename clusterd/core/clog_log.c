#include "clusterd/core/clog_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t clog__last_index(const struct clog *c)
{
	return c->first_index + c->n_log - 1;
}

struct clog_entry *clog__entry(const struct clog *c, uint64_t index)
{
	if (index < c->first_index || index >= c->first_index + c->n_log)
		return NULL;
	return &c->log[index - c->first_index];
}

uint64_t clog__epoch_at(const struct clog *c, uint64_t index)
{
	const struct clog_entry *entry = clog__entry(c, index);

	if (entry)
		return entry->e->epoch;
	return index == c->snapshot_index ? c->snapshot_epoch : 0;
}

uint64_t clog__last_epoch(const struct clog *c)
{
	return clog__epoch_at(c, clog__last_index(c));
}

Gantry__LogEntry *clog__entry_new(uint64_t index, uint64_t epoch, const uint8_t *command, size_t len)
{
	Gantry__LogEntry *e = mem_alloc(sizeof(*e));

	gantry__log_entry__init(e);
	e->index = index;
	e->epoch = epoch;
	e->command.len = len;
	e->command.data = len ? mem_dup(command, len) : NULL;
	return e;
}

void clog__entries_push(struct clog_entry **array, size_t *n, size_t *cap, struct clog_entry entry)
{
	if (*n == *cap) {
		*cap = *cap ? 2 * *cap : 64;
		*array = mem_realloc(*array, *cap * sizeof(**array));
	}
	(*array)[(*n)++] = entry;
}

bool clog__is_voter(const uint32_t *voters, size_t n, uint32_t node)
{
	for (size_t i = 0; i < n; i++)
		if (voters[i] == node)
			return true;
	return false;
}

const struct clog_voters *clog__voters(const struct clog *c)
{
	return &c->voters[c->n_voters - 1];
}

const struct clog_voters *clog__old_voters(const struct clog *c)
{
	const struct clog_voters *now = clog__voters(c);

	if (c->n_voters < 2 || now->index <= c->commit || !now[-1].n || clog__epoch_at(c, now->index) != clog__epoch_at(c, now->index - 1))
		return NULL;
	return &now[-1];
}

const struct clog_voters *clog__voters_at(const struct clog *c, uint64_t index)
{
	size_t i = c->n_voters - 1;

	while (i > 0 && c->voters[i].index > index)
		i--;
	return &c->voters[i];
}

/* ids is taken over. */
void clog__voters_add(struct clog *c, uint64_t index, uint32_t *ids, size_t n)
{
	c->voters = mem_realloc(c->voters, (c->n_voters + 1) * sizeof(*c->voters));
	c->voters[c->n_voters++] = (struct clog_voters){.index = index, .ids = ids, .n = n};
}

void clog__log_append(struct clog *c, struct clog_entry entry)
{
	const struct clog_voters *now = clog__voters(c);
	uint32_t *ids = NULL;
	size_t n = 0;

	assert(entry.e->index == clog__last_index(c) + 1);
	assert(entry.e->epoch >= clog__last_epoch(c));
	clog__entries_push(&c->log, &c->n_log, &c->cap_log, entry);
	/* A membership command counts from the moment it stands in the log (single-host changes:
	 * any majority of the old set and any of the new one share a host). Those up to the snapshot are in its voters. */
	if (entry.e->index > c->snapshot_index &&
	    c->voters_of(entry.e->command.data, entry.e->command.len, now->ids, now->n, &ids, &n))
		clog__voters_add(c, entry.e->index, ids, n);
}

static void entry_gone(struct clog *c, struct clog_entry *entry)
{
	if (entry->own)
		clog__dropped(c, entry->cookie, -EAGAIN, "cut from the log");
	if (c->n_dropped == c->cap_dropped) {
		c->cap_dropped = c->cap_dropped ? 2 * c->cap_dropped : 64;
		c->dropped_entries = mem_realloc(c->dropped_entries, c->cap_dropped * sizeof(*c->dropped_entries));
	}
	/* A disk batch of this very step may still point to it. */
	c->dropped_entries[c->n_dropped++] = entry->e;
}

void clog__log_truncate(struct clog *c, uint64_t from)
{
	assert(from > c->commit && from >= c->first_index);
	while (c->n_log && clog__last_index(c) >= from)
		entry_gone(c, &c->log[--c->n_log]);
	while (c->n_voters > 1 && clog__voters(c)->index >= from)
		free(c->voters[--c->n_voters].ids);
}

void clog__log_replace(struct clog *c, uint64_t snapshot_index, uint64_t snapshot_epoch, const uint32_t *voters, size_t n,
		       uint64_t voters_index)
{
	while (c->n_log)
		entry_gone(c, &c->log[--c->n_log]);
	while (c->n_voters)
		free(c->voters[--c->n_voters].ids);
	clog__voters_add(c, voters_index, n ? mem_dup(voters, n * sizeof(*voters)) : NULL, n);
	c->snapshot_index = snapshot_index;
	c->snapshot_epoch = snapshot_epoch;
	c->first_index = snapshot_index + 1;
}

/* The store holds a snapshot at snapshot_index: keep some entries behind it, for members that were away for a while. */
void clog__log_compact(struct clog *c, uint64_t snapshot_index)
{
	uint64_t keep_from;
	size_t drop;

	if (snapshot_index <= c->snapshot_index || snapshot_index > c->applied)
		return;
	c->snapshot_epoch = clog__epoch_at(c, snapshot_index);
	c->snapshot_index = snapshot_index;
	keep_from = snapshot_index > c->kept ? snapshot_index - c->kept + 1 : 1;
	if (keep_from <= c->first_index)
		return;
	drop = keep_from - c->first_index;
	for (size_t i = 0; i < drop; i++)
		gantry__log_entry__free_unpacked(c->log[i].e, NULL);
	memmove(c->log, c->log + drop, (c->n_log - drop) * sizeof(*c->log));
	c->n_log -= drop;
	c->first_index = keep_from;
	while (c->n_voters > 1 && c->voters[1].index < keep_from) {
		free(c->voters[0].ids);
		memmove(c->voters, c->voters + 1, --c->n_voters * sizeof(*c->voters));
	}
}
