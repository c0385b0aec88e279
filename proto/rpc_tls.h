/* One TLS session between byte buffers: no sockets, no loop. Internal to rpc.
 * What comes from the wire is lent to rpc_tls_input() and is used up by the next handshake or read; what goes to
 * the wire is appended to the buffer given at the start, which the owner empties. Errors name the peer by `label`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/frame.h"
#include "proto/tls.h"

struct rpc_tls;

/* out must outlive the session. cert_required: servers only. expected_name may be NULL. */
int rpc_tls_new(const struct tls_context *tls, bool server, bool cert_required, const char *expected_name,
		const char *label, struct buf *out, struct rpc_tls **ret, struct err *err);
struct rpc_tls *rpc_tls_free(struct rpc_tls *t);
void rpc_tls_input(struct rpc_tls *t, const void *data, size_t len);
/* 1: done, and the peer is who he should be; 0: waits for the peer; negative: failed. *ret_can_refuse: the
 * session itself stands (a refusal text can be sent), only the peer's names are wrong. */
int rpc_tls_handshake(struct rpc_tls *t, bool *ret_can_refuse, struct err *err);
/* All that can be decrypted goes into the parser. 1: the peer ended the session properly; 0: more may come. */
int rpc_tls_read(struct rpc_tls *t, struct frame_parser *parser, struct err *err);
int rpc_tls_write(struct rpc_tls *t, const void *data, size_t len);
/* Says that nothing follows, so that the peer can tell an end from a cut. */
void rpc_tls_goodbye(struct rpc_tls *t);
/* The peer's host name; NULL without a certificate or before the handshake. */
const char *rpc_tls_peer(const struct rpc_tls *t);
