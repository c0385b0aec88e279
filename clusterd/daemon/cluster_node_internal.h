/* The inside of a member, shared by these files only:
 *   cluster_node.c   beginning, corosync's and the disk's callbacks, end
 *   node_step.c      the queue of events, the log's actions
 *   node_propose.c   commands of this node and their answers
 *   node_text.c      what is, in words */
#pragma once

#include "clusterd/daemon/cluster_node.h"
#include "clusterd/daemon/corosync_config.h"
#include "clusterd/daemon/cpg_link.h"
#include "clusterd/daemon/store.h"
#include "lib/limits.h"

#define CLUSTER_NODE_TICK_MS 50

/* An event with all that it points to. */
struct node_event {
	struct node_event *next;
	struct clog_event event;
	struct buf bytes;
	uint32_t *members;
};

struct node_heard {
	uint32_t node_id;
	uint64_t ms;
};

struct cluster_node {
	uv_loop_t *loop;
	char *host, *address, *corosync_path;
	uint32_t node_id;
	struct model model;
	struct clog *clog;
	struct clog_disk_state disk;       /* until the clog takes it */
	bool disk_taken;
	struct store *store;
	struct store_db *db;               /* until the store takes it */
	struct cpg_link *link;
	bool connected;
	uint32_t nodes[LIMIT_HOSTS];       /* in corosync's ring */
	size_t n_nodes;
	char *disconnected_why;
	struct corosync_config *corosync;
	struct proposals proposals;
	struct soft_state soft;
	struct node_heard heard[LIMIT_HOSTS];
	size_t n_heard;
	bool forgetful;                    /* see store_db_is_forgetful() */
	uint64_t snapshot_index;           /* of the newest snapshot that is or is being stored */
	bool snapshot_running;
	char *stopped;                     /* why this node takes no part any more */
	char *disk_failed;
	enum clog_phase said_phase;

	struct cluster_node_listener listeners[CLUSTER_NODE_LISTENERS];
	size_t n_listeners;
	struct node_event *head, **tail;
	bool stepping, model_changed, membership_changed, review_wanted;

	uv_timer_t tick;
	bool closing;
	unsigned open_parts;
	void (*on_closed)(void *data);
	void *closed_data;
};

/* ---- node_step.c */
/* Gives the log an event; in the middle of another one it is queued (and copied). */
void node__event(struct cluster_node *node, const struct clog_event *event);
void node__events_clear(struct cluster_node *node);
/* Out of the cluster for good, until the daemon is started again. */
void node__stop(struct cluster_node *node, const char *why);

/* ---- node_propose.c */
void node__committed(struct cluster_node *node, uint64_t cookie, const Gantry__CommandResult *result);
void node__dropped(struct cluster_node *node, uint64_t cookie, int rc);
/* Sends or refuses those that wait, as the membership now allows. */
void node__proposals_review(struct cluster_node *node);
bool node__proposals_wait(const struct cluster_node *node);

/* ---- node_text.c */
/* True while the members of the view could make a quorum of the voters. */
bool node__view_has_quorum(const struct cluster_node *node, const struct clog_status *st);
