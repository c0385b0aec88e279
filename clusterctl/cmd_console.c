/* console: a domain's serial line on this terminal. Ctrl-] leaves. Without a terminal: what comes on stdin is typed,
 * and after its end the output is followed until it has been silent for a moment. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ctl_client.h"
#include "clusterctl/units.h"

#define ESCAPE_KEY 0x1d /* Ctrl-] */
#define HISTORY_DEFAULT_BYTES 4096
#define SILENCE_MS 1000
#define READ_BYTES 4096

struct console {
	struct ctl_client *client;
	uv_poll_t input;
	bool input_open, tty, input_ended, left;
};

static int send_data(struct console *con, const uint8_t *data, size_t len)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__ConsoleData body = GANTRY__CONSOLE_DATA__INIT;
	uint64_t id;

	body.data.data = (uint8_t *)data;
	body.data.len = len;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_CONSOLE_DATA;
	message.console_data = &body;
	return ctl_send(con->client, &message, &id, NULL);
}

/* False: nothing more comes. */
static bool read_input(struct console *con)
{
	uint8_t data[READ_BYTES];
	ssize_t n = read(STDIN_FILENO, data, sizeof(data));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	uint8_t *escape = con->tty ? memchr(data, ESCAPE_KEY, (size_t)n) : NULL;
	size_t len = escape ? (size_t)(escape - data) : (size_t)n;
	if (len > 0)
		send_data(con, data, len);
	con->left = con->left || escape != NULL;
	return n > 0 && escape == NULL;
}

static void on_input(uv_poll_t *handle, int status, int events)
{
	struct console *con = handle->data;

	if (status == 0 && read_input(con))
		return;
	uv_poll_stop(handle);
	con->input_ended = true;
	if (con->left)
		ctl_client_interrupt(con->client);
}

/* Regular files cannot be polled; they are read at once, up to what a console takes in one go. */
static int open_input(struct console *con, struct err *err)
{
	struct stat st;

	if (fstat(STDIN_FILENO, &st) < 0 || S_ISREG(st.st_mode)) {
		while (read_input(con))
			;
		con->input_ended = true;
		return 0;
	}
	int rc = uv_poll_init(ctl_client_loop(con->client), &con->input, STDIN_FILENO);
	if (rc == -EPERM) { /* /dev/null */
		con->input_ended = true;
		return 0;
	}
	if (rc < 0)
		return err_set(err, -rc, "stdin cannot be watched: %s", strerror(-rc));
	con->input.data = con;
	con->input_open = true;
	uv_poll_start(&con->input, UV_READABLE, on_input);
	return 0;
}

static void write_all(const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(STDOUT_FILENO, data, len);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
		data += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
}

/* Until the console is closed, the user leaves, or, without a terminal, nothing more comes. */
static int relay(struct console *con, uint64_t id, struct err *err)
{
	for (;;) {
		Gantry__CtlMessage *message = NULL;
		uint64_t deadline = con->tty ? 0 : ctl_now_ms() + SILENCE_MS;
		int rc = ctl_receive(con->client, id, deadline, &message, err);

		if (rc == -ETIMEDOUT) {
			if (con->input_ended)
				return 0;
			continue;
		}
		if (rc == -EINTR)
			return con->left ? 0 : 130;
		if (rc < 0)
			return rc;
		if (message->body_case == GANTRY__CTL_MESSAGE__BODY_CONSOLE_DATA)
			write_all(message->console_data->data.data, message->console_data->data.len);
		bool closed = message->body_case == GANTRY__CTL_MESSAGE__BODY_CONSOLE_CLOSE;
		if (closed)
			fprintf(stderr, "%sclusterctl: the console was closed: %s\n", con->tty ? "\r\n" : "",
				message->console_close->reason[0] ? message->console_close->reason : "the domain has ended");
		gantry__ctl_message__free_unpacked(message, NULL);
		if (closed)
			return 0;
	}
}

static int open_console(struct invocation *inv, struct console *con, uint64_t *ret_id)
{
	Gantry__CtlMessage message = GANTRY__CTL_MESSAGE__INIT;
	Gantry__ConsoleOpen body = GANTRY__CONSOLE_OPEN__INIT;
	const char *history = invocation_option(inv, "history");
	uint64_t bytes = HISTORY_DEFAULT_BYTES;
	int rc = history ? units_parse_bytes("--history", history, 0, &bytes, &inv->err) : 0;

	body.domain = (char *)inv->args[0];
	body.history_bytes = bytes;
	body.read_only = invocation_option(inv, "read-only") != NULL;
	message.body_case = GANTRY__CTL_MESSAGE__BODY_CONSOLE_OPEN;
	message.console_open = &body;
	if (rc == 0)
		rc = ctl_connect(con->client, &inv->err);
	return rc < 0 ? rc : ctl_send(con->client, &message, ret_id, &inv->err);
}

static int run(struct invocation *inv, struct console *con)
{
	struct termios before, raw;
	uint64_t id;
	int rc = open_console(inv, con, &id);

	if (rc < 0)
		return rc;
	con->tty = isatty(STDIN_FILENO) == 1 && tcgetattr(STDIN_FILENO, &before) == 0;
	if (con->tty) {
		fprintf(stderr, "console of %s; Ctrl-] leaves\n", inv->args[0]);
		raw = before;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
	}
	rc = invocation_option(inv, "read-only") && !con->tty ? 0 : open_input(con, &inv->err);
	if (rc == 0)
		rc = relay(con, id, &inv->err);
	if (con->tty) {
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
		fputc('\n', stderr);
	}
	return rc;
}

int cmd_console(struct invocation *inv)
{
	struct console con = {0};
	int rc = invocation_client(inv, &con.client);

	if (rc < 0)
		return rc;
	rc = run(inv, &con);
	if (con.input_open)
		uv_close((uv_handle_t *)&con.input, NULL);
	/* The handle is on this stack: the loop has to be done with it. */
	ctl_client_free(con.client);
	inv->client = NULL;
	return rc;
}
