/* An asynchronous QMP client on libuv: one in-band session and, if asked, a second out-of-band one
 * (negotiated with enable:["oob"]) that still works while the first is frozen. Every command calls back
 * exactly once. Owner: creator; qmp_close() then the close callback.
 * Limits: LIMIT_QMP_LINE_BYTES, LIMIT_QMP_PENDING (-ENOBUFS). */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <uv.h>

#include "lib/err.h"

struct qmp;
/* ret: the "return" member (borrowed) or NULL with rc<0 and err, whose text names the command: -EREMOTEIO with QEMU's own
 * words and error class; -ECONNRESET when the session ended before the answer. */
typedef void (*qmp_reply_cb)(void *data, int rc, json_t *ret, const struct err *err);
struct qmp_callbacks {
	void (*on_ready)(void *data, struct qmp *qmp);                                   /* capabilities negotiated */
	void (*on_event)(void *data, struct qmp *qmp, const char *event, json_t *event_data); /* event_data borrowed, may be NULL */
	void (*on_close)(void *data, int rc, const struct err *err);                      /* exactly once; qmp is freed after it */
};
/* Connects to a unix socket, retrying until it is there for at most timeout_ms, which also bounds the negotiation.
 * oob: negotiate out-of-band execution. Later failures come by on_close (rc 0: closed by qmp_close()). */
int qmp_connect(uv_loop_t *loop, const char *path, uint32_t timeout_ms, int oob, const struct qmp_callbacks *cb, void *data, struct qmp **ret, struct err *err);
/* args: stolen reference or NULL, also on failure. cb may be NULL. Fails at once (-ENOTCONN before on_ready or when closing,
 * -ENOBUFS) and calls nothing back, or calls back exactly once; never from within the call itself. */
int qmp_execute(struct qmp *qmp, const char *command, json_t *args, qmp_reply_cb cb, void *data);
int qmp_execute_oob(struct qmp *qmp, const char *command, json_t *args, qmp_reply_cb cb, void *data);
/* Hands a file descriptor to QEMU (getfd): fd is dup'ed, the caller keeps his. */
int qmp_send_fd(struct qmp *qmp, const char *fdname, int fd, qmp_reply_cb cb, void *data);
/* Ends the session; pending commands are called back, then on_close comes, both from the loop. Repeating it is harmless. */
void qmp_close(struct qmp *qmp);
