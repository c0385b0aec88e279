/* The connection between the two sides of a migration. Messages keep their order as TCP does: one that does not get through is tried again until the
 * connection is given up. */
#include <stdlib.h>

#include "tests/sim/sim_agent_internal.h"

#define LETTER_TAKES_US 300
#define LETTER_AGAIN_US (200 * MS)
#define LETTER_GIVEN_UP_US (10 * SECOND)
#define HELLO_HELD_US (10 * SECOND)    /* the source's goals may be this much earlier than the destination's */
#define HELLO_LOOK_US (20 * MS)
#define WATCH_US (200 * MS)
#define SILENT_US (10 * SECOND)        /* a peer that acknowledges nothing for so long is lost */

struct letter {
	enum letter_what what;
	struct sim_host *from, *to;
	uint64_t from_no, to_no, job_id, until_us;
	unsigned n;                /* of those from this side */
};

/* The longest time in a state without progress: source, destination (migrate/engine.c). */
static const uint64_t deadline_us[][2] = {
	[SIDE_GREETING] = {15 * SECOND, 0}, [SIDE_RESERVING] = {90 * SECOND, 75 * SECOND}, [SIDE_PREPARING] = {15 * SECOND, 15 * SECOND},
	[SIDE_COPYING] = {30 * SECOND, 75 * SECOND}, [SIDE_HANDING_OVER] = {30 * SECOND, 0}, [SIDE_SWITCHING] = {30 * SECOND, 30 * SECOND},
	[SIDE_VERIFYING] = {30 * SECOND, 15 * SECOND}, [SIDE_COMPLETE] = {0, 0}, [SIDE_FAILED] = {0, 0}, [SIDE_SETTLING] = {0, 0},
	[SIDE_SETTLED] = {0, 0},
};

struct sim_migration *migration_by_job(const struct sim_agent *a, uint64_t job_id)
{
	for (struct sim_migration *m = a->migrations; m; m = m->next)
		if (m->job.id == job_id)
			return m;
	return NULL;
}

struct sim_migration *migration_by_no(const struct sim_agent *a, uint64_t no)
{
	for (struct sim_migration *m = a ? a->migrations : NULL; m && no; m = m->next)
		if (m->no == no)
			return m;
	return NULL;
}

static void arrives(struct sim *s, struct sim_host *h, uint64_t arg, void *p);

static void on_its_way(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	struct letter *l = p;

	if (net_reaches(s, l->from, l->to) && net_reaches(s, l->to, l->from)) {
		/* Whoever sent it may be dead by now: it is on the wire. */
		if (agent_is_running(l->to))
			agent_after(s, l->to->agent, LETTER_TAKES_US, arrives, 0, l);
		else
			free(l);
		return;
	}
	if (s->now_us >= l->until_us)
		free(l); /* the watch of the sender breaks the connection */
	else
		sim_after(s, LETTER_AGAIN_US, NULL, LIFE_POWER, on_its_way, 0, l, free);
}

void channel_post(struct sim *s, struct sim_migration *m, enum letter_what what)
{
	struct letter *l;

	if (!m->peer || (!m->peer_no && what != LETTER_HELLO))
		return;
	l = mem_alloc(sizeof(*l));
	*l = (struct letter){what, m->agent->host, m->peer, m->no, m->peer_no, m->job.id, s->now_us + LETTER_GIVEN_UP_US, ++m->letters_out};
	sim_after(s, 0, NULL, LIFE_POWER, on_its_way, 0, l, free);
}

/* A hello: taken over by the side that the goals have made, kept until they do. */
static void hello_arrives(struct sim *s, struct sim_agent *a, struct letter *l)
{
	struct sim_migration *m = migration_by_job(a, l->job_id);

	if (m && m->incoming && m->engine && !m->decided && m->state == SIDE_GREETING && !m->peer_no) {
		m->peer_no = l->from_no;
		m->letters_in = l->n;
		m->moved_us = s->now_us;
		channel_post(s, m, LETTER_WELCOME);
		free(l);
	} else if ((!m || !m->tried) && s->now_us < l->until_us) {
		agent_after(s, a, HELLO_LOOK_US, arrives, 0, l);
	} else {
		free(l); /* refused: the source gives up by itself */
	}
}

static void arrives(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct letter *l = p;
	struct sim_migration *m;

	AGENT_EVENT(arrives);
	if (l->what == LETTER_HELLO) {
		hello_arrives(s, h->agent, l);
		return;
	}
	m = migration_by_no(h->agent, l->to_no);
	/* The welcome is what tells the source who its peer is. */
	if (!m || !m->engine || m->state >= SIDE_COMPLETE || !(m->peer_no == l->from_no || (l->what == LETTER_WELCOME && !m->peer_no))) {
		free(l);
	} else if (l->n != m->letters_in + 1) {
		/* One before it is still on its way. */
		agent_after(s, h->agent, HELLO_LOOK_US, arrives, 0, l);
	} else {
		m->peer_no = l->from_no;
		m->letters_in = l->n;
		m->moved_us = s->now_us;
		migration_receive(s, m, l->what);
		free(l);
	}
}

const struct sim_migration *channel_peer(const struct sim_migration *m)
{
	const struct sim_migration *other = m->peer && m->peer_no ? migration_by_no(m->peer->agent, m->peer_no) : NULL;

	return other && other->engine && other->state < SIDE_SETTLING && other->peer_no == m->no ? other : NULL;
}

/* "" while the connection stands. */
static const char *lost(struct sim *s, struct sim_migration *m)
{
	struct sim_host *h = m->agent->host;
	bool reached = net_reaches(s, h, m->peer) && net_reaches(s, m->peer, h) && !m->peer->frozen;

	if (reached) {
		m->silent_us = 0;
		return m->peer_no && !channel_peer(m) ? "lost the connection to the other host" : "";
	}
	if (!m->silent_us)
		m->silent_us = s->now_us;
	return s->now_us - m->silent_us >= SILENT_US ? "the other host acknowledges nothing" : "";
}

static void on_watch(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_migration *m;
	const char *why;

	AGENT_EVENT(on_watch);
	m = migration_by_no(h->agent, arg);
	if (!m || !m->engine || m->state >= SIDE_COMPLETE)
		return;
	why = m->peer && !(m->incoming && m->state == SIDE_GREETING) ? lost(s, m) : "";
	if (*why)
		migration_fail(s, m, why);
	else if (deadline_us[m->state][m->incoming] && s->now_us - m->moved_us >= deadline_us[m->state][m->incoming])
		migration_fail(s, m, "no progress");
	agent_after(s, h->agent, WATCH_US, on_watch, arg, NULL);
}

void channel_open(struct sim *s, struct sim_migration *m)
{
	agent_after(s, m->agent, WATCH_US, on_watch, m->no, NULL);
	if (!m->incoming)
		channel_post(s, m, LETTER_HELLO);
}
