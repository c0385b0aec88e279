/* Extended virtual synchrony as corosync was seen to do it: one total order a configuration; after a cable is cut, and
 * before the token is missed, a part may still deliver its own messages to itself (and go on with that for longer than corosync, whose
 * token is gone), and then hears no other part until a new configuration: who pass from one to the next together have delivered
 * the same in it. What a frozen host is sent waits for it, and what was queued in a frozen or cut host is delivered to everyone in
 * the next configuration; a host that thaws sees itself alone for a moment and never that the quorum was lost. A cable that is cut
 * in one direction is a link that is down; where the links that are left do not fall into islands, corosync's rings change again and
 * again. Real corosyncs and this one are held to the same rules: tests/lab/group_rules.py. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"

#define BATCH 32             /* messages of one visit of the token */
#define TOKEN_US 1000000     /* a link that is down for less is not noticed */
#define NOTICE_US 1500000    /* and at the most so much later it is */
#define UNSTABLE_US 3000000  /* rings over links that do not fall into islands change about so often */

struct msg {
	unsigned refs;
	uint32_t sender;
	size_t len;
	uint8_t data[];
};

struct config {
	unsigned refs;
	uint64_t id;
	uint32_t members[SIM_HOSTS_MAX];
	size_t n;
	bool broken;                /* a part delivered what the others did not: a new one must follow */
};

struct item {
	struct msg *msg;            /* or a view: */
	struct config *view;
};

struct items {
	struct item *list;
	size_t first, n, cap;
};

struct sim_port {
	bool up, joined;            /* corosync runs; clusterd is in the group */
	struct config *config;      /* the newest that this corosync is in */
	uint64_t ring, told_ring;   /* which ring: equal for all of one; the one that clusterd knows */
	uint64_t story;             /* equal for those of a configuration who have delivered the same in it; 0: nothing that others did not */
	struct items in, out;
	bool in_busy, out_busy;
};

struct sim_group {
	bool cut[SIM_HOSTS_MAX + 1][SIM_HOSTS_MAX + 1];   /* from, to */
	uint64_t notice[SIM_HOSTS_MAX + 1][SIM_HOSTS_MAX + 1];   /* when corosync will know that this link is down; 0: it is up */
	uint64_t waits_until;
	uint64_t next_config, next_ring, next_story;
	unsigned ring_size[SIM_HOSTS_MAX + 1];            /* what each host was told last */
	uint32_t rings[SIM_HOSTS_MAX + 1][SIM_HOSTS_MAX];
};

/* ---- queues ---------------------------------------------------------------------- */

static void msg_unref(struct msg *m)
{
	if (m && !--m->refs)
		free(m);
}

static void config_unref(struct config *c)
{
	if (c && !--c->refs)
		free(c);
}

static void items_push(struct items *q, struct item item)
{
	if (q->n == q->cap) {
		size_t cap = q->cap ? 2 * q->cap : 32;
		struct item *list = mem_alloc(cap * sizeof(*list));

		for (size_t i = 0; i < q->n; i++)
			list[i] = q->list[(q->first + i) % q->cap];
		free(q->list);
		q->list = list;
		q->cap = cap;
		q->first = 0;
	}
	q->list[(q->first + q->n++) % q->cap] = item;
}

static struct item items_pop(struct items *q)
{
	struct item item = q->list[q->first];

	q->first = (q->first + 1) % q->cap;
	q->n--;
	return item;
}

static void items_clear(struct items *q)
{
	while (q->n) {
		struct item item = items_pop(q);

		msg_unref(item.msg);
		config_unref(item.view);
	}
}

static void set_config(struct sim_port *p, struct config *c)
{
	if (c)
		c->refs++;
	config_unref(p->config);
	p->config = c;
	p->story = 0;
}

/* ---- cables -------------------------------------------------------------------------- */

static bool runs(const struct sim_host *h)
{
	return h->powered && !h->frozen;
}

