#include "agent/daemon/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "lib/log.h"

#define CONSOLE_READ_BYTES 4096
#define CONSOLE_INPUT_QUEUE_BYTES (64u << 10) /* typed, not yet taken by QEMU; then the writer is not read any more */

struct console {
	struct domain *domain; /* NULL once detached; freed when the pipe is closed */
	uv_pipe_t pipe;
	uv_connect_t connect;
	bool up, writer_paused;
	struct buf history;
	char chunk[CONSOLE_READ_BYTES];
};

struct console_write {
	uv_write_t write;
	struct console *console;
	uint8_t data[];
};

static void console__send_data(struct client *c, const uint8_t *data, size_t len)
{
	Gantry__ConsoleData body = GANTRY__CONSOLE_DATA__INIT;
	Gantry__AgentMessage message = GANTRY__AGENT_MESSAGE__INIT;

	body.data.data = (uint8_t *)data;
	body.data.len = len;
	message.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_DATA;
	message.console_data = &body;
	agent_clients_send(c, &message);
}

static void console__send_close(struct client *c, const char *why)
{
	Gantry__ConsoleClose body = GANTRY__CONSOLE_CLOSE__INIT;
	Gantry__AgentMessage message = GANTRY__AGENT_MESSAGE__INIT;

	body.reason = (char *)why;
	message.body_case = GANTRY__AGENT_MESSAGE__BODY_CONSOLE_CLOSE;
	message.console_close = &body;
	agent_clients_send(c, &message);
}

static struct client *console__writer(const struct console *con)
{
	for (struct client *c = con->domain->agent->clients; c != NULL; c = c->next)
		if (c->console == con && c->console_writer)
			return c;
	return NULL;
}

static void console__keep(struct console *con, const char *data, size_t len)
{
	buf_append(&con->history, data, len);
	if (con->history.len > LIMIT_CONSOLE_HISTORY_BYTES)
		buf_consume(&con->history, con->history.len - LIMIT_CONSOLE_HISTORY_BYTES);
}

static void console__on_closed(uv_handle_t *handle)
{
	struct console *con = handle->data;

	buf_free(&con->history);
	free(con);
}

static void console__alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct console *con = handle->data;

	*ret = uv_buf_init(con->chunk, sizeof(con->chunk));
}

static void console__on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *chunk)
{
	struct console *con = stream->data;

	if (con->domain == NULL || n == 0)
		return;
	if (n < 0) {
		/* QEMU is about to end, or has given the console up; either way it is attached anew or the end comes.
		 */
		uv_read_stop(stream);
		con->up = false;
		return;
	}
	console__keep(con, chunk->base, (size_t)n);
	for (struct client *c = con->domain->agent->clients, *next; c != NULL; c = next) {
		next = c->next;
		if (c->console == con)
			console__send_data(c, (const uint8_t *)chunk->base, (size_t)n);
	}
}

static void console__on_connected(uv_connect_t *connect, int status)
{
	struct console *con = connect->data;

	if (con->domain == NULL)
		return;
	if (status < 0 || uv_read_start((uv_stream_t *)&con->pipe, console__alloc, console__on_read) < 0)
		log_warning("domain %s: its console cannot be reached: %s", con->domain->name, uv_strerror(status));
	else
		con->up = true;
}

static void console__seed(struct console *con)
{
	_cleanup_free_ char *path = agent_console_log_path(con->domain->name);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
	off_t from = size > (off_t)LIMIT_CONSOLE_HISTORY_BYTES ? size - (off_t)LIMIT_CONSOLE_HISTORY_BYTES : 0;
	ssize_t n;

	while (fd >= 0 && (n = pread(fd, con->chunk, sizeof(con->chunk), from)) > 0) {
		console__keep(con, con->chunk, (size_t)n);
		from += n;
	}
}

void console_attach(struct domain *d, bool from_log)
{
	_cleanup_free_ char *run_dir = NULL, *path = NULL;
	struct console *con;

	if (d->console != NULL)
		return;
	run_dir = agent_run_dir(d->uuid);
	path = str_printf("%s/console.sock", run_dir);
	con = mem_alloc(sizeof(*con));
	con->domain = d;
	uv_pipe_init(d->agent->loop, &con->pipe, 0);
	con->pipe.data = con;
	con->connect.data = con;
	d->console = con;
	if (from_log)
		console__seed(con);
	uv_pipe_connect(&con->connect, &con->pipe, path, console__on_connected);
}

void console_detach(struct domain *d, const char *why)
{
	struct console *con = d->console;

	if (con == NULL)
		return;
	for (struct client *c = d->agent->clients, *next; c != NULL; c = next) {
		next = c->next;
		if (c->console != con)
			continue;
		console_client_gone(c);
		console__send_close(c, why);
	}
	d->console = NULL;
	con->domain = NULL;
	uv_close((uv_handle_t *)&con->pipe, console__on_closed);
}

int console_open(struct client *c, const Gantry__ConsoleOpen *open, struct err *err)
{
	struct domain *d = agent_find_domain_named(c->agent, open->domain);
	size_t want, have;

	if (c->console != NULL)
		return err_set(err, EBUSY, "this connection already watches the console of '%s'",
			       c->console->domain->name);
	if (d == NULL || d->console == NULL)
		return err_set(err, ENOENT, "domain '%s' does not run on host '%s'", open->domain, c->agent->conf.name);
	if (!open->read_only && console__writer(d->console) != NULL)
		return err_set(err, EBUSY, "the console of '%s' is already open for writing; open it read-only",
			       d->name);
	c->console = d->console;
	c->console_writer = !open->read_only;
	have = d->console->history.len;
	want = open->history_bytes < have ? (size_t)open->history_bytes : have;
	if (want > 0)
		console__send_data(c, d->console->history.data + have - want, want);
	return 0;
}

static void console__on_written(uv_write_t *write, int status)
{
	struct console_write *w = write->data;
	struct console *con = w->console;

	if (con->domain != NULL && con->writer_paused &&
	    uv_stream_get_write_queue_size((uv_stream_t *)&con->pipe) < CONSOLE_INPUT_QUEUE_BYTES) {
		struct client *c = console__writer(con);
		con->writer_paused = false;
		if (c != NULL && c->conn != NULL)
			rpc_conn_pause_reading(c->conn, false);
	}
	free(w);
}

void console_input(struct client *c, const uint8_t *data, size_t len)
{
	struct console *con = c->console;
	struct console_write *w;
	uv_buf_t buf;

	if (con == NULL || !c->console_writer || !con->up || len == 0)
		return;
	w = mem_alloc(sizeof(*w) + len);
	w->console = con;
	w->write.data = w;
	memcpy(w->data, data, len);
	buf = uv_buf_init((char *)w->data, (unsigned)len);
	if (uv_write(&w->write, (uv_stream_t *)&con->pipe, &buf, 1, console__on_written) < 0) {
		free(w);
		return;
	}
	if (uv_stream_get_write_queue_size((uv_stream_t *)&con->pipe) >= CONSOLE_INPUT_QUEUE_BYTES &&
	    !con->writer_paused) {
		con->writer_paused = true;
		rpc_conn_pause_reading(c->conn, true);
	}
}

void console_client_gone(struct client *c)
{
	if (c->console == NULL)
		return;
	if (c->console_writer && c->console->writer_paused) {
		c->console->writer_paused = false;
		if (c->conn != NULL)
			rpc_conn_pause_reading(c->conn, false);
	}
	c->console = NULL;
	c->console_writer = false;
}
