/* Extended virtual synchrony as corosync was seen to do it: one total order a configuration; after a cable is cut, and
 * before the token is missed, a part may still deliver its own messages to itself; what was queued in a frozen or cut
 * host is delivered to everyone in the next configuration. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

static void item_free(struct sim_item *item)
{
	free(item->data);
	free(item);
}

void group_clear(struct sim_host *h, bool out_too)
{
	while (h->in) {
		struct sim_item *item = h->in;

		h->in = item->next;
		item_free(item);
	}
	h->in_end = &h->in;
	h->in_busy = false;
	if (!out_too)
		return;
	while (h->out) {
		struct sim_item *item = h->out;

		h->out = item->next;
		item_free(item);
	}
	h->out_end = &h->out;
	h->out_busy = false;
}

static bool connected(const struct sim *s, const struct sim_host *a, const struct sim_host *b)
{
	return b->state == HOST_UP && s->part[a->id] == s->part[b->id];
}

static void process(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	struct sim_item *item = h->in;

	if (life != h->life)
		return;
	h->in_busy = false;
	if (!item || h->state != HOST_UP || h->hung)
		return;
	h->in = item->next;
	if (!h->in)
		h->in_end = &h->in;
	host_deliver(s, h, item);
	item_free(item);
	group_kick(s, h);
}

static void push_in(struct sim *s, struct sim_host *h, const struct sim_item *what)
{
	struct sim_item *item = mem_dup(what, sizeof(*what));

	item->next = NULL;
	item->data = what->len ? mem_dup(what->data, what->len) : NULL;
	*h->in_end = item;
	h->in_end = &item->next;
	group_kick(s, h);
}

/* Does the configuration of this host still match the cables? */
static bool intact(const struct sim *s, const struct sim_host *h)
{
	for (size_t i = 0; i < h->config->n; i++)
		if (!connected(s, h, &s->host[h->config->members[i]]))
			return false;
	return true;
}

static void order(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	struct sim_item *item = h->out;

	if (life != h->life)
		return;
	h->out_busy = false;
	if (!item || h->state != HOST_UP || !h->config)
		return;
	/* The cable is cut and nobody knows: the token is lost, or the last turn still delivers to those it reaches. */
	if (!intact(s, h) && sim_chance(s, 0.7))
		return;
	h->out = item->next;
	if (!h->out)
		h->out_end = &h->out;
	for (size_t i = 0; i < h->config->n; i++) {
		struct sim_host *to = &s->host[h->config->members[i]];

		if (connected(s, h, to) && to->config == h->config)
			push_in(s, to, item);
		else
			h->config->broken = true;
	}
	item_free(item);
	group_kick(s, h);
}

void group_kick(struct sim *s, struct sim_host *h)
{
	if (h->in && !h->in_busy && h->state == HOST_UP && !h->hung) {
		h->in_busy = true;
		sim_after(s, 5 + sim_random(s, 60), process, h, 0, NULL);
	}
	if (h->out && !h->out_busy && h->state == HOST_UP) {
		h->out_busy = true;
		sim_after(s, 20 + sim_random(s, 300), order, h, 0, NULL);
	}
}

void group_send(struct sim *s, struct sim_host *h, const uint8_t *data, size_t len)
{
	struct sim_item *item = mem_alloc(sizeof(*item));

	item->sender = h->id;
	item->data = mem_dup(data, len);
	item->len = len;
	*h->out_end = item;
	h->out_end = &item->next;
	group_kick(s, h);
}

static void give_view(struct sim *s, struct sim_host *h, struct sim_config *config)
{
	struct sim_item item = {.view = true, .view_id = config->id, .n_members = config->n};

	memcpy(item.members, config->members, sizeof(item.members));
	h->config = config;
	push_in(s, h, &item);
}

static bool same_members(const struct sim_config *a, const struct sim_config *b)
{
	return a && a->n == b->n && !memcmp(a->members, b->members, a->n * sizeof(*a->members));
}

static void reform(struct sim *s, struct sim_host *none, uint64_t life, uint64_t force, void *p)
{
	bool done[SIM_HOSTS_MAX + 1] = {0};

	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct sim_host *h = &s->host[i];
		struct sim_config *config;
		bool changed = false;

		if (done[i] || h->state != HOST_UP)
			continue;
		config = mem_alloc(sizeof(*config));   /* kept until the end of the run: events may name it */
		config->id = ++s->next_config;
		for (unsigned k = i; k <= s->o.hosts; k++)
			if (connected(s, h, &s->host[k])) {
				config->members[config->n++] = k;
				done[k] = true;
			}
		for (size_t k = 0; k < config->n; k++) {
			struct sim_host *m = &s->host[config->members[k]];

			changed |= !same_members(m->config, config) || m->config != h->config || m->config->broken;
		}
		sim_after(s, UINT32_MAX * 4096ull, NULL, NULL, 0, config);
		if (!changed)
			continue;
		sim_trace(s, "group: configuration %lu of %zu hosts, first %u", config->id, config->n, config->members[0]);
		for (size_t k = 0; k < config->n; k++)
			give_view(s, &s->host[config->members[k]], config);
	}
}

void group_changed(struct sim *s, uint64_t detect_us)
{
	sim_after(s, detect_us, reform, NULL, 0, NULL);
}
