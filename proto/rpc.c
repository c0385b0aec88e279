#include "proto/rpc_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lib/cleanup.h"

static void rpc__finish(struct rpc_conn *c);
static void rpc__deliver(struct rpc_conn *c);

static void rpc__on_timer(uv_timer_t *timer)
{
	struct rpc_conn *c = timer->data;
	struct err err = {0};

	switch (c->state) {
	case RPC_CONNECTING:
	case RPC_HANDSHAKE:
		/* The loop runs its timers before it reads: if we were late, the peer may have answered in time. */
		if (c->state == RPC_HANDSHAKE && !c->timer_extended && rpc__conn_has_unread(c)) {
			c->timer_extended = true;
			rpc__conn_set_timer(c, LIMIT_RPC_HANDSHAKE_MS);
			break;
		}
		err_set(&err, ETIMEDOUT, "%s does not answer: is the host up, and the port open in its firewall?", c->label);
		rpc__conn_fail(c, -ETIMEDOUT, &err);
		break;
	case RPC_OPEN:
		if (c->write_rc) {
			err_set(&err, -c->write_rc, "%s: %s", c->label, uv_strerror(c->write_rc));
			rpc__conn_fail(c, c->write_rc, &err);
			break;
		}
		err_set(&err, ETIMEDOUT, "a host without a certificate may stay %d s: join again", LIMIT_RPC_ANONYMOUS_MS / 1000);
		rpc__conn_refuse(c, -ETIMEDOUT, &err);
		break;
	case RPC_CLOSING:
		rpc__finish(c);
		break;
	case RPC_CLOSED:
		break;
	}
}

void rpc__conn_set_timer(struct rpc_conn *c, uint64_t timeout_ms)
{
	/* From now, not from the beginning of a turn of the loop that may have been long. */
	uv_update_time(c->loop);
	uv_timer_start(&c->timer, rpc__on_timer, timeout_ms, 0);
}

bool rpc__conn_has_unread(const struct rpc_conn *c)
{
	uv_os_fd_t fd;
	int unread = 0;

	return uv_fileno(&c->handle, &fd) == 0 && ioctl(fd, FIONREAD, &unread) == 0 && unread > 0;
}

struct rpc_conn *rpc__conn_new(uv_loop_t *loop, uint32_t kinds, char *label)
{
	struct rpc_conn *c = mem_alloc(sizeof(*c));

	c->loop = loop;
	c->label = label;
	frame_parser_init(&c->parser, LIMIT_FRAME_BYTES, kinds);
	return c;
}

static void rpc__conn_free(struct rpc_conn *c)
{
	rpc_tls_free(c->tls);
	frame_parser_free(&c->parser);
	buf_free(&c->pending);
	buf_free(&c->sending);
	free(c->cipher_in);
	free(c->label);
	free(c);
}

void rpc__conn_free_unstarted(struct rpc_conn *c)
{
	assert(!c->handles_open);
	rpc__conn_free(c);
}

/* The last step of a connection: all handles are closed and no request is out. */
static void rpc__maybe_gone(struct rpc_conn *c)
{
	if (c->handles_open || c->resolving)
		return;
	if (c->listener)
		rpc__listener_conn_gone(c);
	if (c->cb.on_close)
		c->cb.on_close(c, c->close_rc, &c->close_err, c->data);
	rpc__conn_free(c);
}

static void rpc__on_handle_closed(uv_handle_t *handle)
{
	struct rpc_conn *c = handle->data;

	c->handles_open--;
	rpc__maybe_gone(c);
}

static void rpc__finish(struct rpc_conn *c)
{
	if (c->state == RPC_CLOSED)
		return;
	c->state = RPC_CLOSED;
	if (c->in_handshakes)
		rpc__listener_handshake_done(c);
	if (c->resolving)
		uv_cancel((uv_req_t *)&c->resolve_req);
	uv_close(&c->handle, rpc__on_handle_closed);
	uv_close((uv_handle_t *)&c->timer, rpc__on_handle_closed);
	uv_close((uv_handle_t *)&c->kick, rpc__on_handle_closed);
}

static void rpc__set_reason(struct rpc_conn *c, int rc, const struct err *err)
{
	c->close_rc = rc;
	if (err)
		c->close_err = *err;
}

void rpc__conn_fail(struct rpc_conn *c, int rc, const struct err *err)
{
	if (c->state < RPC_CLOSING)
		rpc__set_reason(c, rc, err);
	rpc__finish(c);
}

static void rpc__alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct rpc_conn *c = handle->data;

	if (c->tls && !c->cipher_in)
		c->cipher_in = mem_alloc(LIMIT_RPC_READ_BYTES);
	buf->base = c->tls ? (char *)c->cipher_in : frame_parser_reserve(&c->parser, LIMIT_RPC_READ_BYTES);
	buf->len = LIMIT_RPC_READ_BYTES;
}

/* Flush, say that nothing follows, and wait for the peer's end: a plain close() with unread input would make the
 * kernel reset the connection, and the peer could lose the last answer or the refusal. */
