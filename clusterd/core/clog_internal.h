/* The inside of the replicated log, shared by the clog_*.c files only.
 *   clog_log.c      the entries in memory, epochs of entries, who votes
 *   clog_sync.c     SYNC: statements, the decision, rounds
 *   clog_adopt.c    ADOPT: make the own log equal to the winner's; serve those behind
 *   clog_normal.c   NORMAL: propose, append, ack, commit
 *   clog.c          events in, actions out, status */
#pragma once

#include "clusterd/core/clog.h"
#include "lib/limits.h"
#include "lib/mutant.h"
#include "proto/pb.h"

#define CLOG_PROTOCOL 1
#define CLOG_SYNC_REPEAT_MS 1000    /* the own statement again, while nothing is decided */
#define CLOG_SYNC_STUCK_MS 6000     /* undecided although a quorum is here: a statement was missed; a new round */
#define CLOG_ADOPT_STUCK_MS 3000    /* no progress of the one that we ask: ask another, or a new round */
#define CLOG_WINNER_SILENT_MS 30000 /* the winner says nothing after its statement: its process hangs. A slow disk needs less */
#define CLOG_HEARTBEAT_MS 1000      /* an ACK although nothing is new, so that a hung leader is found */
#define CLOG_LEADER_SILENT_MS 5000  /* our daemons can be late by more than a second on a loaded host */
#define CLOG_WINDOW 32              /* own PROPOSE messages under way; what comes meanwhile goes as one batch */
#define CLOG_CHUNK_BYTES (700u << 10)
#define CLOG_CHUNKS_PER_REQUEST 4
#define CLOG_ALONE_VOTERS_MAX 4     /* half of so many at most may decide alone */
#define CLOG_ARENA_WORDS 2048       /* a small message is unpacked in here; the parts of a large one that do not fit on the heap */
#define CLOG_TAIL_MAX 50000         /* entries that a late member buffers while it catches up */

struct clog_entry {
	Gantry__LogEntry *e;
	bool own;
	uint64_t cookie;
};

/* Who votes from entry `index` on. */
struct clog_voters {
	uint64_t index;
	uint32_t *ids;
	size_t n;
};

struct clog_batch_note {
	uint64_t serial;
	uint64_t last_index;   /* the log's end once this batch is durable */
	bool adopt;            /* answered with ADOPTED if view and round are still these */
	uint64_t view;
	uint32_t round;
	bool install;          /* then the model takes this snapshot */
	struct buf snapshot;
	uint64_t snapshot_index, snapshot_epoch;
};

struct clog_peer {
	uint32_t node;
	Gantry__ClogSync *sync;   /* its statement in this view and round */
	bool adopted;
	uint64_t acked;
	uint64_t heard_ms;
};

struct clog_proposal {
	uint8_t *data;
	size_t len;
	uint64_t cookie;
};

struct clog_sent {
	uint64_t serial;
	uint64_t *cookies;
	size_t n;
};

/* A snapshot that is being received. */
struct clog_incoming {
	bool wanted;
	uint64_t index, epoch, total;
	struct buf data;
	uint32_t *voters;
	size_t n_voters;
	uint64_t voters_index;
	struct clog_entry *entries;   /* from index + 1 on, until it can all be written at once */
	size_t n_entries, cap_entries;
};

struct clog {
	uint32_t node;
	clog_voters_fn voters_of;
	enum clog_phase phase;
	const char *faulty;

	/* the log as it is after all disk batches given out */
	struct clog_entry *log;
	size_t n_log, cap_log;
	uint64_t first_index;            /* of log[0], also when it is empty: the next one */
	uint64_t snapshot_index, snapshot_epoch;
	uint64_t kept;
	uint64_t promised;
	uint64_t commit, applied;
	struct clog_voters *voters;      /* ascending; [0] as of the snapshot or empty */
	size_t n_voters;

	/* the view */
	uint64_t view;
	uint32_t round;
	uint32_t *members;
	size_t n_members;
	struct clog_peer *peers;         /* one a member, in the order of members */
	uint32_t *said;                  /* nodes in the order in which their statements were delivered */
	size_t n_said;
	uint64_t sync_sent_ms, sync_since_ms;
	uint32_t *proven;                /* dead, as we were told in this view */
	size_t n_proven;

	/* the decision */
	bool decided;
	uint32_t winner;
	uint64_t epoch, base_index, base_epoch;
	uint64_t winner_first;
	bool mute;                       /* clog_mute */
	bool alone;                      /* by half of the voters, the others being proven dead: these are the voters from here on */
	uint32_t *deciding_voters;
	size_t n_deciding_voters;
	uint32_t *deciding_old;          /* the voters before, while their change is not committed */
	size_t n_deciding_old;

	/* ADOPT */
	bool caught_up;                  /* the log (in memory) is the epoch's: what is delivered is appended to it */
	bool own_durable;                /* and so is the disk's: ADOPTED was said */
	uint32_t asking;                 /* who shall send what we lack; 0 nobody */
	uint64_t asked_ms;
	struct clog_incoming in;
	struct clog_entry *tail;         /* entries of this epoch that came before we had caught up */
	size_t n_tail, cap_tail;
	uint64_t tail_from;
	uint32_t snapshot_for;           /* who waits for CLOG_EVENT_SNAPSHOT */

