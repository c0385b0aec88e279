/* A process in corosync's group by the shipped link (clusterd/daemon/cpg_link.c), and nothing else: writes down what the link tells it.
 *
 * Usage: cpg_probe TRACE. Commands on standard input: "send N" sends N messages; its end is the end of the probe.
 * group_rules.py reads the lines of TRACE:
 *
 *   NODE join LIFE                 connected; LIFE names this connection and is in each message it sends
 *   NODE left                      the connection is gone
 *   NODE view ID M,M,M             a view
 *   NODE sent LIFE SEQ             the link is given a message; "unsent" follows if it did not take it
 *   NODE msg SENDER LIFE SEQ       one was delivered */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "clusterd/daemon/cpg_link.h"
#include "lib/buf.h"

#define MESSAGE_CHARS 64

struct probe {
	uv_loop_t loop;
	uv_pipe_t input;
	struct cpg_link *link;
	int trace;
	uint32_t node;
	unsigned connection;
	uint64_t seq;
	char life[32], line[64];
	size_t line_len;
};

static void say(struct probe *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct probe *p, const char *fmt, ...)
{
	char line[512];
	int len = snprintf(line, sizeof(line), "%" PRIu32 " ", p->node);
	va_list ap;

	va_start(ap, fmt);
	len += vsnprintf(line + len, sizeof(line) - (size_t)len, fmt, ap);
	va_end(ap);
	line[len++] = '\n';
	/* Whole lines: a reader sees all that has happened, also when we are killed. */
	if (write(p->trace, line, (size_t)len) != len)
		exit(1);
}

static bool on_connected(void *data, uint32_t node_id)
{
	struct probe *p = data;

	p->node = node_id;
	p->seq = 0;
	snprintf(p->life, sizeof(p->life), "%" PRIx64 ".%u", uv_hrtime(), ++p->connection);
	say(p, "join %s", p->life);
	return true;
}

static void on_nodes(void *data, uint32_t ring_node, uint64_t ring_seq, const uint32_t *nodes, size_t n)
{
}

static void on_view(void *data, uint64_t id, const uint32_t *members, size_t n)
{
	struct buf text = {0};

	for (size_t i = 0; i < n; i++)
		buf_printf(&text, "%s%" PRIu32, i ? "," : "", members[i]);
	say(data, "view %" PRIx64 " %s", id, buf_str(&text));
	buf_free(&text);
}

static void on_message(void *data, uint32_t sender, const uint8_t *message, size_t len)
{
	say(data, "msg %" PRIu32 " %.*s", sender, (int)len, (const char *)message);
}

static void on_disconnected(void *data, const char *why)
{
	struct probe *p = data;

	if (p->node)
		say(p, "left");
}

static void on_closed(void *data)
{
	exit(0);
}

static void command(struct probe *p, const char *line)
{
	char message[MESSAGE_CHARS];
	unsigned n;

	if (sscanf(line, "send %u", &n) != 1)
		return;
	while (n--) {
		int len = snprintf(message, sizeof(message), "%s %" PRIu64, p->life, p->seq + 1);

		say(p, "sent %s", message);
		if (cpg_link_send(p->link, (const uint8_t *)message, (size_t)len) < 0) {
			say(p, "unsent %s", message);
			return;
		}
		p->seq++;
	}
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
	struct probe *p = handle->data;

	*ret = uv_buf_init(p->line + p->line_len, (unsigned)(sizeof(p->line) - 1 - p->line_len));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
	struct probe *p = stream->data;
	char *end;

	if (n < 0) {
		uv_close((uv_handle_t *)stream, NULL);
		cpg_link_close(p->link);
		return;
	}
	p->line_len += (size_t)n;
	p->line[p->line_len] = '\0';
	while ((end = strchr(p->line, '\n'))) {
		*end++ = '\0';
		command(p, p->line);
		p->line_len = strlen(end);
		memmove(p->line, end, p->line_len + 1);
	}
}

int main(int argc, char **argv)
{
	static const struct cpg_link_callbacks callbacks = {.on_connected = on_connected, .on_nodes = on_nodes, .on_view = on_view,
							    .on_message = on_message, .on_disconnected = on_disconnected, .on_closed = on_closed};
	struct probe p = {.trace = argc == 2 ? open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1};

	if (p.trace < 0) {
		fprintf(stderr, argc == 2 ? "cpg_probe: cannot write the trace: %s\n" : "Usage: cpg_probe TRACE\n", strerror(errno));
		return 1;
	}
	uv_loop_init(&p.loop);
	uv_pipe_init(&p.loop, &p.input, 0);
	p.input.data = &p;
	if (uv_pipe_open(&p.input, STDIN_FILENO) < 0)
		return 1;
	uv_read_start((uv_stream_t *)&p.input, on_alloc, on_read);
	p.link = cpg_link_new(&p.loop, &callbacks, &p);
	uv_run(&p.loop, UV_RUN_DEFAULT);
	return 1;
}