static void rpc__begin_closing(struct rpc_conn *c, int rc, const struct err *err)
{
	rpc__set_reason(c, rc, err);
	if (c->write_rc) {
		rpc__finish(c);
		return;
	}
	c->state = RPC_CLOSING;
	if (c->in_handshakes)
		rpc__listener_handshake_done(c);
	uv_idle_stop(&c->kick);
	if (c->tls)
		rpc_tls_goodbye(c->tls);
	rpc__conn_set_timer(c, LIMIT_RPC_CLOSE_MS);
	/* Even if it was paused: a peer that waits for us to read may not read us either. */
	rpc__conn_read_on(c);
	rpc__write_flush(c);
}

void rpc__conn_refuse(struct rpc_conn *c, int rc, const struct err *err)
{
	if (c->state == RPC_OPEN)
		rpc__write_refusal(c, err->text);
	if (c->state < RPC_CLOSING)
		rpc__begin_closing(c, rc, err);
}

/* The peer has ended properly: what he queued for us has been delivered. */
static void rpc__peer_ended(struct rpc_conn *c)
{
	struct err err = {0};

	if (c->write_rc) {
		err_set(&err, -c->write_rc, "%s: %s", c->label, uv_strerror(c->write_rc));
		rpc__conn_fail(c, c->write_rc, &err);
	} else if (frame_parser_pending(&c->parser)) {
		err_set(&err, ECONNRESET, "%s ended the connection in the middle of a message", c->label);
		rpc__conn_fail(c, -ECONNRESET, &err);
	} else {
		rpc__conn_fail(c, 0, NULL);
	}
}

static void rpc__on_eof(struct rpc_conn *c)
{
	struct err err = {0};

	if (c->state == RPC_OPEN && !c->tls) {
		rpc__peer_ended(c);
		return;
	}
	if (c->state == RPC_HANDSHAKE)
		err_set(&err, ECONNRESET, "%s closed the connection during the handshake: it may have too many connections", c->label);
	else
		err_set(&err, ECONNRESET, "%s: the connection was cut (the program was killed, or its host stopped)", c->label);
	rpc__conn_fail(c, -ECONNRESET, &err);
}

static void rpc__peer_refused(struct rpc_conn *c, const struct frame *frame)
{
	char text[ERR_TEXT_MAX / 2];
	struct err err = {0};
	size_t len = frame->len < sizeof(text) - 1 ? frame->len : sizeof(text) - 1;

	/* It will stand on somebody's terminal: no control characters of a stranger. */
	for (size_t i = 0; i < len; i++)
		text[i] = frame->payload[i] < 0x20 || frame->payload[i] == 0x7f ? ' ' : (char)frame->payload[i];
	text[len] = '\0';
	err_set(&err, ECONNREFUSED, "%s refused: %s", c->label, text);
	rpc__conn_fail(c, -ECONNREFUSED, &err);
}

static void rpc__deliver(struct rpc_conn *c)
{
	while (c->state == RPC_OPEN && !c->paused) {
		struct err err = {0};
		struct frame frame;
		int rc = frame_parser_next(&c->parser, &frame, &err);

		if (rc < 0)
			rpc__conn_refuse(c, rc, &err);
		else if (rc == 0)
			break;
		else if (frame.kind == FRAME_REFUSAL)
			rpc__peer_refused(c, &frame);
		else if (c->cb.on_frame)
			c->cb.on_frame(c, &frame, c->data);
	}
	if (c->state == RPC_OPEN && !c->paused && c->ended)
		rpc__peer_ended(c);
}

static void rpc__opened(struct rpc_conn *c)
{
	c->state = RPC_OPEN;
	if (c->write_rc)
		rpc__conn_set_timer(c, LIMIT_RPC_CLOSE_MS);
	else
		uv_timer_stop(&c->timer);
	if (c->in_handshakes)
		rpc__listener_handshake_done(c);
	if (c->listener && c->tls && !rpc_tls_peer(c->tls)) {
		if (!rpc__listener_admit_anonymous(c)) {
			struct err err;

			err_set(&err, EBUSY, "too many hosts are joining at once: try again in a minute");
			rpc__conn_refuse(c, -EBUSY, &err);
			return;
		}
		c->parser.max_payload = LIMIT_RPC_ANONYMOUS_FRAME_BYTES;
		rpc__conn_set_timer(c, LIMIT_RPC_ANONYMOUS_MS);
	}
	if (c->cb.on_open)
		c->cb.on_open(c, c->data);
	if (c->state == RPC_OPEN && c->paused)
		uv_read_stop(&c->stream);
}

static void rpc__step_handshake(struct rpc_conn *c)
{
	struct err err = {0};
	bool can_refuse;
	int rc = rpc_tls_handshake(c->tls, &can_refuse, &err);

	rpc__write_flush(c);
	if (c->state != RPC_HANDSHAKE)
		return;
	if (rc < 0 && can_refuse)
		rpc__write_refusal(c, err.text);
	if (rc < 0)
		rpc__begin_closing(c, rc, &err); /* the alert is in the queue */
	else if (rc == 1)
		rpc__opened(c);
}

