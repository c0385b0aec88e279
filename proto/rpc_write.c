#include <assert.h>
#include <errno.h>
#include <string.h>

#include "proto/pb.h"
#include "proto/rpc_internal.h"

enum {
	RPC_LOW_WATER_BYTES = 1 << 20,
	RPC_KEEP_BYTES = 2 << 20,     /* an empty buffer larger than this is given back */
	RPC_RECORD_BYTES = 16 << 10,  /* TLS: what is smaller becomes one record */
	RPC_BATCH_BYTES = 256 << 10,  /* TLS: encrypted before the kernel gets it */
};

static void rpc__trim(struct buf *b)
{
	b->len = 0;
	if (b->cap > RPC_KEEP_BYTES)
		buf_free(b);
}

size_t rpc__write_queued(const struct rpc_conn *c)
{
	return c->pending.len + (c->writing ? uv_stream_get_write_queue_size(&c->stream) : 0);
}

/* The peer may have said why he went before he went: his last words are read before we give up. */
static void rpc__write_failed(struct rpc_conn *c, int rc)
{
	struct err err = {0};

	if (c->write_rc)
		return;
	c->write_rc = rc;
	rpc__trim(&c->pending);
	if (c->state == RPC_OPEN && !c->paused) {
		rpc__conn_set_timer(c, LIMIT_RPC_CLOSE_MS);
		return;
	}
	if (c->state == RPC_HANDSHAKE)
		return; /* its timer runs already, and an alert may come */
	err_set(&err, -rc, "%s: %s", c->label, uv_strerror(rc));
	rpc__conn_fail(c, rc, &err);
}

static void rpc__on_shutdown(uv_shutdown_t *req, int status)
{
	/* The peer's end, or the timer, does the rest. */
}

static void rpc__shutdown_if_flushed(struct rpc_conn *c)
{
	if (c->state != RPC_CLOSING || c->writing || c->pending.len || c->shutdown_sent)
		return;
	c->shutdown_sent = true;
	if (uv_shutdown(&c->shutdown_req, &c->stream, rpc__on_shutdown) < 0)
		rpc__conn_fail(c, 0, NULL);
}

static void rpc__on_written(uv_write_t *req, int status)
{
	struct rpc_conn *c = req->handle->data;

	c->writing = false;
	rpc__trim(&c->sending);
	if (c->state == RPC_CLOSED)
		return;
	if (status < 0) {
		rpc__write_failed(c, status);
		return;
	}
	rpc__write_flush(c);
	if (c->state == RPC_OPEN && c->above_low_water && rpc__write_queued(c) < RPC_LOW_WATER_BYTES) {
		c->above_low_water = false;
		if (c->cb.on_drain)
			c->cb.on_drain(c, c->data);
	}
}

/* What the kernel takes at once goes at once; the rest becomes the one write that libuv has in hand. */
static void rpc__write_pending(struct rpc_conn *c)
{
	uv_buf_t buf = uv_buf_init((char *)c->pending.data, (unsigned)c->pending.len);
	struct buf swap;
	int rc = uv_try_write(&c->stream, &buf, 1);

	if (rc < 0 && rc != UV_EAGAIN) {
		rpc__write_failed(c, rc);
		return;
	}
	if (rc > 0) {
		buf.base += rc;
		buf.len -= (size_t)rc;
	}
	if (!buf.len) {
		rpc__trim(&c->pending);
		return;
	}
	swap = c->sending;
	c->sending = c->pending;
	c->pending = swap;
	c->writing = true;
	rc = uv_write(&c->write_req, &c->stream, &buf, 1, rpc__on_written);
	if (rc < 0) {
		c->writing = false;
		rpc__write_failed(c, rc);
	}
}

void rpc__write_flush(struct rpc_conn *c)
{
	if (!c->writing && !c->write_rc && c->pending.len && c->state != RPC_CLOSED)
		rpc__write_pending(c);
	rpc__shutdown_if_flushed(c);
}

static int rpc__encrypt(struct rpc_conn *c, const uint8_t *data, size_t len)
{
	while (len) {
		size_t now = len < RPC_BATCH_BYTES ? len : RPC_BATCH_BYTES;
		int rc = rpc_tls_write(c->tls, data, now);

		if (rc < 0)
			return rc;
		data += now;
		len -= now;
		if (c->pending.len >= RPC_BATCH_BYTES)
			rpc__write_flush(c);
	}
	return 0;
}

/* The first record takes the header, the head and as much of the body as fits: a record for 8 bytes would be
 * waste. The rest of the body is encrypted from where it lies. */
