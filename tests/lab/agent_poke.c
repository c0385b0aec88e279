/* agent_poke: plays clusterd towards one agent, for tests. Reads from stdin one command a line:
 *
 *     {"goals": {...}}      an AgentMessage as JSON; sent as it is. A migration's task without a token gets a fixed
 * one. quorum on|off|silent  what the heartbeats say from now on (on at first), or that none are sent type TEXT, line
 * TEXT  typed at the console that was opened; line: with the return key raw HEX               these bytes as a frame,
 * to see what the agent makes of garbage
 *
 * and prints each AgentMessage that comes as one line of JSON {"ms": MONOTONIC, "message": {...}}. Ends with stdin or
 * with the connection (exit status 3).
 * usage: agent_poke [SOCKET [PROGRAM [off]]]; off: the heartbeats say "no quorum" from the first one on. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "lib/buf.h"
#include "lib/deadlines.h"
#include "lib/paths.h"
#include "proto/agent.pb-c.h"
#include "proto/pb.h"
#include "proto/pbjson.h"
#include "proto/rpc.h"

#define CONNECT_AGAIN_MS 50
#define CONNECT_TRIES 100

struct poke {
	uv_loop_t *loop;
	struct rpc_conn *conn;
	uv_pipe_t input;
	uv_timer_t beat;
	struct buf line;
	const char *program;
	const char *path;
	uv_timer_t again;
	int tries;
	bool opened, beating, quorate, closed;
	char chunk[65536];
};

static void poke_send(struct poke *p, const Gantry__AgentMessage *message)
{
	if (p->conn != NULL)
		rpc_send_message(p->conn, FRAME_AGENT, &message->base);
}

static void poke_on_beat(uv_timer_t *timer)
{
	struct poke *p = timer->data;
	Gantry__AgentQuorum quorum = GANTRY__AGENT_QUORUM__INIT;
	Gantry__AgentMessage message = GANTRY__AGENT_MESSAGE__INIT;

	quorum.quorate = p->quorate;
	quorum.epoch = 1000000;
	message.body_case = GANTRY__AGENT_MESSAGE__BODY_QUORUM;
	message.quorum = &quorum;
	if (p->beating)
		poke_send(p, &message);
}

static void poke_give_tokens(Gantry__AgentMessage *message)
{
	uint8_t token[32];

	memset(token, 0x42, sizeof(token));
	if (message->body_case != GANTRY__AGENT_MESSAGE__BODY_GOALS)
		return;
	for (size_t i = 0; i < message->goals->n_migrations; i++)
		if (message->goals->migrations[i]->job != NULL && message->goals->migrations[i]->job->token.len == 0)
			pb_set_bytes(&message->goals->migrations[i]->job->token, token, sizeof(token));
}

static void poke_raw(struct poke *p, const char *hex)
{
	struct buf bytes = {0};
	unsigned value;

	for (; sscanf(hex, "%2x", &value) == 1 && hex[0] != '\0' && hex[1] != '\0'; hex += 2) {
		uint8_t byte = (uint8_t)value;
		buf_append(&bytes, &byte, 1);
	}
	if (p->conn != NULL)
		rpc_send(p->conn, FRAME_AGENT, bytes.data, bytes.len);
	buf_free(&bytes);
}

static void poke_type(struct poke *p, const char *text, bool enter)
{
	struct buf typed = {0};
	Gantry__ConsoleData data = GANTRY__CONSOLE_DATA__INIT;
	Gantry__AgentMessage message = GANTRY__AGENT_MESSAGE__INIT;

	buf_append(&typed, text, strlen(text));
	if (enter)
		buf_append(&typed, "\r", 1);
	data.data.data = typed.data;
	data.data.len = typed.len;
	message.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA;
	message.console_data = &data;
	poke_send(p, &message);
	buf_free(&typed);
}

static void poke_line(struct poke *p, const char *line)
{
	Gantry__AgentMessage *message = NULL;
	json_error_t at;
	struct err err;

	if (strncmp(line, "quorum ", 7) == 0) {
		p->beating = strcmp(line + 7, "silent") != 0;
		p->quorate = strcmp(line + 7, "on") == 0;
		poke_on_beat(&p->beat);
		return;
	}
	if (strncmp(line, "type ", 5) == 0 || strncmp(line, "line ", 5) == 0) {
		poke_type(p, line + 5, line[0] == 'l');
		return;
	}
	if (strncmp(line, "raw ", 4) == 0) {
		poke_raw(p, line + 4);
		return;
	}
	json_t *json = json_loads(line, 0, &at);
	if (json == NULL) {
		fprintf(stderr, "agent_poke: %s\n", at.text);
		exit(2);
	}
	if (pbjson_to_message(json, &gantry__agent_message__descriptor, (ProtobufCMessage **)&message, &err) < 0) {
		fprintf(stderr, "agent_poke: %s\n", err.text);
		exit(2);
	}
	json_decref(json);
	poke_give_tokens(message);
	poke_send(p, message);
	gantry__agent_message__free_unpacked(message, NULL);
}

static void poke_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct poke *p = handle->data;

	*ret = uv_buf_init(p->chunk, sizeof(p->chunk));
}

static void poke_on_input(uv_stream_t *stream, ssize_t n, const uv_buf_t *chunk)
{
	struct poke *p = stream->data;
	uint8_t *end;

	if (n < 0) {
		uv_stop(p->loop);
		return;
	}
	buf_append(&p->line, chunk->base, (size_t)n);
	while (p->line.len > 0 && (end = memchr(p->line.data, '\n', p->line.len)) != NULL) {
		size_t len = (size_t)(end - p->line.data);
		*end = '\0';
		if (len > 0)
			poke_line(p, (char *)p->line.data);
		buf_consume(&p->line, len + 1);
	}
}

static void poke_connect(uv_timer_t *timer);

static void poke_on_open(struct rpc_conn *conn, void *data)
{
	struct poke *p = data;
	Gantry__AgentHello hello = GANTRY__AGENT_HELLO__INIT;
	Gantry__AgentMessage message = GANTRY__AGENT_MESSAGE__INIT;

	hello.program = (char *)p->program;
	hello.version = (char *)GANTRY_VERSION;
	message.body_case = GANTRY__AGENT_MESSAGE__BODY_HELLO;
	message.hello = &hello;
	p->opened = true;
	poke_send(p, &message);
	uv_timer_start(&p->beat, poke_on_beat, 0, DEADLINE_HEARTBEAT_MS);
	uv_read_start((uv_stream_t *)&p->input, poke_alloc, poke_on_input);
}

static void poke_print(struct poke *p, json_t *body)
{
	json_t *line = json_pack("{s:I, s:o}", "ms", (json_int_t)(uv_hrtime() / 1000000), "message", body);

	json_dumpf(line, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

static void poke_on_frame(struct rpc_conn *conn, const struct frame *frame, void *data)
{
	Gantry__AgentMessage *message = gantry__agent_message__unpack(NULL, frame->len, frame->payload);

	if (message == NULL)
		return;
	/* Bytes are never printed as JSON, but a console is nothing else: as text, byte by byte. */
	if (message->body_case == GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA) {
		struct buf text = {0};
		for (size_t i = 0; i < message->console_data->data.len; i++) {
			uint8_t c = message->console_data->data.data[i];
			uint8_t utf8[2] = {0xc0 | c >> 6, 0x80 | (c & 0x3f)};
			buf_append(&text, c < 0x80 ? &c : utf8, c < 0x80 ? 1 : 2);
		}
		poke_print(data, json_pack("{s:{s:s#}}", "console_data", "data", (char *)text.data, (int)text.len));
		buf_free(&text);
	} else {
		poke_print(data, pbjson_from_message(&message->base, true));
	}
	gantry__agent_message__free_unpacked(message, NULL);
}

