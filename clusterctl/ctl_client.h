/* clusterctl's line to clusterd: one connection, one libuv loop that runs only while something is waited for. Every
 * call blocks until its answer, the deadline, or Ctrl-C (-EINTR, for good: the next wait says so too).
 *
 * A connection that breaks is made anew for CTL_RECONNECT_MS. Commands carry a random client id and a number, the same
 * in every attempt, so that the cluster applies each once however often it is sent. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "lib/err.h"
#include "proto/ctl.pb-c.h"
#include "proto/tls.h"

#define CTL_RECONNECT_MS 10000
#define CTL_RESTART_MS 3000 /* how long a killed clusterd is waited for */
#define CTL_RETRY_PAUSE_MS 200
#define CTL_ANSWER_TIMEOUT_MS 30000

struct ctl_options {
	const char *socket;      /* NULL: PATH_CTL_SOCKET */
	const char *host;        /* address of another host's clusterd: TLS with this host's certificate */
	struct tls_context *tls; /* used with `host` instead of this host's own files; borrowed */
	uint32_t timeout_ms;     /* for one answer, retries included; 0: CTL_ANSWER_TIMEOUT_MS */
};

struct ctl_client;

/* Connects nothing yet. The options' strings are borrowed. */
int ctl_client_new(const struct ctl_options *options, struct ctl_client **ret, struct err *err);
void ctl_client_free(struct ctl_client *c);
uv_loop_t *ctl_client_loop(struct ctl_client *c);
/* Ends the wait under way, and all later ones, with -EINTR. */
void ctl_client_interrupt(struct ctl_client *c);

/* -ECONNREFUSED and the like, status 69: nobody answers there. 0 at once if connected. */
int ctl_connect(struct ctl_client *c, struct err *err);
void ctl_disconnect(struct ctl_client *c);
/* Sends on a standing connection; *ret_id is what the answers carry. */
int ctl_send(struct ctl_client *c, Gantry__CtlMessage *message, uint64_t *ret_id, struct err *err);
/* The next message with this id. deadline_ms: of uv_hrtime() in ms, 0: none. -ETIMEDOUT; -EINTR; -EAGAIN or -EREMOTEIO for an
 * error of the server (with its text and status); else the connection is gone. Owner of *ret: caller. */
int ctl_receive(struct ctl_client *c, uint64_t id, uint64_t deadline_ms, Gantry__CtlMessage **ret, struct err *err);

/* Request and answer, which is of kind `want`. */
int ctl_call(struct ctl_client *c, Gantry__CtlMessage *request, Gantry__CtlMessage__BodyCase want,
	     Gantry__CtlMessage **ret, struct err *err);
/* A command, applied once. -EREMOTEIO with text and status if the cluster refused it. *ret may be NULL. Borrows command. */
int ctl_propose(struct ctl_client *c, Gantry__Command *command, Gantry__CommandResult **ret, struct err *err);

uint64_t ctl_now_ms(void);
/* Runs the loop for so long; -EINTR. */
int ctl_pause(struct ctl_client *c, uint32_t ms, struct err *err);
