/* The socket pair between QEMU's migration stream and the agent: both directions, non-blocking, with large buffers (so that a
 * megabyte moves at a time) and back-pressure both ways. Owner: creator; qemu_channel_close() silences the callbacks at once.
 * Limits: LIMIT_MIGRATION_CHUNK_BYTES, LIMIT_MIGRATION_SOCKET_BYTES, LIMIT_MIGRATION_QUEUE_BYTES. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "lib/err.h"

/* The agent's end of a source's pair has a name of this form in the abstract namespace, so that a later agent can find it among
 * QEMU's own descriptors (QEMU holds a copy of it) and cut a stalled stream: migrate/rescue.c. */
#define QEMU_CHANNEL_NAME "gantry-migration-"

struct qemu_channel;
struct qemu_channel_callbacks {
	void (*on_data)(void *data, uint8_t *bytes, size_t len); /* at most LIMIT_MIGRATION_CHUNK_BYTES */
	void (*on_eof)(void *data);                              /* once; nothing more to read, QEMU has closed its end */
	void (*on_drain)(void *data);                            /* the queue towards QEMU is empty again, after it was not */
};

/* ret_fds[0] for QEMU, ret_fds[1] ours. name: what follows QEMU_CHANNEL_NAME, or NULL for none. */
int qemu_channel_pair(const char *name, int ret_fds[2], struct err *err);
/* fd: taken over, also on failure. Reading begins at once. */
int qemu_channel_open(uv_loop_t *loop, int fd, const struct qemu_channel_callbacks *cb, void *data, struct qemu_channel **ret, struct err *err);
/* Never partial: what QEMU does not take now is queued. -EPIPE when QEMU has closed its end. */
int qemu_channel_write(struct qemu_channel *ch, const void *bytes, size_t len);
size_t qemu_channel_queued(const struct qemu_channel *ch);
void qemu_channel_pause(struct qemu_channel *ch, bool paused);
void qemu_channel_close(struct qemu_channel *ch); /* NULL is allowed */
