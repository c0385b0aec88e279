/* A console is relayed: client <-> this clusterd <-> the agent of the domain's host, which is reached by its socket
 * here and by TLS elsewhere. One a client connection. Who reads slowly slows the other side down, not our memory. */
#include <stdlib.h>
#include <string.h>

#include "clusterd/daemon/api_internal.h"
#include "lib/limits.h"
#include "proto/pb.h"

#define CONSOLE_CONNECT_MS 5000

struct api_console {
	struct api *api;
	struct api_client *client;      /* NULL: gone */
	uint64_t id;
	struct rpc_conn *conn;
	bool open, closing;
	Gantry__ConsoleOpen *request;
	struct buf early;               /* typed before the agent answered */
};

static void tell_closed(struct api_console *c, const char *reason)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__ConsoleClose body = GANTRY__CONSOLE_CLOSE__INIT;

	if (!c->client)
		return;
	body.reason = (char *)reason;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_CONSOLE_CLOSE;
	message.console_close = &body;
	api__send(c->client, c->id, &message);
}

static void detach(struct api_console *c)
{
	if (c->client)
		c->client->console = NULL;
	c->client = NULL;
}

static void hang_up(struct api_console *c)
{
	detach(c);
	if (!c->closing)
		rpc_conn_close(c->conn, NULL);
	c->closing = true;
}

static int send_agent(struct api_console *c, Gantry__AgentMessage *m)
{
	return rpc_send_message(c->conn, FRAME_AGENT, &m->base);
}

static void send_typed(struct api_console *c, const void *data, size_t len)
{
	Gantry__AgentMessage m = GANTRY__AGENT_MESSAGE__INIT;
	Gantry__ConsoleData body = GANTRY__CONSOLE_DATA__INIT;

	body.data = (ProtobufCBinaryData){.data = (uint8_t *)data, .len = len};
	m.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA;
	m.console_data = &body;
	send_agent(c, &m);
}

static void on_open(struct rpc_conn *conn, void *data)
{
	struct api_console *c = data;
	Gantry__AgentMessage m = GANTRY__AGENT_MESSAGE__INIT;
	Gantry__AgentHello hello = GANTRY__AGENT_HELLO__INIT;

	if (c->closing)
		return;
	c->open = true;
	hello.program = (char *)"console";
	hello.version = (char *)GANTRY_VERSION;
	hello.host = (char *)c->api->config.host;
	m.body_case = GANTRY__AGENT_MESSAGE__BODY_HELLO;
	m.hello = &hello;
	send_agent(c, &m);
	m.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_OPEN;
	m.console_open = c->request;
	send_agent(c, &m);
	if (c->early.len)
		send_typed(c, c->early.data, c->early.len);
	buf_free(&c->early);
}

static void relay_data(struct api_console *c, Gantry__ConsoleData *data)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;

	if (!c->client)
		return;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_CONSOLE_DATA;
	message.console_data = data;
	api__send(c->client, c->id, &message);
	if (!c->client->closing && rpc_conn_queued(c->client->conn) > LIMIT_CONSOLE_QUEUE_BYTES)
		rpc_conn_pause_reading(c->conn, true);
}

static void on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	struct api_console *c = data;
	Gantry__AgentMessage *m = gantry__agent_message__unpack(NULL, frame->len, frame->payload);

	if (!m || c->closing) {
		if (!m)
			hang_up(c);
	} else if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA) {
		relay_data(c, m->console_data);
	} else if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_CLOSE) {
		tell_closed(c, m->console_close->reason);
		hang_up(c);
	} else if (m->body_case == GANTRY__AGENT_MESSAGE__BODY_ERROR) {
		if (c->client)
			api__error(c->client, c->id, m->error->status, "%s", m->error->text);
		hang_up(c);
	}
	if (m)
		gantry__agent_message__free_unpacked(m, NULL);
}

static void on_drain(struct rpc_conn *conn, void *data)
{
	struct api_console *c = data;

	if (c->client && !c->client->closing)
		rpc_conn_pause_reading(c->client->conn, false);
}