static int rpc__send_tls(struct rpc_conn *c, const uint8_t *header, const void *head, size_t head_len, const void *body,
			 size_t body_len)
{
	uint8_t record[RPC_RECORD_BYTES];
	size_t room = sizeof(record) - FRAME_HEADER_BYTES, from_head, from_body;
	int rc;

	from_head = head_len < room ? head_len : room;
	from_body = body_len < room - from_head ? body_len : room - from_head;
	memcpy(record, header, FRAME_HEADER_BYTES);
	if (from_head)
		memcpy(record + FRAME_HEADER_BYTES, head, from_head);
	if (from_body)
		memcpy(record + FRAME_HEADER_BYTES + from_head, body, from_body);
	rc = rpc_tls_write(c->tls, record, FRAME_HEADER_BYTES + from_head + from_body);
	if (rc == 0)
		rc = rpc__encrypt(c, (const uint8_t *)head + from_head, head_len - from_head);
	if (rc == 0)
		rc = rpc__encrypt(c, (const uint8_t *)body + from_body, body_len - from_body);
	rpc__write_flush(c);
	return rc;
}

static void rpc__append_from(struct buf *out, const void *data, size_t len, size_t *skip)
{
	if (*skip >= len) {
		*skip -= len;
		return;
	}
	buf_append(out, (const uint8_t *)data + *skip, len - *skip);
	*skip = 0;
}

static int rpc__send_plain(struct rpc_conn *c, const uint8_t *header, const void *head, size_t head_len, const void *body,
			   size_t body_len)
{
	size_t sent = 0;

	if (!c->writing && !c->pending.len) {
		uv_buf_t bufs[3] = {
			uv_buf_init((char *)(uintptr_t)header, FRAME_HEADER_BYTES),
			uv_buf_init((char *)(uintptr_t)head, (unsigned)head_len),
			uv_buf_init((char *)(uintptr_t)body, (unsigned)body_len),
		};
		int rc = uv_try_write(&c->stream, bufs, 3);

		if (rc < 0 && rc != UV_EAGAIN) {
			rpc__write_failed(c, rc);
			return -EPIPE;
		}
		sent = rc > 0 ? (size_t)rc : 0;
	}
	rpc__append_from(&c->pending, header, FRAME_HEADER_BYTES, &sent);
	rpc__append_from(&c->pending, head, head_len, &sent);
	rpc__append_from(&c->pending, body, body_len, &sent);
	rpc__write_flush(c);
	return 0;
}

static int rpc__send(struct rpc_conn *c, enum frame_kind kind, const void *head, size_t head_len, const void *body,
		     size_t body_len)
{
	uint8_t header[FRAME_HEADER_BYTES];

	frame_header_encode(header, kind, (uint32_t)(head_len + body_len));
	return c->tls ? rpc__send_tls(c, header, head, head_len, body, body_len)
		      : rpc__send_plain(c, header, head, head_len, body, body_len);
}

void rpc__write_refusal(struct rpc_conn *c, const char *text)
{
	if (!c->write_rc)
		rpc__send(c, FRAME_REFUSAL, text, strlen(text), NULL, 0);
}

int rpc_send_parts(struct rpc_conn *conn, enum frame_kind kind, const void *head, size_t head_len, const void *body,
		   size_t body_len)
{
	struct err err = {0};
	int rc;

	if (conn->state < RPC_OPEN)
		return -ENOTCONN;
	if (conn->state != RPC_OPEN || conn->write_rc)
		return -EPIPE;
	if (head_len > LIMIT_FRAME_BYTES || body_len > LIMIT_FRAME_BYTES - head_len)
		return -EMSGSIZE;
	if (rpc__write_queued(conn) + head_len + body_len > LIMIT_RPC_QUEUE_BYTES) {
		rc = err_set(&err, ENOBUFS, "%s does not read: %zu bytes wait for it; the connection is dropped", conn->label,
			     rpc__write_queued(conn));
		rpc__conn_fail(conn, rc, &err);
		return rc;
	}
	rc = rpc__send(conn, kind, head, head_len, body, body_len);
	if (rpc__write_queued(conn) > RPC_LOW_WATER_BYTES)
		conn->above_low_water = true;
	return rc;
}

int rpc_send(struct rpc_conn *conn, enum frame_kind kind, const void *payload, size_t len)
{
	return rpc_send_parts(conn, kind, payload, len, NULL, 0);
}

int rpc_send_message(struct rpc_conn *conn, enum frame_kind kind, const ProtobufCMessage *message)
{
	struct buf packed = {0};
	int rc;

	pb_pack(message, &packed);
	rc = rpc_send(conn, kind, packed.data, packed.len);
	buf_free(&packed);
	return rc;
}

size_t rpc_conn_queued(const struct rpc_conn *conn)
{
	return rpc__write_queued(conn);
}
