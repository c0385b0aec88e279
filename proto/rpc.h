/* One framing over unix sockets and over TLS (TCP), on libuv. A connection belongs to its creator and
 * lives until rpc_conn_close(); the close callback comes exactly once and after it the pointer is dead.
 * Limits: LIMIT_FRAME_BYTES, LIMIT_RPC_QUEUE_BYTES, LIMIT_RPC_CLIENTS, LIMIT_RPC_HANDSHAKE_MS. A peer that
 * breaks the framing gets a FRAME_REFUSAL with the reason and is dropped. Refusals of the peer end the connection with
 * -ECONNREFUSED and his text; they never come to on_frame.
 * A TCP peer that acknowledges nothing, or whose window stays shut, for LIMIT_RPC_SILENT_MS is dropped (-ETIMEDOUT).
 * A peer without a certificate (join) is limited in number, time and frame size: LIMIT_RPC_ANONYMOUS*.
 * A TLS stream that ends without the peer's goodbye is -ECONNRESET: it was cut, or he was killed.
 * Programs that use this ignore SIGPIPE (signal(SIGPIPE, SIG_IGN) first thing in main): libuv writes with plain write().
 * Calls may be made from any callback of the connection; none calls back before it returns. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>
#include <protobuf-c/protobuf-c.h>

#include "lib/err.h"
#include "proto/frame.h"

struct rpc_conn;
struct rpc_listener;
struct tls_context;  /* proto/tls.h */

struct rpc_callbacks {
	/* Connected (and, with TLS, handshake done). peer names: rpc_conn_peer(). Optional. */
	void (*on_open)(struct rpc_conn *conn, void *data);
	/* One whole frame. The payload is valid during the call. May close the connection. */
	void (*on_frame)(struct rpc_conn *conn, const struct frame *frame, void *data);
	/* Exactly once. rc 0: closed by us or a clean end; negative errno with err->text otherwise (a refusal's text
	 * of the peer included). The connection is freed after this returns. */
	void (*on_close)(struct rpc_conn *conn, int rc, const struct err *err, void *data);
	/* Optional: the queue of unsent bytes fell below the low-water mark (1 MiB) after rpc_conn_queued() was above it. */
	void (*on_drain)(struct rpc_conn *conn, void *data);
};

/* Connects. Fails at once or calls back (on_open, or on_close with the error). kinds: bit set of 1u << FRAME_*. */
int rpc_connect_unix(uv_loop_t *loop, const char *path, uint32_t kinds, const struct rpc_callbacks *cb, void *data, struct rpc_conn **ret, struct err *err);
/* address: IP or name; expected_name: the host name the peer's certificate must carry (NULL: any host of the cluster;
 * tls decides). The TLS context must outlive the connection. timeout_ms for connect + handshake. */
int rpc_connect_tls(uv_loop_t *loop, const char *address, int port, struct tls_context *tls, const char *expected_name, uint32_t timeout_ms, uint32_t kinds, const struct rpc_callbacks *cb, void *data, struct rpc_conn **ret, struct err *err);

/* Listens. on_accept gives the callbacks for the new connection by calling rpc_conn_set_callbacks on it (it comes before the handshake;
 * on_open comes after it). The unix socket is created 0600, a stale one is replaced, a live one is -EADDRINUSE. */
typedef void (*rpc_accept_cb)(struct rpc_conn *conn, void *data);
int rpc_listen_unix(uv_loop_t *loop, const char *path, uint32_t kinds, rpc_accept_cb cb, void *data, struct rpc_listener **ret, struct err *err);
/* client_cert_required false: a peer without certificate is let in with rpc_conn_peer() == NULL (for join). */
int rpc_listen_tls(uv_loop_t *loop, const char *address, int port, struct tls_context *tls, bool client_cert_required, uint32_t kinds, rpc_accept_cb cb, void *data, struct rpc_listener **ret, struct err *err);
void rpc_listener_close(struct rpc_listener *l);   /* frees it later; its connections stay */
void rpc_conn_set_callbacks(struct rpc_conn *conn, const struct rpc_callbacks *cb, void *data);

/* The port it listens on (asked for as 0: the one the kernel chose); 0 for unix sockets. */
int rpc_listener_port(const struct rpc_listener *l);

/* Sends. -ENOTCONN before on_open, -EMSGSIZE above LIMIT_FRAME_BYTES (nothing is sent), -EPIPE when closing, -ENOBUFS when the queue limit is passed (the connection is then being closed). */
int rpc_send(struct rpc_conn *conn, enum frame_kind kind, const void *payload, size_t len);
int rpc_send_message(struct rpc_conn *conn, enum frame_kind kind, const ProtobufCMessage *message);
/* Two-part payload without copying it together first (header + raw bytes). */
int rpc_send_parts(struct rpc_conn *conn, enum frame_kind kind, const void *head, size_t head_len, const void *body, size_t body_len);
size_t rpc_conn_queued(const struct rpc_conn *conn);     /* unsent bytes */
void rpc_conn_pause_reading(struct rpc_conn *conn, bool paused);
/* Certificate's host name of a TLS peer; NULL for unix sockets and for peers without a certificate. */
const char *rpc_conn_peer(const struct rpc_conn *conn);
/* Sends a refusal text (optional), flushes what is queued for at most 1 s, closes; on_close comes later with rc 0. */
void rpc_conn_close(struct rpc_conn *conn, const char *refusal);
/* "10.0.0.2:8001", "/run/gantry/ctl.sock": the other end, for logs. Never NULL. */
const char *rpc_conn_address(const struct rpc_conn *conn);
