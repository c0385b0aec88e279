/* The replicated log: a pure state machine over a totally ordered group (corosync CPG). Time, messages, disk
 * completions come in as events; messages, disk work and commits go out as actions. See docs/log.md for the protocol
 * and its argument of safety.
 *
 * A *view* is one configuration of the group: the members and the ring, as a 64-bit id that all its members compute
 * alike. Every SYNC message names its view, every other one its epoch: what was queued in an older view is refused.
 *
 *   IDLE      no view, or a view without a quorum of voters: no command is accepted
 *   SYNC      members state (promised epoch, last epoch, last index); the first statements in the total order that make
 *             a quorum decide the winner (the most advanced log, then the lowest node id) and the new epoch
 *   ADOPT     own log is made equal to the winner's, the new epoch is made durable, ADOPTED (naming the winner) is said
 *   NORMAL    a quorum has ADOPTED the same winner: it leads this epoch. PROPOSE goes to it, it gives the command its index
 *             and multicasts APPEND. Appended -> fsynced -> ACK. Committed = acked in this epoch by a quorum of the voters.
 *             A member that is late stays in ADOPT beside them and joins when it has caught up.
 *   FAULTY    own disk failed or the log diverged: takes no part, says why
 *
 * The total order makes this quick (one message each way, the same decision everywhere), but safety does not rest on it:
 * at a change corosync may deliver to one part of the members what another part gets in another order or never.
 *
 * Ownership: actions are valid until the next clog_step(); their pointers belong to the clog unless they say otherwise. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/clog.pb-c.h"

struct clog;

enum clog_phase { CLOG_IDLE, CLOG_SYNC, CLOG_ADOPT, CLOG_NORMAL, CLOG_FAULTY };

/* What the disk held when the process started. entries: contiguous from first_index. */
struct clog_disk_state {
	uint64_t promised_epoch;
	uint64_t commit_index;           /* known to be committed (may lag) */
	uint64_t snapshot_index, snapshot_epoch;  /* 0: none; the state after this entry is kept by the model's store */
	Gantry__LogEntry **entries;      /* taken over by clog_new */
	size_t n_entries;
	uint32_t *voters; size_t n_voters; /* as of the snapshot (later membership commands are found in the entries) */
	uint64_t voters_index;
	uint64_t kept_entries;           /* behind a snapshot, for members that were away; 0: LIMIT_CLOG_KEPT_ENTRIES */
};

/* Reads the voters out of a command: true if it changes them. Given by the model (clusterd/core/model.h) or a test. */
typedef bool (*clog_voters_fn)(const uint8_t *command, size_t len, const uint32_t *old, size_t n_old, uint32_t **ret, size_t *ret_n);

enum clog_event_type {
	CLOG_EVENT_VIEW,          /* a new configuration */
	CLOG_EVENT_MESSAGE,       /* delivered in total order, own messages too */
	CLOG_EVENT_DISK_DONE,     /* disk batch `serial` is durable (or rc < 0) */
	CLOG_EVENT_PROPOSE,       /* a local client's command */
	CLOG_EVENT_SNAPSHOT,      /* answer to CLOG_ACTION_NEED_SNAPSHOT */
	CLOG_EVENT_COMPACT,       /* the store has a durable snapshot at `index`: older entries may go */
	CLOG_EVENT_TICK,          /* at least every 100 ms */
	CLOG_EVENT_SOFT,          /* gossip to send */
	CLOG_EVENT_PROVEN,        /* these voters, which are not in the view, are proven dead: if all the others are exactly half, they may decide alone */
	CLOG_EVENT_DISCONNECTED,  /* corosync is gone: as a view without members */
};

struct clog_event {
	enum clog_event_type type;
	uint64_t now_ms;          /* monotonic */
	union {
		struct { uint64_t id; const uint32_t *members; size_t n_members; } view;
		struct { uint32_t sender; const uint8_t *data; size_t len; } message;
		struct { uint64_t serial; int rc; } disk_done;
		struct { const uint8_t *command; size_t len; uint64_t cookie; } propose;   /* cookie comes back in COMMIT or DROPPED */
		struct { uint64_t index, epoch; const uint8_t *data; size_t len; } snapshot;
		struct { uint64_t index; } compact;
		struct { uint32_t kind; const uint8_t *data; size_t len; } soft;
		struct { const uint32_t *nodes; size_t n; } proven;
	} u;
};

