#include "clusterd/daemon/cpg_view.h"

#include <stdlib.h>

#include "lib/buf.h"
#include "lib/limits.h"

struct held_message {
	struct held_message *next;
	uint32_t sender;
	size_t len;
	uint8_t data[];
};

struct cpg_view {
	struct cpg_view_sink sink;
	void *data;
	bool ring_known;
	uint32_t ring_node;
	uint64_t ring_seq;
	struct cpg_view_member *members;   /* sorted */
	size_t n_members;
	uint64_t change;                   /* which processes came or went last; 0: nodes did */
	bool holding;
	uint64_t holding_since_ms;
	struct held_message *head, **tail;
	size_t held_bytes;
};

struct cpg_view *cpg_view_new(const struct cpg_view_sink *sink, void *data)
{
	struct cpg_view *view = mem_alloc(sizeof(*view));

	view->sink = *sink;
	view->data = data;
	view->tail = &view->head;
	return view;
}

void cpg_view_reset(struct cpg_view *view)
{
	while (view->head) {
		struct held_message *gone = view->head;

		view->head = gone->next;
		free(gone);
	}
	view->tail = &view->head;
	view->held_bytes = 0;
	view->n_members = 0;
	view->change = 0;
	view->holding = view->ring_known = false;
}

struct cpg_view *cpg_view_free(struct cpg_view *view)
{
	if (!view)
		return NULL;
	cpg_view_reset(view);
	free(view->members);
	free(view);
	return NULL;
}

/* FNV-1a over bytes in a fixed order, so that hosts of either byte order agree. */
static uint64_t hash_number(uint64_t hash, uint64_t value)
{
	for (int shift = 0; shift < 64; shift += 8) {
		hash ^= (value >> shift) & 0xff;
		hash *= 0x100000001b3u;
	}
	return hash;
}

static int compare_members(const void *a, const void *b)
{
	const struct cpg_view_member *x = a, *y = b;

	if (x->node != y->node)
		return x->node < y->node ? -1 : 1;
	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

/* Each list comes in the same order everywhere: it is one process at a time, or one message's list. */
static uint64_t hash_change(const struct cpg_view_change *change)
{
	uint64_t hash = hash_number(0xcbf29ce484222325u, change->n_joined);

	for (size_t i = 0; i < change->n_joined; i++)
		hash = hash_number(hash_number(hash, change->joined[i].node), change->joined[i].pid);
	for (size_t i = 0; i < change->n_left; i++)
		hash = hash_number(hash_number(hash, change->left[i].node), change->left[i].pid);
	return hash;
}

/* The view as it is known now, and behind it what was delivered in it. */
static void give_out(struct cpg_view *view)
{
	uint64_t id = hash_number(hash_number(hash_number(0xcbf29ce484222325u, view->ring_node), view->ring_seq), view->change);
	uint32_t *nodes = mem_alloc((view->n_members + 1) * sizeof(*nodes));
	size_t n = 0;
	struct held_message *list = view->head, *next;

	for (size_t i = 0; i < view->n_members; i++) {
		id = hash_number(hash_number(id, view->members[i].node), view->members[i].pid);
		if (!n || nodes[n - 1] != view->members[i].node)
			nodes[n++] = view->members[i].node;
	}
	view->holding = false;
	view->head = NULL;
	view->tail = &view->head;
	view->held_bytes = 0;
	/* 0 is no view's id. */
	view->sink.on_view(view->data, id ? id : 1, nodes, n);
	free(nodes);
	for (; list; list = next) {
		next = list->next;
		view->sink.on_message(view->data, list->sender, list->data, list->len);
		free(list);
	}
}

void cpg_view_members(struct cpg_view *view, const struct cpg_view_member *members, size_t n, const struct cpg_view_change *change, uint64_t now_ms)
{
	/* Two changes in a row, as after a host has slept: the first one is over, its ring will not be told any more. */
	if (view->holding && view->ring_known)
		give_out(view);
	view->members = mem_realloc(view->members, (n + 1) * sizeof(*members));
	for (size_t i = 0; i < n; i++)
		view->members[i] = members[i];
	view->n_members = n;
	qsort(view->members, n, sizeof(*members), compare_members);
	view->change = change->nodes ? 0 : hash_change(change);
	if (change->nodes || !view->ring_known) {
		view->holding = true;
		view->holding_since_ms = now_ms;
	} else {
		give_out(view);
	}
}

void cpg_view_ring(struct cpg_view *view, uint32_t node, uint64_t seq)
{
	bool same = view->ring_known && view->ring_node == node && view->ring_seq == seq;

	view->ring_known = true;
	view->ring_node = node;
	view->ring_seq = seq;
	if (view->holding || (!same && view->n_members))
		give_out(view);
}

void cpg_view_message(struct cpg_view *view, uint32_t sender, const uint8_t *message, size_t len)
{
	struct held_message *held;

	if (!view->holding) {
		view->sink.on_message(view->data, sender, message, len);
		return;
	}
	held = mem_alloc(sizeof(*held) + len);
	held->sender = sender;
	held->len = len;
	for (size_t i = 0; i < len; i++)
		held->data[i] = message[i];
	*view->tail = held;
	view->tail = &held->next;
	view->held_bytes += len;
	if (view->held_bytes > LIMIT_CPG_HELD_BYTES)
		give_out(view);
}

void cpg_view_tick(struct cpg_view *view, uint64_t now_ms)
{
	if (view->holding && now_ms - view->holding_since_ms >= CPG_VIEW_HOLD_MS)
		give_out(view);
}

bool cpg_view_is_holding(const struct cpg_view *view)
{
	return view->holding;
}
