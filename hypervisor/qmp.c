#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "hypervisor/qmp.h"
#include "hypervisor/qmp_parser.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"

#define QMP_CONNECT_RETRY_MS 5
#define QMP_READ_BYTES 65536

/* One command on its way: first waiting to be written, then for its reply. */
struct qmp_command {
	struct qmp_command *next;
	uint64_t id;
	char *name;
	char *text;
	size_t len, written;
	int fd; /* goes along with the first byte; -1: none */
	qmp_reply_cb cb;
	void *data;
};

struct qmp {
	uv_loop_t *loop;
	struct qmp_callbacks cb;
	void *data;
	struct sockaddr_un address;
	int fd;
	bool want_oob, polling, negotiating, ready, closing;
	uint64_t deadline_ms, next_id;
	uv_poll_t poll;
	uv_timer_t timer;
	int open_handles;
	struct qmp_parser parser;
	struct qmp_command *commands; /* oldest first: unwritten ones are a tail of it */
	size_t n_commands;
	int close_rc;
	struct err close_err;
};

static void command_free(struct qmp_command *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->name);
	free(c->text);
	free(c);
}

static void command_answer(struct qmp_command *c, int rc, json_t *ret, const struct err *err)
{
	if (c->cb)
		c->cb(c->data, rc, ret, err);
	command_free(c);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct qmp *qmp = handle->data;
	struct qmp_command *c;
	struct err err;

	if (--qmp->open_handles > 0)
		return;
	if (qmp->fd >= 0)
		close(qmp->fd);
	while ((c = qmp->commands)) {
		qmp->commands = c->next;
		err_set(&err, ECONNRESET, "QMP command '%s' has no answer: %s", c->name,
			qmp->close_rc ? qmp->close_err.text : "the session was closed");
		command_answer(c, -ECONNRESET, NULL, &err);
	}
	if (qmp->cb.on_close)
		qmp->cb.on_close(qmp->data, qmp->close_rc, &qmp->close_err);
	qmp_parser_free(&qmp->parser);
	free(qmp);
}

static void session_end(struct qmp *qmp, int rc, const struct err *err)
{
	if (qmp->closing)
		return;
	qmp->closing = true;
	qmp->ready = false;
	qmp->close_rc = rc;
	if (err)
		qmp->close_err = *err;
	uv_close((uv_handle_t *)&qmp->timer, on_handle_closed);
	if (qmp->polling)
		uv_close((uv_handle_t *)&qmp->poll, on_handle_closed);
}

static void session_fail(struct qmp *qmp, int errnum, const char *what)
{
	struct err err = {0};
	int rc = err_set(&err, errnum, "QMP socket %s: %s", qmp->address.sun_path, what);

	session_end(qmp, rc, &err);
}

static void on_readable(struct qmp *qmp);

static bool wants_write(const struct qmp *qmp)
{
	for (const struct qmp_command *c = qmp->commands; c; c = c->next)
		if (c->written < c->len)
			return true;
	return false;
}

