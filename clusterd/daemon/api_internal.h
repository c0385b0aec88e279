/* The inside of the API, shared by the api*.c files only:
 *   api.c           listeners, clients, who may ask what
 *   api_propose.c   commands of clients: which are allowed, what is filled in
 *   api_read.c      status and model, without secrets
 *   api_watch.c     jobs and events, told as they change
 *   api_console.c   a console relayed to the agent that has the domain
 *   api_join.c      new hosts; join_tokens.c keeps the tokens
 *   api_fence.c     tests of fence devices
 *   api_whatif.c    what would happen if hosts died */
#pragma once

#include "clusterd/daemon/api.h"
#include "clusterd/daemon/join_tokens.h"
#include "proto/rpc.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

/* A proposal under way; outlives its client. */
struct api_request {
	struct api_request *next;
	struct api *api;
	struct api_client *client;     /* NULL: gone */
	uint64_t id;
	void (*then)(struct api_request *r, const Gantry__CommandResult *result);   /* NULL: answer with the result */
	Gantry__CtlJoined *joined;     /* join: the answer, if the host is let in */
	char *secret, *name;           /* join: the token that is used up then, and by whom */
};

struct api_watch {
	uint64_t id;
	bool events;                   /* else a job */
	uint64_t job_id;
	uint64_t after_id;             /* events: the newest that was sent */
	uint64_t job_hash, soft_hash;  /* job: what was sent last */
};

struct api_console;
struct api_fence_test;

struct api_client {
	struct api_client *next;
	struct api *api;
	struct rpc_conn *conn;
	bool remote, closing;
	struct api_request *requests;
	size_t n_requests;
	struct api_watch *watches;
	size_t n_watches;
	struct api_console *console;
};

struct api {
	uv_loop_t *loop;
	struct api_config config;
	struct api_ops ops;
	void *data;
	struct rpc_listener *unix_listener, *tls_listener;
	struct tls_context *tls;
	struct api_client *clients;
	struct join_tokens tokens;
	bool join_running;
	struct api_fence_test *fence_tests;
	bool closing;
	unsigned consoles;             /* whose agent connection is not closed yet */
	uv_timer_t closer;
	void (*on_closed)(void *data);
	void *closed_data;
};

/* ---- api.c */
void api__send(struct api_client *client, uint64_t id, Gantry__CtlMessage *message);
void api__error(struct api_client *client, uint64_t id, Gantry__Status status, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* A request of this client for a proposal; NULL (and answered): too many. */
struct api_request *api__request_new(struct api_client *client, uint64_t id);
/* Proposes; the answer goes to the client if it is still there. */
void api__propose(struct api_request *r, Gantry__Command *command);
/* A last part is gone: the api may be. */
void api__maybe_closed(struct api *api);

/* ---- the others */
void api__on_propose(struct api_client *client, uint64_t id, Gantry__Command *command);
void api__on_status(struct api_client *client, uint64_t id);
void api__on_model(struct api_client *client, uint64_t id, const Gantry__CtlModelRequest *request);
void api__on_watch_job(struct api_client *client, uint64_t id, uint64_t job_id);
void api__on_watch_events(struct api_client *client, uint64_t id, const Gantry__CtlWatchEvents *request);
void api__watches_review(struct api_client *client);
void api__on_token(struct api_client *client, uint64_t id);
void api__on_join(struct api_client *client, uint64_t id, const Gantry__CtlJoin *join);
void api__on_what_if(struct api_client *client, uint64_t id, const Gantry__CtlWhatIf *request);
void api__on_fence_test(struct api_client *client, uint64_t id, const Gantry__CtlFenceTest *request);
void api__fence_test_step(uv_timer_t *timer);
void api__fence_tests_client_gone(struct api_client *client);
void api__fence_tests_close(struct api *api);
void api__on_console_open(struct api_client *client, uint64_t id, Gantry__ConsoleOpen *open);
void api__on_console_data(struct api_client *client, const Gantry__ConsoleData *data);
void api__on_console_close(struct api_client *client);
void api__console_client_gone(struct api_client *client);
/* The client reads again. */
void api__console_client_drained(struct api_client *client);