static void rpc__on_cipher(struct rpc_conn *c, size_t len)
{
	struct err err = {0};
	int rc;

	rpc_tls_input(c->tls, c->cipher_in, len);
	if (c->in_handshakes)
		rpc__listener_handshake_heard(c);
	if (c->state == RPC_HANDSHAKE)
		rpc__step_handshake(c);
	if (c->state != RPC_OPEN)
		return;
	rc = rpc_tls_read(c->tls, &c->parser, &err);
	if (rc == 1)
		c->ended = true;
	/* Key updates that the peer asks for are answered; he may not pile them up. */
	if (rpc__write_queued(c) > LIMIT_RPC_QUEUE_BYTES)
		rc = err_set(&err, ENOBUFS, "%s asks for more than it reads", c->label);
	rpc__write_flush(c);
	/* First what was said before it broke: it may be the refusal that explains why. */
	rpc__deliver(c);
	if (rc < 0 && c->state == RPC_OPEN)
		rpc__begin_closing(c, rc, &err);
}

static void rpc__on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
	struct rpc_conn *c = stream->data;
	struct err err = {0};

	if (c->state == RPC_CLOSING) {
		if (nread < 0)
			rpc__finish(c);
		return;
	}
	if (c->state == RPC_CLOSED || nread == 0)
		return;
	if (nread == UV_EOF) {
		rpc__on_eof(c);
	} else if (nread < 0) {
		err_set(&err, (int)-nread, "%s: %s", c->label, uv_strerror((int)nread));
		rpc__conn_fail(c, (int)nread, &err);
	} else if (c->tls) {
		rpc__on_cipher(c, (size_t)nread);
	} else {
		frame_parser_commit(&c->parser, (size_t)nread);
		rpc__deliver(c);
	}
}

static void rpc__on_kick(uv_idle_t *idle)
{
	struct rpc_conn *c = idle->data;

	uv_idle_stop(idle);
	rpc__deliver(c);
	if (c->state == RPC_OPEN && !c->paused)
		uv_read_start(&c->stream, rpc__alloc, rpc__on_read);
}

void rpc__conn_read_on(struct rpc_conn *c)
{
	uv_read_start(&c->stream, rpc__alloc, rpc__on_read);
}

void rpc__conn_on_resolved(struct rpc_conn *c)
{
	c->resolving = false;
	if (c->state == RPC_CLOSED)
		rpc__maybe_gone(c);
}

void rpc__conn_handles_init(struct rpc_conn *c)
{
	uv_timer_init(c->loop, &c->timer);
	uv_idle_init(c->loop, &c->kick);
	c->handle.data = c->timer.data = c->kick.data = c;
	c->handles_open = 3;
}

int rpc__conn_start(struct rpc_conn *c, struct tls_context *tls, bool server, bool cert_required,
		    const char *expected_name, struct err *err)
{
	int rc = 0;

	if (tls)
		rc = rpc_tls_new(tls, server, cert_required, expected_name, c->label, &c->pending, &c->tls, err);
	if (rc < 0)
		return rc;
	rc = uv_read_start(&c->stream, rpc__alloc, rpc__on_read);
	if (rc < 0)
		return err_set(err, -rc, "%s: %s", c->label, uv_strerror(rc));
	c->state = tls ? RPC_HANDSHAKE : RPC_OPEN;
	if (!tls)
		rpc__opened(c);
	else if (!server)
		rpc__step_handshake(c);
	return 0;
}

void rpc_conn_set_callbacks(struct rpc_conn *conn, const struct rpc_callbacks *cb, void *data)
{
	conn->cb = *cb;
	conn->data = data;
}

void rpc_conn_pause_reading(struct rpc_conn *conn, bool paused)
{
	if (conn->paused == paused)
		return;
	conn->paused = paused;
	if (conn->state != RPC_OPEN)
		return;
	if (paused)
		uv_read_stop(&conn->stream);
	else
		/* Not from here: the caller does not expect on_frame before this returns. */
		uv_idle_start(&conn->kick, rpc__on_kick);
}

const char *rpc_conn_peer(const struct rpc_conn *conn)
{
	return conn->tls ? rpc_tls_peer(conn->tls) : NULL;
}

const char *rpc_conn_address(const struct rpc_conn *conn)
{
	return conn->label;
}

void rpc_conn_close(struct rpc_conn *conn, const char *refusal)
{
	if (conn->state >= RPC_CLOSING)
		return;
	if (conn->state != RPC_OPEN) {
		rpc__conn_fail(conn, 0, NULL);
		return;
	}
	if (refusal)
		rpc__write_refusal(conn, refusal);
	if (conn->state == RPC_OPEN)
		rpc__begin_closing(conn, 0, NULL);
}
