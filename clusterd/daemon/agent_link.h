/* The link to this host's agent: goals go down, reports come up (what they say is decided in clusterd/core/node_agent.c).
 * Connects to PATH_AGENT_SOCKET and again whenever it is lost, until this member has stepped out. Gossips about the host. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "clusterd/daemon/cluster_node.h"

#define AGENT_LINK_RETRY_MS 500

struct agent_link;

struct agent_link *agent_link_new(uv_loop_t *loop, const char *socket_path, struct cluster_node *node);
bool agent_link_is_connected(const struct agent_link *al);
/* Before the node is closed. Frees later, on the loop. */
void agent_link_close(struct agent_link *al);
