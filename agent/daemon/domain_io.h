/* A guest that QEMU stopped because its disk failed (werror=stop): named, and let go on when its storage is well again. While it is tried
 * it is still reported as paused; it counts as running once it has run for IO_STEADY_MS. */
#pragma once

#include <jansson.h>

#include "agent/daemon/agent_state.h"

/* QEMU's BLOCK_IO_ERROR. */
void domain_io_error_event(struct domain *d, json_t *event_data);
/* QEMU's status says so, and no event was seen. */
void domain_io_error_found(struct domain *d);
/* Whether a paused guest may be let go on now: always, but after an error only when the pool is well, at once when it becomes so, and
 * every IO_AGAIN_MS (a full disk is well). */
bool domain_io_may_go_on(struct domain *d);
/* QEMU was told to go on. */
void domain_io_goes_on(struct domain *d);
/* Once per pass: an error that is over is forgotten. */
void domain_io_tend(struct domain *d);
void domain_io_forget(struct domain *d);
