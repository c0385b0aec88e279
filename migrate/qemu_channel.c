#include "migrate/qemu_channel.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/limits.h"

struct qemu_channel {
	uv_loop_t *loop;
	uv_poll_t poll;
	int fd;
	struct qemu_channel_callbacks cb;
	void *data;
	bool paused, ended, closing;
	struct buf queue;
	size_t sent; /* of queue */
	uint8_t *in; /* LIMIT_MIGRATION_CHUNK_BYTES */
};

/* As root the system's maximum is passed; otherwise the kernel cuts the wish down to it, which only costs speed. */
static void enlarge(int fd)
{
	int bytes = LIMIT_MIGRATION_SOCKET_BYTES;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int qemu_channel_pair(const char *name, int ret_fds[2], struct err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t len;
	int fds[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return err_set(err, errno, "socket pair for QEMU's migration stream: %s", strerror(errno));
	enlarge(fds[0]);
	enlarge(fds[1]);
	if (name) {
		snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "%s%s", QEMU_CHANNEL_NAME, name);
		len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1);
		if (bind(fds[1], (struct sockaddr *)&address, (socklen_t)len) < 0) {
			rc = err_set(err, errno, "socket pair for QEMU's migration stream: name '%s': %s", address.sun_path + 1, strerror(errno));
			close(fds[0]);
			close(fds[1]);
			return rc;
		}
	}
	memcpy(ret_fds, fds, sizeof(fds));
	return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void poll_update(struct qemu_channel *ch)
{
	int events = (ch->paused || ch->ended ? 0 : UV_READABLE) | (ch->queue.len > ch->sent ? UV_WRITABLE : 0);

	if (ch->closing)
		return;
	if (events)
		uv_poll_start(&ch->poll, events, on_poll);
	else
		uv_poll_stop(&ch->poll);
}

static void read_some(struct qemu_channel *ch)
{
	ssize_t n = recv(ch->fd, ch->in, LIMIT_MIGRATION_CHUNK_BYTES, MSG_DONTWAIT);

	if (n > 0) {
		ch->cb.on_data(ch->data, ch->in, (size_t)n);
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* A reset is an end too: QEMU is gone, or was told to drop the stream. */
	ch->ended = true;
	ch->cb.on_eof(ch->data);
}

/* How much of it QEMU took; -EPIPE. */
static ssize_t send_some(struct qemu_channel *ch, const uint8_t *bytes, size_t len)
{
	ssize_t n = send(ch->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EINTR ? 0 : -EPIPE;
}

static void flush_queue(struct qemu_channel *ch)
{
	ssize_t n = send_some(ch, ch->queue.data + ch->sent, ch->queue.len - ch->sent);

	if (n < 0)
		ch->sent = ch->queue.len; /* nobody will read it: the end is told by the reading side and by QEMU's death */
	else
		ch->sent += (size_t)n;
	if (ch->sent < ch->queue.len)
		return;
	ch->queue.len = ch->sent = 0;
	if (ch->cb.on_drain)
		ch->cb.on_drain(ch->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct qemu_channel *ch = poll->data;

	if (ch->queue.len > ch->sent && (events & UV_WRITABLE))
		flush_queue(ch);
	if (!ch->closing && !ch->paused && !ch->ended && (status < 0 || (events & UV_READABLE)))
		read_some(ch);
	poll_update(ch);
}

int qemu_channel_open(uv_loop_t *loop, int fd, const struct qemu_channel_callbacks *cb, void *data, struct qemu_channel **ret, struct err *err)
{
	struct qemu_channel *ch = mem_alloc(sizeof(*ch));
	int rc = uv_poll_init(loop, &ch->poll, fd);

	if (rc < 0) {
		close(fd);
		free(ch);
		return err_set(err, -rc, "QEMU's migration stream: %s", uv_strerror(rc));
	}
	ch->loop = loop;
	ch->poll.data = ch;
	ch->fd = fd;
	ch->cb = *cb;
	ch->data = data;
	ch->in = mem_alloc(LIMIT_MIGRATION_CHUNK_BYTES);
	poll_update(ch);
	*ret = ch;
	return 0;
}

int qemu_channel_write(struct qemu_channel *ch, const void *bytes, size_t len)
{
	ssize_t n = ch->queue.len > ch->sent ? 0 : send_some(ch, bytes, len);

	if (n < 0)
		return -EPIPE;
	if ((size_t)n < len) {
		buf_append(&ch->queue, (const uint8_t *)bytes + n, len - (size_t)n);
		poll_update(ch);
	}
	return 0;
}

size_t qemu_channel_queued(const struct qemu_channel *ch)
{
	return ch->queue.len - ch->sent;
}

void qemu_channel_pause(struct qemu_channel *ch, bool paused)
{
	ch->paused = paused;
	poll_update(ch);
}

static void on_closed(uv_handle_t *handle)
{
	struct qemu_channel *ch = handle->data;

	close(ch->fd);
	buf_free(&ch->queue);
	free(ch->in);
	free(ch);
}

void qemu_channel_close(struct qemu_channel *ch)
{
	if (!ch)
		return;
	ch->closing = true;
	uv_close((uv_handle_t *)&ch->poll, on_closed);
}
