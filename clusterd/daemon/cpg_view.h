/* From corosync's callbacks to views of the group: pure. A view is the members together with the ring they form;
 * corosync tells the two on separate callbacks, the members first. So:
 *   - members changed because nodes came or went: the new ring is still to be told. The view waits for it, and with
 *     it every message delivered meanwhile, for at most CPG_VIEW_HOLD_MS;
 *   - members changed because a process came or went: a view at once, with the ring that is known;
 *   - a new ring with the same members: a view at once.
 * The id of a view is a hash of the ring id, the sorted (node, pid) of the members and, within a ring, of which processes came or went
 * just now: alike on all of them. Without the last, members B and C would have the id that they had before A came whenever A has gone.
 * Ownership: what a sink is given is valid during the call. Limit: what waits is bounded by LIMIT_CPG_HELD_BYTES;
 * past it the view is given out without waiting on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPG_VIEW_HOLD_MS 200

struct cpg_view;

struct cpg_view_member {
	uint32_t node, pid;
};

struct cpg_view_sink {
	/* members: node ids, ascending, each once. */
	void (*on_view)(void *data, uint64_t id, const uint32_t *members, size_t n);
	void (*on_message)(void *data, uint32_t sender, const uint8_t *message, size_t len);
};

struct cpg_view *cpg_view_new(const struct cpg_view_sink *sink, void *data);
struct cpg_view *cpg_view_free(struct cpg_view *view);
/* Forgets everything, as at a new connection. */
void cpg_view_reset(struct cpg_view *view);

/* What made the members change. nodes: one joined or left with the reason NODEUP or NODEDOWN; the processes do not matter then,
 * as a new ring follows (and its parts would be told different ones). */
struct cpg_view_change {
	bool nodes;
	const struct cpg_view_member *joined, *left;
	size_t n_joined, n_left;
};

void cpg_view_members(struct cpg_view *view, const struct cpg_view_member *members, size_t n, const struct cpg_view_change *change, uint64_t now_ms);
void cpg_view_ring(struct cpg_view *view, uint32_t node, uint64_t seq);
void cpg_view_message(struct cpg_view *view, uint32_t sender, const uint8_t *message, size_t len);
/* Call it only when corosync has nothing more to deliver: then the ring is late indeed. */
void cpg_view_tick(struct cpg_view *view, uint64_t now_ms);
bool cpg_view_is_holding(const struct cpg_view *view);
