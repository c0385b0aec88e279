/* The commands of this node on their way: from who asks to the answer that applying gave. Pure bookkeeping.
 * A proposal WAITS (a sync is under way) or is SENT (the log has it under its cookie). It is answered exactly once.
 * Limit: LIMIT_NODE_WAITING of clients and in all LIMIT_CLOG_PENDING (clog). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"
#include "proto/model.pb-c.h"

/* result is valid during the call. */
typedef void (*proposal_cb)(void *data, const Gantry__CommandResult *result);

struct proposal {
	uint64_t cookie;
	struct buf packed;
	proposal_cb cb;
	void *data;
	bool free_data;        /* data goes with the proposal */
	bool patient;          /* may wait for a sync to end, and be sent again */
	bool repeatable;       /* carries a request id: sending it twice applies it once */
	bool first;            /* makes the cluster: goes to a log without voters */
	bool sent;
	uint64_t deadline_ms;  /* of waiting */
};

struct proposals {
	struct proposal **list;
	size_t n, cap;
	uint64_t next_cookie;
};

struct proposal *proposals_add(struct proposals *ps);
struct proposal *proposals_find(struct proposals *ps, uint64_t cookie);
/* The first one with a larger cookie, in the order in which they came; NULL at the end. */
struct proposal *proposals_after(struct proposals *ps, uint64_t cookie);
/* Takes it out of the table, answers it, frees it. */
void proposals_answer(struct proposals *ps, struct proposal *p, const Gantry__CommandResult *result);
/* The same with a status and text of our own. */
void proposals_refuse(struct proposals *ps, struct proposal *p, Gantry__Status status, const char *text);
void proposals_free(struct proposals *ps);   /* answers nothing */
