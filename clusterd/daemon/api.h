/* The API: CtlMessage requests over the unix socket (root of this host) and over TLS (hosts of the cluster; a peer
 * without a certificate may only join). It knows the cluster through api_ops alone, so that tests can stand in for it.
 * Every request is answered under its id; what is refused says what, why and what to do.
 * Limits: LIMIT_RPC_CLIENTS, LIMIT_API_REQUESTS under way and LIMIT_API_WATCHES of one client. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "clusterd/core/model.h"
#include "clusterd/core/proposals.h"
#include "clusterd/daemon/soft_state.h"
#include "lib/err.h"
#include "proto/ctl.pb-c.h"
#include "proto/tls.h"

struct api;

struct api_ops {
	const struct model *(*model)(void *data);
	const struct soft_state *(*soft)(void *data);
	bool (*is_current)(void *data);
	/* Owner: caller. */
	Gantry__CtlStatus *(*status)(void *data);
	/* As cluster_node_propose(), patient. */
	void (*propose)(void *data, Gantry__Command *command, proposal_cb cb, void *cb_data);
	/* whatif_fail(). Owner of *ret: caller. */
	int (*what_if)(void *data, char *const *failed, size_t n, Gantry__CtlPlan **ret, struct err *err);
};

/* Where the files are that joining needs, and the agents. */
struct api_config {
	const char *host;                 /* own name */
	const char *agent_socket;
	int agent_port;                   /* of other hosts' agents */
	const char *ca_cert, *ca_key;
	const char *corosync_conf, *corosync_authkey;
	const char *tokens;               /* hashes of the join tokens that this host gave out */
};

/* config's strings stay valid as long as the api lives. */
struct api *api_new(uv_loop_t *loop, const struct api_config *config, const struct api_ops *ops, void *data);
int api_listen_unix(struct api *api, const char *path, struct err *err);
/* Takes tls over; it is used for consoles of other hosts too. */
int api_listen_tls(struct api *api, const char *address, int port, struct tls_context *tls, struct err *err);
int api_port(const struct api *api);   /* of the TLS listener; 0: none */
/* Watches look again. */
void api_model_changed(struct api *api);
void api_soft_changed(struct api *api);
/* Closes listeners and clients; frees later. on_closed once. */
void api_close(struct api *api, void (*on_closed)(void *data), void *data);
