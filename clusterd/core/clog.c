#include "clusterd/core/clog.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/core/clog_internal.h"

static void *arena_alloc(void *data, size_t size)
{
	struct clog_arena *a = data;
	size_t words = (size + sizeof(uint64_t) - 1) / sizeof(uint64_t);
	void *p = a->room + a->used;

	if (words > CLOG_ARENA_WORDS - a->used)
		return mem_alloc(size);
	a->used += words;
	return p;
}

static void arena_free(void *data, void *p)
{
	struct clog_arena *a = data;

	if (p && ((uint64_t *)p < a->room || (uint64_t *)p >= a->room + CLOG_ARENA_WORDS))
		free(p);
}

struct clog *clog_new(uint32_t node, struct clog_disk_state *disk, clog_voters_fn voters_of)
{
	struct clog *c = mem_alloc(sizeof(*c));

	c->node = node;
	c->voters_of = voters_of;
	c->arena.allocator = (ProtobufCAllocator){.alloc = arena_alloc, .free = arena_free, .allocator_data = &c->arena};
	c->kept = disk->kept_entries ? disk->kept_entries : LIMIT_CLOG_KEPT_ENTRIES;
	c->promised = disk->promised_epoch;
	c->snapshot_index = disk->snapshot_index;
	c->snapshot_epoch = disk->snapshot_epoch;
	c->applied = c->commit = disk->snapshot_index;
	c->first_index = disk->n_entries ? disk->entries[0]->index : disk->snapshot_index + 1;
	clog__voters_add(c, disk->voters_index, disk->voters, disk->n_voters);
	for (size_t i = 0; i < disk->n_entries; i++)
		clog__log_append(c, (struct clog_entry){.e = disk->entries[i]});
	free(disk->entries);
	if (disk->commit_index > c->commit)
		c->commit = disk->commit_index < clog__last_index(c) ? disk->commit_index : clog__last_index(c);
	c->durable = clog__last_index(c);
	disk->entries = NULL;
	disk->voters = NULL;
	return c;
}

void clog_free(struct clog *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_garbage; i++)
		free(c->garbage[i]);
	for (size_t i = 0; i < c->n_dropped; i++)
		gantry__log_entry__free_unpacked(c->dropped_entries[i], NULL);
	clog__adopt_reset(c);
	for (size_t i = 0; i < c->n_log; i++)
		gantry__log_entry__free_unpacked(c->log[i].e, NULL);
	for (size_t i = 0; i < c->n_voters; i++)
		free(c->voters[i].ids);
	for (size_t i = 0; i < c->n_members; i++)
		if (c->peers[i].sync)
			gantry__clog_sync__free_unpacked(c->peers[i].sync, NULL);
	for (size_t i = 0; i < c->n_batches; i++)
		buf_free(&c->batches[i].snapshot);
	for (size_t i = 0; i < c->n_sent; i++)
		free(c->sent[i].cookies);
	for (size_t i = 0; i < c->n_queue; i++)
		free(c->queue[i].data);
	free(c->garbage);
	free(c->dropped_entries);
	free(c->log);
	free(c->voters);
	free(c->members);
	free(c->peers);
	free(c->said);
	free(c->synced);
	free(c->deciding_voters);
	free(c->deciding_old);
	free(c->proven);
	free(c->acked);
	free(c->tail);
	free(c->queue);
	free(c->sent);
	free(c->batches);
	free(c->actions);
	free(c);
}

struct clog_action *clog__action(struct clog *c, enum clog_action_type type, const char *reason)
{
	struct clog_action *a;

	if (c->n_actions == c->cap_actions) {
		c->cap_actions = c->cap_actions ? 2 * c->cap_actions : 32;
		c->actions = mem_realloc(c->actions, c->cap_actions * sizeof(*c->actions));
	}
	a = &c->actions[c->n_actions++];
	*a = (struct clog_action){.type = type, .reason = reason};
	return a;
}

