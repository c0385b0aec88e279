/* ADOPT: after the decision each member makes its log equal to the winner's, makes the new epoch durable and
 * says ADOPTED. A member that is late does so beside a NORMAL quorum: what is delivered meanwhile waits in its tail. */
#include "clusterd/core/clog_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void clog__adopt_reset(struct clog *c)
{
	for (size_t i = 0; i < c->n_tail; i++)
		gantry__log_entry__free_unpacked(c->tail[i].e, NULL);
	for (size_t i = 0; i < c->in.n_entries; i++)
		gantry__log_entry__free_unpacked(c->in.entries[i].e, NULL);
	c->n_tail = 0;
	free(c->in.entries);
	free(c->in.voters);
	buf_free(&c->in.data);
	c->in = (struct clog_incoming){0};
	c->caught_up = c->own_durable = false;
	c->asking = 0;
	c->snapshot_for = 0;
}

/* The last index that we must have before what is delivered now can be appended. */
static uint64_t need_until(const struct clog *c)
{
	return c->established ? c->tail_from - 1 : c->base_index;
}

static uint64_t have_until(const struct clog *c)
{
	if (!c->in.wanted)
		return clog__last_index(c);
	return c->in.n_entries ? c->in.entries[c->in.n_entries - 1].e->index : c->in.index;
}

static bool snapshot_whole(const struct clog *c)
{
	return c->in.total && c->in.data.len == c->in.total;
}

static void ask(struct clog *c, uint32_t whom)
{
	Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
	Gantry__ClogCatchup catchup = GANTRY__CLOG_CATCHUP__INIT;

	c->asking = whom;
	c->asked_ms = c->now_ms;
	catchup.view = c->view;
	catchup.round = c->round;
	catchup.epoch = c->epoch;
	catchup.to = whom;
	catchup.snapshot = c->in.wanted && !snapshot_whole(c);
	catchup.from_index = have_until(c) + 1;
	m.body_case = GANTRY__CLOG_MESSAGE__BODY_CATCHUP;
	m.catchup = &catchup;
	clog__send(c, &m, "behind the winner's log");
}

static void tail_to_log(struct clog *c)
{
	for (size_t i = 0; i < c->n_tail; i++)
		clog__log_append(c, c->tail[i]);
	c->n_tail = 0;
}

/* Everything is here: one batch makes it durable; its DISK_DONE is followed by ADOPTED. */
static void complete(struct clog *c, uint64_t from)
{
	struct clog_disk_batch *b;

	if (c->in.wanted) {
		struct clog_batch_note *note;

		clog__log_replace(c, c->in.index, c->in.epoch, c->in.voters, c->in.n_voters, c->in.voters_index);
		c->commit = c->in.index;
		for (size_t i = 0; i < c->in.n_entries; i++)
			clog__log_append(c, c->in.entries[i]);
		c->in.n_entries = 0;
		if (!MUTANT(snapshot_without_tail))
			tail_to_log(c);
		b = clog__batch_from(c, c->first_index, "the winner's snapshot and log");
		note = clog__batch_note(c);
		note->install = true;
		note->snapshot = c->in.data;
		note->snapshot_index = c->in.index;
		note->snapshot_epoch = c->in.epoch;
		c->in.data = (struct buf){0};
		b->replace_all = true;
		b->snapshot = note->snapshot.data;
		b->snapshot_len = note->snapshot.len;
		b->snapshot_index = c->in.index;
		b->snapshot_epoch = c->in.epoch;
		b->snapshot_voters = c->voters[0].ids;
		b->n_snapshot_voters = c->voters[0].n;
		c->in.wanted = false;
	} else {
		tail_to_log(c);
		clog__batch_from(c, from, "own log is the winner's");
	}
	clog__batch_note(c)->adopt = true;
	c->caught_up = true;
	c->asking = 0;
}

/* The highest index at which both logs have the same epoch: up to there they are equal (docs/log.md, log matching). */
static uint64_t match_point(const struct clog *c, const Gantry__ClogSync *winner)
{
	uint64_t i = clog__last_index(c) < winner->last_index ? clog__last_index(c) : winner->last_index;
	size_t mark = winner->n_marks;

	while (i > c->commit && i >= winner->first_index) {
		const struct clog_entry *mine = clog__entry(c, i);

		while (mark && winner->marks[mark - 1]->first_index > i)
			mark--;
		if (!mine || !mark)
			break;
		if (mine->e->epoch == winner->marks[mark - 1]->epoch)
			return i;
		i--;
	}
	/* What is committed here is in every log that can win. */
	return c->commit;
}

