/* What corosync's own votequorum says: for people only. The platform's quorum is counted by the log from its voters
 * and the members of the view; this shows where the two disagree, which means that a corosync.conf is out of date.
 * Asked every QUORUM_LINK_MS in the thread pool, as an answer may be long in coming. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define QUORUM_LINK_MS 5000

struct quorum_link;

struct quorum_info {
	bool known, quorate;
	uint32_t expected_votes, total_votes;
};

struct quorum_link *quorum_link_new(uv_loop_t *loop);
struct quorum_info quorum_link_info(const struct quorum_link *ql);
/* Frees later, on the loop. */
void quorum_link_close(struct quorum_link *ql);