void *clog__keep(struct clog *c, void *p)
{
	if (c->n_garbage == c->cap_garbage) {
		c->cap_garbage = c->cap_garbage ? 2 * c->cap_garbage : 32;
		c->garbage = mem_realloc(c->garbage, c->cap_garbage * sizeof(*c->garbage));
	}
	return c->garbage[c->n_garbage++] = p;
}

void clog__dropped(struct clog *c, uint64_t cookie, int rc, const char *reason)
{
	struct clog_action *a = clog__action(c, CLOG_ACTION_DROPPED, reason);

	a->u.dropped.cookie = cookie;
	a->u.dropped.rc = rc;
}

void clog__send(struct clog *c, Gantry__ClogMessage *message, const char *reason)
{
	struct clog_action *a = clog__action(c, CLOG_ACTION_MULTICAST, reason);
	struct buf packed = {0};

	message->version = CLOG_PROTOCOL;
	message->sender = c->node;
	pb_pack(message, &packed);
	a->u.multicast.data = clog__keep(c, packed.data);
	a->u.multicast.len = packed.len;
}

void clog__set_phase(struct clog *c, enum clog_phase phase, const char *reason)
{
	c->phase = phase;
	clog__action(c, CLOG_ACTION_PHASE, reason);
}

void clog__fail(struct clog *c, const char *why)
{
	if (c->phase == CLOG_FAULTY)
		return;
	c->faulty = why;
	c->decided = c->established = false;
	c->leader = 0;
	clog__drop_proposals(c);
	clog__set_phase(c, CLOG_FAULTY, why);
}

struct clog_peer *clog__peer(struct clog *c, uint32_t node)
{
	for (size_t i = 0; i < c->n_members; i++)
		if (c->peers[i].node == node)
			return &c->peers[i];
	return NULL;
}

struct clog_disk_batch *clog__batch(struct clog *c, const char *reason)
{
	struct clog_disk_batch *b = clog__keep(c, mem_alloc(sizeof(*b)));

	if (c->n_batches == c->cap_batches) {
		c->cap_batches = c->cap_batches ? 2 * c->cap_batches : 32;
		c->batches = mem_realloc(c->batches, c->cap_batches * sizeof(*c->batches));
	}
	b->serial = ++c->next_batch;
	b->promised_epoch = c->promised;
	b->commit_index = c->commit;
	c->batches[c->n_batches++] = (struct clog_batch_note){
		.serial = b->serial, .last_index = clog__last_index(c), .view = c->view, .round = c->round};
	clog__action(c, CLOG_ACTION_DISK, reason)->u.disk = b;
	return b;
}

struct clog_batch_note *clog__batch_note(struct clog *c)
{
	return &c->batches[c->n_batches - 1];
}

struct clog_disk_batch *clog__batch_from(struct clog *c, uint64_t from, const char *reason)
{
	struct clog_disk_batch *b = clog__batch(c, reason);
	uint64_t last = clog__last_index(c);
	Gantry__LogEntry **list;

	if (from > last)
		return b;
	list = clog__keep(c, mem_alloc((last - from + 1) * sizeof(*list)));
	for (uint64_t i = from; i <= last; i++)
		list[b->n_entries++] = clog__entry(c, i)->e;
	b->entries = list;
	return b;
}

static void on_disk_done(struct clog *c, uint64_t serial, int rc)
{
	struct clog_batch_note note;

	assert(c->n_batches && c->batches[0].serial == serial);
	note = c->batches[0];
	memmove(c->batches, c->batches + 1, --c->n_batches * sizeof(*c->batches));
	clog__keep(c, note.snapshot.data);
	if (rc < 0) {
		clog__fail(c, "the log could not be written to this host's disk");
		return;
	}
	c->durable = note.last_index;
	if (note.install) {
		struct clog_action *a = clog__action(c, CLOG_ACTION_INSTALL, "the snapshot is durable");

		a->u.install.index = note.snapshot_index;
		a->u.install.epoch = note.snapshot_epoch;
		a->u.install.data = note.snapshot.data;
		a->u.install.len = note.snapshot.len;
		c->applied = note.snapshot_index;
		clog__apply_committed(c);
	}
	if (MUTANT(apply_before_commit) && c->phase == CLOG_NORMAL && c->durable > c->commit) {
		c->commit = c->durable;
		clog__apply_committed(c);
	}
	if (note.adopt && c->phase == CLOG_ADOPT && note.view == c->view && note.round == c->round)
		clog__adopt_durable(c);
	clog__normal_durable(c);
}