bool net_reaches(const struct sim *s, const struct sim_host *from, const struct sim_host *to)
{
	return runs(from) && runs(to) && !s->group->cut[from->id][to->id];
}

bool net_reaches_store(const struct sim *s, const struct sim_host *h)
{
	return runs(h) && !h->store_cut;
}

/* knet's link: both directions are needed. */
static bool linked(const struct sim *s, const struct sim_host *a, const struct sim_host *b)
{
	return a == b ? runs(a) : net_reaches(s, a, b) && net_reaches(s, b, a);
}

void group_cut(struct sim *s, const struct sim_host *from, const struct sim_host *to, bool cut)
{
	s->group->cut[from->id][to->id] = cut;
}

void group_heal_cables(struct sim *s)
{
	memset(s->group->cut, 0, sizeof(s->group->cut));
}

bool group_is_connected(const struct sim_host *h)
{
	return h->port->up && h->port->joined && h->port->config;
}

bool group_same_ring(const struct sim_host *a, const struct sim_host *b)
{
	return a->port->up && b->port->up && a->port->ring == b->port->ring;
}

bool group_device_votes(const struct sim *s, const struct sim_host *h)
{
	/* What votequorum says is about a ring; clusterd takes it only for the one that it knows. And it counts every host that is in
	 * corosync.conf: the device and fewer than half of them are no quorum. */
	if (!h->port->up || h->port->told_ring != h->port->ring || 2 * s->group->ring_size[h->id] < s->o.hosts)
		return false;
	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (s->host[i].powered && !s->host[i].frozen && group_is_connected(&s->host[i]))
			return group_same_ring(h, &s->host[i]);
	return false;
}

/* ---- delivery ---------------------------------------------------------------------------- */

static void process(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_port *port = h->port;

	port->in_busy = false;
	for (unsigned i = 0; i < BATCH && port->in.n && host_clusterd_answers(h); i++) {
		struct item item = items_pop(&port->in);

		if (item.view)
			host_on_view(s, h, item.view->id, item.view->members, item.view->n);
		else
			host_on_message(s, h, item.msg->sender, item.msg->data, item.msg->len);
		msg_unref(item.msg);
		config_unref(item.view);
	}
	group_kick(s, h);
}

static void push_in(struct sim *s, struct sim_host *h, struct item item)
{
	if (item.msg)
		item.msg->refs++;
	if (item.view)
		item.view->refs++;
	items_push(&h->port->in, item);
	group_kick(s, h);
}

/* Does the configuration of this host still match the cables? */
static bool intact(const struct sim *s, const struct sim_host *h)
{
	const struct config *c = h->port->config;

	for (size_t i = 0; i < c->n; i++) {
		const struct sim_host *to = &s->host[c->members[i]];

		if (!linked(s, h, to) || to->port->config != c || to->port->story != h->port->story)
			return false;
	}
	return true;
}

/* What h sends in its configuration gets there; to a frozen host too, which finds it when it thaws. */
static bool hears(const struct sim *s, const struct sim_host *h, const struct sim_host *to)
{
	if (to->port->config != h->port->config || to->port->story != h->port->story || !to->powered)
		return false;
	return !s->group->cut[h->id][to->id] && !s->group->cut[to->id][h->id];
}

static bool all_hear(const struct sim *s, const struct sim_host *h)
{
	const struct config *c = h->port->config;

	for (size_t i = 0; i < c->n; i++)
		if (!hears(s, h, &s->host[c->members[i]]))
			return false;
	return true;
}

/* A part delivers what the rest of its configuration does not: from here on they have nothing more in common. */
static void part_from_rest(struct sim *s, struct sim_host *h)
{
	struct config *c = h->port->config;
	struct sim_host *heard[SIM_HOSTS_MAX];
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++)
		if (hears(s, h, &s->host[c->members[i]]))
			heard[n++] = &s->host[c->members[i]];
	s->group->next_story++;
	while (n)
		heard[--n]->port->story = s->group->next_story;
	c->broken = true;
}

