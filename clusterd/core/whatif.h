/* What the leader would do: its own code over a copy of the model. Pure. */
#pragma once

#include "clusterd/core/model.h"
#include "lib/err.h"
#include "proto/ctl.pb-c.h"

/* If these hosts died now and were proven dead. A move for each domain that ran there, and for each other one that would have to
 * give way. failed: names. Owner of *ret: caller (gantry__ctl_plan__free_unpacked). -ENOENT: no such host. */
int whatif_fail(const struct model *m, char *const *failed, size_t n, Gantry__CtlPlan **ret, struct err *err);