static ssize_t command_write(struct qmp *qmp, struct qmp_command *c)
{
	struct iovec iov = {.iov_base = c->text + c->written, .iov_len = c->len - c->written};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (c->fd >= 0 && c->written == 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		cmsg = CMSG_FIRSTHDR(&msg);
		*cmsg = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
		memcpy(CMSG_DATA(cmsg), &c->fd, sizeof(int));
	}
	return sendmsg(qmp->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int flush_commands(struct qmp *qmp)
{
	for (struct qmp_command *c = qmp->commands; c; c = c->next) {
		while (c->written < c->len) {
			ssize_t n = command_write(qmp, c);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return errno == EAGAIN ? 0 : -errno;
			c->written += (size_t)n;
		}
	}
	return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void poll_update(struct qmp *qmp)
{
	if (!qmp->closing && qmp->polling)
		uv_poll_start(&qmp->poll, UV_READABLE | (wants_write(qmp) ? UV_WRITABLE : 0), on_poll);
}

static int command_queue(struct qmp *qmp, const char *verb, const char *command, json_t *args, int fd, qmp_reply_cb cb, void *data)
{
	struct qmp_command *c, **tail;
	json_t *request;

	if (qmp->n_commands >= LIMIT_QMP_PENDING) {
		json_decref(args);
		return -ENOBUFS;
	}
	c = mem_alloc(sizeof(*c));
	c->id = ++qmp->next_id;
	c->name = str_dup(command);
	c->fd = fd;
	c->cb = cb;
	c->data = data;
	request = json_pack("{s:s, s:I}", verb, command, "id", (json_int_t)c->id);
	if (args)
		json_object_set_new(request, "arguments", args);
	c->text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	c->len = strlen(c->text);
	c->text[c->len++] = '\n'; /* takes the place of the terminator: the text is sent by length */
	for (tail = &qmp->commands; *tail;)
		tail = &(*tail)->next;
	*tail = c;
	qmp->n_commands++;
	/* Written from the loop, so that a failure never calls back from within the caller's own call. */
	poll_update(qmp);
	return 0;
}

static int execute(struct qmp *qmp, const char *verb, const char *command, json_t *args, int fd, qmp_reply_cb cb, void *data)
{
	if (!qmp->ready || qmp->closing) {
		json_decref(args);
		return -ENOTCONN;
	}
	return command_queue(qmp, verb, command, args, fd, cb, data);
}

int qmp_execute(struct qmp *qmp, const char *command, json_t *args, qmp_reply_cb cb, void *data)
{
	return execute(qmp, "execute", command, args, -1, cb, data);
}

int qmp_execute_oob(struct qmp *qmp, const char *command, json_t *args, qmp_reply_cb cb, void *data)
{
	return execute(qmp, "exec-oob", command, args, -1, cb, data);
}

int qmp_send_fd(struct qmp *qmp, const char *fdname, int fd, qmp_reply_cb cb, void *data)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0), rc;

	if (copy < 0)
		return -errno;
	rc = execute(qmp, "execute", "getfd", json_pack("{s:s}", "fdname", fdname), copy, cb, data);
	if (rc < 0)
		close(copy);
	return rc;
}

static void on_negotiated(void *data, int rc, json_t *ret, const struct err *err)
{
	struct qmp *qmp = data;

	if (rc == -ECONNRESET)
		return;
	if (rc < 0) {
		session_end(qmp, rc, err);
		return;
	}
	uv_timer_stop(&qmp->timer);
	qmp->ready = true;
	if (qmp->cb.on_ready)
		qmp->cb.on_ready(qmp->data, qmp);
}

static void handle_greeting(struct qmp *qmp)
{
	if (qmp->negotiating) {
		session_fail(qmp, EPROTO, "QEMU sent a second greeting");
		return;
	}
	qmp->negotiating = true;
	command_queue(qmp, "execute", "qmp_capabilities", qmp->want_oob ? json_pack("{s:[s]}", "enable", "oob") : NULL, -1, on_negotiated,
		      qmp);
}

static void handle_reply(struct qmp *qmp, const struct qmp_message *m)
{
	struct qmp_command **at, *c;
	struct err err = {0};

	/* Out-of-band answers overtake; an answer to what is not (wholly) sent yet is as wrong as an unknown id. */
	for (at = &qmp->commands; *at; at = &(*at)->next)
		if (m->has_id && (*at)->id == m->id && (*at)->written == (*at)->len)
			break;
	c = *at;
	if (!c) {
		session_fail(qmp, EPROTO, m->kind == QMP_MESSAGE_ERROR ? m->desc : "QEMU answered a command that was not sent");
		return;
	}
	*at = c->next;
	qmp->n_commands--;
	if (m->kind == QMP_MESSAGE_RETURN) {
		command_answer(c, 0, m->body, &err);
		return;
	}
	err_set(&err, EREMOTEIO, "QEMU refused '%s': %s (%s)", c->name, m->desc, m->name);
	command_answer(c, -EREMOTEIO, NULL, &err);
}

static void handle_message(struct qmp *qmp, const struct qmp_message *m)
{
	switch (m->kind) {
	case QMP_MESSAGE_GREETING:
		handle_greeting(qmp);
		break;
	case QMP_MESSAGE_EVENT:
		if (qmp->ready && qmp->cb.on_event)
			qmp->cb.on_event(qmp->data, qmp, m->name, m->body);
		break;
	case QMP_MESSAGE_RETURN:
	case QMP_MESSAGE_ERROR:
		handle_reply(qmp, m);
		break;
	}
}

static void on_readable(struct qmp *qmp)
{
	struct qmp_message m = {0};
	struct err err = {0};
	ssize_t n;
	int rc;

	n = recv(qmp->fd, buf_reserve(&qmp->parser.in, QMP_READ_BYTES), QMP_READ_BYTES, MSG_DONTWAIT);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			session_fail(qmp, errno, strerror(errno));
		return;
	}
	if (n == 0) {
		session_fail(qmp, ECONNRESET, "QEMU closed the session");
		return;
	}
	qmp->parser.in.len += (size_t)n;
	while (!qmp->closing && (rc = qmp_parser_next(&qmp->parser, &m, &err)) != 0) {
		if (rc < 0) {
			err_prefix(&err, rc, "QMP socket %s", qmp->address.sun_path);
			session_end(qmp, rc, &err);
			return;
		}
		handle_message(qmp, &m);
		qmp_message_clear(&m);
	}
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct qmp *qmp = poll->data;
	int rc;

	if (status < 0) {
		session_fail(qmp, -status, uv_strerror(status));
		return;
	}
	/* What has been said is heard before the session is given up for what cannot be written. */
	if (events & UV_READABLE)
		on_readable(qmp);
	if (qmp->closing)
		return;
	if ((rc = flush_commands(qmp)) < 0) {
		session_fail(qmp, -rc, strerror(-rc));
		return;
	}
	poll_update(qmp);
}