static void order(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_port *port = h->port;
	bool whole;

	port->out_busy = false;
	if (!port->out.n || !port->up || !port->config || !runs(h))
		return;
	whole = intact(s, h);
	/* The cable is cut and nobody knows: the token is lost, or the last turn still delivers to those it reaches. */
	if (!whole && sim_chance(s, 0.7))
		return;
	if (!all_hear(s, h))
		part_from_rest(s, h);
	for (unsigned i = 0; i < BATCH && port->out.n; i++) {
		struct item item = items_pop(&port->out);

		for (size_t k = 0; k < port->config->n; k++) {
			struct sim_host *to = &s->host[port->config->members[k]];

			if (hears(s, h, to))
				push_in(s, to, item);
		}
		msg_unref(item.msg);
	}
	group_kick(s, h);
}

void group_kick(struct sim *s, struct sim_host *h)
{
	struct sim_port *port = h->port;

	if (port->in.n && !port->in_busy && host_clusterd_answers(h)) {
		port->in_busy = true;
		sim_after(s, 20 + sim_random(s, 150), h, LIFE_CLUSTERD, process, 0, NULL, NULL);
	}
	if (port->out.n && !port->out_busy && port->up && port->config) {
		port->out_busy = true;
		sim_after(s, 60 + sim_random(s, 250), h, LIFE_POWER, order, 0, NULL, NULL);
	}
}

void group_send(struct sim *s, struct sim_host *h, const uint8_t *data, size_t len)
{
	struct msg *m;

	if (!h->port->up || !h->port->joined)
		return;
	m = mem_alloc(sizeof(*m) + len);
	*m = (struct msg){.refs = 1, .sender = h->id, .len = len};
	memcpy(m->data, data, len);
	items_push(&h->port->out, (struct item){.msg = m});
	group_kick(s, h);
}

/* ---- membership ------------------------------------------------------------------------------ */

static bool in_ring(const struct sim_host *h)
{
	return runs(h) && h->port->up;
}

/* Islands of hosts that all reach each other; where the links are no islands, one of the ways to part them. */
static unsigned part(struct sim *s, unsigned *island, bool *ret_unstable)
{
	unsigned order[SIM_HOSTS_MAX], n = 0, islands = 0;

	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (in_ring(&s->host[i]))
			order[n++] = i;
	for (unsigned i = n; i > 1; i--) {
		unsigned k = (unsigned)sim_random(s, i), t = order[i - 1];

		order[i - 1] = order[k];
		order[k] = t;
	}
	for (unsigned i = 0; i < n; i++) {
		struct sim_host *h = &s->host[order[i]];

		for (unsigned c = 1; c <= islands && !island[h->id]; c++) {
			bool fits = true, touches = false;

			for (unsigned k = 0; k < i; k++) {
				bool link = linked(s, h, &s->host[order[k]]);

				if (island[order[k]] == c)
					fits = fits && link;
				touches = touches || (link && island[order[k]] == c);
			}
			if (fits)
				island[h->id] = c;
			else
				*ret_unstable = *ret_unstable || touches;
		}
		if (!island[h->id])
			island[h->id] = ++islands;
	}
	return islands;
}

void group_tell_ring(struct sim *s, struct sim_host *h)
{
	if (s->group->ring_size[h->id])
		host_on_ring(s, h, s->group->rings[h->id], s->group->ring_size[h->id]);
}

static void tell_ring(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	h->port->told_ring = h->port->ring;
	host_on_ring(s, h, s->group->rings[h->id], s->group->ring_size[h->id]);
}

