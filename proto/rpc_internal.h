/* What rpc.c (a connection), rpc_write.c (its output), rpc_connect.c and rpc_listen.c share. Internal. */
#pragma once

#include "lib/limits.h"
#include "proto/rpc.h"
#include "proto/rpc_tls.h"

enum rpc_state {
	RPC_CONNECTING, /* resolving or connecting */
	RPC_HANDSHAKE,  /* TLS */
	RPC_OPEN,
	RPC_CLOSING,    /* flushes what is queued, then waits for the peer's end, both for LIMIT_RPC_CLOSE_MS at most */
	RPC_CLOSED,     /* handles are being closed */
};

struct rpc_conn {
	enum rpc_state state;
	uv_loop_t *loop;
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_pipe_t pipe;
		uv_tcp_t tcp;
	};
	uv_timer_t timer; /* connect and handshake, anonymous peers' time, closing */
	uv_idle_t kick;   /* gives out the frames that were held while reading was paused */
	uv_write_t write_req;
	uv_shutdown_t shutdown_req;
	uv_connect_t connect_req;
	uv_getaddrinfo_t resolve_req;
	struct sockaddr_storage address;

	struct rpc_callbacks cb;
	void *data;
	char *label; /* rpc_conn_address() */

	struct rpc_tls *tls;
	struct frame_parser parser;
	uint8_t *cipher_in; /* TLS: what one read gives, LIMIT_RPC_READ_BYTES */
	/* Output: `sending` is with libuv (while `writing`), `pending` collects behind it. */
	struct buf pending, sending;
	bool writing;
	bool above_low_water;
	int write_rc;       /* the first failed write; the peer's last words are still read */

	struct rpc_listener *listener; /* of an accepted one; held by a reference */
	struct rpc_conn *next_handshake, *prev_handshake;
	unsigned heard_tick; /* handshake: the listener's tick at which the peer last sent something, or came */
	bool in_handshakes, anonymous, timer_extended;

	bool paused, ended; /* ended: the peer said goodbye; frames may still wait in the parser */
	bool resolving, shutdown_sent;
	unsigned handles_open;
	int close_rc;
	struct err close_err;
};

/* ---- rpc.c */
struct rpc_conn *rpc__conn_new(uv_loop_t *loop, uint32_t kinds, char *label);
/* The stream is connected: unix sockets open, TLS begins its handshake. */
int rpc__conn_start(struct rpc_conn *c, struct tls_context *tls, bool server, bool cert_required,
		    const char *expected_name, struct err *err);
/* Ends it at once with this error; on_close comes later. The first reason counts. */
void rpc__conn_fail(struct rpc_conn *c, int rc, const struct err *err);
/* The same after telling the peer why. */
void rpc__conn_refuse(struct rpc_conn *c, int rc, const struct err *err);
void rpc__conn_set_timer(struct rpc_conn *c, uint64_t timeout_ms);
/* The kernel holds bytes of the peer that a busy loop has not come to read. */
bool rpc__conn_has_unread(const struct rpc_conn *c);
/* The stream handle was initialized by whoever knows its kind; the others follow here. */
void rpc__conn_handles_init(struct rpc_conn *c);
/* Closing: goes on reading (and dropping) until the peer's end. */
void rpc__conn_read_on(struct rpc_conn *c);
void rpc__conn_on_resolved(struct rpc_conn *c);
void rpc__conn_free_unstarted(struct rpc_conn *c);

/* ---- rpc_write.c */
void rpc__write_flush(struct rpc_conn *c);
size_t rpc__write_queued(const struct rpc_conn *c);
/* A refusal at the end of what is queued; best effort. */
void rpc__write_refusal(struct rpc_conn *c, const char *text);

/* ---- rpc_listen.c */
void rpc__listener_handshake_heard(struct rpc_conn *c);
void rpc__listener_handshake_done(struct rpc_conn *c);
/* false: too many peers without a certificate. */
bool rpc__listener_admit_anonymous(struct rpc_conn *c);
void rpc__listener_conn_gone(struct rpc_conn *c);
void rpc__tcp_settings(uv_tcp_t *tcp);
