/* NORMAL: every member appends what is delivered, acks what is durable, and takes for committed what a quorum of the
 * voters has acked in this epoch. */
#include "clusterd/core/clog_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/model.pb-c.h"

static void say_ack(struct clog *c)
{
	Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
	Gantry__ClogAck ack = GANTRY__CLOG_ACK__INIT;

	ack.epoch = c->epoch;
	ack.index = MUTANT(ack_before_fsync) ? clog__last_index(c) : c->durable;
	m.body_case = GANTRY__CLOG_MESSAGE__BODY_ACK;
	m.ack = &ack;
	clog__send(c, &m, "durable up to here");
	c->ack_said = c->durable;
	c->ack_flying = true;
	c->ack_ms = c->now_ms;
}

void clog__normal_durable(struct clog *c)
{
	/* One ACK under way at a time: the next one covers all that became durable meanwhile. */
	if (c->phase == CLOG_NORMAL && !c->ack_flying && c->durable > c->ack_said)
		say_ack(c);
}

/* The leader gives commands their place and tells everyone, itself too. */
static void say_append(struct clog *c, ProtobufCBinaryData *commands, size_t n, uint32_t origin, uint64_t serial)
{
	Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
	Gantry__ClogAppend append = GANTRY__CLOG_APPEND__INIT;

	append.view = c->view;
	append.round = c->round;
	append.epoch = c->epoch;
	append.first_index = c->next_index;
	append.commands = commands;
	append.n_commands = n;
	append.origin = origin;
	append.serial = serial;
	m.body_case = GANTRY__CLOG_MESSAGE__BODY_APPEND;
	m.append = &append;
	clog__send(c, &m, "the leader orders commands");
	c->next_index += n;
}

