/* SYNC: after each change of the view the members state where they are; the first statements in the total
 * order that make a quorum decide, on every member alike, whose log wins and the new epoch.
 *
 * Why it is safe (docs/log.md has the whole argument): an entry is committed once a quorum has acked it durably
 * in its epoch; a member that has made its statement acks nothing of an older epoch any more (no one would count it:
 * ACKs carry the epoch and an epoch belongs to one view and round); so each later deciding quorum holds a member with
 * the entry, and the most advanced (last epoch, last index) log contains it. Entries of the new epoch exist only
 * after a quorum has made that epoch durable, hence no two logs have different entries of the same (epoch, index). */
#include "clusterd/core/clog_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void say_sync(struct clog *c)
{
	Gantry__ClogMessage m = GANTRY__CLOG_MESSAGE__INIT;
	Gantry__ClogSync sync = GANTRY__CLOG_SYNC__INIT;
	const struct clog_voters *voters = clog__voters(c), *old = clog__old_voters(c);
	Gantry__EpochMark *marks = NULL, **mark_ptrs = NULL;
	size_t n = 0;

	c->sync_sent_ms = c->now_ms;
	if (c->mute && !MUTANT(forgetful_speaks))
		return;
	for (size_t i = 0; i < c->n_log; i++) {
		if (n && marks[n - 1].epoch == c->log[i].e->epoch)
			continue;
		marks = mem_realloc(marks, (n + 1) * sizeof(*marks));
		gantry__epoch_mark__init(&marks[n]);
		marks[n].epoch = c->log[i].e->epoch;
		marks[n++].first_index = c->log[i].e->index;
	}
	if (n)
		mark_ptrs = mem_alloc(n * sizeof(*mark_ptrs));
	for (size_t i = 0; i < n; i++)
		mark_ptrs[i] = &marks[i];
	sync.view = c->view;
	sync.round = c->round;
	sync.promised_epoch = c->promised;
	sync.last_epoch = clog__last_epoch(c);
	sync.last_index = clog__last_index(c);
	sync.commit_index = c->commit;
	sync.first_index = c->first_index;
	sync.marks = mark_ptrs;
	sync.n_marks = n;
	sync.voters = voters->ids;
	sync.n_voters = voters->n;
	sync.voters_index = voters->index;
	if (old) {
		sync.old_voters = old->ids;
		sync.n_old_voters = old->n;
	}
	sync.proven = c->proven;
	sync.n_proven = c->n_proven;
	m.body_case = GANTRY__CLOG_MESSAGE__BODY_SYNC;
	m.sync = &sync;
	clog__send(c, &m, "statement for the sync");
	free(marks);
	free(mark_ptrs);
}

/* Forgets the decision and begins round `round` of this view. */
void clog__round(struct clog *c, uint32_t round, const char *reason)
{
	c->round = round;
	c->decided = c->established = false;
	c->leader = 0;
	c->winner = 0;
	c->n_said = 0;
	c->n_synced = 0;
	c->ack_flying = false;
	c->ack_said = c->confirmed_ms = 0;
	for (size_t i = 0; i < c->n_members; i++) {
		struct clog_peer *p = &c->peers[i];

		if (p->sync)
			gantry__clog_sync__free_unpacked(p->sync, NULL);
		*p = (struct clog_peer){.node = p->node, .heard_ms = c->now_ms};
	}
	clog__adopt_reset(c);
	clog__drop_proposals(c);
	clog__set_phase(c, CLOG_SYNC, reason);
	c->sync_since_ms = c->now_ms;
	say_sync(c);
}

/* By our own wish. A mute member leaves it to the others: they would not hear of its round, and it would be deaf to theirs. */
void clog__next_round(struct clog *c, const char *reason)
{
	if (!c->mute)
		clog__round(c, c->round + 1, reason);
}

void clog_mute(struct clog *c, bool mute)
{
	c->mute = mute;
}