static void on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct api_console *c = data;
	struct api *api = c->api;

	if (!c->closing && !c->open && c->client)
		api__error(c->client, c->id, STATUS(UNAVAILABLE), "console of %s: its host's agent does not answer: %s", c->request->domain,
			   rc < 0 ? err->text : "it closed the connection");
	else if (!c->closing)
		tell_closed(c, rc < 0 ? err->text : "the agent closed the console");
	if (c->client && !c->client->closing)
		rpc_conn_pause_reading(c->client->conn, false);
	detach(c);
	gantry__console_open__free_unpacked(c->request, NULL);
	buf_free(&c->early);
	free(c);
	api->consoles--;
	api__maybe_closed(api);
}

static int connect_agent(struct api_console *c, const Gantry__Host *host, struct err *err)
{
	static const struct rpc_callbacks callbacks = {
		.on_open = on_open, .on_frame = on_frame, .on_close = on_close, .on_drain = on_drain};
	struct api *api = c->api;

	if (!strcmp(host->name, api->config.host))
		return rpc_connect_unix(api->loop, api->config.agent_socket, 1u << FRAME_AGENT, &callbacks, c, &c->conn, err);
	if (!api->tls)
		return err_set(err, ENOENT, "this host has no certificate of the cluster yet");
	return rpc_connect_tls(api->loop, host->address, api->config.agent_port, api->tls, host->name, CONSOLE_CONNECT_MS, 1u << FRAME_AGENT,
			       &callbacks, c, &c->conn, err);
}

void api__on_console_open(struct api_client *client, uint64_t id, Gantry__ConsoleOpen *open)
{
	struct api *api = client->api;
	const struct model *model = api->ops.model(api->data);
	const Gantry__Domain *domain = model_domain(model, open->domain);
	const Gantry__Host *host;
	struct api_console *c;
	struct err err = {0};

	if (client->console) {
		api__error(client, id, STATUS(EXISTS), "this connection has a console open already");
		return;
	}
	if (!domain) {
		api__error(client, id, STATUS(NO_SUCH), "no domain '%s'; see 'clusterctl list'", open->domain);
		return;
	}
	host = domain->host[0] ? model_host(model, domain->host) : NULL;
	if (!host) {
		api__error(client, id, STATUS(UNAVAILABLE), "domain '%s' does not run; start it with 'clusterctl start %s'", domain->spec->name,
			   domain->spec->name);
		return;
	}
	c = mem_alloc(sizeof(*c));
	c->api = api;
	c->id = id;
	c->request = pb_clone(open);
	/* Names may change their owner meanwhile, uuids do not. */
	pb_set_string(&c->request->domain, domain->spec->uuid);
	if (connect_agent(c, host, &err) < 0) {
		api__error(client, id, STATUS(UNAVAILABLE), "console of %s: the agent of %s does not answer: %s", domain->spec->name, host->name,
			   err.text);
		gantry__console_open__free_unpacked(c->request, NULL);
		free(c);
		return;
	}
	api->consoles++;
	c->client = client;
	client->console = c;
}

void api__on_console_data(struct api_client *client, const Gantry__ConsoleData *data)
{
	struct api_console *c = client->console;

	/* What is typed after it closed has nowhere to go. */
	if (!c || c->closing)
		return;
	if (!c->open) {
		if (c->early.len + data->data.len <= LIMIT_CONSOLE_QUEUE_BYTES)
			buf_append(&c->early, data->data.data, data->data.len);
		return;
	}
	send_typed(c, data->data.data, data->data.len);
	if (rpc_conn_queued(c->conn) > LIMIT_CONSOLE_QUEUE_BYTES)
		rpc_conn_pause_reading(client->conn, true);
}

void api__on_console_close(struct api_client *client)
{
	if (client->console)
		hang_up(client->console);
}

void api__console_client_gone(struct api_client *client)
{
	if (client->console)
		hang_up(client->console);
}

void api__console_client_drained(struct api_client *client)
{
	if (client->console && !client->console->closing)
		rpc_conn_pause_reading(client->console->conn, false);
}