static int poll_open(struct qmp *qmp)
{
	int rc = uv_poll_init(qmp->loop, &qmp->poll, qmp->fd);

	if (rc < 0)
		return rc;
	qmp->poll.data = qmp;
	qmp->polling = true;
	qmp->open_handles++;
	poll_update(qmp);
	return 0;
}

/* 1: connected; 0: not yet; negative: never. */
static int try_connect(struct qmp *qmp)
{
	int rc;

	if (qmp->fd < 0) {
		qmp->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (qmp->fd < 0)
			return -errno;
	}
	if (connect(qmp->fd, (struct sockaddr *)&qmp->address, sizeof(qmp->address)) < 0)
		return errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR ? 0 : -errno;
	rc = poll_open(qmp);
	return rc < 0 ? rc : 1;
}

static void on_timer(uv_timer_t *timer)
{
	struct qmp *qmp = timer->data;
	uint64_t now = uv_now(qmp->loop);
	int rc;

	if (now >= qmp->deadline_ms) {
		session_fail(qmp, ETIMEDOUT, qmp->polling ? "QEMU does not negotiate (it is frozen)" : "QEMU does not listen");
		return;
	}
	if (!qmp->polling) {
		rc = try_connect(qmp);
		if (rc < 0) {
			session_fail(qmp, -rc, strerror(-rc));
			return;
		}
		uv_timer_start(timer, on_timer, rc ? qmp->deadline_ms - now : QMP_CONNECT_RETRY_MS, 0);
	}
}

int qmp_connect(uv_loop_t *loop, const char *path, uint32_t timeout_ms, int oob, const struct qmp_callbacks *cb, void *data,
		struct qmp **ret, struct err *err)
{
	struct qmp *qmp;

	if (strlen(path) >= sizeof(qmp->address.sun_path))
		return err_set(err, ENAMETOOLONG, "QMP socket path is too long: %s", path);
	qmp = mem_alloc(sizeof(*qmp));
	qmp->loop = loop;
	qmp->cb = *cb;
	qmp->data = data;
	qmp->want_oob = oob != 0;
	qmp->fd = -1;
	qmp->address.sun_family = AF_UNIX;
	strcpy(qmp->address.sun_path, path);
	qmp_parser_init(&qmp->parser, 0);
	uv_update_time(loop);
	qmp->deadline_ms = uv_now(loop) + timeout_ms;
	uv_timer_init(loop, &qmp->timer);
	qmp->timer.data = qmp;
	qmp->open_handles = 1;
	uv_timer_start(&qmp->timer, on_timer, 0, 0);
	*ret = qmp;
	return 0;
}

void qmp_close(struct qmp *qmp)
{
	session_end(qmp, 0, NULL);
}
