/* One member of the cluster, whole and pure: the log, the model that it carries, this node's commands on their way, the
 * leader's manager, what this host's agent is told and what its reports ask for. Everything that clusterd decides is
 * decided below this header; the daemon beside it and the simulator (tests/sim) only carry out.
 *
 *   corosync, disk, clients, agent, fences, clock -> node_step(event) -> act(action), one by one
 *
 * Ownership: an action's pointers are valid during the call of act(). act() may call node_step() again (an answer that
 * makes a client ask on): such an event is taken when the present one is done. An event's pointers are the caller's unless
 * it says otherwise.
 *
 * A member *steps out* (STOPPED) when it must not decide any more: its disk failed, its state differs from that of the others,
 * its program is too old, it was removed. It leaves the group and its agent, whose domains go on; it still answers questions. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "clusterd/core/clog.h"
#include "clusterd/core/model.h"
#include "clusterd/core/proposals.h"
#include "lib/err.h"

#define NODE_HOLD_MS 5000            /* a client's command waits so long for a sync to end */
#define NODE_TICK_MS 50              /* NODE_EVENT_TICK comes at least this often */
#define NODE_SOFT_KIND_AUDIT 2       /* ClogSoft.kind of our own; all others are handed on */

struct node;

enum node_event_type {
	NODE_EVENT_TICK,
	NODE_EVENT_CONNECTED,      /* corosync has taken us into the group */
	NODE_EVENT_DISCONNECTED,   /* corosync is gone; text says why */
	NODE_EVENT_VIEW,           /* a new configuration of the group */
	NODE_EVENT_RING,           /* node ids whose corosync is in the ring, also where no clusterd runs */
	NODE_EVENT_VOTEQUORUM,     /* what corosync's own quorum says; only a tie-breaker's vote counts (node_tie.c) */
	NODE_EVENT_MESSAGE,
	NODE_EVENT_DISK_DONE,      /* of NODE_ACTION_DISK, in order */
	NODE_EVENT_SNAPSHOT_DONE,  /* of NODE_ACTION_SNAPSHOT */
	NODE_EVENT_PROPOSE,
	NODE_EVENT_SOFT,           /* gossip to send */
	NODE_EVENT_AGENT,          /* this host's agent came or went */
	NODE_EVENT_REPORT,         /* and what it says */
	NODE_EVENT_FENCED,         /* a fence run ended */
};

struct node_event {
	enum node_event_type type;
	uint64_t now_ms;           /* monotonic */
	uint64_t wall_ms;          /* for people, in commands */
	union {
		struct { const char *text; } disconnected;
		struct { uint64_t id; const uint32_t *members; size_t n_members; } view;
		struct { const uint32_t *nodes; size_t n; } ring;
		/* device: a quorum device is configured, and its vote is ours now. */
		struct { bool known, quorate, device_configured, device_votes; } votequorum;
		struct { uint32_t sender; const uint8_t *data; size_t len; } message;
		struct { uint64_t serial; int rc; const char *text; } disk_done;
		struct { uint64_t index; int rc; } snapshot_done;
		/* command: the caller's; its header is filled in. cb exactly once, unless the node is freed before. patient: a client's, which waits for
		 * a sync to end; others are answered STATUS_RETRY at once. */
		struct { Gantry__Command *command; bool patient; proposal_cb cb; void *data; } propose;
		struct { uint32_t kind; const uint8_t *data; size_t len; } soft;
		struct { bool connected; } agent;
		struct { Gantry__AgentReport *report; } report;   /* taken over */
		/* by_time: the proof is that the host's watchdog must have fired by now. */
		struct { const char *host; int rc; const char *text; bool by_time; } fenced;
	} u;
};

