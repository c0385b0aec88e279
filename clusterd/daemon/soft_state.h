/* What the hosts say of themselves that is not worth a log entry: free memory, what runs, pools, migration progress.
 * The newest of each host; gossip over the group, gone with the process. Ownership: the table owns the messages. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/ctl.pb-c.h"

#define SOFT_KIND_HOST 1           /* ClogSoft.kind of a HostSoft */
#define SOFT_STATE_KEPT_MS 15000   /* what is older says nothing any more */

struct soft_host {
	Gantry__HostSoft *soft;
	uint64_t received_ms;
};

struct soft_state {
	struct soft_host *hosts;
	size_t n;
};

/* A delivered gossip. False: not a HostSoft, or not of its sender. */
bool soft_state_put(struct soft_state *s, uint32_t sender, const uint8_t *data, size_t len, uint64_t now_ms);
/* Drops what is too old. */
void soft_state_age(struct soft_state *s, uint64_t now_ms);
/* NULL if the host says nothing. Borrowed. */
const Gantry__HostSoft *soft_state_host(const struct soft_state *s, uint32_t node_id);
/* The newest progress of a job as `node_id` told it, NULL if none. */
Gantry__MigrationProgress *soft_state_progress(const struct soft_state *s, uint32_t node_id, uint64_t job_id);
void soft_state_free(struct soft_state *s);