enum clog_action_type {
	CLOG_ACTION_MULTICAST,     /* send `data` to the group */
	CLOG_ACTION_DISK,          /* one durable transaction; then CLOG_EVENT_DISK_DONE with its serial. Batches are done in order */
	CLOG_ACTION_COMMIT,        /* entry `index` is committed: apply it. In order, each once per process life, from the snapshot on */
	CLOG_ACTION_DROPPED,       /* own proposal `cookie` will surely not be committed by this node now (rc: -EAGAIN: perhaps it still is; ask again with the same request id) */
	CLOG_ACTION_NEED_SNAPSHOT, /* a member needs the state: answer with CLOG_EVENT_SNAPSHOT (state after the last commit) */
	CLOG_ACTION_INSTALL,       /* replace the model by this snapshot (durable already) */
	CLOG_ACTION_PHASE,         /* phase, leader, epoch or synced set has changed: see clog_status() */
	CLOG_ACTION_SOFT,          /* gossip received */
};

struct clog_disk_batch {
	uint64_t serial;
	uint64_t promised_epoch;          /* always written */
	uint64_t commit_index;            /* always written (a hint) */
	uint64_t truncate_from;           /* 0: nothing; else delete entries with index >= this first */
	bool replace_all;                 /* with a snapshot: delete every entry first */
	const uint8_t *snapshot; size_t snapshot_len; uint64_t snapshot_index, snapshot_epoch;  /* NULL: none */
	const uint32_t *snapshot_voters; size_t n_snapshot_voters;
	Gantry__LogEntry *const *entries; size_t n_entries;   /* append */
};

struct clog_action {
	enum clog_action_type type;
	const char *reason;       /* static, for the trace */
	union {
		struct { const uint8_t *data; size_t len; } multicast;
		const struct clog_disk_batch *disk;
		struct { uint64_t index, epoch; const uint8_t *command; size_t len; bool own; uint64_t cookie; } commit;
		struct { uint64_t cookie; int rc; } dropped;
		struct { uint64_t index, epoch; const uint8_t *data; size_t len; } install;
		struct { uint32_t sender, kind; const uint8_t *data; size_t len; } soft;
	} u;
};

struct clog_status {
	enum clog_phase phase;
	bool quorate;                 /* phase NORMAL reached by a quorum that includes this node */
	uint64_t view, epoch, promised_epoch, last_index, last_epoch, commit_index;
	uint32_t leader;              /* 0: none */
	uint64_t confirmed_ms;        /* when the newest own ACK that has come back in this epoch was sent; 0: none. All that was ordered before is known here */
	const uint32_t *members; size_t n_members;     /* of the view */
	const uint32_t *synced; size_t n_synced;       /* that have ADOPTED in this view */
	const uint32_t *voters; size_t n_voters;
	size_t quorum;                /* votes needed */
	const char *text;             /* static: "normal", "no quorum: 1 of 3 voters here", ... */
};

/* node: own corosync node id. Takes over disk->entries and disk->voters. */
struct clog *clog_new(uint32_t node, struct clog_disk_state *disk, clog_voters_fn voters_of);
void clog_free(struct clog *clog);
/* One event in, any number of actions out (array valid until the next step). */
void clog_step(struct clog *clog, const struct clog_event *event, const struct clog_action **ret, size_t *ret_n);
void clog_get_status(const struct clog *clog, struct clog_status *ret);
/* A member that has lost its log states nothing until it has taken one over: its empty log must not outvote a host that has what both of
 * them once acknowledged. The others agree without it, or not at all. */
void clog_mute(struct clog *clog, bool mute);
/* True: no quorum is here, but CLOG_EVENT_PROVEN of all the other voters would let these members decide. */
bool clog_is_half(struct clog *clog);