void clog__view(struct clog *c, uint64_t id, const uint32_t *members, size_t n)
{
	for (size_t i = 0; i < c->n_members; i++)
		if (c->peers[i].sync)
			gantry__clog_sync__free_unpacked(c->peers[i].sync, NULL);
	c->view = id;
	c->n_proven = 0;
	c->n_members = n;
	c->members = mem_realloc(c->members, (n + 1) * sizeof(*c->members));
	c->peers = mem_realloc(c->peers, (n + 1) * sizeof(*c->peers));
	c->said = mem_realloc(c->said, (n + 1) * sizeof(*c->said));
	c->synced = mem_realloc(c->synced, (n + 1) * sizeof(*c->synced));
	for (size_t i = 0; i < n; i++) {
		c->members[i] = members[i];
		c->peers[i] = (struct clog_peer){.node = members[i]};
	}
	if (n) {
		clog__round(c, 1, "a new view");
		return;
	}
	c->decided = c->established = false;
	c->leader = 0;
	c->n_said = c->n_synced = 0;
	clog__adopt_reset(c);
	clog__drop_proposals(c);
	clog__set_phase(c, CLOG_IDLE, "corosync is not connected");
}

static bool more_advanced(const Gantry__ClogSync *a, uint32_t a_node, const Gantry__ClogSync *b, uint32_t b_node)
{
	if (MUTANT(shortest_log_wins))
		return a->last_index < b->last_index;
	if (a->last_epoch != b->last_epoch)
		return a->last_epoch > b->last_epoch;
	if (a->last_index != b->last_index)
		return a->last_index > b->last_index;
	return a_node < b_node;
}

static size_t stated(const struct clog *c, const uint32_t *voters, size_t n)
{
	size_t votes = 0;

	for (size_t i = 0; i < c->n_said; i++)
		votes += clog__is_voter(voters, n, c->said[i]);
	return votes;
}

static bool is_majority(const struct clog *c, const uint32_t *voters, size_t n)
{
	return stated(c, voters, n) >= n / 2 + !MUTANT(sync_one_vote_short);
}

/* Exactly half would do as well, in so small a cluster. None: of no voters. */
static bool is_half_or_more(const struct clog *c, const uint32_t *voters, size_t n)
{
	return !n || is_majority(c, voters, n) || (n <= CLOG_ALONE_VOTERS_MAX && 2 * stated(c, voters, n) == n);
}

/* The others of these voters are proven dead. */
static bool rest_is_proven(const struct clog *c, const uint32_t *voters, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool counts = clog__is_voter(c->said, c->n_said, voters[i]) || MUTANT(alone_without_proof);

		for (size_t k = 0; k < c->n_members && !counts; k++) {
			const Gantry__ClogSync *s = c->peers[k].sync;

			counts = s && clog__is_voter(s->proven, s->n_proven, voters[i]);
		}
		if (!counts)
			return false;
	}
	return true;
}

/* Half of the voters have stated: with the proof that the others are dead they may decide alone. Every quorum of all had one of this
 * half, so its most advanced log holds all that was committed; and a majority of two or of one is all of them, so what they commit is
 * on each of their disks. While a change of the voters is not known to be committed, quorums of those before it count too; after a half
 * that went on alone, those before are not told (clog__old_voters), and it waits until one of them has seen that committed. */
static bool is_half(const struct clog *c, const Gantry__ClogSync *best)
{
	if (best->voters_index > best->commit_index && !best->n_old_voters)
		return false;
	return is_half_or_more(c, best->voters, best->n_voters) && is_half_or_more(c, best->old_voters, best->n_old_voters);
}

static bool may_decide_alone(const struct clog *c, const Gantry__ClogSync *best)
{
	return is_half(c, best) && rest_is_proven(c, best->voters, best->n_voters) &&
	       rest_is_proven(c, best->old_voters, best->n_old_voters);
}

static void set_deciding(struct clog *c, const Gantry__ClogSync *best, bool alone)
{
	c->alone = alone;
	c->n_deciding_voters = c->n_deciding_old = 0;
	c->deciding_voters = mem_realloc(c->deciding_voters, (best->n_voters + 1) * sizeof(uint32_t));
	c->deciding_old = mem_realloc(c->deciding_old, (best->n_old_voters + 1) * sizeof(uint32_t));
	for (size_t i = 0; i < best->n_voters; i++)
		if (!alone || clog__is_voter(c->said, c->n_said, best->voters[i]))
			c->deciding_voters[c->n_deciding_voters++] = best->voters[i];
	for (size_t i = 0; i < best->n_old_voters && !alone; i++)
		c->deciding_old[c->n_deciding_old++] = best->old_voters[i];
}