/* True: one of its hosts is told of other hosts than before. */
static bool new_ring(struct sim *s, const unsigned *island, unsigned which)
{
	bool changed = false;
	uint32_t ids[SIM_HOSTS_MAX];
	uint64_t ring = ++s->group->next_ring;
	unsigned n = 0;

	for (unsigned i = 1; i <= s->o.hosts; i++)
		if (island[i] == which)
			ids[n++] = i;
	for (unsigned i = 0; i < n; i++) {
		struct sim_host *h = &s->host[ids[i]];
		bool same = s->group->ring_size[h->id] == n && !memcmp(s->group->rings[h->id], ids, n * sizeof(*ids));

		h->port->ring = ring;
		s->group->ring_size[h->id] = n;
		memcpy(s->group->rings[h->id], ids, n * sizeof(*ids));
		/* Another file descriptor: before or after the group's view. */
		changed = changed || !same;
		if (same)
			h->port->told_ring = ring;
		else
			sim_after(s, sim_random(s, 6000), h, LIFE_CLUSTERD, tell_ring, 0, NULL, NULL);
	}
	return changed;
}

/* The others of its configuration have had another one since. */
static bool slept(const struct sim *s, const struct sim_host *h, const uint32_t *members, size_t n)
{
	const struct config *c = h->port->config;

	for (size_t i = 0; c && i < n; i++)
		for (size_t k = 0; k < c->n; k++)
			if (c->members[k] == members[i] && s->host[members[i]].port->config && s->host[members[i]].port->config != c)
				return true;
	return false;
}

/* One who slept through it sees itself alone first; another one may, when the ring is another. */
static void say_alone(struct sim *s, struct sim_host *h)
{
	struct config *alone = mem_alloc(sizeof(*alone));

	*alone = (struct config){.refs = 1, .id = ++s->group->next_config, .members = {h->id}, .n = 1};
	push_in(s, h, (struct item){.view = alone});
	config_unref(alone);
}

/* Those of one configuration who delivered different things in it do not leave it together: each part is by itself first. */
static void say_parts(struct sim *s, const uint32_t *members, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct sim_port *port = s->host[members[i]].port;
		struct config *part = mem_alloc(sizeof(*part));
		bool alike = true, said = false;

		*part = (struct config){.refs = 1};
		for (size_t k = 0; k < n && port->config; k++) {
			const struct sim_port *other = s->host[members[k]].port;

			if (other->config == port->config && other->story == port->story) {
				part->members[part->n++] = members[k];
				said = said || k < i;
			} else {
				alike = alike && other->config != port->config;
			}
		}
		if (!alike && !said) {
			part->id = ++s->group->next_config;
			for (size_t k = 0; k < part->n; k++)
				push_in(s, &s->host[part->members[k]], (struct item){.view = part});
		}
		config_unref(part);
	}
}

static void new_config(struct sim *s, const uint32_t *members, size_t n, bool new_ring)
{
	double alone[SIM_HOSTS_MAX];
	struct config *c = mem_alloc(sizeof(*c)), *first = s->host[members[0]].port->config;
	bool same = first && first->n == n && !first->broken && !memcmp(first->members, members, n * sizeof(*members));

	for (size_t i = 0; i < n; i++)
		same = same && s->host[members[i]].port->config == first;
	if (same) {
		/* The cables are whole again before the ring was given up: what the token left behind goes on. */
		for (size_t i = 0; i < n; i++)
			group_kick(s, &s->host[members[i]]);
		free(c);
		return;
	}
	*c = (struct config){.refs = 1, .id = ++s->group->next_config, .n = n};
	memcpy(c->members, members, n * sizeof(*members));
	say_parts(s, members, n);
	for (size_t i = 0; i < n; i++)
		alone[i] = slept(s, &s->host[members[i]], members, n) ? 0.5 : new_ring ? 0.1 : 0;
	for (size_t i = 0; i < n; i++) {
		struct sim_host *h = &s->host[members[i]];

		if (h->port->config && n > 1 && sim_chance(s, alone[i]))
			say_alone(s, h);
		set_config(h->port, c);
		push_in(s, h, (struct item){.view = c});
	}
	if (s->o.trace) {
		struct buf text = {0};

		for (size_t i = 0; i < n; i++)
			buf_printf(&text, " %u", members[i]);
		sim_say(s, "corosync: configuration %lu is%s", c->id, buf_str(&text));
		buf_free(&text);
	}
	for (size_t i = 0; i < n; i++)
		group_kick(s, &s->host[members[i]]);
	config_unref(c);
}

