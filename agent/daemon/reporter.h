/* What is, told to clusterd: at once after every change, at least every REPORT_EVERY_MS (REPORT_MIGRATING_MS during a
 * migration). */
#pragma once

#include "agent/daemon/agent_state.h"

struct reporter;
struct reporter *reporter_new(struct agent *a);
void reporter_free(struct reporter *r);
/* At the end of every pass. */
void reporter_update(struct reporter *r);
/* The next update sends whatever it is. */
void reporter_send_now(struct agent *a);