void clog__adopt_begin(struct clog *c)
{
	const Gantry__ClogSync *winner = clog__peer(c, c->winner)->sync;
	uint64_t match, last = clog__last_index(c);
	bool cut = false;

	if (c->base_index < c->commit) {
		clog__fail(c, "the quorum's log lacks commands that are committed here: this disk or theirs was replaced by an older one");
		return;
	}
	clog__set_phase(c, CLOG_ADOPT, "the sync is decided");
	if (!MUTANT(promise_not_raised))
		c->promised = c->epoch;
	match = c->winner == c->node ? last : match_point(c, winner);
	if (match + 1 < winner->first_index) {
		c->in.wanted = true;
		ask(c, c->winner);
		return;
	}
	if (MUTANT(tail_not_cut) && last > match && last <= c->base_index)
		match = last;
	if (match < last) {
		clog__log_truncate(c, match + 1);
		cut = true;
	}
	if (match == c->base_index) {
		complete(c, match + 1);
	} else {
		clog__batch(c, "the new epoch");
		ask(c, c->winner);
	}
	if (cut) {
		struct clog_action *disk = &c->actions[c->n_actions - 1];

		while (disk->type != CLOG_ACTION_DISK)
			disk--;
		((struct clog_disk_batch *)disk->u.disk)->truncate_from = match + 1;
	}
}

void clog__adopt_durable(struct clog *c)
{
	Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
	Gantry__ClogAdopted adopted = GANTRY__CLOG_ADOPTED__INIT;

	c->own_durable = true;
	adopted.view = c->view;
	adopted.round = c->round;
	adopted.epoch = c->epoch;
	adopted.winner = c->winner;
	adopted.base_index = c->base_index;
	m.body_case = GANTRY__CLOG_MESSAGE__BODY_ADOPTED;
	m.adopted = &adopted;
	clog__send(c, &m, "own log and epoch are durable");
	clog__normal_enter(c);
}

/* The winner made its statement and hangs: nobody can be NORMAL without it, so the others choose anew. Or whoever we asked is silent:
 * another one who has adopted can serve us; if there is none, nobody is NORMAL either. */
void clog__adopt_tick(struct clog *c)
{
	size_t at = 0;

	if (c->phase != CLOG_ADOPT)
		return;
	if (!c->established && c->winner != c->node && !clog__peer(c, c->winner)->adopted &&
	    c->now_ms - clog__peer(c, c->winner)->heard_ms >= CLOG_WINNER_SILENT_MS) {
		clog__next_round(c, "the winner of the sync has stopped answering");
		return;
	}
	if (!c->asking || c->now_ms - c->asked_ms < CLOG_ADOPT_STUCK_MS)
		return;
	for (size_t i = 0; i < c->n_synced; i++)
		if (c->synced[i] == c->asking)
			at = i + 1;
	for (size_t i = 0; i < c->n_synced; i++) {
		uint32_t other = c->synced[(at + i) % c->n_synced];

		if (other == c->node)
			continue;
		ask(c, other);
		return;
	}
	if (c->mute)
		ask(c, c->asking);
	else if (!c->established)
		clog__next_round(c, "the winner of the sync is silent");
}

void clog__tail_push(struct clog *c, struct clog_entry entry)
{
	if (c->n_tail >= CLOG_TAIL_MAX || (c->n_tail && c->tail[c->n_tail - 1].e->index + 1 != entry.e->index)) {
		for (size_t i = 0; i < c->n_tail; i++)
			gantry__log_entry__free_unpacked(c->tail[i].e, NULL);
		c->n_tail = 0;
	}
	if (!c->n_tail)
		c->tail_from = entry.e->index;
	clog__entries_push(&c->tail, &c->n_tail, &c->cap_tail, entry);
}

static bool same_round(const struct clog *c, uint64_t view, uint32_t round, uint64_t epoch, uint32_t to)
{
	return c->decided && view == c->view && round == c->round && epoch == c->epoch && to == c->node;
}

static uint64_t send_chunk(struct clog *c, uint32_t to, uint64_t from, bool last_of_answer, uint64_t answer_end)
{
	Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
	Gantry__ClogEntries entries = GANTRY__CLOG_ENTRIES__INIT;
	Gantry__LogEntry **list = NULL;
	size_t n = 0, bytes = 0;

	while (from <= answer_end && (!n || bytes < CLOG_CHUNK_BYTES)) {
		struct clog_entry *entry = clog__entry(c, from);

		bytes += entry->e->command.len + 32;
		if (n && bytes > CLOG_CHUNK_BYTES)
			break;
		list = mem_realloc(list, (n + 1) * sizeof(*list));
		list[n++] = entry->e;
		from++;
	}
	entries.view = c->view;
	entries.round = c->round;
	entries.epoch = c->epoch;
	entries.to = to;
	entries.entries = list;
	entries.n_entries = n;
	/* The asker asks on when it has got this one. */
	entries.last_index = last_of_answer || from > answer_end ? from - 1 : 0;
	entries.commit_index = c->commit;
	m.body_case = GANTRY__CLOG_MESSAGE__BODY_ENTRIES;
	m.entries = &entries;
	clog__send(c, &m, "entries for a member that is behind");
	free(list);
	return from;
}

void clog__on_catchup(struct clog *c, uint32_t sender, const Gantry__ClogCatchup *m)
{
	uint64_t from = m->from_index;

	if (!same_round(c, m->view, m->round, m->epoch, m->to) || !c->caught_up)
		return;
	if (m->snapshot || from < c->first_index) {
		c->snapshot_for = sender;
		clog__action(c, CLOG_ACTION_NEED_SNAPSHOT, "a member is behind our oldest entry");
		return;
	}
	for (int i = 0; i < CLOG_CHUNKS_PER_REQUEST && from <= clog__last_index(c); i++)
		from = send_chunk(c, sender, from, i == CLOG_CHUNKS_PER_REQUEST - 1, clog__last_index(c));
}