static int by_node(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The first entry of an epoch. Entries of older epochs become committed only together with it, never by being counted
 * alone (Ongaro's dissertation, section 3.6.2). */
static void say_epoch_start(struct clog *c)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdEpochStart start = GANTRY__CMD_EPOCH_START__INIT;
	uint32_t *synced = mem_dup(c->synced, c->n_synced * sizeof(*synced));
	struct buf packed = {0};

	qsort(synced, c->n_synced, sizeof(*synced), by_node);
	start.epoch = c->epoch;
	start.leader = c->leader;
	start.synced = synced;
	start.n_synced = c->n_synced;
	if (c->alone) {
		start.voters = c->deciding_voters;
		start.n_voters = c->n_deciding_voters;
	}
	command.version = 1;
	command.epoch = c->epoch;
	command.proposer = c->leader;
	command.body_case = GANTRY__COMMAND__BODY_EPOCH_START;
	command.epoch_start = &start;
	pb_pack(&command, &packed);
	say_append(c, &(ProtobufCBinaryData){.data = packed.data, .len = packed.len}, 1, c->node, 0);
	buf_free(&packed);
	free(synced);
}

static void establish(struct clog *c)
{
	c->established = true;
	c->leader = c->winner;
	c->next_index = c->base_index + 1;
	c->tail_from = c->next_index;
	if (c->leader == c->node)
		say_epoch_start(c);
	clog__normal_enter(c);
}

static bool is_adopted_by(const struct clog *c, const uint32_t *voters, size_t n)
{
	size_t votes = 0;

	for (size_t i = 0; i < c->n_synced; i++)
		votes += clog__is_voter(voters, n, c->synced[i]);
	return votes >= n / 2 + !MUTANT(establish_one_vote_short);
}

void clog__on_adopted(struct clog *c, uint32_t sender, const Gantry__ClogAdopted *m)
{
	struct clog_peer *p = clog__peer(c, sender);

	/* One who adopted another winner in the same round cannot count for ours. */
	if (!p || !c->decided || m->view != c->view || m->round != c->round || m->epoch != c->epoch ||
	    m->winner != c->winner || m->base_index != c->base_index || p->adopted)
		return;
	p->adopted = true;
	c->synced[c->n_synced++] = sender;
	/* The winner leads, so it must be there itself. */
	if (!c->established && is_adopted_by(c, c->deciding_voters, c->n_deciding_voters) &&
	    (!c->n_deciding_old || is_adopted_by(c, c->deciding_old, c->n_deciding_old)) && clog__peer(c, c->winner)->adopted)
		establish(c);
	else if (c->established)
		clog__action(c, CLOG_ACTION_PHASE, "a member has caught up");
}

void clog__normal_enter(struct clog *c)
{
	if (c->phase != CLOG_ADOPT || !c->established || !c->caught_up || !c->own_durable)
		return;
	c->ack_said = 0;
	c->ack_flying = false;
	for (size_t i = 0; i < c->n_members; i++)
		c->peers[i].heard_ms = c->now_ms;
	clog__set_phase(c, CLOG_NORMAL, "a quorum has the log");
	clog__normal_durable(c);
}

static void flush(struct clog *c)
{
	while (c->n_queue && c->n_sent < CLOG_WINDOW) {
		Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
		Gantry__ClogPropose propose = GANTRY__CLOG_PROPOSE__INIT;
		struct clog_sent *sent;
		size_t n = 0, bytes = 0;

		while (n < c->n_queue && (!n || bytes + c->queue[n].len < CLOG_CHUNK_BYTES))
			bytes += c->queue[n++].len;
		c->sent = mem_realloc(c->sent, (c->n_sent + 1) * sizeof(*c->sent));
		sent = &c->sent[c->n_sent++];
		*sent = (struct clog_sent){.serial = ++c->next_serial, .n = n, .cookies = mem_alloc(n * sizeof(uint64_t))};
		propose.commands = mem_alloc(n * sizeof(*propose.commands));
		propose.n_commands = n;
		for (size_t i = 0; i < n; i++) {
			sent->cookies[i] = c->queue[i].cookie;
			propose.commands[i] = (ProtobufCBinaryData){.data = c->queue[i].data, .len = c->queue[i].len};
		}
		propose.epoch = c->epoch;
		propose.serial = sent->serial;
		m.body_case = GANTRY__CLOG_MESSAGE__BODY_PROPOSE;
		m.propose = &propose;
		if (c->leader == c->node)
			say_append(c, propose.commands, n, c->node, sent->serial);
		else
			clog__send(c, &m, "commands of this node's clients");
		for (size_t i = 0; i < n; i++)
			free(c->queue[i].data);
		free(propose.commands);
		memmove(c->queue, c->queue + n, (c->n_queue - n) * sizeof(*c->queue));
		c->n_queue -= n;
	}
}

void clog__propose(struct clog *c, const uint8_t *command, size_t len, uint64_t cookie)
{
	size_t pending = c->n_queue;

	if (clog__bootstrap(c, command, len, cookie))
		return;
	for (size_t i = 0; i < c->n_sent; i++)
		pending += c->sent[i].n;
	if (c->phase != CLOG_NORMAL || len > LIMIT_CLOG_COMMAND_BYTES || pending >= LIMIT_CLOG_PENDING) {
		int rc = c->phase != CLOG_NORMAL ? -ENOTCONN : len > LIMIT_CLOG_COMMAND_BYTES ? -E2BIG : -EBUSY;

		clog__dropped(c, cookie, rc, "not accepted");
		return;
	}
	if (c->n_queue == c->cap_queue) {
		c->cap_queue = c->cap_queue ? 2 * c->cap_queue : 64;
		c->queue = mem_realloc(c->queue, c->cap_queue * sizeof(*c->queue));
	}
	c->queue[c->n_queue++] = (struct clog_proposal){.data = mem_dup(command, len), .len = len, .cookie = cookie};
	flush(c);
}

void clog__drop_proposals(struct clog *c)
{
	for (size_t i = 0; i < c->n_sent; i++) {
		for (size_t k = 0; k < c->sent[i].n; k++)
			clog__dropped(c, c->sent[i].cookies[k], -EAGAIN, "sent, but the configuration changed");
		free(c->sent[i].cookies);
	}
	for (size_t i = 0; i < c->n_queue; i++) {
		clog__dropped(c, c->queue[i].cookie, -ENOTCONN, "not sent before the configuration changed");
		free(c->queue[i].data);
	}
	c->n_sent = c->n_queue = 0;
}

void clog__on_propose(struct clog *c, uint32_t sender, const Gantry__ClogPropose *m)
{
	if (c->phase == CLOG_NORMAL && c->leader == c->node && (m->epoch == c->epoch || MUTANT(stale_epoch_obeyed)) && m->n_commands)
		say_append(c, m->commands, m->n_commands, sender, m->serial);
}

static struct clog_sent take_sent(struct clog *c, const Gantry__ClogAppend *m)
{
	struct clog_sent mine = {0};

	if (m->origin != c->node || !c->n_sent || c->sent[0].serial != m->serial)
		return mine;
	mine = c->sent[0];
	assert(mine.n == m->n_commands);
	memmove(c->sent, c->sent + 1, --c->n_sent * sizeof(*c->sent));
	return mine;
}

void clog__on_append(struct clog *c, uint32_t sender, const Gantry__ClogAppend *m)
{
	struct clog_sent mine;
	uint64_t at = m->first_index;

	if (!c->decided || ((m->view != c->view || m->round != c->round || m->epoch != c->epoch || sender != c->winner) && !MUTANT(stale_epoch_obeyed)))
		return;
	/* The leader saw a quorum adopt its log. */
	if (!c->established)
		establish(c);
	if (c->caught_up && at != clog__last_index(c) + 1) {
		clog__next_round(c, "an APPEND was missed");
		return;
	}
	mine = take_sent(c, m);
	for (size_t i = 0; i < m->n_commands; i++, at++) {
		struct clog_entry entry = {.e = clog__entry_new(at, c->epoch, m->commands[i].data, m->commands[i].len),
					   .own = mine.n > 0, .cookie = mine.n ? mine.cookies[i] : 0};

		if (c->caught_up)
			clog__log_append(c, entry);
		else
			clog__tail_push(c, entry);
	}
	free(mine.cookies);
	if (c->caught_up)
		clog__batch_from(c, m->first_index, "commands in their order");
	if (MUTANT(ack_before_fsync) && c->phase == CLOG_NORMAL)
		say_ack(c);
	if (m->origin == c->node)
		flush(c);
}

void clog__apply_committed(struct clog *c)
{
	/* A snapshot that is not yet durable comes first. */
	if (c->applied + 1 < c->first_index)
		return;
	while (c->applied < c->commit) {
		struct clog_entry *entry = clog__entry(c, c->applied + 1);
		struct clog_action *a = clog__action(c, CLOG_ACTION_COMMIT, "committed");

		a->u.commit.index = entry->e->index;
		a->u.commit.epoch = entry->e->epoch;
		a->u.commit.command = entry->e->command.data;
		a->u.commit.len = entry->e->command.len;
		a->u.commit.own = entry->own;
		a->u.commit.cookie = entry->cookie;
		entry->own = false;
		c->applied++;
	}
}

static int newest_first(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* The highest index that a majority of these voters has acked. */
static uint64_t acked_by(struct clog *c, const struct clog_voters *voters)
{
	size_t n = 0, majority = voters->n / 2 + !MUTANT(commit_one_ack_short);

	c->acked = mem_realloc(c->acked, (c->n_members + 1) * sizeof(*c->acked));
	for (size_t i = 0; i < c->n_members; i++)
		if (clog__is_voter(voters->ids, voters->n, c->peers[i].node))
			c->acked[n++] = c->peers[i].acked;
	if (!majority || n < majority)
		return 0;
	qsort(c->acked, n, sizeof(*c->acked), newest_first);
	return c->acked[majority - 1];
}

static void advance_commit(struct clog *c)
{
	const struct clog_voters *now = clog__voters(c), *old;
	uint64_t best, by_old;
	size_t beyond = 0;

	/* Most acks are not the one that makes a majority. */
	for (size_t i = 0; i < c->n_members; i++)
		beyond += c->peers[i].acked > c->commit;
	if (beyond < now->n / 2 + !MUTANT(commit_one_ack_short))
		return;
	old = clog__old_voters(c);
	best = acked_by(c, now);
	by_old = old ? acked_by(c, old) : best;
	best = by_old < best ? by_old : best;
	if (best > clog__last_index(c))
		best = clog__last_index(c);
	if (best > c->commit && best > c->base_index) {
		c->commit = best;
		clog__apply_committed(c);
	}
}

void clog__on_ack(struct clog *c, uint32_t sender, const Gantry__ClogAck *m)
{
	struct clog_peer *p = clog__peer(c, sender);

	if (!p || !c->established || m->epoch != c->epoch)
		return;
	p->acked = m->index;
	if (sender == c->node) {
		c->ack_flying = false;
		c->confirmed_ms = c->ack_ms;
		clog__normal_durable(c);
	}
	if (c->phase == CLOG_NORMAL && m->index > c->commit)
		advance_commit(c);
}

void clog__normal_tick(struct clog *c)
{
	struct clog_peer *leader = c->leader ? clog__peer(c, c->leader) : NULL;

	if (c->phase != CLOG_NORMAL)
		return;
	if (c->now_ms - c->ack_ms >= CLOG_HEARTBEAT_MS && !c->ack_flying)
		say_ack(c);
	if (leader && c->leader != c->node && c->now_ms - leader->heard_ms >= CLOG_LEADER_SILENT_MS)
		clog__next_round(c, "the leader is silent");
}
