/* Bringing a source QEMU back from a migration that was decided against, in whatever state it is: in precopy, paused at
 * pre-switchover, waiting for the destination's word, with QMP frozen by a stalled stream, or completed (postmigrate).
 * Call it only after ABORT is decided: it lets the guest go on.
 * Ladder: migrate_cancel; if QMP does not answer, yank on the out-of-band session; if that is not there (it was not negotiated before
 * the freeze, as after a restart of the agent), the stream's socket is taken from QEMU by pidfd_getfd and shut down. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "hypervisor/qemu_process.h"
#include "lib/err.h"

struct rescue;
typedef void (*rescue_cb)(void *data, int rc, const struct err *err);
/* keep_paused: the guest was paused before the migration began and stays so. qemu must live until cb, or rescue_cancel(). cb: once, from
 * the loop; -ETIMEDOUT after 30 s, -ESRCH if QEMU has died. */
struct rescue *rescue_start(uv_loop_t *loop, struct qemu_process *qemu, bool keep_paused, rescue_cb cb, void *data);
/* No callback comes any more. NULL is allowed. */
void rescue_cancel(struct rescue *r);
