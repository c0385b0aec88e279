/* The leader's decisions, pure: model + membership + time in, commands to propose and fences to run out.
 * Runs only on the leader of a NORMAL epoch; a new leader starts with a fresh manager and finds everything in the model
 * (nothing here must survive its process). Every command carries the epoch and a reason. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "clusterd/core/model.h"

/* vCPUs that may be promised for each CPU of a host. */
#define PLACEMENT_VCPUS_PER_CPU 8

struct manager;

enum manager_event_type {
	MANAGER_EVENT_MODEL,        /* the model changed (after applying) */
	MANAGER_EVENT_MEMBERS,      /* the membership: node ids that are in the quorate view and synced, and those only in the view */
	MANAGER_EVENT_FENCED,       /* a fence run ended */
	MANAGER_EVENT_TICK,         /* at least once a second */
	MANAGER_EVENT_REFUSED,      /* a command that we proposed was refused or dropped: think again */
};
struct manager_event {
	enum manager_event_type type;
	uint64_t now_ms;            /* monotonic */
	uint64_t wall_ms;           /* as in the commands of this host */
	uint64_t epoch;             /* the epoch in which this node leads */
	union {
		/* nodes: whose corosync is in the ring, also where no clusterd runs just now (none given: the members). */
		struct { const uint32_t *members; size_t n_members; const uint32_t *synced; size_t n_synced; const uint32_t *nodes; size_t n_nodes;
			 /* Until then who has not been seen since the quorum formed may still be booting (monotonic; 0: nobody is waited for). */
			 uint64_t patience_until_ms; const uint32_t *seen; size_t n_seen; } members;
		/* rc 0: text is the proof; else the failure. by_time: the proof is that a watchdog must have fired by now. */
		struct { const char *host; int rc; const char *text; bool by_time; } fenced;
	} u;
};

enum manager_action_type { MANAGER_ACTION_PROPOSE, MANAGER_ACTION_FENCE };
struct manager_action {
	enum manager_action_type type;
	const char *reason;                 /* for people; in the trace and in the event history */
	const Gantry__Command *command;     /* PROPOSE: complete but for proposer and time_ms */
	const char *host;                   /* FENCE: fence this host by its devices in the model */
};

struct manager *manager_new(void);
void manager_free(struct manager *mgr);
/* Actions are valid until the next step. At most one outstanding proposal per domain and host: no storms of repeats. */
void manager_step(struct manager *mgr, const struct model *m, const struct manager_event *event, const struct manager_action **ret, size_t *ret_n);

/* Placement by itself, also for `clusterctl create --dry-run` and tests: the host for a spec, or NULL with the reasons of every host
 * in ret_reason ("hostA: needs 2048 MiB, 512 MiB free; hostB: lost"). reason is for people in both cases. exclude may be NULL. */
const Gantry__Host *placement_choose(const struct model *m, const Gantry__DomainSpec *spec, const char *wanted_host, const char *exclude, struct buf *ret_reason);
