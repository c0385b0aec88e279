/* The link to corosync's process group "gantry": joins, delivers views and messages in the total order, sends,
 * and joins again by itself whenever corosync comes back. Connecting and leaving run in the thread pool, as a
 * corosync that hangs would block us for ever; all callbacks come on the loop.
 * Limits: LIMIT_CPG_DISPATCH deliveries a turn, LIMIT_CPG_WINDOW own messages not yet delivered to ourselves (libqb spins
 * when more are given to a corosync that hangs), LIMIT_CPG_QUEUE_BYTES waiting to be sent. Past the last one, or after
 * CPG_LINK_SILENT_MS without a delivery of what was sent, the link drops itself and joins anew (the log then syncs), as
 * a message lost in silence would be worse. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "lib/err.h"

#define CPG_LINK_RETRY_MS 500
#define CPG_LINK_SILENT_MS 20000

struct cpg_link;

struct cpg_link_callbacks {
	/* Connected and joining as this node. False: stay away (the link is then closed for good). */
	bool (*on_connected)(void *data, uint32_t node_id);
	/* The hosts whose corosync forms the ring, whether a clusterd runs there or not. Comes before the view of that ring. */
	void (*on_nodes)(void *data, uint32_t ring_node, uint64_t ring_seq, const uint32_t *nodes, size_t n);
	void (*on_view)(void *data, uint64_t id, const uint32_t *members, size_t n);
	void (*on_message)(void *data, uint32_t sender, const uint8_t *message, size_t len);
	/* corosync is gone, or the link dropped itself. why: for people, said once a loss. */
	void (*on_disconnected)(void *data, const char *why);
	void (*on_closed)(void *data);
};

/* Starts at once; the callbacks say how it goes. */
struct cpg_link *cpg_link_new(uv_loop_t *loop, const struct cpg_link_callbacks *callbacks, void *data);
/* 0, also when it waits for corosync to take it; -ENOTCONN; -EMSGSIZE. */
int cpg_link_send(struct cpg_link *link, const uint8_t *message, size_t len);
/* Leaves the group and does not come back. cpg_link_close() is still needed. */
void cpg_link_leave(struct cpg_link *link);
/* Leaves, frees; on_closed is called once, later. */
void cpg_link_close(struct cpg_link *link);