/* Asks on, or finishes when nothing is missing any more. */
static void advance(struct clog *c, uint64_t from, bool answer_ended)
{
	if (c->in.wanted && !snapshot_whole(c))
		return;
	if (have_until(c) == need_until(c)) {
		complete(c, from);
		return;
	}
	assert(have_until(c) < need_until(c));
	if (!c->in.wanted && clog__last_index(c) >= from)
		clog__batch_from(c, from, "entries from the winner");
	if (answer_ended)
		ask(c, c->asking);
}

void clog__on_entries(struct clog *c, uint32_t sender, const Gantry__ClogEntries *m)
{
	uint64_t from = clog__last_index(c) + 1;

	if (!same_round(c, m->view, m->round, m->epoch, m->to) || c->caught_up || !c->asking || sender != c->asking)
		return;
	if (c->in.wanted && !snapshot_whole(c))
		return;
	for (size_t i = 0; i < m->n_entries; i++) {
		const Gantry__LogEntry *e = m->entries[i];
		struct clog_entry entry = {0};

		if (e->index != have_until(c) + 1 || e->index > need_until(c))
			continue;
		entry.e = clog__entry_new(e->index, e->epoch, e->command.data, e->command.len);
		if (c->in.wanted)
			clog__entries_push(&c->in.entries, &c->in.n_entries, &c->in.cap_entries, entry);
		else
			clog__log_append(c, entry);
	}
	c->asked_ms = c->now_ms;
	advance(c, from, m->last_index && m->last_index <= have_until(c));
}

void clog__snapshot_given(struct clog *c, uint64_t index, uint64_t epoch, const uint8_t *data, size_t len)
{
	const struct clog_voters *voters;
	uint32_t to = c->snapshot_for;

	c->snapshot_for = 0;
	if (!to || !c->decided || !len || index + 1 < c->first_index)
		return;
	voters = clog__voters_at(c, index);
	for (size_t offset = 0; offset < len; offset += CLOG_CHUNK_BYTES) {
		Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
		Gantry__ClogSnapshot snapshot = GANTRY__CLOG_SNAPSHOT__INIT;

		snapshot.view = c->view;
		snapshot.round = c->round;
		snapshot.epoch = c->epoch;
		snapshot.to = to;
		snapshot.index = index;
		snapshot.entry_epoch = epoch;
		snapshot.total_bytes = len;
		snapshot.offset = offset;
		snapshot.data.data = (uint8_t *)data + offset;
		snapshot.data.len = len - offset < CLOG_CHUNK_BYTES ? len - offset : CLOG_CHUNK_BYTES;
		snapshot.voters = voters->ids;
		snapshot.n_voters = voters->n;
		snapshot.voters_index = voters->index;
		m.body_case = GANTRY__CLOG_MESSAGE__BODY_SNAPSHOT;
		m.snapshot = &snapshot;
		clog__send(c, &m, "a snapshot for a member that is behind");
	}
}

/* What the snapshot already holds need not be appended. */
static void tail_drop_until(struct clog *c, uint64_t index)
{
	size_t drop = 0;

	if (!c->established || index < c->tail_from)
		return;
	while (drop < c->n_tail && c->tail[drop].e->index <= index)
		gantry__log_entry__free_unpacked(c->tail[drop++].e, NULL);
	memmove(c->tail, c->tail + drop, (c->n_tail - drop) * sizeof(*c->tail));
	c->n_tail -= drop;
	c->tail_from = index + 1;
}

void clog__on_snapshot(struct clog *c, uint32_t sender, const Gantry__ClogSnapshot *m)
{
	if (!same_round(c, m->view, m->round, m->epoch, m->to) || c->caught_up || sender != c->asking)
		return;
	if (!c->in.wanted) {
		/* The one that we asked has compacted its log since. */
		c->in.wanted = true;
	}
	if (m->offset == 0) {
		for (size_t i = 0; i < c->in.n_entries; i++)
			gantry__log_entry__free_unpacked(c->in.entries[i].e, NULL);
		c->in.n_entries = 0;
		buf_free(&c->in.data);
		c->in.index = m->index;
		c->in.epoch = m->entry_epoch;
		c->in.total = m->total_bytes;
		free(c->in.voters);
		c->in.voters = m->n_voters ? mem_dup(m->voters, m->n_voters * sizeof(*m->voters)) : NULL;
		c->in.n_voters = m->n_voters;
		c->in.voters_index = m->voters_index;
	}
	if (m->index != c->in.index || m->offset != c->in.data.len || m->offset + m->data.len > c->in.total)
		return;
	buf_append(&c->in.data, m->data.data, m->data.len);
	c->asked_ms = c->now_ms;
	if (!snapshot_whole(c))
		return;
	/* Our own log may have come further than their state since: then nothing of it is needed. */
	tail_drop_until(c, c->in.index);
	advance(c, 0, true);
}
