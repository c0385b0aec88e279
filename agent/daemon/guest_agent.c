#include "agent/daemon/guest_agent.h"

#include <stdlib.h>
#include <string.h>

#include "agent/daemon/domain_run.h"
#include "hypervisor/qemu_args.h"
#include "hypervisor/qga_parser.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#define CONNECT_AGAIN_MS 5000
#define GUEST_AGENT_CHUNK_BYTES 4096
#define GUEST_AGENT_READ_BYTES (64u << 10)

struct guest_agent {
	struct domain *domain; /* NULL once detached; freed when the pipe is closed */
	uv_pipe_t pipe;
	uv_connect_t connect;
	bool up, failed, open;
	uint32_t first_id, last_id;
	uint64_t asked_at_ms;
	size_t budget; /* bytes that may still be read before the next question */
	struct qga_parser parser;
	char chunk[GUEST_AGENT_CHUNK_BYTES];
};

static void guest_agent__on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void guest_agent__alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct guest_agent *ga = handle->data;

	*ret = uv_buf_init(ga->chunk, sizeof(ga->chunk));
}

static void guest_agent__on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *chunk)
{
	struct guest_agent *ga = stream->data;
	struct domain *d = ga->domain;

	if (d == NULL || n == 0)
		return;
	if (n < 0) {
		/* QEMU ends, or somebody else took the socket's place. */
		ga->failed = true;
		uv_read_stop(stream);
		return;
	}
	if (ga->last_id != 0 && qga_parser_feed(&ga->parser, chunk->base, (size_t)n, ga->first_id, ga->last_id)) {
		if (!d->guest_watch.heard) {
			log_info("domain %s: its guest agent answers", d->name);
			agent_wake(d->agent);
		}
		guest_watch_answered(&d->guest_watch, agent_now_ms(d->agent));
	}
	ga->budget -= (size_t)n < ga->budget ? (size_t)n : ga->budget;
	if (ga->budget == 0)
		uv_read_stop(stream);
}

static void guest_agent__on_connected(uv_connect_t *connect, int status)
{
	struct guest_agent *ga = connect->data;

	if (ga->domain == NULL)
		return;
	/* A QEMU of an older agent has no such port. */
	ga->up = status == 0;
	ga->failed = status < 0;
}

/* ---- is somebody at the other end? */

static void guest_agent__port_is(struct domain *d, bool open)
{
	if (d->guest_agent == NULL)
		return;
	/* A guest that closes it is none that hangs: its agent was stopped, or the guest goes down. */
	if (!open)
		guest_watch_reset(&d->guest_watch);
	if (open && !d->guest_agent->open)
		d->guest_agent->asked_at_ms = 0;
	d->guest_agent->open = open;
}

void guest_agent_port_event(struct domain *d, json_t *event_data)
{
	const char *id = json_string_value(json_object_get(event_data, "id"));

	if (id != NULL && strcmp(id, QEMU_GUEST_AGENT_ID) == 0)
		guest_agent__port_is(d, json_is_true(json_object_get(event_data, "open")));
}

static void guest_agent__chardevs_are(void *data, int rc, json_t *ret, const struct err *err)
{
	struct domain *d = data;
	json_t *chardev;
	size_t i;

	d->pending--;
	if (rc < 0)
		return;
	json_array_foreach(ret, i, chardev) {
		const char *label = json_string_value(json_object_get(chardev, "label"));
		if (label != NULL && strcmp(label, QEMU_GUEST_AGENT_ID) == 0)
			guest_agent__port_is(d, json_is_true(json_object_get(chardev, "frontend-open")));
	}
}

void guest_agent_ask_port(struct domain *d)
{
	if (d->guest_agent != NULL)
		domain_run_qmp(d, "query-chardev", NULL, guest_agent__chardevs_are);
}

/* ---- */

static void guest_agent__attach(struct domain *d)
{
	_cleanup_free_ char *run_dir = agent_run_dir(d->uuid), *path = str_printf("%s/agent.sock", run_dir);
	struct guest_agent *ga = mem_alloc(sizeof(*ga));

	ga->domain = d;
	ga->pipe.data = ga;
	ga->connect.data = ga;
	ga->asked_at_ms = agent_now_ms(d->agent);
	qga_parser_init(&ga->parser);
	uv_pipe_init(d->agent->loop, &ga->pipe, 0);
	d->guest_agent = ga;
	uv_pipe_connect(&ga->connect, &ga->pipe, path, guest_agent__on_connected);
	guest_agent_ask_port(d);
}

static void guest_agent__ask(struct guest_agent *ga, uint64_t now)
{
	char text[QGA_QUESTION_MAX];
	uv_buf_t buf;

	/* The first number differs from those of an agent before this one, whose answers may still come. */
	if (ga->last_id == 0)
		ga->first_id = ga->last_id = (uint32_t)(uv_hrtime() / 1000000) % 1000000000 + 1;
	else
		ga->last_id++;
	buf = uv_buf_init(text, (unsigned)qga_question(text, sizeof(text), ga->last_id));
	if (uv_try_write((uv_stream_t *)&ga->pipe, &buf, 1) > 0)
		guest_watch_asked(&ga->domain->guest_watch);
	ga->asked_at_ms = now;
	ga->budget = GUEST_AGENT_READ_BYTES;
	uv_read_start((uv_stream_t *)&ga->pipe, guest_agent__alloc, guest_agent__on_read);
}

void guest_agent_tend(struct domain *d, uint32_t hung_s)
{
	struct guest_agent *ga = d->guest_agent;
	uint64_t now = agent_now_ms(d->agent);

	if (ga == NULL) {
		guest_agent__attach(d);
	} else if (ga->failed) {
		if (now - ga->asked_at_ms >= CONNECT_AGAIN_MS) {
			guest_agent_detach(d);
			guest_agent__attach(d);
		}
	} else if (ga->up && ga->open && d->actual == ACTUAL_RUNNING &&
		   (ga->asked_at_ms == 0 || now - ga->asked_at_ms >= guest_watch_ask_every_ms(hung_s))) {
		guest_agent__ask(ga, now);
	}
}

void guest_agent_detach(struct domain *d)
{
	struct guest_agent *ga = d->guest_agent;

	if (ga == NULL)
		return;
	d->guest_agent = NULL;
	ga->domain = NULL;
	uv_close((uv_handle_t *)&ga->pipe, guest_agent__on_closed);
}
