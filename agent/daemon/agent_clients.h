/* Who speaks to the agent: clusterd and consoles of this host over PATH_AGENT_SOCKET, and over TLS on PORT_MIGRATION
 * the agents of other hosts (migration channels) and their clusterds (consoles). Goals, heartbeats and the like are
 * obeyed only from the local socket. Limits: LIMIT_RPC_CLIENTS, LIMIT_AGENT_CHANNELS_HELD. */
#pragma once

#include "agent/daemon/agent_state.h"
#include "proto/migration.pb-c.h"

struct client {
	struct client *next;
	struct agent *agent;
	struct rpc_conn *conn; /* NULL once an engine has taken it over */
	bool remote;
	bool wants_reports;	 /* a clusterd */
	struct console *console; /* the console it watches; console.h */
	bool console_writer;
	Gantry__MigrationHello *hello; /* a channel that waits for the goals to name its job */
	uint64_t hello_until_ms;
};

int agent_clients_listen(struct agent *a, struct err *err);
/* Tries to load the certificate and to listen for other hosts; called in every pass until it works. */
void agent_clients_listen_remote(struct agent *a);
/* Channels that waited: taken over, or refused when their time is over. */
void agent_clients_retry_channels(struct agent *a);
void agent_clients_send(struct client *c, const Gantry__AgentMessage *message);
void agent_clients_send_error(struct client *c, Gantry__Status status, const char *text);
/* To every clusterd. */
void agent_clients_broadcast(struct agent *a, const Gantry__AgentMessage *message);
void agent_clients_close(struct agent *a);