enum node_action_type {
	NODE_ACTION_SEND,          /* to the group */
	NODE_ACTION_DISK,          /* one durable transaction; batches are done in order */
	NODE_ACTION_SNAPSHOT,      /* store the model's state beside the log; the log may be shortened then */
	NODE_ACTION_REMEMBER,      /* the disk's mark "this log was lost" may go, after the batches so far */
	NODE_ACTION_FENCE,         /* run this host's fence devices; at most one run a host */
	NODE_ACTION_FENCE_CANCEL,  /* all of them: we do not lead any more */
	NODE_ACTION_GOALS,         /* to the agent */
	NODE_ACTION_QUORUM,        /* to the agent, every DEADLINE_HEARTBEAT_MS */
	NODE_ACTION_SOFT,          /* gossip received */
	NODE_ACTION_APPLIED,       /* a command was applied: for the simulator's checkers; the daemon has no use for it */
	NODE_ACTION_CHANGED,       /* the model, the membership, or both: look again */
	NODE_ACTION_STOPPED,       /* out of the cluster until the process begins again: leave the group and the agent */
	NODE_ACTION_NOTE,          /* for the journal */
};

enum node_level { NODE_ERROR, NODE_WARNING, NODE_NOTICE, NODE_INFO, NODE_DEBUG };

struct node_action {
	enum node_action_type type;
	union {
		struct { const uint8_t *data; size_t len; const char *reason; } send;
		const struct clog_disk_batch *disk;
		struct { uint64_t index, epoch; const uint8_t *data; size_t len; const uint32_t *voters; size_t n_voters; } snapshot;
		struct { const Gantry__Host *host; } fence;
		const Gantry__AgentGoals *goals;
		struct { bool quorate; uint64_t epoch; } quorum;
		struct { uint32_t sender, kind; const uint8_t *data; size_t len; } soft;
		struct { uint64_t index, epoch; const uint8_t *command; size_t len; const Gantry__CommandResult *result; bool installed; } applied;
		struct { bool model, membership; } changed;
		struct { const char *why; } stopped;
		struct { enum node_level level; const char *text; } note;
	} u;
};

typedef void (*node_act_fn)(void *data, const struct node_action *action);

struct node_options {
	const char *host;            /* own name, copied */
	node_act_fn act;
	void *data;
	uint64_t snapshot_every;     /* applied commands between two snapshots; 0: LIMIT_STORE_SNAPSHOT_EVERY */
	uint64_t audit_every;        /* between two comparisons of the state; 0: LIMIT_AUDIT_EVERY */
};

struct node *node_new(const struct node_options *options);
void node_free(struct node *n);   /* proposals under way are not answered */
/* What the disk held: the model as of the snapshot. Before node_begin(). */
int node_install(struct node *n, const uint8_t *snapshot, size_t len, struct err *err);
/* The log begins: the node id is known. Takes over disk->entries and disk->voters. forgetful: the log was lost and must not
 * speak before it has been taken over from the others. */
void node_begin(struct node *n, uint32_t node_id, struct clog_disk_state *disk, bool forgetful, uint64_t now_ms);
void node_step(struct node *n, const struct node_event *event);
/* Out for good: as if a fault had been found here. */
void node_stop(struct node *n, const char *why);

/* ---- what is */
const struct model *node_model(const struct node *n);
const char *node_host(const struct node *n);
uint32_t node_id(const struct node *n);   /* 0: not begun */
bool node_is_stopped(const struct node *n);
bool node_has_log(const struct node *n);
/* Zeroed (phase IDLE) before it has begun. */
void node_log_status(const struct node *n, struct clog_status *ret);
/* In the quorum, and all that was committed before this epoch is applied: what the model says of goals and owners is of now. */
bool node_is_current(const struct node *n);
/* Current, and a quorum was heard within the last seconds: what this host's agent is told. A corosync that hangs tells us
 * nothing; neither does hearing only ourselves. */
bool node_is_quorate(const struct node *n);
bool node_agent_reports(const struct node *n);
const Gantry__AgentReport *node_agent_report(const struct node *n);   /* NULL: none on this connection yet */
/* For people: "normal", "no quorum: 1 of 3 voters is here (hostA); hostB, hostC are missing", ... */
const char *node_state_text(const struct node *n, struct buf *out);