	/* NORMAL */
	bool established;                /* a quorum has ADOPTED our winner: it leads */
	uint64_t next_index;             /* the leader's next free one; what a follower expects next */
	uint32_t leader;
	uint32_t *synced;
	size_t n_synced;
	uint64_t durable;
	uint64_t *acked;                 /* of the voters, while they are counted */
	uint64_t ack_said;
	bool ack_flying;
	uint64_t ack_ms;
	uint64_t confirmed_ms;           /* when the own ACK that came back last was sent */
	struct clog_proposal *queue;
	size_t n_queue, cap_queue;
	struct clog_sent *sent;
	size_t n_sent;
	uint64_t next_serial;

	/* disk */
	struct clog_batch_note *batches;
	size_t n_batches, cap_batches;
	uint64_t next_batch;

	struct clog_arena { ProtobufCAllocator allocator; size_t used; uint64_t room[CLOG_ARENA_WORDS]; } arena;   /* of the message at hand */
	uint64_t now_ms;
	struct clog_action *actions;
	size_t n_actions, cap_actions;
	void **garbage;                  /* freed at the next step */
	size_t n_garbage, cap_garbage;
	Gantry__LogEntry **dropped_entries; /* truncated ones, freed at the next step */
	size_t n_dropped, cap_dropped;
	char text[160];
};

/* ---- clog.c */
struct clog_action *clog__action(struct clog *c, enum clog_action_type type, const char *reason);
void *clog__keep(struct clog *c, void *p);           /* frees p at the next step; returns it */
void clog__send(struct clog *c, Gantry__ClogMessage *message, const char *reason);
void clog__set_phase(struct clog *c, enum clog_phase phase, const char *reason);
void clog__fail(struct clog *c, const char *why);
/* A disk batch action: the caller fills in what it changes. */
struct clog_disk_batch *clog__batch(struct clog *c, const char *reason);
/* The same with the log's entries [from, last] as what is appended. */
struct clog_disk_batch *clog__batch_from(struct clog *c, uint64_t from, const char *reason);
struct clog_batch_note *clog__batch_note(struct clog *c);   /* of the batch just made */
void clog__dropped(struct clog *c, uint64_t cookie, int rc, const char *reason);
struct clog_peer *clog__peer(struct clog *c, uint32_t node);

/* ---- clog_log.c */
uint64_t clog__last_index(const struct clog *c);
uint64_t clog__last_epoch(const struct clog *c);
uint64_t clog__epoch_at(const struct clog *c, uint64_t index);   /* 0: not known */
struct clog_entry *clog__entry(const struct clog *c, uint64_t index);
/* Appends to memory; the entry is taken over. */
void clog__log_append(struct clog *c, struct clog_entry entry);
void clog__log_truncate(struct clog *c, uint64_t from);
void clog__log_replace(struct clog *c, uint64_t snapshot_index, uint64_t snapshot_epoch, const uint32_t *voters, size_t n, uint64_t voters_index);
void clog__log_compact(struct clog *c, uint64_t snapshot_index);
const struct clog_voters *clog__voters(const struct clog *c);
/* The voters before the newest change of them, while it is not known to be committed: what is decided or committed meanwhile needs a
 * majority of both, so that nobody who lacks the change can decide without those who have it. NULL: there is no such change, or it was
 * made by an EpochStart of half of the voters. */
const struct clog_voters *clog__old_voters(const struct clog *c);
const struct clog_voters *clog__voters_at(const struct clog *c, uint64_t index);
void clog__voters_add(struct clog *c, uint64_t index, uint32_t *ids, size_t n);
bool clog__is_voter(const uint32_t *voters, size_t n, uint32_t node);
Gantry__LogEntry *clog__entry_new(uint64_t index, uint64_t epoch, const uint8_t *command, size_t len);
void clog__entries_push(struct clog_entry **array, size_t *n, size_t *cap, struct clog_entry entry);

/* ---- clog_sync.c */
void clog__view(struct clog *c, uint64_t id, const uint32_t *members, size_t n);
void clog__round(struct clog *c, uint32_t round, const char *reason);
void clog__next_round(struct clog *c, const char *reason);
void clog__on_sync(struct clog *c, uint32_t sender, const Gantry__ClogSync *sync);
void clog__sync_tick(struct clog *c);
void clog__proven(struct clog *c, const uint32_t *nodes, size_t n);
bool clog__bootstrap(struct clog *c, const uint8_t *command, size_t len, uint64_t cookie);

/* ---- clog_adopt.c */
void clog__adopt_begin(struct clog *c);
void clog__adopt_reset(struct clog *c);
void clog__adopt_durable(struct clog *c);
void clog__adopt_tick(struct clog *c);
void clog__tail_push(struct clog *c, struct clog_entry entry);
void clog__on_catchup(struct clog *c, uint32_t sender, const Gantry__ClogCatchup *m);
void clog__on_entries(struct clog *c, uint32_t sender, const Gantry__ClogEntries *m);
void clog__on_snapshot(struct clog *c, uint32_t sender, const Gantry__ClogSnapshot *m);
void clog__snapshot_given(struct clog *c, uint64_t index, uint64_t epoch, const uint8_t *data, size_t len);

/* ---- clog_normal.c */
void clog__on_adopted(struct clog *c, uint32_t sender, const Gantry__ClogAdopted *m);
void clog__normal_enter(struct clog *c);
void clog__propose(struct clog *c, const uint8_t *command, size_t len, uint64_t cookie);
void clog__on_propose(struct clog *c, uint32_t sender, const Gantry__ClogPropose *m);
void clog__on_append(struct clog *c, uint32_t sender, const Gantry__ClogAppend *m);
void clog__on_ack(struct clog *c, uint32_t sender, const Gantry__ClogAck *m);
void clog__normal_durable(struct clog *c);
void clog__normal_tick(struct clog *c);
void clog__apply_committed(struct clog *c);
void clog__drop_proposals(struct clog *c);