static void on_message(struct clog *c, uint32_t sender, const uint8_t *data, size_t len)
{
	Gantry__ClogMessage *m;
	struct clog_peer *p = clog__peer(c, sender);

	c->arena.used = 0;
	m = gantry__clog_message__unpack(&c->arena.allocator, len, data);

	if (!m)
		return;
	if (p)
		p->heard_ms = c->now_ms;
	if (m->version != CLOG_PROTOCOL || m->sender != sender)
		m->body_case = GANTRY__CLOG_MESSAGE__BODY__NOT_SET;
	switch (m->body_case) {
	case GANTRY__CLOG_MESSAGE__BODY_PROPOSE:
		clog__on_propose(c, sender, m->propose);
		break;
	case GANTRY__CLOG_MESSAGE__BODY_APPEND:
		clog__on_append(c, sender, m->append);
		break;
	case GANTRY__CLOG_MESSAGE__BODY_ACK:
		clog__on_ack(c, sender, m->ack);
		break;
	case GANTRY__CLOG_MESSAGE__BODY_SYNC:
		clog__on_sync(c, sender, m->sync);
		break;
	case GANTRY__CLOG_MESSAGE__BODY_ADOPTED:
		clog__on_adopted(c, sender, m->adopted);
		break;
	case GANTRY__CLOG_MESSAGE__BODY_CATCHUP:
		clog__on_catchup(c, sender, m->catchup);
		break;
	case GANTRY__CLOG_MESSAGE__BODY_ENTRIES:
		clog__on_entries(c, sender, m->entries);
		break;
	case GANTRY__CLOG_MESSAGE__BODY_SNAPSHOT:
		clog__on_snapshot(c, sender, m->snapshot);
		break;
	case GANTRY__CLOG_MESSAGE__BODY_SOFT: {
		struct clog_action *a = clog__action(c, CLOG_ACTION_SOFT, "gossip");

		a->u.soft.sender = sender;
		a->u.soft.kind = m->soft->kind;
		a->u.soft.data = clog__keep(c, mem_dup(m->soft->data.data, m->soft->data.len));
		a->u.soft.len = m->soft->data.len;
		break;
	}
	default:
		break;
	}
	gantry__clog_message__free_unpacked(m, &c->arena.allocator);
}

static void on_soft(struct clog *c, uint32_t kind, const uint8_t *data, size_t len)
{
	Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
	Gantry__ClogSoft soft = GANTRY__CLOG_SOFT__INIT;

	if (!c->n_members || len > CLOG_CHUNK_BYTES)
		return;
	soft.kind = kind;
	soft.data = (ProtobufCBinaryData){.data = (uint8_t *)data, .len = len};
	m.body_case = GANTRY__CLOG_MESSAGE__BODY_SOFT;
	m.soft = &soft;
	clog__send(c, &m, "gossip");
}

static void begin_step(struct clog *c, uint64_t now_ms)
{
	for (size_t i = 0; i < c->n_garbage; i++)
		free(c->garbage[i]);
	for (size_t i = 0; i < c->n_dropped; i++)
		gantry__log_entry__free_unpacked(c->dropped_entries[i], NULL);
	c->n_garbage = c->n_dropped = c->n_actions = 0;
	/* This process was stopped for a while: that the others were silent meanwhile says nothing about them. */
	if (now_ms > c->now_ms + CLOG_LEADER_SILENT_MS / 2) {
		for (size_t i = 0; i < c->n_members; i++)
			c->peers[i].heard_ms = now_ms;
		c->asked_ms = now_ms;
	}
	c->now_ms = now_ms;
}

