#include "clusterd/daemon/api.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/daemon/api_internal.h"
#include "lib/limits.h"
#include "lib/log.h"
#include "proto/pb.h"

/* ---- answering */

void api__send(struct api_client *client, uint64_t id, Gantry__CtlMessage *message)
{
	int rc;

	if (client->closing)
		return;
	message->id = id;
	rc = rpc_send_message(client->conn, FRAME_CTL, &message->base);
	if (rc == -EMSGSIZE)
		api__error(client, id, STATUS(FAILED), "the answer is larger than a message may be (%u bytes)", LIMIT_FRAME_BYTES);
}

void api__error(struct api_client *client, uint64_t id, Gantry__Status status, const char *fmt, ...)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlError error = GANTRY__CTL_ERROR__INIT;
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	error.status = status;
	error.text = text;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_ERROR;
	message.error = &error;
	api__send(client, id, &message);
}

/* ---- proposals of clients */

struct api_request *api__request_new(struct api_client *client, uint64_t id)
{
	struct api_request *r;

	if (client->n_requests >= LIMIT_API_REQUESTS) {
		api__error(client, id, STATUS(RETRY), "%d requests of this connection are under way: wait for their answers",
			   LIMIT_API_REQUESTS);
		return NULL;
	}
	r = mem_alloc(sizeof(*r));
	r->api = client->api;
	r->client = client;
	r->id = id;
	r->next = client->requests;
	client->requests = r;
	client->n_requests++;
	return r;
}

static void request_free(struct api_request *r)
{
	if (r->client) {
		struct api_request **at = &r->client->requests;

		while (*at != r)
			at = &(*at)->next;
		*at = r->next;
		r->client->n_requests--;
	}
	if (r->joined)
		gantry__ctl_joined__free_unpacked(r->joined, NULL);
	free(r->secret);
	free(r->name);
	free(r);
}

static void answer_result(struct api_request *r, const Gantry__CommandResult *result)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__CtlResult body = GANTRY__CTL_RESULT__INIT;

	body.result = (Gantry__CommandResult *)result;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_RESULT;
	message.result = &body;
	api__send(r->client, r->id, &message);
}

static void on_result(void *data, const Gantry__CommandResult *result)
{
	struct api_request *r = data;

	if (r->then)
		r->then(r, result);
	else if (r->client)
		answer_result(r, result);
	request_free(r);
}

void api__propose(struct api_request *r, Gantry__Command *command)
{
	r->api->ops.propose(r->api->data, command, on_result, r);
}

/* ---- clients */

/* Who may ask what: NULL, or the refusal. */
static const char *refusal(struct api_client *client, const Gantry__CtlMessage *m)
{
	const struct model *model = client->api->ops.model(client->api->data);
	const char *peer;

	if (!client->remote)
		return NULL;
	peer = rpc_conn_peer(client->conn);
	if (!peer)
		return m->body_case == GANTRY__CTL_MESSAGE__BODY_JOIN ? NULL :
			"without the certificate of a cluster host only joining is allowed: run this on a host of the cluster";
	if (model->state->n_hosts && !model_host(model, peer))
		return "this certificate is of a host that is no member of the cluster (any more)";
	return NULL;
}

static void on_request(struct api_client *client, Gantry__CtlMessage *m)
{
	switch (m->body_case) {
	case GANTRY__CTL_MESSAGE__BODY_PROPOSE:
		if (m->propose->command)
			api__on_propose(client, m->id, m->propose->command);
		else
			api__error(client, m->id, STATUS(BAD_DATA), "a proposal without a command");
		break;
	case GANTRY__CTL_MESSAGE__BODY_STATUS_REQUEST:
		api__on_status(client, m->id);
		break;
	case GANTRY__CTL_MESSAGE__BODY_MODEL_REQUEST:
		api__on_model(client, m->id, m->model_request);
		break;
	case GANTRY__CTL_MESSAGE__BODY_WATCH_JOB:
		api__on_watch_job(client, m->id, m->watch_job->job_id);
		break;
	case GANTRY__CTL_MESSAGE__BODY_WATCH_EVENTS:
		api__on_watch_events(client, m->id, m->watch_events);
		break;
	case GANTRY__CTL_MESSAGE__BODY_JOIN:
		api__on_join(client, m->id, m->join);
		break;
	case GANTRY__CTL_MESSAGE__BODY_TOKEN:
		api__on_token(client, m->id);
		break;
	case GANTRY__CTL_MESSAGE__BODY_WHAT_IF:
		api__on_what_if(client, m->id, m->what_if);
		break;
	case GANTRY__CTL_MESSAGE__BODY_FENCE_TEST:
		api__on_fence_test(client, m->id, m->fence_test);
		break;
	case GANTRY__CTL_MESSAGE__BODY_CONSOLE_OPEN:
		api__on_console_open(client, m->id, m->console_open);
		break;
	case GANTRY__CTL_MESSAGE__BODY_CONSOLE_DATA:
		api__on_console_data(client, m->console_data);
		break;
	case GANTRY__CTL_MESSAGE__BODY_CONSOLE_CLOSE:
		api__on_console_close(client);
		break;
	default:
		api__error(client, m->id, STATUS(USAGE), "clusterd %s does not know this request: is clusterctl newer?", GANTRY_VERSION);
	}
}