/* The most advanced of the statements so far; NULL: none. */
static const Gantry__ClogSync *best_statement(struct clog *c, uint32_t *ret_node)
{
	const Gantry__ClogSync *best = NULL;

	for (size_t i = 0; i < c->n_said; i++) {
		const Gantry__ClogSync *s = clog__peer(c, c->said[i])->sync;

		if (best && !more_advanced(s, c->said[i], best, *ret_node))
			continue;
		best = s;
		*ret_node = c->said[i];
	}
	return best;
}

bool clog_is_half(struct clog *c)
{
	uint32_t node;
	const Gantry__ClogSync *best = c->phase == CLOG_SYNC && !c->decided ? best_statement(c, &node) : NULL;

	return best && best->n_voters && is_half(c, best);
}

/* The statements so far, in the order of their delivery: do they make a quorum? */
static void try_decide(struct clog *c)
{
	const Gantry__ClogSync *best = best_statement(c, &c->winner);
	uint64_t promised = 0;
	bool quorum, alone = false;

	if (!best->n_voters)
		return;
	quorum = is_majority(c, best->voters, best->n_voters) &&
		 (!best->n_old_voters || stated(c, best->old_voters, best->n_old_voters) >= best->n_old_voters / 2 + 1);
	if (!quorum)
		alone = may_decide_alone(c, best);
	if (!quorum && !alone)
		return;
	for (size_t i = 0; i < c->n_said; i++)
		if (clog__peer(c, c->said[i])->sync->promised_epoch > promised)
			promised = clog__peer(c, c->said[i])->sync->promised_epoch;
	c->decided = true;
	c->epoch = promised + 1;
	c->base_index = best->last_index;
	c->base_epoch = best->last_epoch;
	c->winner_first = best->first_index;
	set_deciding(c, best, alone);
	clog__adopt_begin(c);
}

void clog__on_sync(struct clog *c, uint32_t sender, const Gantry__ClogSync *sync)
{
	struct clog_peer *p = clog__peer(c, sender);

	/* What was queued in an older view says where its sender was then, not where it is. */
	if (sync->view != c->view || !p || sync->round < c->round)
		return;
	/* Somebody found this round hung: all members leave it at this point of the order. */
	if (sync->round > c->round)
		clog__round(c, sync->round, "a member asked for a new round");
	if (p->sync || c->decided)
		return;
	p->sync = pb_clone(sync);
	c->said[c->n_said++] = sender;
	try_decide(c);
}

void clog__sync_tick(struct clog *c)
{
	struct clog_status status;

	if (c->phase != CLOG_SYNC || c->decided)
		return;
	clog_get_status(c, &status);
	if (status.phase == CLOG_SYNC && status.n_voters && c->now_ms - c->sync_since_ms >= CLOG_SYNC_STUCK_MS)
		clog__next_round(c, "the sync does not come to a decision");
	else if (c->now_ms - c->sync_sent_ms >= CLOG_SYNC_REPEAT_MS)
		say_sync(c);
}

/* The first command of a cluster: accepted only where no log is, by one host, which then is the only voter. */
bool clog__bootstrap(struct clog *c, const uint8_t *command, size_t len, uint64_t cookie)
{
	uint32_t *ids = NULL;
	size_t n = 0;
	bool ok;

	if (c->phase != CLOG_SYNC || clog__last_index(c) || c->promised || clog__voters(c)->n)
		return false;
	for (size_t i = 0; i < c->n_said; i++)
		if (clog__peer(c, c->said[i])->sync->last_index)
			return false;
	ok = c->voters_of(command, len, NULL, 0, &ids, &n) && n == 1 && ids[0] == c->node;
	free(ids);
	if (!ok)
		return false;
	c->promised = 1;
	clog__log_append(c, (struct clog_entry){.e = clog__entry_new(1, 1, command, len), .own = true, .cookie = cookie});
	clog__batch_from(c, 1, "the first entry of a new cluster");
	clog__round(c, c->round + 1, "a new cluster");
	return true;
}

void clog__proven(struct clog *c, const uint32_t *nodes, size_t n)
{
	if (c->phase != CLOG_SYNC || c->decided)
		return;
	c->proven = mem_realloc(c->proven, (n + 1) * sizeof(*c->proven));
	c->n_proven = 0;
	for (size_t i = 0; i < n; i++)
		if (!clog__is_voter(c->members, c->n_members, nodes[i]))
			c->proven[c->n_proven++] = nodes[i];
	clog__next_round(c, "the other voters are proven dead");
}