void clog_step(struct clog *c, const struct clog_event *event, const struct clog_action **ret, size_t *ret_n)
{
	begin_step(c, event->now_ms);
	if (c->phase == CLOG_FAULTY) {
		if (event->type == CLOG_EVENT_PROPOSE)
			clog__dropped(c, event->u.propose.cookie, -EIO, "this host's log is faulty");
		*ret = c->actions;
		*ret_n = c->n_actions;
		return;
	}
	clog__apply_committed(c);
	switch (event->type) {
	case CLOG_EVENT_VIEW:
		clog__view(c, event->u.view.id, event->u.view.members, event->u.view.n_members);
		break;
	case CLOG_EVENT_DISCONNECTED:
		clog__view(c, 0, NULL, 0);
		break;
	case CLOG_EVENT_MESSAGE:
		on_message(c, event->u.message.sender, event->u.message.data, event->u.message.len);
		break;
	case CLOG_EVENT_DISK_DONE:
		on_disk_done(c, event->u.disk_done.serial, event->u.disk_done.rc);
		break;
	case CLOG_EVENT_PROPOSE:
		clog__propose(c, event->u.propose.command, event->u.propose.len, event->u.propose.cookie);
		break;
	case CLOG_EVENT_SNAPSHOT:
		clog__snapshot_given(c, event->u.snapshot.index, event->u.snapshot.epoch, event->u.snapshot.data,
				     event->u.snapshot.len);
		break;
	case CLOG_EVENT_COMPACT:
		clog__log_compact(c, event->u.compact.index);
		break;
	case CLOG_EVENT_SOFT:
		on_soft(c, event->u.soft.kind, event->u.soft.data, event->u.soft.len);
		break;
	case CLOG_EVENT_PROVEN:
		clog__proven(c, event->u.proven.nodes, event->u.proven.n);
		break;
	case CLOG_EVENT_TICK:
		clog__sync_tick(c);
		clog__adopt_tick(c);
		clog__normal_tick(c);
		break;
	}
	*ret = c->actions;
	*ret_n = c->n_actions;
}

/* The voters by the newest log that is known here: the decision's, or the best statement so far, or our own. */
static void known_voters(const struct clog *c, const uint32_t **ids, size_t *n)
{
	const struct clog_voters *own = clog__voters(c);
	uint64_t best = own->index;

	*ids = own->ids;
	*n = own->n;
	for (size_t i = 0; i < c->n_members; i++) {
		const Gantry__ClogSync *s = c->peers[i].sync;

		if (!c->caught_up && s && s->voters_index > best) {
			best = s->voters_index;
			*ids = s->voters;
			*n = s->n_voters;
		}
	}
}

void clog_get_status(const struct clog *c, struct clog_status *ret)
{
	size_t here = 0;

	*ret = (struct clog_status){.phase = c->phase, .quorate = c->phase == CLOG_NORMAL, .view = c->view, .epoch = c->epoch,
				    .promised_epoch = c->promised, .last_index = clog__last_index(c),
				    .last_epoch = clog__last_epoch(c), .commit_index = c->commit, .confirmed_ms = c->confirmed_ms,
				    .leader = c->established ? c->leader : 0, .members = c->members,
				    .n_members = c->n_members, .synced = c->synced, .n_synced = c->n_synced};
	known_voters(c, &ret->voters, &ret->n_voters);
	ret->quorum = ret->n_voters / 2 + 1;
	for (size_t i = 0; i < c->n_members; i++)
		here += clog__is_voter(ret->voters, ret->n_voters, c->members[i]);
	if (c->phase == CLOG_SYNC && !c->decided && ret->n_voters && here < ret->quorum)
		ret->phase = CLOG_IDLE;
	switch (ret->phase) {
	case CLOG_IDLE:
		ret->text = c->n_members ? "no quorum: too few voters are here" : "corosync is not connected";
		break;
	case CLOG_SYNC:
		ret->text = ret->n_voters ? "sync: waiting for a quorum's statements" : "empty: not part of a cluster yet";
		break;
	case CLOG_ADOPT:
		ret->text = c->asking ? "catching up" : "sync: waiting for a quorum to adopt the log";
		break;
	case CLOG_NORMAL:
		ret->text = "normal";
		break;
	case CLOG_FAULTY:
		ret->text = c->faulty;
		break;
	}
}