static void poke_on_close(struct rpc_conn *conn, int rc, const struct err *err, void *data)
{
	struct poke *p = data;

	/* The socket is there a moment before the agent listens. */
	if (!p->opened && p->tries++ < CONNECT_TRIES) {
		p->conn = NULL;
		uv_timer_start(&p->again, poke_connect, CONNECT_AGAIN_MS, 0);
		return;
	}
	fprintf(stderr, "agent_poke: closed: %s\n", rc < 0 ? err->text : "by the agent");
	p->conn = NULL;
	p->closed = true;
	uv_stop(p->loop);
}

static void poke_connect(uv_timer_t *timer)
{
	static const struct rpc_callbacks callbacks = {
	    .on_open = poke_on_open, .on_frame = poke_on_frame, .on_close = poke_on_close};
	struct poke *p = timer->data;
	struct err err;

	if (rpc_connect_unix(p->loop, p->path, 1u << FRAME_AGENT, &callbacks, p, &p->conn, &err) < 0) {
		fprintf(stderr, "agent_poke: %s\n", err.text);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct poke p = {.loop = uv_default_loop(),
			 .path = argc > 1 ? argv[1] : PATH_AGENT_SOCKET,
			 .program = argc > 2 ? argv[2] : "clusterd",
			 .beating = true,
			 .quorate = argc <= 3 || strcmp(argv[3], "off") != 0};

	signal(SIGPIPE, SIG_IGN);
	uv_timer_init(p.loop, &p.beat);
	uv_timer_init(p.loop, &p.again);
	p.beat.data = p.again.data = &p;
	uv_pipe_init(p.loop, &p.input, 0);
	uv_pipe_open(&p.input, STDIN_FILENO);
	p.input.data = &p;
	poke_connect(&p.again);
	uv_run(p.loop, UV_RUN_DEFAULT);
	return p.closed ? 3 : 0;
}