static void on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct api_client *client = data;
	Gantry__CtlMessage *m = gantry__ctl_message__unpack(NULL, frame->len, frame->payload);
	const char *why;

	if (client->closing) {
		if (m)
			gantry__ctl_message__free_unpacked(m, NULL);
		return;
	}
	if (!m) {
		client->closing = true;
		rpc_conn_close(conn, "clusterd cannot read this request");
		return;
	}
	why = refusal(client, m);
	if (why)
		api__error(client, m->id, STATUS(PERMISSION), "%s", why);
	else
		on_request(client, m);
	gantry__ctl_message__free_unpacked(m, NULL);
}

static void on_drain(struct rpc_conn *conn, void *data)
{
	api__console_client_drained(data);
}

static void on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct api_client *client = data;
	struct api *api = client->api;
	struct api_client **at = &api->clients;

	if (rc < 0 && client->remote)
		log_info("client %s: %s", rpc_conn_address(conn), err->text);
	client->closing = true;
	api__console_client_gone(client);
	api__fence_tests_client_gone(client);
	for (struct api_request *r = client->requests; r; r = r->next)
		r->client = NULL;
	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	free(client->watches);
	free(client);
	api__maybe_closed(api);
}

static void accept_client(struct api *api, struct rpc_conn *conn, bool remote)
{
	static const struct rpc_callbacks callbacks = {.on_frame = on_frame, .on_close = on_close, .on_drain = on_drain};
	struct api_client *client = mem_alloc(sizeof(*client));

	client->api = api;
	client->conn = conn;
	client->remote = remote;
	client->next = api->clients;
	api->clients = client;
	rpc_conn_set_callbacks(conn, &callbacks, client);
	if (api->closing) {
		client->closing = true;
		rpc_conn_close(conn, "clusterd ends");
	}
}

static void on_accept_unix(struct rpc_conn *conn, void *data)
{
	accept_client(data, conn, false);
}

static void on_accept_tls(struct rpc_conn *conn, void *data)
{
	accept_client(data, conn, true);
}

/* ---- beginning and end */

struct api *api_new(uv_loop_t *loop, const struct api_config *config, const struct api_ops *ops, void *data)
{
	struct api *api = mem_alloc(sizeof(*api));
	struct err err = {0};

	api->loop = loop;
	api->config = *config;
	api->ops = *ops;
	api->data = data;
	uv_timer_init(loop, &api->closer);
	api->closer.data = api;
	if (join_tokens_load(&api->tokens, config->tokens, &err) < 0)
		log_warning("join tokens that were given out are not valid any more: %s", err.text);
	return api;
}

int api_listen_unix(struct api *api, const char *path, struct err *err)
{
	return rpc_listen_unix(api->loop, path, 1u << FRAME_CTL, on_accept_unix, api, &api->unix_listener, err);
}

int api_listen_tls(struct api *api, const char *address, int port, struct tls_context *tls, struct err *err)
{
	int rc = rpc_listen_tls(api->loop, address, port, tls, false, 1u << FRAME_CTL, on_accept_tls, api, &api->tls_listener, err);

	if (rc == 0)
		api->tls = tls;
	return rc;
}

int api_port(const struct api *api)
{
	return api->tls_listener ? rpc_listener_port(api->tls_listener) : 0;
}

void api_model_changed(struct api *api)
{
	for (struct api_client *c = api->clients; c; c = c->next)
		api__watches_review(c);
}

void api_soft_changed(struct api *api)
{
	api_model_changed(api);
}

static void on_closer_closed(uv_handle_t *handle)
{
	struct api *api = handle->data;
	void (*on_closed)(void *) = api->on_closed;
	void *data = api->closed_data;

	tls_context_free(api->tls);
	join_tokens_free(&api->tokens);
	free(api);
	on_closed(data);
}

void api__maybe_closed(struct api *api)
{
	if (api->closing && !api->clients && !api->consoles && !api->fence_tests && !uv_is_closing((uv_handle_t *)&api->closer))
		uv_close((uv_handle_t *)&api->closer, on_closer_closed);
}

void api_close(struct api *api, void (*on_closed)(void *data), void *data)
{
	api->closing = true;
	api->on_closed = on_closed;
	api->closed_data = data;
	if (api->unix_listener)
		rpc_listener_close(api->unix_listener);
	if (api->tls_listener)
		rpc_listener_close(api->tls_listener);
	api__fence_tests_close(api);
	for (struct api_client *c = api->clients; c; c = c->next) {
		if (c->closing)
			continue;
		c->closing = true;
		rpc_conn_close(c->conn, "clusterd ends");
	}
	api__maybe_closed(api);
}
