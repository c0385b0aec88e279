/* The link to this host's agent: goals go down, reports come up. Connects to PATH_AGENT_SOCKET and again whenever it
 * is lost. Goals are sent when they have changed, and only while this node is current: those of an older state of the
 * cluster could name a former owner. The agent is told every DEADLINE_HEARTBEAT_MS whether this host is in the quorum.
 * What a report asks for is proposed once at a time; a refused proposal waits AGENT_LINK_REFUSED_MS. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "clusterd/daemon/cluster_node.h"

#define AGENT_LINK_RETRY_MS 500
#define AGENT_LINK_REFUSED_MS 2000
#define AGENT_LINK_GONE_MS 3000    /* a restart of the agent is quicker and not worth telling the cluster */

struct agent_link;

struct agent_link *agent_link_new(uv_loop_t *loop, const char *socket_path, struct cluster_node *node);
bool agent_link_is_connected(const struct agent_link *al);
/* Before the node is closed. Frees later, on the loop. */
void agent_link_close(struct agent_link *al);
