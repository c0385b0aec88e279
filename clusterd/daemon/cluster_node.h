/* One member of the cluster: ties the pure one (clusterd/core/node.h) to corosync, the disk, fence devices and the clock. It
 * carries out what that decides and tells its listeners what has changed; it decides nothing itself.
 *
 *   corosync, disk, clients, agent, clock -> node_step() -> send | write | fence | answer | tell
 *
 * Ownership: the caller's; cluster_node_close() frees it later. Everything runs on the loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "clusterd/core/node.h"
#include "clusterd/daemon/quorum_link.h"
#include "clusterd/daemon/soft_state.h"
#include "lib/err.h"

#define CLUSTER_NODE_LISTENERS 4

struct cluster_node;

struct cluster_node_listener {
	void (*on_model)(void *data);        /* commands were applied (several at once perhaps) */
	void (*on_membership)(void *data);   /* phase, view, leader or synced members changed */
	void (*on_soft)(void *data, uint32_t node_id);
	void (*on_goals)(void *data, const Gantry__AgentGoals *goals);      /* for this host's agent */
	void (*on_quorum)(void *data, bool quorate, uint64_t epoch);        /* likewise */
	void (*on_stopped)(void *data);      /* out of the cluster until the process begins again: the agent is left alone */
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

/* ---- what is: see node.h */
const struct node *cluster_node_core(const struct cluster_node *node);
const struct model *cluster_node_model(const struct cluster_node *node);
const struct soft_state *cluster_node_soft(const struct cluster_node *node);
const char *cluster_node_host(const struct cluster_node *node);
uint32_t cluster_node_id(const struct cluster_node *node);        /* 0: corosync has not told yet */

/* ---- what to do */
/* Proposes a client's command; cb exactly once, perhaps before this returns (refused at once). The header (version, proposer, time) is
 * filled in; the command is the caller's. */
void cluster_node_propose(struct cluster_node *node, Gantry__Command *command, proposal_cb cb, void *data);
/* Gossip to all members. */
void cluster_node_gossip(struct cluster_node *node, uint32_t kind, const uint8_t *data, size_t len);
/* This host's agent came or went; what it says (report: taken over). */
void cluster_node_agent(struct cluster_node *node, bool connected);
void cluster_node_report(struct cluster_node *node, Gantry__AgentReport *report);
/* What corosync's votequorum says; it is quorate for us only in the ring that we know. */
void cluster_node_votequorum(struct cluster_node *node, const struct quorum_info *info);