/* The token is lost before corosync knows why: until then no configuration changes. 0: nothing is waited for. */
static uint64_t not_noticed_until(struct sim *s)
{
	uint64_t until = 0;

	for (unsigned i = 1; i <= s->o.hosts; i++) {
		for (unsigned k = 1; k < i; k++) {
			struct sim_host *a = &s->host[i], *b = &s->host[k];
			uint64_t *notice = &s->group->notice[i][k];

			if (linked(s, a, b) && a->port->up && b->port->up)
				*notice = 0;
			else if (!*notice)
				*notice = s->now_us + TOKEN_US + sim_random(s, NOTICE_US);
			if (*notice > s->now_us && *notice > until && a->port->ring && a->port->ring == b->port->ring)
				until = *notice;
		}
	}
	return until;
}

static void reconfigure(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	unsigned island[SIM_HOSTS_MAX + 1] = {0}, islands;
	uint64_t until = not_noticed_until(s);
	bool unstable = false;

	if (until) {
		if (until != s->group->waits_until)
			sim_after(s, until - s->now_us, NULL, LIFE_POWER, reconfigure, 0, NULL, NULL);
		s->group->waits_until = until;
		return;
	}
	islands = part(s, island, &unstable);
	for (unsigned c = 1; c <= islands; c++) {
		uint32_t members[SIM_HOSTS_MAX];
		bool other = new_ring(s, island, c);
		size_t n = 0;

		for (unsigned i = 1; i <= s->o.hosts; i++)
			if (island[i] == c && s->host[i].port->joined)
				members[n++] = i;
		if (n)
			new_config(s, members, n, other);
	}
	if (unstable)
		group_changed(s, UNSTABLE_US / 2 + sim_random(s, UNSTABLE_US));
}

void group_changed(struct sim *s, uint64_t detect_us)
{
	not_noticed_until(s);
	sim_after(s, detect_us, NULL, LIFE_POWER, reconfigure, 0, NULL, NULL);
}

/* ---- processes ---------------------------------------------------------------------------------- */

void group_corosync(struct sim *s, struct sim_host *h, bool up)
{
	struct sim_port *p = h->port;

	/* One that comes back so soon that the others have not missed it is a new one all the same. */
	if (up)
		p->ring = 0;
	p->up = up;
	p->in_busy = p->out_busy = false;
	items_clear(&p->out);
	if (up)
		return;
	items_clear(&p->in);
	set_config(p, NULL);
	p->joined = false;
	s->group->ring_size[h->id] = 0;
}

void group_join(struct sim *s, struct sim_host *h)
{
	if (!h->port->up || h->port->joined)
		return;
	h->port->joined = true;
	h->port->in_busy = h->port->out_busy = false;
	/* Who has just come asks who is in the ring. */
	if (s->group->ring_size[h->id])
		sim_after(s, 1000, h, LIFE_CLUSTERD, tell_ring, 0, NULL, NULL);
	group_changed(s, 2000 + sim_random(s, 20000));
}

void group_leave(struct sim *s, struct sim_host *h)
{
	struct sim_port *p = h->port;

	if (!p->joined)
		return;
	p->joined = false;
	p->in_busy = false;
	items_clear(&p->in);
	items_clear(&p->out);
	set_config(p, NULL);
	group_changed(s, 2000 + sim_random(s, 25000));
}

void group_port_new(struct sim_host *h)
{
	h->port = mem_alloc(sizeof(*h->port));
}

void group_new(struct sim *s)
{
	s->group = mem_alloc(sizeof(*s->group));
}

void group_free(struct sim *s)
{
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct sim_port *p = s->host[i].port;

		items_clear(&p->in);
		items_clear(&p->out);
		set_config(p, NULL);
		free(p->in.list);
		free(p->out.list);
		free(p);
	}
	free(s->group);
}
