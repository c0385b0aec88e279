/* An asynchronous QMP client on libuv: one in-band session and, if asked, a second out-of-band one
 * (negotiated with enable:["oob"]) that still works while the first is frozen. Every command calls back
 * exactly once. Owner: creator; qmp_close() then the close callback. */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "lib/err.h"

struct qmp;
/* ret: the "return" member (borrowed) or NULL with rc<0 and err: QEMU's own desc with rc -EREMOTEIO and err_class. */
typedef void (*qmp_reply_cb)(void *data, int rc, json_t *ret, const struct err *err);
struct qmp_callbacks {
	void (*on_ready)(void *data, struct qmp *qmp);                                   /* capabilities negotiated */
	void (*on_event)(void *data, struct qmp *qmp, const char *event, json_t *event_data); /* event_data borrowed, may be NULL */
	void (*on_close)(void *data, int rc, const struct err *err);                      /* exactly once; qmp is freed after it */
};
/* Connects to a unix socket, retrying until it is there for at most timeout_ms. oob: negotiate out-of-band execution. */
int qmp_connect(uv_loop_t *loop, const char *path, uint32_t timeout_ms, int oob, const struct qmp_callbacks *cb, void *data, struct qmp **ret, struct err *err);
/* args: stolen reference or NULL. cb may be NULL. Pending callbacks get rc -ECONNRESET when the session ends. */
int qmp_execute(struct qmp *qmp, const char *command, json_t *args, qmp_reply_cb cb, void *data);
int qmp_execute_oob(struct qmp *qmp, const char *command, json_t *args, qmp_reply_cb cb, void *data);
/* Hands a file descriptor to QEMU (getfd): fd is dup'ed, the caller keeps his. */
int qmp_send_fd(struct qmp *qmp, const char *fdname, int fd, qmp_reply_cb cb, void *data);
void qmp_close(struct qmp *qmp);
