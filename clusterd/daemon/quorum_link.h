/* What corosync's own votequorum says. The platform's quorum is counted by the log from its voters and the members of the
 * view; where the two disagree a corosync.conf is out of date, which is shown. One thing counts here as well: whether there is a
 * quorum device, and whether its vote is ours (clusterd/core/node_tie.c).
 * Asked every QUORUM_LINK_MS in the thread pool, as an answer may be long in coming; the connections are kept meanwhile. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define QUORUM_LINK_MS 1000

struct quorum_link;

struct quorum_info {
	bool known, quorate;
	bool device_configured;                /* corosync.conf has quorum { device { model: ... } }, whether its daemon runs or not */
	bool device_votes;                     /* it is registered and alive, and gives this side its vote */
	/* The ring that quorate is about: votequorum counts anew for each, and waits for the device's vote first. */
	uint32_t ring_node;
	uint64_t ring_seq;
	uint32_t expected_votes, total_votes;
};

typedef void (*quorum_link_cb)(void *data, const struct quorum_info *info);

/* cb comes with each answer, also with one that nothing is known. */
struct quorum_link *quorum_link_new(uv_loop_t *loop, quorum_link_cb cb, void *data);
struct quorum_info quorum_link_info(const struct quorum_link *ql);
/* No callback from here on. Frees later, on the loop. */
void quorum_link_close(struct quorum_link *ql);
