/* One member of the cluster: ties the pure parts (log, model) to corosync and the disk. It executes what the log
 * decides and tells its listeners what has changed; it decides nothing itself.
 *
 *   corosync, disk, clients, clock -> events -> clog_step() -> send | write | apply | answer
 *
 * Ownership: the caller's; cluster_node_close() frees it later. Everything runs on the loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "clusterd/core/clog.h"
#include "clusterd/core/model.h"
#include "clusterd/daemon/proposals.h"
#include "clusterd/daemon/soft_state.h"
#include "lib/err.h"

#define CLUSTER_NODE_HOLD_MS 5000    /* a client's command waits so long for a sync to end */
#define CLUSTER_NODE_LISTENERS 4

struct cluster_node;

struct cluster_node_listener {
	void (*on_model)(void *data);        /* commands were applied (several at once perhaps) */
	void (*on_membership)(void *data);   /* phase, view, leader or synced members changed */
	void (*on_soft)(void *data, uint32_t node_id);
	void *data;
};

struct cluster_node_options {
	const char *host;             /* own name */
	const char *address;
	const char *db_path;
	const char *corosync_path;    /* corosync.conf */
};

/* Opens the log (-EBADMSG and others with a text) and goes on to join. */
int cluster_node_new(uv_loop_t *loop, const struct cluster_node_options *options, struct cluster_node **ret, struct err *err);
void cluster_node_listen(struct cluster_node *node, const struct cluster_node_listener *listener);
/* Leaves the group, finishes the disk's work, frees; on_closed is called once. */
void cluster_node_close(struct cluster_node *node, void (*on_closed)(void *data), void *data);

/* ---- what is */
const struct model *cluster_node_model(const struct cluster_node *node);
const struct soft_state *cluster_node_soft(const struct cluster_node *node);
const char *cluster_node_host(const struct cluster_node *node);
uint32_t cluster_node_id(const struct cluster_node *node);        /* 0: corosync has not told yet */
/* Zeroed (phase IDLE) before the node id is known. */
void cluster_node_log_status(const struct cluster_node *node, struct clog_status *ret);
/* This node is in the quorum and has applied all that was committed before its epoch: what its model says of
 * goals and owners is of now. */
bool cluster_node_is_current(const struct cluster_node *node);
/* Current, and a quorum was heard within the last seconds: what this host's agent is told. A corosync that hangs
 * tells us nothing; neither does hearing only ourselves. */
bool cluster_node_is_quorate(const struct cluster_node *node);
/* For people: "normal", "no quorum: 1 of 3 voters is here (hostA); hostB, hostC are missing", ... */
const char *cluster_node_state_text(const struct cluster_node *node, struct buf *out);

/* ---- what to do */
/* Proposes a command; cb exactly once, perhaps before this returns (refused at once). The header (version, proposer, time) is filled in; the command is the
 * caller's. patient: a client's, which waits for a sync to end; others are told STATUS_RETRY at once. */
void cluster_node_propose(struct cluster_node *node, Gantry__Command *command, bool patient, proposal_cb cb, void *data);
/* The hosts whose corosync is in our ring (node ids, borrowed until the next turn of the loop). */
size_t cluster_node_corosync_nodes(const struct cluster_node *node, const uint32_t **ret);
/* Gossip to all members. */
void cluster_node_gossip(struct cluster_node *node, uint32_t kind, const uint8_t *data, size_t len);
