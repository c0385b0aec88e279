/* The inside of a member, shared by the node*.c files only.
 *   node.c          events in, the queue, the log's actions
 *   node_propose.c  commands of this node and their answers
 *   node_lead.c     what only the leader does: the manager, new voters
 *   node_agent.c    goals and heartbeats for this host's agent, what its reports ask for
 *   node_audit.c    is our state that of the others?
 *   node_tie.c      exactly half of the voters are here
 *   node_text.c     what is, in words */
#pragma once

#include "clusterd/core/manager.h"
#include "clusterd/core/node.h"
#include "lib/limits.h"
#include "lib/mutant.h"
#include "proto/pb.h"

/* An event of the log with all that it points to, while another one is being done. */
struct node_queued {
	struct node_queued *next;
	struct clog_event event;
	struct buf bytes;
	uint32_t *ids;
};

struct node_heard { uint32_t node_id; uint64_t ms; };

/* A command that was proposed for the agent's last report: not again while it is under way or was just refused. */
struct node_agent_request {
	struct node_agent_request *next;
	struct node *node;
	struct buf body;
	bool in_flight;
	uint64_t not_before_ms;
};

struct node_lead {
	struct manager *manager;       /* NULL: this node does not lead */
	uint64_t epoch;
	bool refused;
	bool cold;                     /* there was no quorum here, or this process has just begun */
	uint64_t patience_until_ms;
	uint32_t seen[LIMIT_HOSTS];    /* in the ring since the quorum formed */
	size_t n_seen;
	uint32_t adding;               /* node id of the host that is being made a voter; 0 none */
	uint64_t add_not_before_ms, due_ms;
	struct { char host[LIMIT_NAME_CHARS + 1], text[256]; int rc; bool by_time; } fenced[LIMIT_HOSTS];   /* runs that have ended, for the manager */
	size_t n_fenced;
};

struct node_agent {
	bool connected, said_quorate;
	Gantry__AgentReport *report;   /* the newest of this connection */
	uint64_t gone_since_ms;        /* no agent since then */
	struct buf goals_sent;         /* packed, without epoch and index */
	struct node_agent_request *requests;
	bool evaluating, evaluate_again;
	uint64_t due_ms;
};

#define NODE_AUDITS_KEPT 16

struct node_audit_claim { uint32_t node_id; uint64_t index, hash; };

struct node_audit {
	struct { uint64_t index, hash; } own[NODE_AUDITS_KEPT];
	size_t next_own;
	struct node_audit_claim claims[LIMIT_HOSTS * 4];   /* of the others, in a ring */
	size_t next_claim;
	uint64_t last_index;
};

/* What keeps this half of the voters from going on alone. */
enum node_tie_wait {
	NODE_TIE_NONE,       /* not half, or there is a quorum */
	NODE_TIE_PROOF,      /* nothing: the others are being proven dead */
	NODE_TIE_DECISION,   /* they are proven dead, the log takes note */
	NODE_TIE_CLUSTERD,   /* the other's corosync is here, only its clusterd is not */
	NODE_TIE_OTHERS,     /* another node speaks for this half */
	NODE_TIE_PERSON,     /* this process has just begun */
	NODE_TIE_COROSYNC,   /* it has not told yet whether there is a quorum device */
	NODE_TIE_DEVICE,     /* its vote is not ours */
	NODE_TIE_NO_DEVICE,  /* two of four, and none */
	NODE_TIE_DISARMED,   /* automatic action is off */
	NODE_TIE_COURTESY,   /* the other half goes first, if it is there */
};

struct node_tie {
	bool was_normal;               /* in this process's life: it has seen the others' log */
	bool running;                  /* the fences are run, or waited for */
	uint64_t view, since_ms, again_ms;
	unsigned failures;
	uint32_t proven[LIMIT_HOSTS], fencing[LIMIT_HOSTS];
	size_t n_proven, n_fencing;
	uint32_t seen[LIMIT_HOSTS];    /* in the ring since corosync connected */
	size_t n_seen;
	char failure[ERR_TEXT_MAX];    /* of the last proof that was sought */
	bool said, given;
	struct { bool known, quorate, device_configured, device_votes; } corosync;
};

struct node {
	node_act_fn act;
	void *act_data;
	uint64_t snapshot_every, audit_every;
	uint64_t now_ms, wall_ms;

	char *host;
	uint32_t node_id;
	struct model model;
	struct clog *clog;                 /* NULL: not begun */
	bool connected;
	char *disconnected_why;
	char *stopped;                     /* why this node takes no part any more */
	bool forgetful;
	uint32_t ring[LIMIT_HOSTS];
	size_t n_ring;
	struct node_heard heard[LIMIT_HOSTS];
	size_t n_heard;
	uint64_t snapshot_index;           /* of the newest snapshot that is or is being stored */
	bool snapshot_running;
	enum clog_phase said_phase;

	struct proposals proposals;
	struct node_lead lead;
	struct node_agent agent;
	struct node_audit audit;
	struct node_tie tie;

	struct node_queued *head, **tail;
	bool pumping, model_changed, membership_changed, review_wanted;
};

/* ---- node.c */
/* Gives the log an event; in the middle of another one it is queued (and copied). */
void node__clog(struct node *n, struct clog_event *event);
void node__note(struct node *n, enum node_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void node__remember(struct node *n);
void node__act(struct node *n, const struct node_action *action);

/* ---- node_propose.c */
/* Proposes a command of this node's own. free_data: data is freed with the proposal, after cb. */
void node__propose(struct node *n, Gantry__Command *command, bool patient, proposal_cb cb, void *data, bool free_data);
void node__committed(struct node *n, uint64_t cookie, const Gantry__CommandResult *result);
void node__dropped(struct node *n, uint64_t cookie, int rc);
/* Sends or refuses those that wait, as the membership now allows. */
void node__proposals_review(struct node *n);
bool node__proposals_wait(const struct node *n);

/* ---- node_lead.c */
void node__lead_model(struct node *n);
void node__lead_membership(struct node *n);
void node__lead_tick(struct node *n);
void node__lead_fenced(struct node *n, const char *host, int rc, const char *text, bool by_time);
void node__lead_free(struct node *n);

/* ---- node_agent.c */
void node__agent_model(struct node *n);
void node__agent_membership(struct node *n);
void node__agent_tick(struct node *n);
void node__agent_connected(struct node *n, bool connected);
void node__agent_report(struct node *n, Gantry__AgentReport *report);
void node__agent_free(struct node *n);

/* ---- node_audit.c */
/* After each applied command; compares at each EpochStart and every so many commands. */
void node__audit_applied(struct node *n, bool epoch_start);
void node__audit_heard(struct node *n, uint32_t sender, const uint8_t *data, size_t len);

/* ---- node_tie.c */
void node__tie_membership(struct node *n);
void node__tie_ring(struct node *n);
void node__tie_tick(struct node *n);
enum node_tie_wait node__tie_waits_for(const struct node *n, const struct clog_status *st);
/* True: the run was ours. */
bool node__tie_fenced(struct node *n, const char *host, int rc, const char *text, bool by_time);
/* A person vouches that a host is off, and there is no quorum that could take it down in the log. */
void node__tie_confirm(struct node *n, const char *host);

/* ---- node_text.c */
/* True while the members of the view could make a quorum of the voters. */
bool node__view_has_quorum(const struct node *n, const struct clog_status *st);
bool node__listed(const uint32_t *list, size_t n, uint32_t node_id);
